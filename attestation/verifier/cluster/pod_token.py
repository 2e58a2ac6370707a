"""Identifies the pod: service-account tokens, checked locally against each cluster's keys.

Every cluster's default issuer is the same text, so a cluster is known by the key that made the token, not by `iss`
alone. A cluster can list another's public key as its own; then the token's audience decides between the two, and where
it does not, the token is refused for now and the log says which cluster began to list the key. The claims are the
control plane's word (KEP-1205, bound service-account tokens): asserted, not attested.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from attestation.verifier.cluster.jwks import Key, KeySet
from attestation.verifier.rate_limit import RateLimiter
from attestation.verifier.reasons import Reason, RefusedError
from attestation.verifier.untrusted_json import mapping, read_json
from server import logs

LEEWAY_SECONDS = 5
LONGEST_SECONDS = 4 * 3600  # the webhook's pods have tokens for an hour at most
_WARNING_SECONDS = 60.0
# No symmetric algorithm may ever enter: a public key would become its secret.
Algorithm = Literal["RS256", "RS384", "RS512", "ES256", "ES384", "ES512"]
ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)
_MAX_NAME = 253


@dataclass(frozen=True, slots=True)
class TrustedCluster:
    """One cluster that pods may come from. `audiences`: one of them must be in the token.

    `longest_seconds`: from a token's `iat` to its `exp`.
    """

    name: str
    issuer: str
    audiences: frozenset[str]
    algorithms: frozenset[str]
    keys: KeySet
    longest_seconds: int = LONGEST_SECONDS


@dataclass(frozen=True, slots=True)
class PodIdentity:
    """The claims of a pod token; most fields with defaults are set only after looking the pod up.

    `service`: None when the pod was not looked up, empty when it was and has no Knative Service's label.
    `without_token`: no token was there, and HOST_DATA alone found the record: cluster, namespace and account are the
    record's, `pod_uid` is the report's REPORT_ID in hex, and nothing is asserted.
    """

    cluster: str
    namespace: str
    service_account: str
    pod_name: str
    pod_uid: str
    service: str | None = None
    revision: str | None = None
    images: tuple[str, ...] = ()
    node: str | None = None
    without_token: bool = False

    def claims(self) -> dict[str, str]:
        """Flat strings, `k8s_*`; unknown ones are left out."""
        if self.without_token:
            return {}
        claims = {
            "k8s_cluster": self.cluster,
            "k8s_namespace": self.namespace,
            "k8s_service_account": self.service_account,
            "k8s_pod_name": self.pod_name,
            "k8s_pod_uid": self.pod_uid,
        }
        optional = {
            "k8s_service": self.service,
            "k8s_revision": self.revision,
            "k8s_images": ",".join(self.images) or None,
            "k8s_node": self.node,
        }
        return claims | {name: value for name, value in optional.items() if value}


class PodTokens:
    """Checks tokens of all configured clusters. `now`: Unix seconds."""

    def __init__(self, clusters: Sequence[TrustedCluster], now: Callable[[], float]) -> None:
        self._clusters = tuple(clusters)
        self._now = now
        self._warnings = RateLimiter(1, _WARNING_SECONDS, time.monotonic)

    def shared_keys(self) -> int:
        """Keys that more than one cluster lists."""
        counts = Counter(each for cluster in self._clusters for each in cluster.keys.listed_since())
        return sum(1 for count in counts.values() if count > 1)

    def needs_no_request(self, token: str) -> bool:
        """Whether `identify` has the key that the token names, so that it asks no cluster."""
        try:
            header, payload = _decode(token)
        except RefusedError:
            return False
        key_id, issuer = header.get("kid"), payload.get("iss")
        candidates = [cluster for cluster in self._clusters if cluster.issuer == issuer]
        return isinstance(key_id, str) and bool(candidates) and all(each.keys.has(key_id) for each in candidates)

    async def identify(self, token: str) -> PodIdentity:
        """The pod that the token is bound to. Raises RefusedError for the first requirement that is not met."""
        header, payload = _decode(token)
        candidates = [cluster for cluster in self._clusters if cluster.issuer == payload.get("iss")]
        if not candidates:
            raise RefusedError(Reason.TOKEN_ISSUER)
        signers = await self._signers(token, header, candidates)
        audience = payload.get("aud")
        given = {audience} if isinstance(audience, str) else set(_strings(audience))
        meant = [cluster for cluster in signers if given & cluster.audiences]
        if len(signers) > 1:
            self._warn_of_shared_key(signers)
        if len(meant) > 1:
            names = ", ".join(cluster.name for cluster in meant)
            raise RefusedError(
                Reason.TOKEN_AMBIGUOUS, f"clusters {names} list one key and take one audience; give each its own"
            )
        cluster = (meant or signers)[0]
        self._check_times(payload, cluster)
        if not meant:
            raise RefusedError(Reason.TOKEN_AUDIENCE, f"cluster {cluster.name}")
        return _identity(cluster.name, payload)

    async def _signers(
        self, token: str, header: Mapping[str, Any], candidates: list[TrustedCluster]
    ) -> list[TrustedCluster]:
        """The clusters that list the key which signed the token: at least one."""
        algorithm, key_id = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or not isinstance(key_id, str) or "crit" in header:
            raise RefusedError(Reason.TOKEN_MALFORMED, "header has no alg or kid, or a crit")
        allowed = [cluster for cluster in candidates if algorithm in cluster.algorithms]
        if not allowed:
            raise RefusedError(Reason.TOKEN_MALFORMED, "algorithm is not allowed")
        signers: list[TrustedCluster] = []
        unavailable: RefusedError | None = None
        for cluster in allowed:
            try:
                key = await cluster.keys.key(key_id)
            except RefusedError as error:
                unavailable = error
                continue
            if key is not None and _is_signed_by(token, key, algorithm):
                signers.append(cluster)
        if signers:
            return signers
        if unavailable is not None:
            raise unavailable
        raise RefusedError(Reason.TOKEN_SIGNATURE, "clusters " + ", ".join(cluster.name for cluster in allowed))

    def _warn_of_shared_key(self, clusters: Sequence[TrustedCluster]) -> None:
        names = [cluster.name for cluster in clusters]
        if not self._warnings.take(tuple(names)):
            return
        listed = {cluster.name: cluster.keys.listed_since() for cluster in clusters}
        shared = set.intersection(*(set(since) for since in listed.values()))
        now = time.monotonic()
        logs.error(
            "cluster_key_shared",
            clusters=names,
            keys={
                each: {name: f"listed for {now - since[each]:.0f} s" for name, since in listed.items()}
                for each in sorted(shared)
            },
            advice="the cluster that began last lists another cluster's key; remove it there",
        )

    def _check_times(self, payload: Mapping[str, Any], cluster: TrustedCluster) -> None:
        now = self._now()
        expires, not_before = _time(payload.get("exp")), _time(payload.get("nbf", 0))
        seconds = expires - _time(payload.get("iat"))
        if now >= expires + LEEWAY_SECONDS:
            raise RefusedError(Reason.TOKEN_EXPIRED, f"{now - expires:.0f} s ago")
        if now < not_before - LEEWAY_SECONDS:
            raise RefusedError(Reason.TOKEN_NOT_YET_VALID, f"valid in {not_before - now:.0f} s")
        if seconds > cluster.longest_seconds:
            raise RefusedError(
                Reason.TOKEN_TOO_LONG,
                f"valid for {seconds:.0f} s, cluster {cluster.name} allows at most {cluster.longest_seconds} s",
            )


def _decode(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and payload, unverified."""
    parts = token.split(".")
    if len(parts) != 3:
        raise RefusedError(Reason.TOKEN_MALFORMED, "not three parts")
    try:
        header, payload = (read_json(_unpadded(part)) for part in parts[:2])
    except ValueError:
        raise RefusedError(Reason.TOKEN_MALFORMED, "header or payload is not JSON") from None
    if not isinstance(header, dict) or not isinstance(payload, dict):
        raise RefusedError(Reason.TOKEN_MALFORMED, "header or payload is not an object")
    return header, payload


