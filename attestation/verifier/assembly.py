"""The parts that a verifier is built from, put together by its configuration."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client import CollectorRegistry

from attestation.errors import PeerError
from attestation.pki.cache import CertificateCache, CertificateStore
from attestation.pki.crl import RevocationList
from attestation.pki.kds import KeyService
from attestation.pki.roots import TrustAnchors
from attestation.verifier.appraiser import Appraiser
from attestation.verifier.attested_assembly import make_attested_call
from attestation.verifier.attested_call import AttestedCall
from attestation.verifier.clock import Clock, build_time
from attestation.verifier.cluster.jwks import MAX_JWKS_SIZE, KeySet
from attestation.verifier.cluster.known import KnownClusters
from attestation.verifier.cluster.node_chips import NodeChips, load_node_chips
from attestation.verifier.cluster.pod_lookup import PodLookup
from attestation.verifier.cluster.pod_token import PodTokens, TrustedCluster
from attestation.verifier.cluster.token_review import TokenReviewer
from attestation.verifier.configuration import (
    ClusterEntry,
    Jwks,
    ReadBack,
    Signing,
    TokenReview,
    VerifierConfiguration,
)
from attestation.verifier.handlers import Handlers
from attestation.verifier.key_custody import check_key_custody, expose_exceptions
from attestation.verifier.metrics import VerifierMetrics, expose_revocation, watch_shared_keys
from attestation.verifier.peer import Peers
from attestation.verifier.pinned_files import PinnedFiles
from attestation.verifier.policies.load import PolicyReader, policy_files
from attestation.verifier.policies.model import PolicySet
from attestation.verifier.policies.permissive import PermissiveGuests, warn_of_open_folders
from attestation.verifier.policies.vault_secret import PolicySecret
from attestation.verifier.provisioning.hand_over import HandOver
from attestation.verifier.provisioning.held_secrets import HeldSecrets, held_signing_keys
from attestation.verifier.provisioning.own_guest import OwnGuest, ReplicaRule
from attestation.verifier.provisioning.parts import Provisioned, make_provisioned
from attestation.verifier.provisioning.take_over import TakeOver
from attestation.verifier.provisioning.vault_relay import Relayed
from attestation.verifier.rate_limit import RateLimiter
from attestation.verifier.reasons import RefusedError
from attestation.verifier.records import RecordStore, read_vouched
from attestation.verifier.responses import refuse
from attestation.verifier.session.basis import InForce
from attestation.verifier.session.bearer import Bearers
from attestation.verifier.session.nonces import Nonces
from attestation.verifier.source_pace import SourcePace
from attestation.verifier.trust_anchors import crl_files, load_crls, load_intermediates, load_trust_anchors
from attestation.verifier.vault.credentials import MAX_ANSWER_SIZE, AppRole, Credentials, HeldAppRole, TokenFile
from attestation.verifier.vault.login import JwtAuth
from attestation.verifier.vault.signing import Signer, SigningKeys, generate_signing_keys, load_signing_keys
from attestation.verifier.vault.transit import TransitKeys
from attestation.verifier.withdrawal import Withdrawals
from kbs.endpoint import http_parts
from kbs.messages import MAX_ATTEST_WITH_INITDATA_SIZE, MAX_AUTH_SIZE, MAX_VAULT_CA_SIZE
from kbs.provision import SecretName
from kbs.trust import certificates_of
from kbs.verifier_attest import SignedReferences, SignerKey
from server import logs
from server.health import Check
from server.kubernetes.client import Client
from server.kubernetes.credentials import ServiceAccount
from server.kubernetes.errors import CredentialsError, KubernetesError, StatusError
from server.limits import LAME_DUCK_SECONDS, Limits
from server.metrics import new_registry
from server.service import Address, Application, Background
from server.tls import CertificateFiles, HeldCertificate
from server.watched import FileMetrics, Watched
from server.yaml.strict import ConfigurationError

# The first call's body is small, and the third has none; the second has the reserve if it brings a nonce of ours.
_LIMITS = Limits(
    body_bytes=MAX_ATTEST_WITH_INITDATA_SIZE,
    bodies_bytes=16 << 20,
    small_body_bytes=MAX_AUTH_SIZE,
    deadline_seconds=20.0,
)
_JWKS_SECONDS = 5.0
# An API server has the first for its key set and no other; a plain web server may have the second.
_JWKS_TYPES = "application/jwk-set+json, application/json;q=0.9"
_WARNING_SECONDS = 60.0
_KEY_SERVICE_ADVICE = "HTTPS_PROXY and NO_PROXY count for it; certificates.keyService names a mirror in its place"


@dataclass(frozen=True, slots=True)
class Settings:
    """The command line's options. `certificate`: None where the configuration has `provisioning`."""

    listen: Address
    certificate: CertificateFiles | None
    metrics_listen: Address | None = None
    lame_duck_seconds: float = LAME_DUCK_SECONDS


