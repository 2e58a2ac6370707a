"""Certificates from nearest to farthest: the guest's own, memory, disk, AMD's key service.

Nothing is trusted for where it comes from: the checks verify everything up to the pinned root. The guest's own
certificates are never stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from attestation.errors import CertificateError, KeyServiceError
from attestation.pki.certificates import Certificate, is_signed_by, parse_certificate, parse_certificates
from attestation.pki.crl import RevocationList, parse_crl
from attestation.pki.endorsements import Endorsements, guest_supplied, product_line
from attestation.pki.kds import KeyService, VcekId
from attestation.pki.roots import TrustAnchors
from attestation.report.abi import Report, SigningKey
from attestation.report.envelopes import Evidence
from attestation.report.products import ProductLine, line_by_name
from attestation.report.tcb import decode_tcb

CRL_REVALIDATION = timedelta(days=1)
CRL_RETRY = timedelta(minutes=5)


def vcek_id(report: Report, line: ProductLine) -> VcekId:
    """What the report's VCEK is derived from."""
    return VcekId(line, report.chip_id[: line.chip_id_size], decode_tcb(report.reported_tcb, line.tcb_layout))


def belongs_to(leaf: Certificate, report: Report, line: ProductLine) -> bool:
    """The leaf names this report's TCB and, if it is a VCEK, its chip: no other leaf needs to be looked for.

    Hosts hand out certificates of the firmware before the last update; that must not lock a guest out.
    """
    if leaf.vek.tcb(line) != decode_tcb(report.reported_tcb, line.tcb_layout):
        return False
    if report.signing_key == SigningKey.VLEK:
        return leaf.vek.csp_id is not None
    return leaf.vek.hwid == report.chip_id[: line.chip_id_size]


class CertificateStore:
    """DER and PEM files, in memory and, given a folder, on disk.

    The layout of VCEKs is Trustee's offline store: `vcek/HWID/bl03_tee00_snp08_ucode115_vcek.der` (`_fmcNN` on Turin),
    and `vcek/HWID/vcek.der` is read as well. Files are written aside and renamed; an unwritable folder costs the disk
    copy, nothing else.
    """

    def __init__(self, folder: Path | None = None, *, limit: int = 10_000) -> None:
        self._folder = folder
        self._limit = limit
        self._memory: OrderedDict[str, bytes] = OrderedDict()

    @property
    def is_in_memory(self) -> bool:
        """There is no folder to look into."""
        return self._folder is None

    def recall(self, name: str) -> bytes | None:
        """The bytes under a relative name if they are in memory."""
        if name in self._memory:
            self._memory.move_to_end(name)
            return self._memory[name]
        return None

    def get(self, name: str) -> bytes | None:
        """The bytes under a relative name from memory or disk, or None."""
        if (known := self.recall(name)) is not None or self._folder is None:
            return known
        try:
            data = (self._folder / name).read_bytes()
        except OSError:
            return None
        self._remember(name, data)
        return data

    def put(self, name: str, data: bytes) -> None:
        """Keep bytes under a relative name."""
        self._remember(name, data)
        if self._folder is not None:
            with contextlib.suppress(OSError):
                _write_atomically(self._folder / name, data)

    def _remember(self, name: str, data: bytes) -> None:
        self._memory[name] = data
        self._memory.move_to_end(name)
        while len(self._memory) > self._limit:
            self._memory.popitem(last=False)