def _unpadded(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError from error


def _is_signed_by(token: str, key: Key, algorithm: str) -> bool:
    if (algorithm[:2] == "RS") != isinstance(key, RSAKey) or (algorithm[:2] == "ES") != isinstance(key, ECKey):
        return False
    try:
        jws.deserialize_compact(token, key, algorithms=[algorithm])
    except (JoseError, ValueError, TypeError):
        return False
    return True


def _identity(cluster: str, payload: Mapping[str, Any]) -> PodIdentity:
    kubernetes = mapping(payload.get("kubernetes.io"))
    pod, account = mapping(kubernetes.get("pod")), mapping(kubernetes.get("serviceaccount"))
    namespace, account_name = kubernetes.get("namespace"), account.get("name")
    pod_name, pod_uid = pod.get("name"), pod.get("uid")
    if not _is_name(namespace) or not _is_name(account_name):
        raise RefusedError(Reason.TOKEN_MALFORMED, "not a service account's token")
    if payload.get("sub") != f"system:serviceaccount:{namespace}:{account_name}":
        raise RefusedError(Reason.TOKEN_MALFORMED, "sub and kubernetes.io disagree")
    if not _is_name(pod_name) or not _is_name(pod_uid):
        raise RefusedError(Reason.TOKEN_UNBOUND)
    return PodIdentity(cluster, str(namespace), str(account_name), str(pod_name), str(pod_uid))


def _strings(value: object) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAX_NAME and value.isascii() and value.isprintable()


def _time(value: object) -> float:
    """NumericDate (RFC 7519)."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < 1 << 53:
        raise RefusedError(
            Reason.TOKEN_MALFORMED, "exp, iat or nbf is not a number of seconds since 1970, such as 1767225600"
        )
    return value
