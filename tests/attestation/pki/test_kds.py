"""The key service's client and the certificate cache, against a local server with the real URLs and rate limit."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import re
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from attestation.errors import KeyServiceError
from attestation.pki.cache import CertificateCache, CertificateStore, belongs_to, vcek_id, vcek_name
from attestation.pki.endorsements import Endorsements
from attestation.pki.kds import Clock, KeyService, RequestLimits, VcekId
from attestation.report.abi import parse_report
from attestation.report.certificate_table import TableEntry
from attestation.report.envelopes import Envelope, Evidence
from attestation.report.products import MILAN, SIMULATED, TURIN, VENICE
from attestation.report.tcb import Tcb

# AMD 57230: the paths and query names of the real service.
VCEK_PATH = re.compile(r"/vcek/v1/(Milan|Genoa|Turin)/([0-9a-f]{128}|[0-9a-f]{16})")
CLIENT = "prod/shop/payments"
SPLS = {"fmcSPL": "fmc", "blSPL": "bootloader", "teeSPL": "tee", "snpSPL": "snp", "ucodeSPL": "microcode"}


@dataclass
class FakeTime:
    """A clock that sleeping moves."""

    seconds: float = 1000.0
    slept: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds
        await asyncio.sleep(0)

    @property
    def clock(self) -> Clock:
        return Clock(now=lambda: self.seconds, wall=lambda: self.seconds, sleep=self.sleep)


@dataclass
class StandIn:
    """One VCEK in ten seconds, 429 beyond; chains and lists as served; everything else 404."""

    time: FakeTime
    vceks: dict[tuple[str, str, Tcb], bytes] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    limit: float = 10.0
    retry_after: str | None = "10"
    broken: int | None = None
    requests: list[str] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    hold: asyncio.Event | None = None
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    at_once: int = 0
    most_at_once: int = 0
    _last: float = float("-inf")

    async def handle(self, request: web.Request) -> web.Response:
        self.requests.append(str(request.rel_url))
        self.arrived.set()
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        if self.hold is not None:
            await self.hold.wait()
        for _ in range(20):
            await asyncio.sleep(0)  # let others come in, if they do
        self.at_once -= 1
        response = self.answer(request)
        self.statuses.append(response.status)
        return response

    def answer(self, request: web.Request) -> web.Response:
        if self.broken is not None:
            return web.Response(status=self.broken)
        if request.path in self.files:
            return web.Response(body=self.files[request.path])
        match = VCEK_PATH.fullmatch(request.path)
        if match is None:
            return web.Response(status=404)
        if self.time.seconds - self._last < self.limit:
            headers = {} if self.retry_after is None else {"Retry-After": self.retry_after}
            return web.Response(status=429, headers=headers)
        self._last = self.time.seconds
        if not all(re.fullmatch(r"\d{2,3}", value) for value in request.query.values()):
            return web.Response(status=400)
        try:
            tcb = Tcb(**{SPLS[name]: int(value) for name, value in request.query.items()})
        except (KeyError, TypeError):
            return web.Response(status=400)
        body = self.vceks.get((match[1], match[2], tcb))
        return web.Response(status=404) if body is None else web.Response(body=body)


@pytest.fixture
def fake_time():
    return FakeTime()


@pytest.fixture
async def amd(fake_time):
    stand_in = StandIn(fake_time)
    application = web.Application()
    application.router.add_get("/{path:.*}", stand_in.handle)
    server = TestServer(application)
    await server.start_server()
    stand_in.url = str(server.make_url("/"))
    yield stand_in
    await server.close()


@pytest.fixture
async def connect(amd, fake_time):
    async with contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())

        def make(**limits):
            service = KeyService(session, amd.url, RequestLimits(**limits), fake_time.clock)
            stack.push_async_callback(service.close)
            return service

        yield make


@pytest.fixture
def service(connect):
    return connect()


def serve(amd, platform, chip_id=None):
    """Have the stand-in know a chip; returns its identity, its DER and a report by it."""
    chip_id = chip_id or platform.chip_id
    leaf, key = platform.leaf(hwid=chip_id)
    amd.vceks[platform.line.name, chip_id.hex(), platform.tcb] = leaf.der
    name = platform.line.name
    chain = b"".join(
        x509.load_der_x509_certificate(each.der).public_bytes(Encoding.PEM) for each in (platform.ask(), platform.ark)
    )
    amd.files[f"/vcek/v1/{name}/cert_chain"] = chain
    amd.files[f"/vcek/v1/{name}/crl"] = platform.crl().der
    report = platform.report(key, chip_id=chip_id.ljust(64, b"\0"))
    return VcekId(platform.line, chip_id, platform.tcb), leaf, Evidence(parse_report(report), Envelope.RAW)


def test_urls():
    milan = VcekId(MILAN, bytes(range(64)), Tcb(3, 0, 8, 115))
    assert milan.path() == f"/vcek/v1/Milan/{bytes(range(64)).hex()}?blSPL=03&teeSPL=00&snpSPL=08&ucodeSPL=115"
    turin = VcekId(TURIN, bytes(range(8)), Tcb(1, 0, 2, 71, fmc=0))
    assert turin.path() == "/vcek/v1/Turin/0001020304050607?fmcSPL=00&blSPL=01&teeSPL=00&snpSPL=02&ucodeSPL=71"


def test_trustees_file_names():
    assert vcek_name(VcekId(MILAN, b"\1" * 64, Tcb(3, 0, 8, 115))) == (
        f"vcek/{'01' * 64}/bl03_tee00_snp08_ucode115_vcek.der"
    )
    assert vcek_name(VcekId(TURIN, b"\1" * 8, Tcb(1, 0, 2, 71, fmc=0))).endswith("ucode71_fmc00_vcek.der")


@pytest.mark.parametrize("line", ["Milan", "Genoa", "Turin"])
async def test_fetches_each_line(amd, service, platform_of, line):
    identity, leaf, _ = serve(amd, platform_of(line))
    assert await service.vcek(identity, CLIENT) == leaf.der


async def test_equal_requests_share_one(amd, service, milan):
    identity, leaf, _ = serve(amd, milan)
    answers = await asyncio.gather(*(service.vcek(identity, CLIENT) for _ in range(50)))
    assert answers == [leaf.der] * 50
    assert len(amd.requests) == 1


async def test_different_chips_wait_their_turn_and_never_see_429(amd, service, milan, fake_time):
    identities = [serve(amd, milan, bytes([number]) * 64)[0] for number in range(1, 6)]
    start = fake_time.seconds
    answers = await asyncio.gather(*(service.vcek(identity, CLIENT) for identity in identities))
    assert len(set(answers)) == 5
    assert amd.statuses == [200] * 5
    assert fake_time.seconds - start == pytest.approx(40)


async def test_one_request_at_a_time(amd, connect, milan):
    service = connect(between_vceks=0.0)
    amd.limit = 0
    identities = [serve(amd, milan, bytes([number]) * 64)[0] for number in range(1, 9)]
    await asyncio.gather(*(service.vcek(identity, CLIENT) for identity in identities))
    assert len(amd.requests) == 8
    assert amd.most_at_once == 1


@pytest.mark.parametrize("header", ["10", None, "soon"])
async def test_waits_out_a_429(amd, connect, milan, fake_time, header):
    """Somebody else behind the same address was faster."""
    identity, leaf, _ = serve(amd, milan)
    amd.retry_after, amd._last = header, fake_time.seconds
    assert await connect().vcek(identity, CLIENT) == leaf.der
    assert amd.statuses == [429, 200]
    assert fake_time.slept == [10.0]


async def test_retry_after_as_a_date(amd, connect, milan, fake_time):
    identity, leaf, _ = serve(amd, milan)
    amd.retry_after, amd._last = email.utils.formatdate(fake_time.seconds + 25, usegmt=True), fake_time.seconds
    assert await connect().vcek(identity, CLIENT) == leaf.der
    assert fake_time.slept == [25.0]


async def test_retry_after_holds_for_everyone(amd, service, milan, fake_time):
    first, second = (serve(amd, milan, bytes([number]) * 64)[0] for number in (1, 2))
    amd._last = fake_time.seconds
    await asyncio.gather(service.vcek(first, CLIENT), service.vcek(second, CLIENT), service.crl(MILAN, vlek=False))
    assert amd.statuses.count(429) == 1


async def test_a_429_that_lasts_too_long(amd, connect, milan, fake_time):
    identity, *_ = serve(amd, milan)
    amd.retry_after, amd._last = "1000", fake_time.seconds
    with pytest.raises(KeyServiceError, match="1000 s in all"):
        await connect().vcek(identity, CLIENT)
    amd._last, amd.limit, amd.retry_after = fake_time.seconds, 1e9, "1"
    with pytest.raises(KeyServiceError, match="3 attempts"):
        await connect(attempts=3).vcek(identity, CLIENT)


async def test_failures_are_remembered_shortly(amd, service, milan, fake_time):
    identity = VcekId(MILAN, b"\7" * 64, milan.tcb)
    for _ in range(3):
        with pytest.raises(KeyServiceError, match="404"):
            await service.vcek(identity, CLIENT)
    assert len(amd.requests) == 1
    serve(amd, milan, b"\7" * 64)
    fake_time.seconds += 61
    assert await service.vcek(identity, CLIENT)


async def test_server_errors_are_retried(amd, connect, milan):
    identity, *_ = serve(amd, milan)
    amd.broken = 503
    with pytest.raises(KeyServiceError, match="2 attempts"):
        await connect(attempts=2).vcek(identity, CLIENT)
    assert amd.statuses == [503, 503]


async def test_redirects_are_not_followed(amd, service, milan):
    amd.broken = 302
    with pytest.raises(KeyServiceError, match="302"):
        await service.chain(MILAN, vlek=False)


async def test_endless_answers(amd, service):
    amd.files["/vcek/v1/Milan/crl"] = bytes(65 * 1024)
    with pytest.raises(KeyServiceError, match="more than"):
        await service.crl(MILAN, vlek=False)


async def test_unreachable(fake_time):
    async with aiohttp.ClientSession() as session:
        service = KeyService(session, "http://127.0.0.1:1", clock=fake_time.clock)
        with pytest.raises(KeyServiceError, match="cannot be reached"):
            await service.crl(MILAN, vlek=False)


async def test_the_service_is_not_asked_in_vain(amd, service):
    for identity in (
        VcekId(MILAN, bytes(64), Tcb(1, 1, 1, 1)),
        VcekId(MILAN, b"\1" * 8, Tcb(1, 1, 1, 1)),
        VcekId(VENICE, b"\1" * 8, Tcb(1, 1, 1, 1, 1)),
        VcekId(SIMULATED, b"\1" * 64, Tcb(1, 1, 1, 1)),
    ):
        with pytest.raises(KeyServiceError):
            await service.vcek(identity, CLIENT)
    assert amd.requests == []


async def test_a_caller_that_leaves_does_not_stop_the_request(amd, service, milan):
    identity, leaf, _ = serve(amd, milan)
    amd.hold = asyncio.Event()
    impatient = asyncio.create_task(service.vcek(identity, CLIENT))
    await amd.arrived.wait()
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    patient = asyncio.create_task(service.vcek(identity, CLIENT))
    await asyncio.sleep(0)
    amd.hold.set()
    assert await patient == leaf.der
    assert len(amd.requests) == 1


def chips(milan, start, count):
    """Identities of chips that the service does not know."""
    return [VcekId(MILAN, bytes([number]) * 64, milan.tcb) for number in range(start, start + count)]


async def begun(coroutines):
    """Tasks of the coroutines, each of which has run as far as it comes at once."""
    tasks = [asyncio.create_task(each) for each in coroutines]
    await asyncio.sleep(0)
    return tasks


async def test_queue_is_bounded_per_client(amd, connect, milan):
    service = connect(client_share=2, client_failures=100)
    amd.hold = asyncio.Event()
    tasks = await begun(service.vcek(each, CLIENT) for each in chips(milan, 1, 1))
    await amd.arrived.wait()  # this one waits no more
    tasks += await begun(service.vcek(each, CLIENT) for each in chips(milan, 2, 2))
    with pytest.raises(KeyServiceError, match="2 requests of prod/shop/payments wait already"):
        await service.vcek(*chips(milan, 9, 1), CLIENT)
    tasks += await begun([service.vcek(*chips(milan, 9, 1), "another")])
    amd.hold.set()
    assert all("404" in str(each) for each in await asyncio.gather(*tasks, return_exceptions=True))


async def test_a_full_queue_makes_room_for_a_newcomer(amd, connect, milan):
    service = connect(queue_limit=3, client_failures=100)
    amd.hold = asyncio.Event()
    tasks = await begun(service.vcek(each, CLIENT) for each in chips(milan, 1, 1))
    await amd.arrived.wait()
    tasks += await begun(service.vcek(each, CLIENT) for each in chips(milan, 2, 3))
    newcomers = await begun(service.vcek(each, f"client {each.chip_id[0]}") for each in chips(milan, 5, 2))
    with pytest.raises(KeyServiceError, match="3 requests wait already"):
        await service.vcek(*chips(milan, 9, 1), "late")
    amd.hold.set()
    texts = [str(each) for each in await asyncio.gather(*tasks, return_exceptions=True)]
    assert ["full" in each for each in texts] == [False, False, True, True]
    assert all("404" in str(each) for each in await asyncio.gather(*newcomers, return_exceptions=True))


async def test_clients_take_turns(amd, connect, milan):
    service = connect(client_failures=100)
    amd.hold = asyncio.Event()
    greedy, modest = chips(milan, 1, 9), chips(milan, 20, 2)
    tasks = await begun(service.vcek(each, "greedy") for each in greedy)
    await amd.arrived.wait()
    tasks += await begun(service.vcek(each, "modest") for each in modest)
    amd.hold.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    named = [int(path.split("/")[4][:2], 16) for path in amd.requests]
    assert named == [1, 2, 20, 3, 21, 4, 5, 6, 7, 8, 9]


async def test_who_names_a_known_chip_first_does_not_keep_its_owner_waiting(amd, connect, milan):
    """The attacker's line is long, and the victim's chip stands at its end."""
    service = connect(client_failures=100)
    identity, leaf, _ = serve(amd, milan)
    amd.hold = asyncio.Event()
    tasks = await begun(service.vcek(each, "hostile") for each in [*chips(milan, 1, 8), identity])
    await amd.arrived.wait()
    (victim,) = await begun([service.vcek(identity, "victim")])
    amd.hold.set()
    assert await victim == leaf.der
    assert len(amd.requests) <= 3
    await service.close()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_unknown_chips_count_against_the_client_that_named_them(amd, connect, milan, fake_time):
    service = connect()
    for identity in chips(milan, 1, 3):
        with pytest.raises(KeyServiceError, match="404"):
            await service.vcek(identity, "hostile")
    known, leaf, _ = serve(amd, milan)
    with pytest.raises(KeyServiceError, match="did not know the last chips that hostile named"):
        await service.vcek(known, "hostile")
    assert await service.vcek(known, "victim") == leaf.der
    fake_time.seconds += 61
    assert await service.vcek(known, "hostile") == leaf.der


async def test_lists_and_chains_do_not_wait_for_vceks(amd, milan, fake_time):
    serve(amd, milan)
    amd._last, amd.retry_after = fake_time.seconds, "100"
    asleep = asyncio.Event()

    async def sleep_on(_seconds):
        asleep.set()
        await asyncio.Event().wait()

    async with aiohttp.ClientSession() as session, asyncio.timeout(30):
        service = KeyService(session, amd.url, clock=replace(fake_time.clock, sleep=sleep_on))
        waiting = await begun(service.vcek(each, CLIENT) for each in chips(milan, 1, 3))
        await asleep.wait()
        assert await service.crl(MILAN, vlek=False)
        assert await service.chain(MILAN, vlek=False)
        await service.close()
        await asyncio.gather(*waiting, return_exceptions=True)


# The cache


def cache_of(platform, store=None, service=None, **more):
    return CertificateCache(store or CertificateStore(), platform.anchors, service, **more)


async def test_guest_first(amd, service, milan):
    _, leaf, evidence = serve(amd, milan)
    ask = milan.ask()
    table = (TableEntry("VCEK", leaf.der), TableEntry("ASK", ask.der), TableEntry("ARK", b"never read"))
    cache = cache_of(milan, service=service, crls=(milan.crl(),))
    found = await cache.endorsements(Evidence(evidence.report, Envelope.COCO, table), milan.now, client=None)
    assert found.leaf == leaf
    assert found.issuer_of_leaf() == ask
    assert milan.appraise(evidence, found.leaf, intermediates=found.intermediates, crls=found.crls).accepted
    assert amd.requests == []


async def test_everything_from_the_service_then_from_memory(amd, service, milan):
    _, leaf, evidence = serve(amd, milan)
    cache = cache_of(milan, service=service)
    for _ in range(3):
        found = await cache.endorsements(evidence, milan.now, client=CLIENT)
        assert found.leaf == leaf
        assert milan.appraise(evidence, found.leaf, intermediates=found.intermediates, crls=found.crls).accepted
    assert len(amd.requests) == 3  # VCEK, chain, list


async def test_what_comes_after_its_caller_has_left_is_kept(amd, connect, milan):
    """An attestation waits less long than the service may take; the pod comes again a moment later."""
    _, leaf, evidence = serve(amd, milan)
    amd.hold = asyncio.Event()
    cache = cache_of(milan, service=connect())
    impatient = asyncio.create_task(cache.endorsements(evidence, milan.now, client=CLIENT))
    await amd.arrived.wait()
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    amd.hold.set()
    await asyncio.gather(*cache._tasks.values())
    assert amd.statuses == [200]
    found = await cache.endorsements(evidence, milan.now, client=CLIENT)
    assert found.leaf == leaf
    assert amd.statuses == [200] * 3, "the chain and the list, and no second VCEK"


async def test_disk_outlives_the_process(amd, service, milan, tmp_path):
    identity, leaf, evidence = serve(amd, milan)
    await cache_of(milan, CertificateStore(tmp_path), service).endorsements(evidence, milan.now, client=CLIENT)
    assert (tmp_path / vcek_name(identity)).read_bytes() == leaf.der
    assert not list(tmp_path.rglob("*.new"))
    offline = cache_of(milan, CertificateStore(tmp_path))
    found = await offline.endorsements(evidence, milan.now, client=CLIENT)
    assert milan.appraise(evidence, found.leaf, intermediates=found.intermediates, crls=found.crls).accepted


async def test_trustees_fallback_file(milan, tmp_path):
    leaf, key = milan.leaf()
    folder = tmp_path / "vcek" / milan.chip_id.hex()
    folder.mkdir(parents=True)
    (folder / "vcek.der").write_bytes(leaf.der)
    evidence = Evidence(parse_report(milan.report(key)), Envelope.RAW)
    found = await cache_of(milan, CertificateStore(tmp_path)).endorsements(evidence, milan.now, client=None)
    assert found.leaf == leaf


async def test_unknown_callers_cost_no_request(amd, service, milan):
    _, _, evidence = serve(amd, milan)
    found = await cache_of(milan, service=service).endorsements(evidence, milan.now, client=None)
    assert found == Endorsements()
    assert amd.requests == []


async def test_a_leaf_of_older_firmware_is_replaced(amd, service, milan):
    _, leaf, evidence = serve(amd, milan)
    old, _ = milan.leaf(tcb=Tcb(3, 0, 7, 115))
    given = Evidence(evidence.report, Envelope.COCO, (TableEntry("VCEK", old.der),))
    cache = cache_of(milan, service=service)
    assert (await cache.endorsements(given, milan.now, client=CLIENT)).leaf == leaf
    # Without the service the old one is what there is, and the checks say why it will not do.
    assert (await cache_of(milan).endorsements(given, milan.now, client=CLIENT)).leaf == old


async def test_guests_certificates_are_never_stored(amd, milan, tmp_path):
    leaf, key = milan.leaf()
    given = Evidence(
        parse_report(milan.report(key)),
        Envelope.COCO,
        (TableEntry("VCEK", leaf.der), TableEntry("ASK", milan.ask().der)),
    )
    await cache_of(milan, CertificateStore(tmp_path)).endorsements(given, milan.now, client=CLIENT)
    assert not list(tmp_path.iterdir())


async def test_vlek_leaves_come_from_the_guest_only(amd, service, milan):
    leaf, key = milan.leaf(vlek=True)
    amd.files["/vlek/v1/Milan/cert_chain"] = x509.load_der_x509_certificate(milan.asvk().der).public_bytes(Encoding.PEM)
    amd.files["/vlek/v1/Milan/crl"] = milan.crl(vlek=True).der
    report = milan.report(key, vlek=True)
    cache = cache_of(milan, service=service)
    assert (
        await cache.endorsements(Evidence(parse_report(report), Envelope.RAW), milan.now, client=CLIENT)
    ).leaf is None
    assert amd.requests == []
    given = Evidence(parse_report(report), Envelope.RAW, (TableEntry("VLEK", leaf.der),))
    found = await cache.endorsements(given, milan.now, client=CLIENT)
    assert milan.appraise(given, found.leaf, intermediates=found.intermediates, crls=found.crls).accepted
    assert amd.requests == ["/vlek/v1/Milan/cert_chain", "/vlek/v1/Milan/crl"]


async def test_an_answer_for_another_chip_is_not_kept(amd, service, milan, tmp_path):
    identity, _, evidence = serve(amd, milan)
    amd.vceks["Milan", identity.chip_id.hex(), milan.tcb] = milan.leaf(hwid=b"\x09" * 64)[0].der
    found = await cache_of(milan, CertificateStore(tmp_path), service).endorsements(evidence, milan.now, client=CLIENT)
    assert found.leaf is None
    assert not list(tmp_path.rglob("*.der"))


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x30\x82\xff\xff"])
async def test_a_damaged_file_is_fetched_anew(amd, service, milan, tmp_path, content):
    identity, leaf, evidence = serve(amd, milan)
    path = tmp_path / vcek_name(identity)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    found = await cache_of(milan, CertificateStore(tmp_path), service).endorsements(evidence, milan.now, client=CLIENT)
    assert found.leaf == leaf
    assert path.read_bytes() == leaf.der


async def test_an_unwritable_folder_costs_the_disk_copy_only(amd, service, milan, tmp_path):
    _, leaf, evidence = serve(amd, milan)
    (tmp_path / "file").write_bytes(b"")
    store = CertificateStore(tmp_path / "file" / "folder")
    found = await cache_of(milan, store, service).endorsements(evidence, milan.now, client=CLIENT)
    assert found.leaf == leaf


async def test_version_2_needs_a_hint(amd, service, milan):
    _, leaf, _ = serve(amd, milan)
    cpuid = {"cpuid_fam_id": 0, "cpuid_mod_id": 0, "cpuid_step": 0}
    evidence = Evidence(parse_report(milan.report(milan.leaf()[1], version=2, **cpuid)), Envelope.RAW)
    cache = cache_of(milan, service=service)
    assert (await cache.endorsements(evidence, milan.now, client=CLIENT)).leaf is None
    assert (await cache.endorsements(evidence, milan.now, client=CLIENT, line_hint=MILAN)).leaf == leaf


async def test_crl_once_a_day_and_never_backwards(amd, service, milan):
    _, _, evidence = serve(amd, milan)
    cache = cache_of(milan, service=service)
    path = "/vcek/v1/Milan/crl"

    async def serials(now):
        await cache.endorsements(evidence, now, client=CLIENT)
        await asyncio.gather(*cache._tasks.values())
        return (await cache.endorsements(evidence, now, client=None)).crls[0].serials

    assert await serials(milan.now) == set()
    amd.files[path] = milan.crl([9], since=5).der
    assert await serials(milan.now + timedelta(hours=23)) == set()
    assert await serials(milan.now + timedelta(hours=25)) == {9}
    amd.files[path] = milan.crl(since=7).der
    assert await serials(milan.now + timedelta(hours=50)) == {9}
    amd.files[path] = milan.crl(since=1, signer="stranger").der
    assert await serials(milan.now + timedelta(hours=75)) == {9}
    amd.broken = 404
    assert await serials(milan.now + timedelta(hours=100)) == {9}


async def test_a_failed_refresh_is_tried_again_after_minutes(amd, service, milan, fake_time):
    _, _, evidence = serve(amd, milan)
    cache = cache_of(milan, service=service)
    path = "/vcek/v1/Milan/crl"

    async def look(**later):
        fake_time.seconds += 300
        await cache.endorsements(evidence, milan.now + timedelta(**later), client=CLIENT)
        await asyncio.gather(*cache._tasks.values())
        return amd.requests.count(path)

    before = await look()
    amd.broken = 404
    assert await look(hours=25) == before + 1
    assert await look(hours=25, minutes=1) == before + 1
    assert await look(hours=25, minutes=6) == before + 2
    amd.broken = None
    assert await look(hours=25, minutes=12) == before + 3
    assert await look(hours=26) == before + 3
    assert cache.crl_checked("Milan", vlek=False) == milan.now + timedelta(hours=25, minutes=12)


@pytest.mark.parametrize("bent", [{"signer": "stranger"}, {"salt": 32}, {"issuer": "ARK-Genoa", "signer": "stranger"}])
async def test_a_forged_stored_list_is_as_none(amd, service, milan, tmp_path, bent):
    """Its thisUpdate would keep every later list out."""
    _, _, evidence = serve(amd, milan)
    (tmp_path / "crl").mkdir()
    forged = milan.crl(since=-300, until=600, **bent)
    (tmp_path / "crl" / "vcek_Milan.der").write_bytes(forged.der)
    cache = cache_of(milan, CertificateStore(tmp_path), service)
    assert (await cache.endorsements(evidence, milan.now, client=None)).crls == ()
    found = await cache.endorsements(evidence, milan.now, client=CLIENT)
    assert [crl.der for crl in found.crls] == [amd.files["/vcek/v1/Milan/crl"]]


async def test_one_list_for_both_kinds_is_not_taken_for_the_second(amd, service, milan):
    _, _, evidence = serve(amd, milan)
    cache = cache_of(milan, service=service)
    vlek_leaf, vlek_key = milan.leaf(vlek=True)
    given = (TableEntry("VLEK", vlek_leaf.der), TableEntry("ASK", milan.asvk().der))
    vlek = Evidence(parse_report(milan.report(vlek_key, vlek=True)), Envelope.RAW, given)
    amd.files["/vlek/v1/Milan/crl"] = amd.files["/vcek/v1/Milan/crl"]
    assert len((await cache.endorsements(vlek, milan.now, client=CLIENT)).crls) == 1
    assert (await cache.endorsements(evidence, milan.now, client=CLIENT)).crls == ()


async def test_lists_are_kept_current_without_any_guest(amd, service, milan, fake_time):
    cache = cache_of(milan, service=service)
    serve(amd, milan)
    hours = iter([0, 1, 25, 25.1])
    seen = []

    async def sleep(seconds):
        await asyncio.gather(*cache._tasks.values())
        fake_time.seconds += seconds
        seen.append(len(amd.requests))
        if len(seen) == 4:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await cache.keep_crls(lambda: milan.now + timedelta(hours=next(hours)), sleep)
    assert seen == [1, 1, 2, 2]
    assert set(amd.requests) == {"/vcek/v1/Milan/crl"}
    assert cache.crl_next_update("Milan", vlek=False) == milan.crl().next_update
    assert cache.crl_next_update("Milan", vlek=True) is None


async def test_a_stale_crl_is_waited_for(amd, service, milan):
    _, _, evidence = serve(amd, milan)
    cache = cache_of(milan, service=service)
    amd.files["/vcek/v1/Milan/crl"] = milan.crl(since=30, until=-1).der
    await cache.endorsements(evidence, milan.now, client=CLIENT)
    fresh = milan.crl()
    amd.files["/vcek/v1/Milan/crl"] = fresh.der
    found = await cache.endorsements(evidence, milan.now + timedelta(days=2), client=CLIENT)
    assert found.crls == (fresh,)


async def test_simulated_never_reaches_amd(amd, service, platform_of):
    simulated = platform_of("Simulated")
    leaf, key = simulated.leaf()
    given = Evidence(
        parse_report(simulated.report(key)),
        Envelope.RAW,
        (TableEntry("VCEK", leaf.der), TableEntry("ASK", simulated.ask().der)),
    )
    cache = cache_of(simulated, service=service)
    assert (await cache.endorsements(given, simulated.now, client=CLIENT)).leaf == leaf
    bare = Evidence(given.report, Envelope.RAW)
    assert (await cache.endorsements(bare, simulated.now, client=CLIENT)).leaf is None
    assert amd.requests == []


def test_memory_is_bounded():
    store = CertificateStore(limit=3)
    for number in range(5):
        store.put(str(number), b"x")
    assert [store.get(str(number)) for number in range(5)] == [None, None, b"x", b"x", b"x"]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("milan-v3-routex", MILAN),
        ("turin-v5-routex", TURIN),
        ("milan-v3-vlek-aws-trustee", MILAN),
        ("milan-v2-virtee", MILAN),
        ("milan-v2-debug-gosevguest", MILAN),
    ],
)
def test_real_leaves_belong_to_their_reports(vectors, name, line):
    report = parse_report(vectors.report(name))
    assert belongs_to(vectors.leaf(name), report, line)
    another = vectors.first("genoa-v3-routex", "genoa-v2-vmpl1-sevattesttool")
    assert not belongs_to(vectors.leaf(another), report, line)


def test_the_path_of_a_real_turin_chip(vectors):
    assert vcek_id(parse_report(vectors.report("turin-v5-routex")), TURIN).path() == (
        "/vcek/v1/Turin/3b42092f69c656d3?fmcSPL=00&blSPL=01&teeSPL=00&snpSPL=02&ucodeSPL=71"
    )


def test_store_name_stays_inside(tmp_path: Path, milan):
    """Names are made of hexadecimal digits and numbers only, whatever a report says."""
    assert re.fullmatch(r"vcek/[0-9a-f]+/[a-z0-9_]+\.der", vcek_name(VcekId(MILAN, b"../..".ljust(64), milan.tcb)))
