"""Probes the verifier and Vault as pods reach them. No request holds a secret, and no result what a server sent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from kbs.known_cluster import (
    CLUSTER_PATH,
    MAX_KEYS,
    ClusterAnswer,
    ClusterQuestion,
    read_cluster_answer,
    write_cluster_question,
)
from kbs.messages import WireError
from kbs.trust import trusting
from server.kubernetes.client import Client
from server.kubernetes.credentials import Access
from server.kubernetes.errors import AnswerError, KubernetesError, StatusError, UnreachableError
from server.kubernetes.untyped import mapping, mappings
from webhook.configuration.model import Configuration
from webhook.scanner.probes.published import Check, Probe, ProbeState

SECONDS: Final = 5.0
MAX_BYTES: Final = 16 << 10

_ISSUER: Final = "/.well-known/openid-configuration"
_KEYS: Final = "/openid/v1/jwks"
_KEYS_TYPE: Final = "application/jwk-set+json"
_MAX_KEYS_BYTES: Final = 256 << 10
# Vault answers with 200 in every state, so that the state is in the body and any other status is not Vault's.
_HEALTH: Final = tuple(
    (name, value)
    for name, value in (
        ("standbyok", "true"),
        ("perfstandbyok", "true"),
        ("sealedcode", "200"),
        ("uninitcode", "200"),
        ("drsecondarycode", "200"),
    )
)
_CERTIFICATE: Final = frozenset({"ClientConnectorCertificateError", "ClientConnectorSSLError"})


@dataclass(frozen=True, slots=True)
class OwnTokens:
    """What the API server says of its service-account tokens: their issuer, and the ids of the keys that sign them."""

    issuer: str
    keys: tuple[str, ...]


async def read_own_tokens(client: Client) -> OwnTokens | None:
    """From the API server's discovery, which any service account may read; None where it does not tell."""
    try:
        issuer = (await client.get(_ISSUER, max_bytes=MAX_BYTES)).get("issuer")
        found = json.loads(await client.read(_KEYS, max_bytes=_MAX_KEYS_BYTES, accept=_KEYS_TYPE))
    except (KubernetesError, ValueError, RecursionError):
        return None
    keys = [key for each in mappings(mapping(found).get("keys")) if isinstance(key := each.get("kid"), str)]
    return OwnTokens(issuer, tuple(keys)) if isinstance(issuer, str) and 0 < len(keys) <= MAX_KEYS else None


async def probe(
    configuration: Configuration, own: OwnTokens | None, *, seconds: float = SECONDS
) -> Mapping[Check, Probe]:
    """Every check, once. `seconds` bound each request as a whole."""
    return {
        **await _probe_verifier(configuration, own, seconds),
        Check.VAULT: await _probe_vault(configuration, seconds),
    }


@dataclass(frozen=True, slots=True)
class _Server:
    """One server, without credentials. `ca` is PEM text; empty for the system's store."""

    url: str
    ca: str

    async def access(self) -> Access:
        """As `Credentials.access`."""
        return Access(self.url.rstrip("/"), None, trusting(self.ca))

    async def renew(self, refused: Access) -> bool:
        """There are none."""
        return False


async def _probe_verifier(configuration: Configuration, own: OwnTokens | None, seconds: float) -> Mapping[Check, Probe]:
    verifier = configuration.verifier
    # The names may differ and the keys be unknown: the answer still shows whom pods would talk to.
    keys = () if own is None else own.keys
    question = ClusterQuestion(configuration.cluster, own.issuer if own else "unknown", verifier.audience, keys)
    try:
        async with Client(_Server(verifier.url, verifier.ca)) as client:
            body = write_cluster_question(question)
            answer = read_cluster_answer(await client.post(CLUSTER_PATH, body, seconds=seconds, max_bytes=MAX_BYTES))
    except (KubernetesError, WireError) as error:
        state, text = _verifier_trouble(error, is_attested=verifier.attest is not None)
        unknown = Probe(ProbeState.NOT_EVALUATED, "not known, because the verifier did not answer the question")
        return {Check.VERIFIER: Probe(state, text), Check.CLUSTER_NAME: unknown, Check.KEY_SET: unknown}
    seen = Probe(ProbeState.OK, f"the verifier answers, and {_vouching('verifier.ca', verifier.ca)} its certificate")
    if own is None:
        text = "the API server does not tell its tokens' issuer and keys; see the scanner's permissions"
        unknown = Probe(ProbeState.NOT_EVALUATED, text)
        return {Check.VERIFIER: seen, Check.CLUSTER_NAME: unknown, Check.KEY_SET: unknown}
    return {Check.VERIFIER: seen, Check.CLUSTER_NAME: _names(answer), Check.KEY_SET: _key_set(answer, own)}


