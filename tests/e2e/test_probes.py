"""The scanner's probes against a real verifier and OpenBao, and against servers that answer as they like."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from attestation.simulator.hierarchy import Hierarchy
from server.kubernetes.client import Client
from server.kubernetes.credentials import ServiceAccount
from server.metrics import new_registry
from tests.attestation.verifier.process import Site, Verifier
from tests.attestation.verifier.process import verifier as running_verifier
from tests.attestation.verifier.tokens import AUDIENCE, ISSUER, Issuer
from tests.e2e.site import replica
from tests.support.certificates import make_pair, write_pair
from tests.support.raft import RaftOpenBao
from tests.support.until import until_async
from tests.webhook.scanner.store import Store
from tests.webhook.scanner.store import running as running_store
from webhook.configuration.model import Configuration
from webhook.scanner.metrics import ScannerMetrics
from webhook.scanner.probes.probe import OwnTokens, probe, read_own_tokens
from webhook.scanner.probes.prober import Prober
from webhook.scanner.probes.published import Check, Published, about, read_published

Json = dict[str, Any]
Configure = Callable[..., Configuration]

_OWN = OwnTokens(ISSUER, ("prod-1",))
_GOOD = dict.fromkeys(Check, "ok")
# Nothing listens on port 1 of loopback.
_CLOSED = "https://127.0.0.1:1"
_OTHER_CA = make_pair()[0].decode()


@pytest.fixture
def configure(site: Site, verifier_process: Verifier, bao: RaftOpenBao) -> Configure:
    """The webhook's configuration for the running verifier and OpenBao, with changes by section."""

    def make(cluster: str = "prod", verifier: Json | None = None, vault: Json | None = None) -> Configuration:
        url, ca = f"https://127.0.0.1:{verifier_process.port}", (site.folder / "ca.crt").read_text()
        return Configuration.model_validate(
            {
                "cluster": cluster,
                "verifier": {"url": url, "ca": ca, "audience": AUDIENCE, **(verifier or {})},
                "vault": {"url": bao.url, "ca": bao.ca, **(vault or {})},
            }
        )

    return make


async def _states(
    configuration: Configuration, own: OwnTokens | None = _OWN, seconds: float = 60.0
) -> dict[Check, str]:
    return {check: each.state.value for check, each in (await probe(configuration, own, seconds=seconds)).items()}


async def _text(configuration: Configuration, check: Check, own: OwnTokens | None = _OWN) -> str:
    return (await probe(configuration, own, seconds=60.0))[check].text


async def test_what_is_right_is_ok(configure: Configure) -> None:
    assert await _states(configure()) == _GOOD


@pytest.mark.parametrize(
    ("changes", "own", "states", "check", "says"),
    [
        pytest.param(
            {"verifier": {"ca": _OTHER_CA}},
            _OWN,
            {"verifier": "failed", "cluster-name": "not-evaluated", "key-set": "not-evaluated"},
            Check.VERIFIER,
            "verifier.ca does not vouch",
            id="another CA for the verifier",
        ),
        pytest.param(
            {"vault": {"ca": _OTHER_CA}}, _OWN, {"vault": "failed"}, Check.VAULT, "vault.ca does not", id="Vault's CA"
        ),
        pytest.param(
            {"vault": {"ca": ""}}, _OWN, {"vault": "not-evaluated"}, Check.VAULT, "vault.ca is empty", id="no CA"
        ),
        pytest.param(
            {"verifier": {"url": _CLOSED}},
            _OWN,
            {"verifier": "failed", "cluster-name": "not-evaluated", "key-set": "not-evaluated"},
            Check.VERIFIER,
            "cannot be reached",
            id="no verifier",
        ),
        pytest.param(
            {"vault": {"url": _CLOSED}}, _OWN, {"vault": "failed"}, Check.VAULT, "cannot be reached", id="no Vault"
        ),
        pytest.param(
            {"cluster": "staging"},
            _OWN,
            {"cluster-name": "failed", "key-set": "not-evaluated"},
            Check.CLUSTER_NAME,
            "no cluster of this name",
            id="another name",
        ),
        pytest.param(
            {},
            OwnTokens("https://oidc.example", ("prod-1",)),
            {"cluster-name": "failed"},
            Check.CLUSTER_NAME,
            "another issuer",
            id="another issuer",
        ),
        pytest.param(
            {"verifier": {"audience": "other"}},
            _OWN,
            {"cluster-name": "failed"},
            Check.CLUSTER_NAME,
            "verifier.audience",
            id="another audience",
        ),
        pytest.param(
            {},
            OwnTokens(ISSUER, ("prod-1", "rotated")),
            {"key-set": "failed"},
            Check.KEY_SET,
            "lacks 1 of the cluster's 2 token keys",
            id="a key set from before a rotation",
        ),
        pytest.param(
            {},
            None,
            {"cluster-name": "not-evaluated", "key-set": "not-evaluated"},
            Check.KEY_SET,
            "API server",
            id="no discovery",
        ),
    ],
)
async def test_each_fault_is_found_where_it_is_and_nowhere_else(
    configure: Configure, changes: Json, own: OwnTokens | None, states: Json, check: Check, says: str
) -> None:
    configuration = configure(**changes)
    assert await _states(configuration, own) == _GOOD | {Check(name): state for name, state in states.items()}
    assert says in await _text(configuration, check, own)


