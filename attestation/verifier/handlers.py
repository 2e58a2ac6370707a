"""The verifier's three calls over HTTPS, and what it is built from."""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp

from attestation.pki.cache import CertificateCache
from attestation.pki.cache import Store as CertificateStore
from attestation.pki.crl import RevocationList
from attestation.pki.kds import KeyService
from attestation.pki.roots import Anchors
from attestation.verifier.appraiser import Case, Judge, new_case
from attestation.verifier.cluster.jwks import MAX_JWKS_SIZE, FetchError, KeySet
from attestation.verifier.cluster.pod_lookup import PodReader
from attestation.verifier.cluster.pod_token import Cluster, PodTokens
from attestation.verifier.cluster.token_review import TokenReviewer
from attestation.verifier.configuration import (
    ClusterEntry,
    Jwks,
    PerSource,
    ReadBack,
    Signing,
    TokenReview,
    VerifierConfiguration,
)
from attestation.verifier.metrics import VerifierMetrics
from attestation.verifier.peer import Peers
from attestation.verifier.policies.load import PolicySet, load_policies, policy_files
from attestation.verifier.policies.vault_secret import PolicySecret
from attestation.verifier.rate_limit import Pace, network
from attestation.verifier.reasons import Reason, RefusedError
from attestation.verifier.records import Store
from attestation.verifier.session.bearer import Bearers, Grant
from attestation.verifier.session.nonces import Nonces
from attestation.verifier.trust_anchors import crl_files, load_anchors, load_crls, load_intermediates
from attestation.verifier.vault.credentials import MAX_ANSWER_SIZE, AppRole, Credentials, TokenFile
from attestation.verifier.vault.login import Vault
from attestation.verifier.vault.signing import Signer, SigningKeys, load_signing_keys, read_secret
from attestation.verifier.vault.transit import TransitKeys
from kbs.messages import (
    ATTEST_PATH,
    AUTH_PATH,
    DEFAULT_ROLE,
    MAX_MESSAGE_SIZE,
    TOKEN_PATH,
    Problem,
    VaultToken,
    WireError,
)
from kbs.verifier import read_attest, read_auth, seal_token, write_attest_answer, write_auth_answer, write_error
from server import logs
from server.health import Check
from server.kubernetes.client import Client
from server.kubernetes.credentials import ServiceAccount
from server.kubernetes.errors import CredentialsError, KubernetesError, StatusError
from server.limits import LAME_DUCK_SECONDS, Limits
from server.messages import Refusal, RequestInfo, Response
from server.metrics import new_registry
from server.service import Address, Application, Background
from server.tls import CertificateFiles
from server.watched import FileMetrics, Watched
from server.yaml.strict import ConfigurationError