def _verifier_trouble(error: Exception, *, is_attested: bool) -> tuple[ProbeState, str]:
    if is_attested and isinstance(error, UnreachableError) and error.cause in _CERTIFICATE:
        text = "not known: pods attest the verifier itself, and verifier.ca does not vouch for its certificate"
        return ProbeState.NOT_EVALUATED, text
    if isinstance(error, StatusError):
        if error.status == 503:
            return ProbeState.FAILED, "the verifier answers 503: it is sealed or not ready; see its log"
        if error.status == 429:
            return ProbeState.NOT_EVALUATED, "the verifier answers 429: it is busy; the next round tries again"
        text = f"verifier.url answers {error.status}: no verifier of this release is there"
        return ProbeState.FAILED, text
    if isinstance(error, (AnswerError, WireError)):
        return ProbeState.FAILED, "verifier.url answers, but not as a verifier of this release does"
    return ProbeState.FAILED, _unreachable("the verifier", "verifier.url", "verifier.ca", error)


def _names(answer: ClusterAnswer) -> Probe:
    if not answer.cluster:
        text = "the verifier knows no cluster of this name; write the same `cluster` as in its clusters[].name"
        return Probe(ProbeState.FAILED, text)
    if not answer.issuer:
        text = (
            "the verifier expects another issuer of this cluster's tokens; write the API server's to clusters[].issuer"
        )
        return Probe(ProbeState.FAILED, text)
    if not answer.audience:
        text = "the verifier takes no tokens of verifier.audience; write it to clusters[].audiences too"
        return Probe(ProbeState.FAILED, text)
    return Probe(ProbeState.OK, "the verifier knows this cluster, its tokens' issuer and their audience")


def _key_set(answer: ClusterAnswer, own: OwnTokens) -> Probe:
    if not answer.cluster:
        return Probe(ProbeState.NOT_EVALUATED, "not known, because the verifier knows no cluster of this name")
    if answer.keys is None:
        return Probe(ProbeState.FAILED, "the verifier cannot get the cluster's token keys; see clusters[].jwks")
    missing = len(set(own.keys) - set(answer.keys))
    if missing:
        text = (
            f"the verifier lacks {missing} of the cluster's {len(set(own.keys))} token keys, so it refuses their pods;"
            " write clusters[].jwks anew from /openid/v1/jwks, or let it name a url"
        )
        return Probe(ProbeState.FAILED, text)
    return Probe(ProbeState.OK, f"the verifier has the cluster's token keys: {len(set(own.keys))}")


async def _probe_vault(configuration: Configuration, seconds: float) -> Probe:
    vault = configuration.vault
    try:
        async with Client(_Server(vault.url, vault.ca)) as client:
            health = await client.get("/v1/sys/health", _HEALTH, seconds=seconds, max_bytes=MAX_BYTES)
    except StatusError as error:
        return Probe(ProbeState.FAILED, f"vault.url answers {error.status}: no Vault answers there")
    except AnswerError:
        return Probe(ProbeState.FAILED, "vault.url answers, but not as Vault does")
    except KubernetesError as error:
        if not vault.ca and isinstance(error, UnreachableError) and error.cause in _CERTIFICATE:
            text = "not known: vault.ca is empty, and the image of the scanner trusts no issuer of Vault's certificate"
            return Probe(ProbeState.NOT_EVALUATED, text)
        return Probe(ProbeState.FAILED, _unreachable("Vault", "vault.url", "vault.ca", error))
    if health.get("initialized") is False:
        return Probe(ProbeState.FAILED, "Vault is not initialised")
    if health.get("sealed") is True:
        return Probe(ProbeState.FAILED, "Vault is sealed; unseal it")
    if health.get("initialized") is not True or health.get("sealed") is not False:
        return Probe(ProbeState.FAILED, "vault.url answers, but not as Vault does")
    return Probe(ProbeState.OK, f"Vault answers unsealed, and {_vouching('vault.ca', vault.ca)} its certificate")


def _unreachable(who: str, url: str, ca: str, error: Exception) -> str:
    if isinstance(error, UnreachableError) and error.cause in _CERTIFICATE:
        return f"pods do not trust {who}: {ca} does not vouch for the certificate, or it names another host than {url}"
    return f"{who} {error}; compare {url} with the Service, and the NetworkPolicies on the way"


def _vouching(name: str, ca: str) -> str:
    return f"{name} vouches for" if ca else "the image of the scanner trusts"