def make_application(settings: Settings, configuration: VerifierConfiguration) -> Application:
    """The verifier as `server.service.run` takes it; called on the event loop. Raises ConfigurationError."""
    check_key_custody(configuration, datetime.now(UTC).date())
    registry = new_registry()
    files = FileMetrics(registry)
    read_back = {cluster.name: cluster.readBack is not None for cluster in configuration.clusters}
    pinned = PinnedFiles()
    peers = Peers(pinned.read)
    clock = Clock(time.time, time.monotonic, build_time())
    health = peers.add(configuration.vault.url, configuration.vault.ca, timeout=configuration.vault.timeoutSeconds)
    gates: dict[str, Check] = {"clock": clock.check}
    background: list[Background] = [lambda: clock.follow(health)]
    sealed = _provisioned(configuration, settings.listen[0], peers, registry, gates, background)
    certificate = _certificate(settings, sealed)
    held = None if sealed is None else sealed.held
    credentials = _credentials(configuration, peers, held)
    if credentials is not None:
        gates["vault-credentials"] = credentials.check
        background.append(credentials.keep)
    keys = _signer(configuration.signing, credentials, held, files, background, gates)
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
    lookups = {
        entry.name: _lookup(entry.readBack, peers, pinned)
        for entry in configuration.clusters
        if entry.readBack is not None
    }
    nodes = {
        entry.name: _node_chips(entry.name, entry.nodes, files, background)
        for entry in configuration.clusters
        if entry.nodes is not None
    }
    clusters = [_cluster(entry, peers, pinned) for entry in configuration.clusters]
    tokens = PodTokens(clusters, time.time)
    watch_shared_keys(registry, tokens.shared_keys)
    appraiser = Appraiser(
        Nonces(time.monotonic),
        tokens,
        lookups,
        policies,
        certificates,
        {
            entry.name: _reviewer(entry.tokenReview, entry.audiences, peers, pinned)
            for entry in configuration.clusters
            if entry.tokenReview is not None
        },
        nodes,
        clock.saw_lists,
    )
    records = _records(configuration)
    in_force = InForce(policies, nodes, certificates.anchors)
    withdrawals = Withdrawals(
        credentials, in_force, lookups, certificates.revoked_serials, lambda record: _keep(records, record)
    )
    _remember(withdrawals, configuration.explain.folder)
    background.append(withdrawals.watch)
    metrics = VerifierMetrics(registry, lambda: _count(policies))
    pace = SourcePace(configuration.perSource, metrics.source_refused)
    attested = make_attested_call(
        configuration,
        certificates=certificates,
        policies=policies,
        pinned=pinned,
        pace=pace,
        clock=clock,
        registry=registry,
        files=files,
        background=background,
    )
    hand_over = _hand_over(
        configuration, sealed, attested, appraiser.nonces, certificates, pinned, clock, records, background
    )
    handlers = Handlers(
        nonces=appraiser.nonces,
        appraiser=appraiser,
        bearers=Bearers(time.monotonic),
        in_force=in_force,
        vault=vault,
        records=records,
        withdrawals=withdrawals,
        metrics=metrics,
        keys=keys,
        pace=pace,
        clock=clock,
        vault_ca=lambda: _vault_ca(configuration.vault.ca, pinned),
        hand_over=hand_over,
    )
    _announce(configuration, _count(policies), certificates.anchors)
    expose_revocation(registry, certificates, time.time)
    expose_exceptions(registry, configuration.exceptions, lambda: datetime.now(UTC).date())
    background.append(PermissiveGuests(registry, policies).watch)
    background += [crls.watch, lambda: certificates.keep_crls(lambda: datetime.now(UTC)), peers.close_at_end]
    known = KnownClusters(clusters, pace)
    routes, intakes = handlers.routes() | known.routes(), handlers.intakes() | known.intakes()
    if attested is not None:
        routes, intakes = routes | attested.routes(), intakes | attested.intakes()
    if sealed is not None:
        routes, intakes = sealed.serve(routes, intakes)
    return Application(
        routes=routes,
        intakes=intakes,
        certificate=certificate,
        listen=settings.listen,
        metrics_listen=settings.metrics_listen,
        limits=replace(_LIMITS, lame_duck_seconds=settings.lame_duck_seconds),
        gates=gates,
        background=background,
        refuse=refuse,
        registry=registry,
        files=files,
    )