JWKS_PATH = "/.well-known/jwks.json"
_RETRY_AFTER_SECONDS = 2
_LIMITS = Limits(body_bytes=MAX_MESSAGE_SIZE, deadline_seconds=20.0)
_SESSION_KEY_SIZE = 32
_TOLD_SECONDS = 60.0
_JWKS_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line says."""

    listen: Address
    certificate: CertificateFiles
    metrics_listen: Address | None = None
    lame_duck_seconds: float = LAME_DUCK_SECONDS


def make_application(settings: Settings, configuration: VerifierConfiguration) -> Application:
    """The verifier as `server.service.run` takes it; called on the event loop. Raises ConfigurationError."""
    registry = new_registry()
    files = FileMetrics(registry)
    read_back = {cluster.name: cluster.readBack is not None for cluster in configuration.clusters}
    shared = _session_key(configuration.session.key)
    peers = Peers()
    credentials = _credentials(configuration, peers)
    gates: dict[str, Check] = {} if credentials is None else {"vault-credentials": credentials.check}
    background: list[Background] = [] if credentials is None else [credentials.keep]
    keys = _signer(configuration.signing, credentials, files, background, gates)
    policies = _policies(configuration, read_back, credentials, files, background, gates)
    vault = _vault(configuration, peers, keys)
    certificates = _certificates(configuration, peers)
    crls: Watched[tuple[RevocationList, ...]] = Watched(
        "crls",
        read=lambda: load_crls(configuration.certificates),
        paths=lambda: crl_files(configuration.certificates),
        metrics=files,
        changed=lambda lists: setattr(certificates, "crls", lists),
    )
    certificates.crls = crls.value
    judge = Judge(
        Nonces(shared, time.time),
        PodTokens([_cluster(entry, peers) for entry in configuration.clusters], time.time),
        {entry.name: _reader(entry.readBack, peers) for entry in configuration.clusters if entry.readBack is not None},
        policies,
        certificates,
        {
            entry.name: _reviewer(entry.tokenReview, entry.audiences, peers)
            for entry in configuration.clusters
            if entry.tokenReview is not None
        },
    )
    verifier = Verifier(
        nonces=judge.nonces,
        judge=judge,
        bearers=Bearers(shared, time.time),
        policies=policies,
        vault=vault,
        store=_store(configuration),
        metrics=VerifierMetrics(registry, lambda: _count(policies)),
        keys=keys,
        per_source=configuration.perSource,
    )
    _announce(configuration, _count(policies), certificates.anchors)
    background += [crls.watch, peers.close_at_end]
    return Application(
        routes=verifier.routes(),
        certificate=settings.certificate,
        listen=settings.listen,
        metrics_listen=settings.metrics_listen,
        limits=replace(_LIMITS, lame_duck_seconds=settings.lame_duck_seconds),
        gates=gates,
        background=background,
        refuse=refuse,
        registry=registry,
        files=files,
    )


class Verifier:
    """Answers the calls. To a guest, all refusals look the same; the log line and the stored record do not."""

    def __init__(
        self,
        *,
        nonces: Nonces,
        judge: Judge,
        bearers: Bearers,
        policies: Callable[[], PolicySet],
        vault: Vault,
        store: Store | None,
        metrics: VerifierMetrics,
        keys: Callable[[], Signer],
        per_source: PerSource,
    ) -> None:
        self._nonces = nonces
        self._judge = judge
        self._bearers = bearers
        self._policies = policies
        self._vault = vault
        self._store = store
        self._metrics = metrics
        self._keys = keys
        self._sources = Pace(per_source.burst, 1 / per_source.perSecond, time.monotonic)
        self._told = Pace(1, _TOLD_SECONDS, time.monotonic)

    def routes(self) -> dict[tuple[str, str], Callable[[bytes, RequestInfo], Awaitable[Response]]]:
        """(method, path) to handler."""
        return {
            ("POST", AUTH_PATH): self.auth,
            ("POST", ATTEST_PATH): self.attest,
            ("GET", f"{TOKEN_PATH}/*"): self.token,
            ("GET", JWKS_PATH): self.jwks,
        }

    async def auth(self, body: bytes, _info: RequestInfo) -> Response:
        """A nonce."""
        try:
            read_auth(body)
        except WireError as error:
            return _invalid("auth", error)
        return Response(200, write_auth_answer(self._nonces.issue()))

    async def attest(self, body: bytes, info: RequestInfo) -> Response:
        """Evidence for a bearer."""
        source = network(info.peer)
        if not self._sources.take(source):
            return self._too_often(source)
        try:
            request = read_attest(body)
        except WireError as error:
            return _invalid("attest", error)
        case = new_case(_correlation_id(), time.time())
        logs.set_correlation_id(case.id)
        started = time.perf_counter()
        try:
            case.grant = await self._judge.decide(case, request)
        except RefusedError as error:
            case.reason, case.detail = error.reason, error.detail
        self._record(case, time.perf_counter() - started)
        if case.grant is None:
            return _refused(case.reason, case.id)
        return Response(200, write_attest_answer(self._bearers.issue(case.grant), case.id))

    async def token(self, _body: bytes, info: RequestInfo) -> Response:
        """A bearer for a Vault token, encrypted to the key that the evidence bound."""
        identifier = _correlation_id()
        logs.set_correlation_id(identifier)
        grant: Grant | None = None
        started = time.perf_counter()
        try:
            grant = self._bearers.read(_bearer(info.headers))
            # One id from the evidence to the login.
            identifier = grant.correlation_id
            logs.set_correlation_id(identifier)
            policy = self._policies().by_digest.get(grant.policy)
            if policy is None:
                raise RefusedError(Reason.POLICY_CHANGED, "it is not in force any more as it was attested")
            if info.tail not in (DEFAULT_ROLE, policy.record.vault.role):
                raise RefusedError(Reason.ROLE_NOT_ALLOWED, f"{policy.name} allows {policy.record.vault.role}")
            login = await self._vault.log_in(grant, policy.record.vault)
        except RefusedError as error:
            self._note_login(identifier, grant, error.reason, error.detail, "", time.perf_counter() - started)
            return _refused(error.reason, identifier)
        self._note_login(identifier, grant, Reason.BELIEVED, "", login.accessor, time.perf_counter() - started)
        token = VaultToken(
            token=login.token,
            lease_seconds=login.lease_seconds,
            renewable=login.renewable,
            assurance=grant.claims["assurance"],
            simulated=grant.claims["simulated"] == "true",
        )
        return Response(200, seal_token(token, grant.tee_pubkey, grant.nonce, info.tail))

    async def jwks(self, _body: bytes, _info: RequestInfo) -> Response:
        """The public signing keys (RFC 7517)."""
        try:
            return Response(200, self._keys().jwks)
        except RefusedError:
            return _unavailable(_correlation_id(), 503)

    def _too_often(self, source: str) -> Response:
        """Counted, told once in a while, and not recorded: a flood must not push the verdicts out."""
        self._metrics.attested(Reason.SOURCE_TOO_OFTEN, 0.0)
        if self._told.take(source):
            logs.warning("source_too_often", source=source, reason=Reason.SOURCE_TOO_OFTEN.value)
        return _refused(Reason.SOURCE_TOO_OFTEN, _correlation_id())

    def _record(self, case: Case, seconds: float) -> None:
        verdict = case.verdict
        log = logs.info if case.reason is Reason.BELIEVED else logs.warning
        log(
            "attestation",
            reason=case.reason.value,
            detail=case.detail,
            policy=None if case.policy is None else case.policy.name,
            assurance=None if case.policy is None else case.policy.record.assurance.value,
            pod=None if case.pod is None else case.pod.claims(),
            guest=None if verdict is None else verdict.reference,
            product=None if verdict is None else verdict.product,
            simulated=None if verdict is None else verdict.simulated,
            failed=[] if verdict is None else [check.line() for check in verdict.failed],
            milliseconds=round(seconds * 1000, 1),
        )
        self._metrics.attested(case.reason, seconds)
        if self._store is not None:
            self._store.add(case.as_dict())

    def _note_login(
        self, identifier: str, grant: Grant | None, reason: Reason, detail: str, accessor: str, seconds: float
    ) -> None:
        log = logs.info if reason is Reason.BELIEVED else logs.warning
        subject = None if grant is None else grant.subject
        simulated = None if grant is None else grant.claims["simulated"] == "true"
        fields: dict[str, Any] = {
            "reason": reason.value,
            "detail": detail,
            "subject": subject,
            "simulated": simulated,
            "accessor": accessor,
        }
        log("login", **fields, milliseconds=round(seconds * 1000, 1))
        self._metrics.logged_in(reason, seconds)
        if self._store is not None:
            self._store.add(
                {"id": identifier, "at": new_case("", time.time()).at.isoformat(), "call": "token"} | fields
            )


def refuse(refusal: Refusal, _info: RequestInfo) -> Response:
    """The server's own refusals, in KBS's shape."""
    if refusal in (Refusal.OVERLOADED, Refusal.DEADLINE, Refusal.FAILED):
        return _unavailable(_correlation_id(), refusal.status)
    return Response(refusal.status, write_error(Problem.INVALID, _correlation_id()))


def _invalid(call: str, error: WireError) -> Response:
    identifier = _correlation_id()
    logs.set_correlation_id(identifier)
    logs.warning("invalid_request", call=call, problem=str(error))
    return Response(400, write_error(Problem.INVALID, identifier))


def _refused(reason: Reason, identifier: str) -> Response:
    if reason.is_retryable:
        return _unavailable(identifier, 503)
    return Response(401, write_error(Problem.REFUSED, identifier))


def _unavailable(identifier: str, status: int) -> Response:
    headers = {"Retry-After": str(_RETRY_AFTER_SECONDS)}
    return Response(status, write_error(Problem.UNAVAILABLE, identifier), headers=headers)


def _correlation_id() -> str:
    return secrets.token_hex(8)


def _bearer(headers: Mapping[str, str]) -> str:
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise RefusedError(Reason.BEARER_INVALID, "none given")
    return token.strip()


def _session_key(path: Path | None) -> bytes:
    if path is None:
        logs.warning("session_key_made", advice="replicas need session.key to honour each other's nonces")
        return secrets.token_bytes(_SESSION_KEY_SIZE)
    key = read_secret(path)
    if len(key) < _SESSION_KEY_SIZE:
        raise ConfigurationError([f"{path}: has {len(key)} bytes, required at least {_SESSION_KEY_SIZE}"])
    return key


def _cluster(entry: ClusterEntry, peers: Peers) -> Cluster:
    return Cluster(
        entry.name,
        entry.issuer,
        frozenset(entry.audiences),
        frozenset(entry.algorithms),
        KeySet(_fetcher(entry.jwks, peers), time.monotonic),
    )


def _fetcher(jwks: Jwks, peers: Peers) -> Callable[[], Awaitable[bytes]]:
    if jwks.file is not None:
        file = jwks.file

        async def read() -> bytes:
            try:
                return file.read_bytes()
            except OSError as error:
                raise FetchError(f"JWKS file cannot be read: {error.strerror}") from None

        return read
    client = _api_server(str(jwks.url), jwks.ca, jwks.token, peers)

    async def get() -> bytes:
        try:
            return await client.read("", seconds=_JWKS_SECONDS, max_bytes=MAX_JWKS_SIZE)
        except StatusError as error:
            raise FetchError(f"JWKS answered {error.status}") from None
        except KubernetesError as error:
            raise FetchError(str(error)) from None

    return get


def _api_server(url: str, ca: Path | None, token: Path | None, peers: Peers) -> Client:
    """A client of a cluster's API server. Raises ConfigurationError when its CA file cannot be used."""
    try:
        client = Client(ServiceAccount(url, ca, token))
    except CredentialsError as error:
        raise ConfigurationError([str(error)]) from None
    peers.close_too(client.close)
    return client


