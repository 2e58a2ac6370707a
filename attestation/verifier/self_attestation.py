"""The verifier's own evidence: one firmware call after the other, each for all nonces that arrived during the last one.

Firmware answers one request at a time and takes tens of milliseconds, while dozens of pods start at once. So a call
binds the root of a tree over the waiting nonces (`kbs.attested`), and no timer delays the first one. Nonces of
connections that showed different certificates go into different calls.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from attestation.evidence import CollectedEvidence, ConfiguredSource, EvidenceError, coco_document, collect_first
from attestation.pki.cache import CertificateCache, belongs_to
from attestation.pki.certificates import Certificate
from attestation.pki.endorsements import product_line
from attestation.report.abi import SigningKey, parse_report
from attestation.report.envelopes import Envelope, Evidence
from attestation.verifier.reasons import Reason, RefusedError
from kbs.attested import MAX_NONCES, NonceTree, Step, build_tree, statement_digest
from server import logs

_COLLECT_SECONDS: Final = 10.0
_ENDORSEMENTS_SECONDS: Final = 5.0
# Fewer than handlers may run at once: pods that wait for firmware must not keep attestations out.
MOST_WAITING: Final = 128
_PROBE_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Report:
    """Evidence as it is sent: the JSON text of `{attestation_report, cert_chain}`."""

    evidence: bytes = field(repr=False)
    source: str
    simulated: bool


@dataclass(frozen=True, slots=True)
class Proof:
    """What answers one nonce: a report, the way up to the root that it binds, and the digests that it binds."""

    report: Report
    path: tuple[Step, ...]
    policies: bytes
    configuration: bytes


class Collector:
    """The guest's own reports, with the certificates that a reader needs.

    Those of the host's table count as far as they belong to the report; the others come from `certificates`: its cache,
    then AMD's key service. Revocation lists are not sent: a pod without a network cannot know that one is fresh.
    """

    def __init__(self, sources: Sequence[ConfiguredSource], certificates: CertificateCache) -> None:
        self._sources = sources
        self._certificates = certificates

    async def collect(self, digest: bytes) -> Report:
        """A report that binds the digest. Raises RefusedError, NO_EVIDENCE."""
        try:
            found = await asyncio.to_thread(collect_first, self._sources, digest, timeout=_COLLECT_SECONDS)
            document = coco_document(found)
        except EvidenceError as error:
            raise RefusedError(Reason.NO_EVIDENCE, str(error)) from None
        chain, simulated = await self._chain(found)
        document["cert_chain"] = [{"cert_type": kind, "data": list(each.der)} for kind, each in chain]
        return Report(json.dumps(document, separators=(",", ":")).encode(), found.source, simulated)

    async def _chain(self, found: CollectedEvidence) -> tuple[list[tuple[str, Certificate]], bool]:
        report = parse_report(found.report)
        evidence = Evidence(report, Envelope.RAW, found.certificates)
        try:
            async with asyncio.timeout(_ENDORSEMENTS_SECONDS):
                endorsements = await self._certificates.endorsements(
                    evidence, datetime.now(UTC), client="the verifier itself"
                )
        except TimeoutError:
            raise RefusedError(Reason.NO_EVIDENCE, "AMD's key service has not answered in time") from None
        line = product_line(report, endorsements)
        leaf, issuer = endorsements.leaf, endorsements.issuer_of_leaf()
        if leaf is None or issuer is None or line is None or not belongs_to(leaf, report, line):
            raise RefusedError(Reason.NO_EVIDENCE, "no certificate of this chip and TCB, or not its issuer's")
        kinds = ("VLEK", "ASVK") if report.signing_key == SigningKey.VLEK else ("VCEK", "ASK")
        chain = list(zip(kinds, (leaf, issuer), strict=True))
        if line.simulated:
            # Its root is worth nothing but what a plan says about it, so that is where a reader takes it from.
            return chain, True
        root = self._certificates.anchors.certificates.get(line.name)
        if root is None:
            raise RefusedError(Reason.NO_EVIDENCE, f"certificates.roots has no {line.ark_name}")
        return [*chain, ("ARK", root)], False


@dataclass(slots=True)
class _Waiting:
    """Nonces of connections that showed one certificate, and the futures that answer them."""

    nonces: list[bytes] = field(default_factory=list)
    answers: list[asyncio.Future[Proof]] = field(default_factory=list)


class SelfAttestation:
    """Answers nonces. `policies`, `configuration`: the digests in force when a call begins; may raise RefusedError.

    `called` is told of each call: the report, or why there is none, and the number of nonces and seconds.
    """

    def __init__(
        self,
        collect: Callable[[bytes], Awaitable[Report]],
        policies: Callable[[], bytes],
        configuration: Callable[[], bytes],
        called: Callable[[Report | RefusedError, int, float], None],
        *,
        most_waiting: int = MOST_WAITING,
        most_nonces: int = MAX_NONCES,
    ) -> None:
        self._collect = collect
        self._policies = policies
        self._configuration = configuration
        self._called = called
        self._most_waiting = most_waiting
        self._most_nonces = most_nonces
        self._waiting: OrderedDict[bytes, _Waiting] = OrderedDict()  # by the certificate's key, the next one first
        self._count = 0
        self._worker: asyncio.Task[None] | None = None

    async def prove(self, nonce: bytes, spki: bytes) -> Proof:
        """A report over this nonce, for a connection that showed this key. Raises RefusedError.

        `spki`: SHA-256 of the certificate's SubjectPublicKeyInfo.
        """
        if self._count >= self._most_waiting:
            raise RefusedError(Reason.OVERLOADED, f"{self._count} nonces wait for firmware already")
        answer: asyncio.Future[Proof] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(spki, _Waiting())
        waiting.nonces.append(nonce)
        waiting.answers.append(answer)
        self._count += 1
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return await answer

    async def probe(self) -> None:
        """Call once for nobody, so that a verifier without evidence says so when it starts."""
        try:
            await self.prove(bytes(32), bytes(32))
        except RefusedError:
            return

    async def _work(self) -> None:
        """Call until nothing waits."""
        try:
            while self._waiting:
                spki, waiting = self._waiting.popitem(last=False)
                if len(waiting.nonces) > self._most_nonces:
                    rest = slice(self._most_nonces, None)
                    # At the end: a flood for one certificate does not delay the connections of the next one.
                    self._waiting[spki] = _Waiting(waiting.nonces[rest], waiting.answers[rest])
                    del waiting.nonces[rest], waiting.answers[rest]
                self._count -= len(waiting.nonces)
                await self._answer(spki, waiting)
        finally:
            self._worker = None

    async def _answer(self, spki: bytes, waiting: _Waiting) -> None:
        started = time.perf_counter()
        result: Report | RefusedError
        try:
            tree = build_tree(waiting.nonces)
            policies, configuration = self._policies(), self._configuration()
            digest = statement_digest(nonce=tree.root, spki=spki, policies=policies, configuration=configuration)
            result = await self._collect(digest)
        except RefusedError as error:
            result = error
        except Exception as error:  # whatever it is, the pods that wait get an answer, and the next call is made
            logs.error("self_attestation_failed", exception=error)
            result = RefusedError(Reason.NO_EVIDENCE, type(error).__name__)
        self._called(result, len(waiting.nonces), time.perf_counter() - started)
        if isinstance(result, RefusedError):
            for answer in waiting.answers:
                if not answer.done():
                    answer.set_exception(RefusedError(result.reason, result.detail))
            return
        _resolve(waiting, tree, result, policies, configuration)


def _resolve(waiting: _Waiting, tree: NonceTree, report: Report, policies: bytes, configuration: bytes) -> None:
    for answer, path in zip(waiting.answers, tree.paths, strict=True):
        if not answer.done():  # a caller that left has cancelled it
            answer.set_result(Proof(report, path, policies, configuration))


async def keep_probing(attestation: SelfAttestation, works: Callable[[], bool]) -> None:
    """Probe at the start, and again while it does not work, until cancelled."""
    await attestation.probe()
    while True:
        await asyncio.sleep(_PROBE_SECONDS)
        if not works():
            await attestation.probe()