def _provisioned(
    configuration: VerifierConfiguration,
    host: str,
    peers: Peers,
    registry: CollectorRegistry,
    gates: dict[str, Check],
    background: list[Background],
) -> Provisioned | None:
    """The parts of a verifier that starts sealed; None for one that starts with its secrets."""
    configured = configuration.provisioning
    if configured is None:
        return None
    server = configuration.vault
    beside = SecretName.UNSEAL_SHARE in configured.needs
    peer = peers.add(server.url, server.ca, timeout=server.timeoutSeconds) if beside else None
    relayed = None
    if configured.vaultPort is not None:
        vault_host, vault_port, *_ = http_parts(server.url)
        relayed = Relayed((host, configured.vaultPort), (vault_host, vault_port or 80))
    return make_provisioned(configured, peer, relayed, registry, gates, background)


def _hand_over(
    configuration: VerifierConfiguration,
    sealed: Provisioned | None,
    attested: AttestedCall | None,
    nonces: Nonces,
    certificates: CertificateCache,
    pinned: PinnedFiles,
    clock: Clock,
    records: RecordStore | None,
    background: list[Background],
) -> HandOver | None:
    """What answers replicas; None where the configuration lists no chip of theirs. Adds the way to peers' secrets."""
    attest, provisioning, root = (
        configuration.attest,
        configuration.provisioning,
        configuration.certificates.simulatedRoot,
    )
    if sealed is None or attested is None or attest is None or provisioning is None or not provisioning.chipIds:
        return None
    signed = provisioning.references
    rule = ReplicaRule(
        frozenset(map(bytes.fromhex, provisioning.chipIds)),
        None if signed is None else SignedReferences(SignerKey(signed.signer.x, signed.signer.y), signed.minSerial),
        "" if root is None else pinned.held(root).decode("ascii", errors="replace"),
        lambda: pinned.configuration_digest(configuration),
        attested.references,
    )
    own = OwnGuest(attest.sources, certificates, rule)
    if provisioning.peers:
        background.append(TakeOver(provisioning.peers, own, sealed.held).run)
    return HandOver(nonces, own, certificates, sealed.held, clock, records, sealed.metrics)


def _certificate(settings: Settings, sealed: Provisioned | None) -> CertificateFiles | HeldCertificate:
    if sealed is not None and settings.certificate is not None:
        told = "--tls-cert, --tls-key: with provisioning the verifier makes its key itself; leave them out"
        raise ConfigurationError([told])
    if sealed is not None:
        return sealed.leaf.certificate
    if settings.certificate is None:
        raise ConfigurationError(["--tls-cert and --tls-key: required, unless the configuration has provisioning"])
    return settings.certificate