def _reader(back: ReadBack, peers: Peers) -> PodReader:
    return PodReader(_api_server(back.url, back.ca, back.token, peers), back.timeoutSeconds)


def _reviewer(review: TokenReview, audiences: Sequence[str], peers: Peers) -> TokenReviewer:
    client = _api_server(review.url, review.ca, review.token, peers)
    return TokenReviewer(client, frozenset(audiences), review.timeoutSeconds)


def _credentials(configuration: VerifierConfiguration, peers: Peers) -> Credentials | None:
    server, own = configuration.vault, configuration.vault.login
    if own is None:
        return None
    login: TokenFile | AppRole
    if own.appRole is not None:
        login = AppRole(own.appRole.roleId, own.appRole.secretId, own.appRole.mount)
    elif own.tokenFile is not None:
        login = TokenFile(own.tokenFile)
    else:
        raise AssertionError("the configuration allows no login without a method")
    peer = peers.add(server.url, server.ca, timeout=server.timeoutSeconds)
    peer.limit = MAX_ANSWER_SIZE
    return Credentials(peer, login, own.namespace)


def _policies(
    configuration: VerifierConfiguration,
    read_back: Mapping[str, bool],
    credentials: Credentials | None,
    files: FileMetrics,
    background: list[Background],
    gates: dict[str, Check],
) -> Callable[[], PolicySet]:
    """The policies of the moment, from Vault or from the two folders."""
    source = configuration.policyVault
    if source is not None and credentials is not None:
        secret = PolicySecret(credentials, source.mount, source.path, read_back, files)
        background.append(secret.watch)
        gates["policies"] = secret.check
        return lambda: secret.value
    folders = (configuration.policies, configuration.guests)
    watched: Watched[PolicySet] = Watched(
        "policies",
        read=lambda: load_policies(*folders, read_back),
        paths=lambda: policy_files(folders),
        metrics=files,
    )
    background.append(watched.watch)
    return lambda: watched.value