def _write_atomically(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".new")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(aside, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(aside)
        raise


def vcek_name(identity: VcekId) -> str:
    """Trustee's name of a VCEK file, relative to the store."""
    tcb = identity.tcb
    parts = f"bl{tcb.bootloader:02d}_tee{tcb.tee:02d}_snp{tcb.snp:02d}_ucode{tcb.microcode:02d}"
    if tcb.fmc is not None:
        parts += f"_fmc{tcb.fmc:02d}"
    return f"vcek/{identity.chip_id.hex()}/{parts}_vcek.der"


@dataclass
class CertificateCache:
    """Finds the endorsements of a report. `service` None means offline: the guest's and the stored certificates only.

    `intermediates`: the operator's files. `crls`: the operator's; those of the service are added. `anchors`: a
    revocation list that none of them signed is not kept.
    """

    store: CertificateStore
    anchors: TrustAnchors
    service: KeyService | None = None
    intermediates: tuple[Certificate, ...] = ()
    crls: tuple[RevocationList, ...] = ()
    # By the name of the list in the store: the last good list, and the times of the last answer and the last request.
    _lists: dict[str, RevocationList] = field(default_factory=dict, init=False)
    _crl_checked: dict[str, datetime] = field(default_factory=dict, init=False)
    _crl_tried: dict[str, datetime] = field(default_factory=dict, init=False)
    _tasks: dict[str, asyncio.Task[Any]] = field(default_factory=dict, init=False)

    async def endorsements(
        self, evidence: Evidence, now: datetime, *, client: str | None, line_hint: ProductLine | None = None
    ) -> Endorsements:
        """Leaf, intermediates and revocation lists for one report.

        `client`: the workload whose turn a request to the service takes, None to not ask it. It is named only for a
        report that every check without certificates has accepted, because the service is slow and limits its clients.
        `line_hint`: the line the policy names, for a version 2 report without a leaf. What is not available is left
        out: the checks then say what is missing.
        """
        ask_service = client is not None
        report = evidence.report
        given = guest_supplied(evidence)
        line = product_line(report, given) or line_hint
        vlek = report.signing_key == SigningKey.VLEK
        leaf = given.leaf
        if line is not None and not vlek and (leaf is None or not belongs_to(leaf, report, line)):
            leaf = await self._vcek(report, line, client) or leaf
        found = Endorsements(leaf, (*self.intermediates, *given.intermediates), self.crls)
        if line is None or leaf is None:
            return found
        if found.issuer_of_leaf() is None:
            stored = await self._chain(line, vlek=vlek, ask_service=ask_service)
            found = found._replace(intermediates=(*found.intermediates, *stored))
        return found._replace(crls=(*self.crls, *await self._crl(line, vlek=vlek, now=now, ask_service=ask_service)))

    async def _vcek(self, report: Report, line: ProductLine, client: str | None) -> Certificate | None:
        if not any(report.chip_id):
            return None
        found = await self._stored_or_fetched_vcek(vcek_id(report, line), client)
        return found if found is not None and belongs_to(found, report, line) else None

    async def _stored_or_fetched_vcek(self, identity: VcekId, client: str | None) -> Certificate | None:
        exact = vcek_name(identity)
        for name in (exact, f"vcek/{identity.chip_id.hex()}/vcek.der"):
            stored = await self._stored(name)
            with contextlib.suppress(CertificateError):
                if stored is not None and _is_for(certificate := parse_certificate(stored), identity):
                    return certificate
        if self.service is None or client is None:
            return None
        # One task per client: each takes a turn of its own, and the service shares the answer.
        found: Certificate | None = await asyncio.shield(
            self._task(f"{exact} {client}", partial(self._fetched_vcek, self.service, exact, identity, client))
        )
        return found

    async def _fetched_vcek(self, service: KeyService, name: str, identity: VcekId, client: str) -> Certificate | None:
        try:
            certificate = parse_certificate(await service.vcek(identity, client))
        except (KeyServiceError, CertificateError):
            return None
        if not _is_for(certificate, identity):
            return None
        await asyncio.to_thread(self.store.put, name, certificate.der)
        return certificate

    async def _chain(self, line: ProductLine, *, vlek: bool, ask_service: bool) -> tuple[Certificate, ...]:
        name = f"chain/{'vlek' if vlek else 'vcek'}_{line.name}.pem"
        stored = await self._stored(name)
        if stored is not None:
            with contextlib.suppress(CertificateError):
                return parse_certificates(stored)
        if self.service is None or not ask_service or line.simulated:
            return ()
        found: tuple[Certificate, ...] = await asyncio.shield(
            self._task(name, partial(self._fetched_chain, self.service, name, line, vlek=vlek))
        )
        return found

    async def _fetched_chain(
        self, service: KeyService, name: str, line: ProductLine, *, vlek: bool
    ) -> tuple[Certificate, ...]:
        try:
            data = await service.chain(line, vlek=vlek)
            certificates = parse_certificates(data)
        except (KeyServiceError, CertificateError):
            return ()
        await asyncio.to_thread(self.store.put, name, data)
        return certificates

    async def keep_crls(
        self, now: Callable[[], datetime], sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        """Keep the lists of the service current, for ever: no guest waits for one, and none ends unnoticed.

        The lists for VCEKs of every line with a root, and a list for VLEKs once a report has needed it.
        """
        while self.service is not None:
            for name in self.anchors.certificates:
                line = line_by_name(name)
                for vlek in (False, True):
                    if line is not None and (not vlek or await self._was_needed(line)):
                        await self._crl(line, vlek=vlek, now=now(), ask_service=True)
            await sleep(CRL_RETRY.total_seconds())

    async def _was_needed(self, line: ProductLine) -> bool:
        return _crl_name(line, vlek=True) in self._crl_tried or await self._last_list(line, vlek=True) is not None

    def crl_next_update(self, line: str, *, vlek: bool) -> datetime | None:
        """When the newest list that is at hand ends; None without a list, or for one without an end."""
        issuer = self.anchors.certificates[line].subject
        found = [crl for crl in self.crls if crl.for_vleks == vlek and crl.issuer == issuer]
        if (known := line_by_name(line)) is not None and (last := self._lists.get(_crl_name(known, vlek=vlek))):
            found.append(last)
        return max(found, key=lambda crl: crl.this_update).next_update if found else None

    def revoked_serials(self, line: str) -> frozenset[int]:
        """Of every certificate that a list of this line's root names, as far as the lists are at hand."""
        known, root = line_by_name(line), self.anchors.certificates.get(line)
        if known is None or root is None:
            return frozenset()
        kept = (self._lists.get(_crl_name(known, vlek=vlek)) for vlek in (False, True))
        given = (crl for crl in self.crls if crl.issuer == root.subject and self._is_genuine(crl, known))
        return frozenset().union(*(crl.serials for crl in (*kept, *given) if crl is not None))

    def crl_checked(self, line: str, *, vlek: bool) -> datetime | None:
        """When the service has last answered with a genuine list; None if it has not since the start."""
        known = line_by_name(line)
        return None if known is None else self._crl_checked.get(_crl_name(known, vlek=vlek))

    async def _crl(
        self, line: ProductLine, *, vlek: bool, now: datetime, ask_service: bool
    ) -> tuple[RevocationList, ...]:
        """The last good list; requested again once a day, after a failure every few minutes."""
        name = _crl_name(line, vlek=vlek)
        last = await self._last_list(line, vlek=vlek)
        kept = () if last is None else (last,)
        is_good = last is not None and last.is_fresh(now)
        if self.service is None or not ask_service or line.simulated or (is_good and not self._is_due(name, now)):
            return kept
        self._crl_tried[name] = now
        refresh = self._task(name, partial(self._refreshed_crl, self.service, line, name, vlek=vlek, now=now))
        if is_good:
            return kept  # no caller waits while the last one is good
        found: tuple[RevocationList, ...] = await asyncio.shield(refresh)
        return found

    def _is_due(self, name: str, now: datetime) -> bool:
        checked, tried = self._crl_checked.get(name), self._crl_tried.get(name)
        if checked is not None and now - checked < CRL_REVALIDATION:
            return False
        return tried is None or now - tried >= CRL_RETRY

    async def _last_list(self, line: ProductLine, *, vlek: bool) -> RevocationList | None:
        """The last good list. A stored one is verified before anything is compared with it."""
        name = _crl_name(line, vlek=vlek)
        if name not in self._lists and (stored := await self._stored(name)) is not None:
            with contextlib.suppress(CertificateError):
                if self._is_genuine(found := parse_crl(stored, for_vleks=vlek), line):
                    self._lists[name] = found
        return self._lists.get(name)

    def _is_genuine(self, crl: RevocationList, line: ProductLine) -> bool:
        root = self.anchors.certificates.get(line.name)
        return root is not None and is_signed_by(crl.tbs, crl.signature, root)

    async def _refreshed_crl(
        self, service: KeyService, line: ProductLine, name: str, *, vlek: bool, now: datetime
    ) -> tuple[RevocationList, ...]:
        last = await self._last_list(line, vlek=vlek)
        kept = () if last is None else (last,)
        try:
            fetched = parse_crl(await service.crl(line, vlek=vlek), for_vleks=vlek)
        except (KeyServiceError, CertificateError):
            return kept
        other = await self._last_list(line, vlek=not vlek)
        # The two lists do not say which they are; a mirror that answers with one for both is found by that.
        if not self._is_genuine(fetched, line) or (other is not None and other.der == fetched.der):
            return kept
        self._crl_checked[name] = now
        if last is not None and fetched.this_update < last.this_update:
            return kept  # an old list must not undo a revocation
        self._lists[name] = fetched
        await asyncio.to_thread(self.store.put, name, fetched.der)
        return (fetched,)

    def _task(self, name: str, work: Callable[[], Coroutine[Any, Any, Any]]) -> asyncio.Task[Any]:
        """The task under way for a name, started if there is none.

        It continues when its callers leave: an attestation waits some seconds, the service takes longer, and the answer
        must be in the store when the guest tries again.
        """
        task = self._tasks.get(name)
        if task is None:
            task = asyncio.create_task(work())
            self._tasks[name] = task
            task.add_done_callback(lambda _: self._tasks.pop(name, None))
        return task

    async def _stored(self, name: str) -> bytes | None:
        known = self.store.recall(name)
        if known is not None or self.store.is_in_memory:
            return known  # the warm path costs no thread
        return await asyncio.to_thread(self.store.get, name)


def _crl_name(line: ProductLine, *, vlek: bool) -> str:
    return f"crl/{'vlek' if vlek else 'vcek'}_{line.name}.der"


def _is_for(certificate: Certificate, identity: VcekId) -> bool:
    return certificate.vek.hwid == identity.chip_id and certificate.vek.tcb(identity.line) == identity.tcb