def _cluster(entry: ClusterEntry, peers: Peers, pinned: PinnedFiles) -> TrustedCluster:
    return TrustedCluster(
        entry.name,
        entry.issuer,
        frozenset(entry.audiences),
        frozenset(entry.algorithms),
        KeySet(_fetcher(entry.jwks, peers, pinned), time.monotonic),
        entry.maxTokenSeconds,
    )


def _fetcher(jwks: Jwks, peers: Peers, pinned: PinnedFiles) -> Callable[[], Awaitable[bytes]]:
    if jwks.file is not None:
        file = jwks.file

        async def read() -> bytes:
            try:
                return pinned.read(file)
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else "too large"
                raise PeerError(f"JWKS file cannot be read: {reason}") from None

        return read
    client = _api_server(str(jwks.url), jwks.ca, jwks.token, peers, pinned)

    async def get() -> bytes:
        try:
            return await client.read("", seconds=_JWKS_SECONDS, max_bytes=MAX_JWKS_SIZE, accept=_JWKS_TYPES)
        except StatusError as error:
            raise PeerError(f"JWKS answered {error.status}") from None
        except KubernetesError as error:
            raise PeerError(str(error)) from None

    return get


def _api_server(url: str, ca: Path | None, token: Path | None, peers: Peers, pinned: PinnedFiles) -> Client:
    """A client of a cluster's API server. Raises ConfigurationError when its CA file cannot be used."""
    try:
        with contextlib.nullcontext() if ca is None else pinned.copy(ca) as copy:
            client = Client(ServiceAccount(url, copy, token))
    except (CredentialsError, OSError, ValueError):
        raise ConfigurationError([f"{ca}: not a readable PEM file with CA certificates"]) from None
    peers.close_too(client.close)
    return client


def _lookup(back: ReadBack, peers: Peers, pinned: PinnedFiles) -> PodLookup:
    return PodLookup(_api_server(back.url, back.ca, back.token, peers, pinned), back.timeoutSeconds)


def _node_chips(cluster: str, path: Path, files: FileMetrics, background: list[Background]) -> Callable[[], NodeChips]:
    watched: Watched[NodeChips] = Watched(
        f"nodes-{cluster}", read=lambda: load_node_chips(path), paths=lambda: [path], metrics=files
    )
    background.append(watched.watch)
    return lambda: watched.value


def _reviewer(review: TokenReview, audiences: Sequence[str], peers: Peers, pinned: PinnedFiles) -> TokenReviewer:
    client = _api_server(review.url, review.ca, review.token, peers, pinned)
    return TokenReviewer(client, frozenset(audiences), review.timeoutSeconds)


def _credentials(configuration: VerifierConfiguration, peers: Peers, held: HeldSecrets | None) -> Credentials | None:
    server, own = configuration.vault, configuration.vault.login
    if own is None:
        return None
    login: TokenFile | AppRole | HeldAppRole
    if own.provisioned is not None and held is not None:
        login = HeldAppRole(
            partial(held.text, SecretName.VAULT_ROLE_ID),
            partial(held.text, SecretName.VAULT_SECRET_ID),
            own.provisioned.mount,
        )
    elif own.appRole is not None:
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
    """The policies in force, from Vault or from the two folders."""
    source = configuration.policyVault
    if source is not None and credentials is not None:
        secret = PolicySecret(credentials, source.mount, source.path, read_back, files)
        background.append(secret.watch)
        gates["policies"] = secret.check
        return lambda: secret.value
    folders = (configuration.policies, configuration.guests)
    if missing := [f"{folder}: is not a folder that can be read" for folder in folders if not folder.is_dir()]:
        raise ConfigurationError(missing)
    warn_of_open_folders(folders)
    reader = PolicyReader(read_back)
    watched: Watched[PolicySet] = Watched(
        "policies",
        read=lambda: reader.folders(*folders),
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
    held: HeldSecrets | None,
    files: FileMetrics,
    background: list[Background],
    gates: dict[str, Check],
) -> Callable[[], Signer]:
    """The keys in force. Adds the task that keeps them current to `background`, and its readiness to `gates`."""
    if signing.generated:
        generated = generate_signing_keys()
        logs.info("signing_key_generated", kid=generated.signer_id)
        return lambda: generated
    if signing.provisioned and held is not None:
        return held_signing_keys(held)
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