async def test_a_vault_that_somebody_sealed_is_called_so(configure: Configure, bao: RaftOpenBao) -> None:
    bao.seal()
    try:
        assert await _states(configure()) == _GOOD | {Check.VAULT: "failed"}
        assert "sealed" in await _text(configure(), Check.VAULT)
    finally:
        bao.unseal()


async def test_a_verifier_that_lost_its_key_file_fails(
    configure: Configure, site: Site, tmp_path: Path, hierarchy: Hierarchy, issuer: Issuer
) -> None:
    other = replica(site, tmp_path / "other", hierarchy, issuer)
    with running_verifier(other) as process:
        (other.folder / "prod.jwks").unlink()
        configuration = configure(verifier={"url": f"https://127.0.0.1:{process.port}"})
        assert await _states(configuration) == _GOOD | {Check.KEY_SET: "failed"}


# What a server on the way may answer, as a whole; `None` ends the head and then drips for ever.
def _http(status: str, body: bytes, *head: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Content-Type: application/json", *head, "", ""]
    return "\r\n".join(lines).encode() + body


_OK = "200 OK"
_LIE = json.dumps({"cluster": True, "issuer": True, "audience": True, "keys": ["prod-1"] * 65}).encode()
_HOSTILE: dict[str, bytes] = {
    "html": _http(_OK, b"<html>login</html>"),
    "list": _http(_OK, b"[]"),
    "deep": _http(_OK, b'{"cluster":' + b"[" * 4000),
    "texts for flags": _http(_OK, b'{"cluster":"yes","sealed":"no","initialized":"yes"}'),
    "too many keys": _http(_OK, _LIE),
    "server error": _http("500 Internal Server Error", b"{}"),
    "not found": _http("404 Not Found", b"{}"),
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "nothing": b"",
    "large": _http(_OK, b'{"x":"' + b"x" * (1 << 20) + b'"}'),
    "cut off": _http(_OK, b"{" * 100)[:-50],
    "endless head": b"HTTP/1.1 200 OK\r\n" + b"A: " + b"x" * (1 << 20),
    "not UTF-8": _http(_OK, b'{"cluster":"\xff\xfe"}'),
}


class _Server:
    """Answers every request on TLS with the same bytes. `drips`: never ends. `requests` are the heads it got."""

    def __init__(self, content: bytes, *, drips: bool = False) -> None:
        self._content = content
        self._drips = drips
        self.requests: list[bytes] = []
        self.port = 0

    @asynccontextmanager
    async def running(self, folder: Path) -> AsyncIterator[str]:
        """Its URL."""
        if not (folder / "tls.crt").exists():
            write_pair(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        self.port = server.sockets[0].getsockname()[1]
        yield f"https://127.0.0.1:{self.port}"
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(self._content)
            await writer.drain()
            while self._drips:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.02)
        writer.close()


async def _probed(configure: Configure, server: _Server, folder: Path, seconds: float = 60.0) -> dict[Check, str]:
    async with server.running(folder) as url:
        there = {"url": url, "ca": (folder / "ca.crt").read_text()}
        return await _states(configure(verifier=there, vault=there), seconds=seconds)


_ALL_FAILED = {
    Check.VERIFIER: "failed",
    Check.VAULT: "failed",
    Check.CLUSTER_NAME: "not-evaluated",
    Check.KEY_SET: "not-evaluated",
}


@pytest.mark.parametrize("kind", sorted(_HOSTILE))
async def test_a_server_that_answers_as_it_likes_is_never_taken_for_ours(
    configure: Configure, tmp_path: Path, kind: str
) -> None:
    server = _Server(_HOSTILE[kind])
    assert await _probed(configure, server, tmp_path) == _ALL_FAILED
    # Whoever poses as either gets no token and no cookie.
    heads = b"".join(server.requests).lower()
    assert b"post /cluster " in heads
    assert not [name for name in (b"authorization", b"token", b"cookie") if name in heads]


async def test_a_redirect_is_not_followed(configure: Configure, tmp_path: Path) -> None:
    # Under the same certificate, so that nothing but our refusal to follow keeps it from being asked.
    target = _Server(_http(_OK, b'{"initialized":true,"sealed":false}'))
    async with target.running(tmp_path) as url:
        for status in ("302 Found", "307 Temporary Redirect", "308 Permanent Redirect"):
            server = _Server(_http(status, b"", f"Location: {url}/v1/sys/health"))
            assert await _probed(configure, server, tmp_path) == _ALL_FAILED
    assert target.requests == []


@pytest.mark.parametrize("content", [b"", b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"])
async def test_a_server_that_drips_for_ever_is_left(configure: Configure, tmp_path: Path, content: bytes) -> None:
    # Without a bound this would not end.
    assert await _probed(configure, _Server(content, drips=True), tmp_path, seconds=0.3) == _ALL_FAILED


async def test_a_verifier_that_is_not_ready_or_busy_is_told_apart_from_none(
    configure: Configure, tmp_path: Path
) -> None:
    busy = _Server(_http("429 Too Many Requests", b"{}"))
    assert (await _probed(configure, busy, tmp_path))[Check.VERIFIER] == "not-evaluated"
    server = _Server(_http("503 Service Unavailable", b"{}"))
    async with server.running(tmp_path) as url:
        configuration = configure(verifier={"url": url, "ca": (tmp_path / "ca.crt").read_text()})
        assert "sealed or not ready" in await _text(configuration, Check.VERIFIER)


_MAP = "/api/v1/namespaces/morphisms-system/configmaps/morphisms-probes"


def _discovery(store: Store, *kids: str) -> None:
    store.put("/.well-known/openid-configuration", issuer=ISSUER)
    store.put("/openid/v1/jwks", keys=[{"kid": kid, "kty": "RSA"} for kid in kids])


@asynccontextmanager
async def _probing(store: Store, prober: Prober) -> AsyncIterator[None]:
    async with Client(ServiceAccount(store.url)) as client:
        task = asyncio.create_task(prober.run(client))
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _published(store: Store) -> Published | None:
    found = store.objects.get(_MAP)
    return None if found is None else read_published(found["data"])


async def test_the_leader_alone_publishes_and_a_new_address_is_probed_soon(configure: Configure, store: Store) -> None:
    current, leads, asked = [configure()], [False], [0]

    def configuration() -> Configuration:
        asked[0] += 1
        return current[0]

    _discovery(store, "prod-1")
    store.put(_MAP)
    metrics = ScannerMetrics(new_registry())
    prober = Prober(
        configuration,
        metrics,
        lambda: leads[0],
        namespace="morphisms-system",
        seconds=600,
        least_seconds=0,
    )
    async with _probing(store, prober):
        for _ in range(3):
            prober.wake()
            await asyncio.sleep(0)
        assert (asked[0], store.writes.total()) == (0, 0)
        leads[0] = True
        prober.wake()
        await until_async(lambda: store.writes.total() == 1)
        found = _published(store)
        assert found is not None
        assert {check: each.state.value for check, each in found.probes.items()} == _GOOD
        assert found.why_not_counted(about(current[0]), found.at) == ""
        current[0] = configure(vault={"url": _CLOSED})
        assert found.why_not_counted(about(current[0]), found.at) != ""
        prober.wake()
        await until_async(lambda: store.writes.total() == 2)
        found = _published(store)
        assert found is not None
        assert found.probes[Check.VAULT].state.value == "failed"
        # Nothing has changed, and the next round is ten minutes away.
        prober.wake()
        current[0] = configure(vault={"url": _CLOSED})
        prober.wake()
        await asyncio.sleep(0)
        assert store.writes.total() == 2


async def test_a_configuration_that_changes_all_the_time_makes_no_flood(configure: Configure, store: Store) -> None:
    _discovery(store, "prod-1")
    store.put(_MAP)
    rounds: list[str] = []

    def changing() -> Configuration:
        rounds.append("")
        return configure(cluster=f"c{len(rounds)}")

    prober = Prober(changing, ScannerMetrics(new_registry()), lambda: True, namespace="morphisms-system", seconds=600)
    async with _probing(store, prober):
        await until_async(lambda: store.writes.total() == 1)
        before = len(rounds)
        for _ in range(20):
            prober.wake()
            await asyncio.sleep(0)
        # It is not even asked for before ten seconds have passed.
        assert (len(rounds), store.writes.total()) == (before, 1)


async def test_a_config_map_that_cannot_be_written_ends_nothing(configure: Configure, store: Store) -> None:
    _discovery(store, "prod-1")
    store.put(_MAP)
    store.fails = [403]
    prober = Prober(
        configure,
        ScannerMetrics(new_registry()),
        lambda: True,
        namespace="morphisms-system",
        seconds=0,
        least_seconds=0,
    )
    async with _probing(store, prober):
        await until_async(lambda: _published(store) is not None if store.objects[_MAP] else False)


@pytest.mark.parametrize(
    "damage",
    [
        {"/openid/v1/jwks": {"keys": []}},
        {"/openid/v1/jwks": {"keys": [{"kid": 1}]}},
        {"/openid/v1/jwks": {"keys": [{"kid": f"k{number}"} for number in range(65)]}},
        {"/.well-known/openid-configuration": {"issuer": 1}},
        {"/.well-known/openid-configuration": None},
    ],
)
async def test_an_api_server_that_does_not_tell_its_keys_leaves_them_unknown(store: Store, damage: Json) -> None:
    _discovery(store, "prod-1")
    async with Client(ServiceAccount(store.url)) as client:
        assert await read_own_tokens(client) == _OWN
        for path, item in damage.items():
            store.objects.pop(path)
            if item is not None:
                store.put(path, **item)
        assert await read_own_tokens(client) is None


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    made = Store()
    async with running_store(made):
        yield made