def _count(policies: Callable[[], PolicySet]) -> int:
    try:
        return len(policies().policies)
    except RefusedError:
        return 0


def _signer(
    signing: Signing,
    credentials: Credentials | None,
    files: FileMetrics,
    background: list[Background],
    gates: dict[str, Check],
) -> Callable[[], Signer]:
    """The keys of the moment; what keeps them current is added to `background`, and what they wait for to `gates`."""
    if signing.transit is not None and credentials is not None:
        transit = TransitKeys(credentials, signing.transit.mount, signing.transit.key)
        background.append(transit.watch)
        gates["signing-keys"] = transit.check
        return lambda: transit
    keys: Watched[SigningKeys] = Watched(
        "signing-keys",
        read=lambda: load_signing_keys(signing.keys),
        paths=lambda: signing.keys,
        metrics=files,
    )
    background.append(keys.watch)
    return lambda: keys.value


def _vault(configuration: VerifierConfiguration, peers: Peers, keys: Callable[[], Signer]) -> Vault:
    server = configuration.vault
    peer = peers.add(server.url, server.ca, timeout=server.timeoutSeconds)
    return Vault(peer, server.issuer, server.audience, keys, time.time)


def _certificates(configuration: VerifierConfiguration, peers: Peers) -> CertificateCache:
    configured = configuration.certificates
    service = None
    if configured.keyService is not None:
        service = KeyService(aiohttp.ClientSession(), configured.keyService)
        peers.close_too(service.close)
        peers.close_too(service.session.close)
    return CertificateCache(
        CertificateStore(configured.cache),
        load_anchors(configured),
        service,
        load_intermediates(configured),
    )


def _store(configuration: VerifierConfiguration) -> Store | None:
    folder = configuration.explain.folder
    if folder is None:
        return None
    try:
        return Store(folder, configuration.explain.megabytes << 20)
    except OSError as error:
        raise ConfigurationError([f"{folder}: verdicts cannot be kept: {error.strerror}"]) from None


def _announce(configuration: VerifierConfiguration, policies: int, anchors: Anchors) -> None:
    simulated = configuration.certificates.simulatedRoot is not None
    logs.info(
        "verifier",
        mode=configuration.mode.value,
        simulated_trusted=simulated,
        policies=policies,
        clusters=[cluster.name for cluster in configuration.clusters],
    )
    if configuration.explain.folder is None:
        logs.warning("verdicts_not_kept", advice="set explain.folder for `morphisms explain`")
    if not anchors.certificates:
        logs.warning("no_trusted_root", advice="certificates.roots holds none of AMD's roots, so no guest is believed")
    if simulated:
        logs.warning("simulated_evidence_trusted", advice="such verdicts say nothing about real hardware")