def _vault(configuration: VerifierConfiguration, peers: Peers, keys: Callable[[], Signer]) -> JwtAuth:
    server = configuration.vault
    peer = peers.add(server.url, server.ca, timeout=server.timeoutSeconds)
    return JwtAuth(peer, server.issuer, server.audience, keys, time.time)


def _vault_ca(ca: Path | None, pinned: PinnedFiles) -> str:
    """The certificates by which Vault is trusted now; empty for the system's store, and for more than fit."""
    certificates = "" if ca is None else certificates_of(pinned.held(ca).decode(errors="replace"))
    return certificates if len(certificates) <= MAX_VAULT_CA_SIZE else ""


def _certificates(configuration: VerifierConfiguration, peers: Peers) -> CertificateCache:
    configured = configuration.certificates
    service = None
    if configured.keyService is not None:
        session = aiohttp.ClientSession(trust_env=True)
        service = KeyService(session, configured.keyService, failed=_warner("key_service", _KEY_SERVICE_ADVICE))
        peers.close_too(service.close)
        peers.close_too(service.session.close)
    return CertificateCache(
        CertificateStore(configured.cache),
        load_trust_anchors(configured),
        service,
        load_intermediates(configured),
    )


def _warner(event: str, advice: str) -> Callable[[str], None]:
    """Logs a problem, the same one at most once a minute."""
    limit = RateLimiter(1, _WARNING_SECONDS, time.monotonic)

    def warn(problem: str) -> None:
        if limit.take(problem):
            logs.warning(event, problem=problem, advice=advice)

    return warn


def _records(configuration: VerifierConfiguration) -> RecordStore | None:
    folder = configuration.explain.folder
    if folder is None:
        return None
    try:
        return RecordStore(folder, configuration.explain.megabytes << 20)
    except OSError as error:
        raise ConfigurationError([f"{folder}: verdicts cannot be kept: {error.strerror}"]) from None


def _remember(withdrawals: Withdrawals, folder: Path | None) -> None:
    try:
        withdrawals.remember(() if folder is None else read_vouched(folder))
    except OSError as error:
        raise ConfigurationError([f"{folder}: records cannot be read: {error.strerror}"]) from None


def _keep(records: RecordStore | None, record: Mapping[str, Any]) -> str | None:
    if records is None:
        return None
    return records.add({"at": datetime.now(UTC).isoformat()} | dict(record), vouched=True)


def _announce(configuration: VerifierConfiguration, policies: int, anchors: TrustAnchors) -> None:
    simulated = configuration.certificates.simulatedRoot is not None
    logs.info(
        "verifier",
        mode=configuration.mode.value,
        simulated_trusted=simulated,
        policies=policies,
        clusters=[cluster.name for cluster in configuration.clusters],
    )
    # It has no rights in those clusters, and a cluster's word about its own guards would be worth nothing.
    clusters = [cluster.name for cluster in configuration.clusters]
    logs.warning(
        "cluster_guards_unseen", clusters=clusters, advice="apply components/cluster-guards there, and check it"
    )
    if configuration.vault.login is None:
        advice = "set vault.login; until then the token of a login lives until it expires"
        logs.warning("withdrawal_ends_no_token", advice=advice)
    if configuration.explain.folder is None:
        logs.warning("verdicts_not_kept", advice="set explain.folder for `morphisms explain`")
    if not anchors.certificates:
        logs.warning("no_trusted_root", advice="certificates.roots holds none of AMD's roots, so no guest is accepted")
    if simulated:
        logs.warning("simulated_evidence_trusted", advice="results about it say nothing about real hardware")
