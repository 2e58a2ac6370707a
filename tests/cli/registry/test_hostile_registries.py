"""A registry that lies, floods, stalls, or wants the caller's credentials for others."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.registry.cache import Cache
from cli.registry.client import SECONDS
from cli.registry.credentials import DockerConfiguration
from cli.registry.documents import MAX_MANIFEST
from cli.registry.errors import RegistryError, UnreachableError
from cli.registry.lookup import ImageLookup
from cli.registry.reference import parse_reference
from cli.registry.registries import load_registries
from measured.image import Image
from tests.cli.registry.conftest import Home
from tests.cli.registry.images import Document, configuration, index, manifest, platform
from tests.cli.registry.web import Asked, Says, serving

CONFIG = configuration()
MANIFEST = manifest(CONFIG)
SECRET = "reader:s3cret pass"
# base64 of it.
AUTH = "cmVhZGVyOnMzY3JldCBwYXNz"


def serve(*documents: Document, **instead: Says) -> Callable[[Asked], Says]:
    """Serve documents by digest; `instead` answers for a path that holds the word."""
    by_digest = {one.digest: one for one in documents}

    def answer(asked: Asked) -> Says:
        for word, says in instead.items():
            if word in asked.path:
                return says
        one = by_digest.get(asked.path.rpartition("/")[2])
        return Says(404) if one is None else Says(200, one.content, {"Content-Type": one.media_type})

    return answer


async def look_up(home: Home, host: str, digest: str = MANIFEST.digest, seconds: float = SECONDS) -> Image:
    lookup = ImageLookup(load_registries(None, None), Cache(home.cache), seconds)
    return (await lookup.find(parse_reference(f"{host}/team/app@{digest}"))).image


async def refused(home: Home, answer: Callable[[Asked], Says], digest: str = MANIFEST.digest) -> str:
    with serving(answer) as server, pytest.raises(RegistryError) as caught:
        await look_up(home, server.address, digest)
    assert not home.cache.exists() or not list(home.cache.glob(f"*{'f' * 8}*"))
    return str(caught.value)


async def test_an_honest_one_is_read(home: Home) -> None:
    with serving(serve(MANIFEST, CONFIG)) as server:
        image = await look_up(home, server.address)
    assert image.entrypoint[0] == "/app"


@pytest.mark.parametrize("lies", ["manifests", "blobs"])
async def test_other_content_than_the_digest_names(home: Home, lies: str) -> None:
    evil = configuration({"Entrypoint": ["/evil"]})
    # Of the same size, as the manifest pins that too.
    content = evil.content.ljust(len(CONFIG.content)) if lies == "blobs" else manifest(evil).content
    said = await refused(home, serve(MANIFEST, CONFIG, **{lies: Says(200, content)}))
    assert "other content than the digest names" in said
    assert all(path.name != CONFIG.digest.replace(":", "-") for path in home.cache.glob("*"))


@pytest.mark.parametrize("floods", ["manifests", "blobs"])
async def test_a_body_without_an_end(home: Home, floods: str) -> None:
    endless = Says(200, b" " * 65536, endless=True)
    said = await refused(home, serve(MANIFEST, CONFIG, **{floods: endless}))
    limit = MAX_MANIFEST if floods == "manifests" else len(CONFIG.content)
    assert f"more than {limit} bytes" in said


async def test_a_compressed_body_is_not_opened(home: Home) -> None:
    bomb = Says(200, gzip.compress(b" " * (64 << 20)), {"Content-Encoding": "gzip"})
    assert "encoding that was not asked for" in await refused(home, serve(manifests=bomb))


@pytest.mark.parametrize("stalls", ["manifests", "blobs"])
async def test_a_registry_that_never_answers(home: Home, stalls: str) -> None:
    with serving(serve(MANIFEST, CONFIG, **{stalls: Says(silent=True)})) as server:
        home.registries(registries={server.address: {"plainHTTP": True}})
        with pytest.raises(UnreachableError, match=r"no answer in 1 s"):
            await look_up(home, server.address, seconds=1)


def _documents() -> dict[str, tuple[Document, str]]:
    kind = MANIFEST.media_type
    both = json.loads(MANIFEST.content) | {"manifests": []}
    wrong_kind = json.loads(MANIFEST.content) | {"mediaType": index().media_type}
    old = {"schemaVersion": 1, "fsLayers": [], "history": []}
    one = json.loads(MANIFEST.content)

    def with_config(**changes: Any) -> Document:
        return _json(one | {"config": one["config"] | changes})

    def _json(value: Any) -> Document:
        return Document(json.dumps(value).encode(), kind)

    return {
        "not JSON": (Document(b"<html>", kind), "is not a JSON object"),
        "a list": (Document(b"[]", kind), "is not a JSON object"),
        "deep": (Document(b"[" * 100_000, kind), "is not a JSON object"),
        "deep in a member": (Document(b'{"config":' * 5000, kind), "is not a JSON object"),
        "a name twice": (Document(b'{"config":{},' + MANIFEST.content[1:], kind), "gives a name twice"),
        "a huge number": (Document(b'{"config":' + b"9" * 100_000 + b"}", kind), "is not a JSON object"),
        "index and manifest": (_json(both), "neither one image nor an index of images, or both"),
        "neither": (_json({"schemaVersion": 2}), "neither one image nor an index of images, or both"),
        "another media type": (_json(wrong_kind), "contradict each other"),
        "schema 1": (_json(old), "neither one image nor an index of images, or both"),
        "version 3": (_json(one | {"schemaVersion": 3}), "schemaVersion is not 2"),
        "sha512": (with_config(digest=f"sha512:{'a' * 128}"), "without a digest of sha256"),
        "a path for a digest": (with_config(digest="../../other"), "without a digest of sha256"),
        "no digest": (with_config(digest=None), "without a digest of sha256"),
        "too large": (with_config(size=5 << 20), "larger than"),
        "a negative size": (with_config(size=-1), "larger than"),
        "a size that is true": (with_config(size=True), "larger than"),
        "another size": (with_config(size=len(CONFIG.content) + 1), "another size"),
        "an artifact": (with_config(mediaType="application/vnd.example.config.v1+json"), "not of a container image"),
        "config as a text": (_json(one | {"config": "x"}), "names no image configuration"),
        "manifests of numbers": (_json({"schemaVersion": 2, "manifests": [1]}), "not a list of objects"),
        "manifests as a text": (_json({"schemaVersion": 2, "manifests": "x"}), "not a list of objects"),
        "an empty index": (index(), "it is for: none"),
    }


@pytest.mark.parametrize("name", _documents())
async def test_a_manifest_that_cannot_be_used(home: Home, name: str) -> None:
    document, expected = _documents()[name]
    served = Document(document.content, "")
    assert expected in await refused(home, serve(served, CONFIG), served.digest)


async def test_the_media_type_of_the_answer_must_not_contradict_the_document(home: Home) -> None:
    lying = Says(200, MANIFEST.content, {"Content-Type": index().media_type})
    assert "contradict each other" in await refused(home, serve(manifests=lying))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (b"[]", "is not a JSON object"),
        (b'{"os":"linux","architecture":"arm64"}', "for linux/arm64"),
        (b'{"os":"linux\\u001b[2J","architecture":"a"}', "for linux?[2J/a"),
        (b"{}", "is for /"),
        (b'{"os":"linux","architecture":"amd64","config":[1]}', "is not an object"),
        (b'{"os":"linux","architecture":"amd64","config":{"Env":[1]}}', "Env is not a list of texts"),
        (b'{"os":"linux","architecture":"amd64","config":{"Cmd":["a"],"Cmd":["b"]}}', "gives a name twice"),
    ],
)
async def test_a_configuration_that_cannot_be_used(home: Home, config: bytes, expected: str) -> None:
    hostile = Document(config, CONFIG.media_type)
    whole = manifest(hostile)
    assert expected in await refused(home, serve(whole, hostile), whole.digest)


async def test_platforms_are_shown_without_control_characters_and_cut(home: Home) -> None:
    entry = MANIFEST.descriptor(**platform("\x1b[2J" + "a" * 10_000, "linux"))
    whole = index(entry)
    said = await refused(home, serve(whole), whole.digest)
    assert "it is for: linux/?[2Jaaa" in said
    assert len(said) < 500


@pytest.mark.parametrize(
    ("status", "kind", "expected"),
    [
        (429, UnreachableError, "does not serve now (429)"),
        (503, UnreachableError, "does not serve now (503)"),
        (404, RegistryError, "has no such image"),
        (418, RegistryError, "answered with status 418"),
        (206, RegistryError, "answered with status 206"),
        (403, RegistryError, "refused (403)"),
        (401, RegistryError, "refused (401)"),
    ],
)
async def test_each_status_is_explained(home: Home, status: int, kind: type[RegistryError], expected: str) -> None:
    with serving(serve(manifests=Says(status))) as server, pytest.raises(kind) as caught:
        await look_up(home, server.address)
    assert expected in str(caught.value)


def challenge(realm: str, scheme: str = "Bearer", scope: str = "repository:team/app:pull") -> Says:
    return Says(401, headers={"WWW-Authenticate": f'{scheme} realm="{realm}",service="registry",scope="{scope}"'})


def logged_in(home: Home, *hosts: str) -> None:
    home.docker(auths={host: {"auth": AUTH} for host in hosts})


def got(asked: list[Asked]) -> list[str | None]:
    return [one.headers.get("Authorization") for one in asked]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_to_another_host_carries_no_credentials(home: Home, pair: Path, status: int) -> None:
    with serving(serve(MANIFEST, CONFIG), pair) as other:

        def answer(asked: Asked) -> Says:
            if "Authorization" not in asked.headers:
                return Says(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
            return Says(status, headers={"Location": f"https://{other.address}{asked.path}?signed=%2B%2f"})

        other.answer = lambda asked: serve(MANIFEST, CONFIG)(Asked("", asked.path.partition("?")[0], {}, b""))
        with serving(answer, pair) as server:
            home.registries(registries={server.address: {"ca": str(pair / "ca.crt")}})
            # Even where there are some for the other host too: a redirect is the registry's word.
            logged_in(home, server.address, other.address)
            await look_up(home, server.address)
        assert got(server.asked) == [None, f"Basic {AUTH}", f"Basic {AUTH}"]
        assert got(other.asked) == [None, None]
        # As signed: nothing of the address is written anew.
        assert {one.path.partition("?")[2] for one in other.asked} == {"signed=%2B%2f"}


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:{port}/x",
        "http://registry.test/x",
        "ftp://registry.test/x",
        "file:///etc/passwd",
        "//user:password@registry.test/x",
        "https://user@registry.test/x",
        "https://[::1",
        "",
    ],
)
async def test_a_redirect_from_tls_to_something_else_is_refused(home: Home, pair: Path, location: str) -> None:
    with serving(serve(MANIFEST)) as plain:
        where = location.replace("{port}", plain.address.partition(":")[2])
        redirect = Says(307, headers={"Location": where})
        with serving(serve(manifests=redirect), pair) as server:
            home.registries(registries={server.address: {"ca": str(pair / "ca.crt")}})
            with pytest.raises(RegistryError, match=r"redirects"):
                await look_up(home, server.address)
        assert plain.asked == []


async def test_redirects_come_to_an_end(home: Home) -> None:
    again = serving(lambda asked: Says(302, headers={"Location": asked.path + "x"}))
    with again as server, pytest.raises(RegistryError, match=r"redirects more than 5 times"):
        await look_up(home, server.address)
    assert len(server.asked) == 6


@pytest.mark.parametrize("realm", ["http://127.0.0.1:{port}/token", "file:///etc/passwd", "", "/token", "https://[::1"])
async def test_a_token_server_without_tls_gets_nothing(home: Home, pair: Path, realm: str) -> None:
    with serving(lambda _: Says(200, b'{"token": "t"}')) as plain:
        where = realm.replace("{port}", plain.address.partition(":")[2])
        with serving(lambda _: challenge(where), pair) as server:
            home.registries(registries={server.address: {"ca": str(pair / "ca.crt"), "tokenHosts": [plain.address]}})
            logged_in(home, server.address)
            with pytest.raises(RegistryError, match=r"names a token server without TLS"):
                await look_up(home, server.address)
        assert plain.asked == []


async def test_a_realm_with_a_user_in_it_gets_nothing(home: Home, pair: Path) -> None:
    with serving(lambda _: Says(200, b'{"token": "t"}'), pair) as other:
        realm = f"https://{{}}@{other.address}/token"
        with serving(lambda _: challenge(realm.format("evil")), pair) as server:
            home.registries(registries={server.address: {"ca": str(pair / "ca.crt")}})
            logged_in(home, server.address)
            with pytest.raises(RegistryError, match=r"names a token server without TLS"):
                await look_up(home, server.address)
        assert other.asked == []


async def test_a_redirecting_token_server_does_not_pass_credentials_on(home: Home, pair: Path) -> None:
    with serving(lambda _: Says(200, b'{"token": "t"}'), pair) as other:

        def answer(asked: Asked) -> Says:
            if asked.path.startswith("/token"):
                return Says(307, headers={"Location": f"https://{other.address}/token"})
            return challenge(f"https://{server.address}/token")

        with serving(answer, pair) as server:
            home.registries(registries={server.address: {"ca": str(pair / "ca.crt")}})
            logged_in(home, server.address)
            with pytest.raises(RegistryError, match=r"refused \(307\)"):
                await look_up(home, server.address)
        assert other.asked == []


async def test_a_registry_cannot_have_a_token_for_more_than_reading_its_image(home: Home) -> None:
    def answer(asked: Asked) -> Says:
        if asked.path.startswith("/token"):
            return Says(200, b'{"access_token": "t"}')
        if asked.headers.get("Authorization") == "Bearer t":
            return serve(MANIFEST, CONFIG)(asked)
        return challenge(
            f"http://{server.address}/token?keep=1", scope="repository:other/app:pull,push,delete registry:catalog:*"
        )

    with serving(answer) as server:
        await look_up(home, server.address)
    [asked] = [one.path for one in server.asked if one.path.startswith("/token")]
    assert asked.replace("%3A", ":") == "/token?keep=1&service=registry&scope=repository:team/app:pull"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Says(200, b'{"token": "a\\r\\nX-Evil: 1"}'), "not one that a header can carry"),
        (Says(200, b'{"token": ""}'), "without a token"),
        (Says(200, b'{"token": 7}'), "without a token"),
        (Says(200, b"[]"), "without a token"),
        (Says(200, b"[" * 100_000), "without a token"),
        (Says(200, b"x" * 65536, endless=True), "more than 131072 bytes"),
        (Says(401), "refused (401)"),
    ],
)
async def test_a_token_that_is_none(home: Home, answer: Says, expected: str) -> None:
    def answers(asked: Asked) -> Says:
        return answer if asked.path.startswith("/token") else challenge(f"http://{server.address}/token")

    with serving(answers) as server, pytest.raises(RegistryError) as caught:
        await look_up(home, server.address)
    assert expected in str(caught.value)


async def test_a_token_that_the_registry_refuses_is_not_asked_for_again_and_again(home: Home) -> None:
    def answers(asked: Asked) -> Says:
        if asked.path.startswith("/token"):
            return Says(200, b'{"token": "t"}')
        return challenge(f"http://{server.address}/token")

    with serving(answers) as server, pytest.raises(RegistryError, match=r"refused \(401\)"):
        await look_up(home, server.address)
    assert len([one for one in server.asked if one.path.startswith("/token")]) == 1


async def test_credentials_of_one_registry_never_go_to_another(home: Home) -> None:
    challenged = Says(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
    with serving(lambda _: challenged) as server:
        port = server.address.partition(":")[2]
        logged_in(home, "127.0.0.1", f"127.0.0.2:{port}", "registry.test", f"x.127.0.0.1:{port}", "https://")
        with pytest.raises(RegistryError, match=r"refused \(401\)"):
            await look_up(home, server.address)
        # And netrc knows no registries.
        (home.folder / ".netrc").write_text(f"default login reader password {AUTH}\n")
        with pytest.raises(RegistryError, match=r"refused \(401\)"):
            await look_up(home, server.address)
    assert set(got(server.asked)) == {None}


async def test_a_password_reaches_no_message_and_no_text_of_an_object(home: Home) -> None:
    logged_in(home, "registry.test")
    found = await DockerConfiguration.load().find("registry.test")
    assert found.basic == f"Basic {AUTH}"
    assert "s3cret" not in repr(found)
    assert AUTH not in repr(found)


async def test_http_without_loopback_needs_the_callers_word(home: Home) -> None:
    """The name leads to loopback here, and is not loopback to who reads the reference."""
    with serving(serve(MANIFEST, CONFIG)) as server:
        home.registries(registries={"images.test": {"host": server.address}})
        assert (await look_up(home, "images.test")).entrypoint
    reference = parse_reference(f"images.test/app@{MANIFEST.digest}")
    home.registries()
    lookup = ImageLookup(load_registries(None, None), Cache(home.folder / "other"))
    assert lookup.endpoint(reference).schemes == ("https",)
    home.registries(registries={"images.test": {"plainHTTP": True}})
    lookup = ImageLookup(load_registries(None, None), Cache(home.folder / "other"))
    assert lookup.endpoint(reference).schemes == ("http",)


async def test_a_registry_with_tls_is_never_asked_without(home: Home, pair: Path) -> None:
    """Loopback too: a certificate that nothing trusts is no reason to go on without one."""
    with serving(serve(MANIFEST, CONFIG), pair) as server:
        logged_in(home, server.address)
        with pytest.raises(UnreachableError, match="certificate is not accepted"):
            await look_up(home, server.address)
    assert server.asked == []


async def test_requests_go_by_the_callers_proxy_but_for_loopback(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.registries(registries={"images.test:5000": {"plainHTTP": True}})
    with serving(serve(MANIFEST, CONFIG)) as proxy, serving(serve(MANIFEST, CONFIG)) as server:
        monkeypatch.setenv("http_proxy", f"http://{proxy.address}")
        assert (await look_up(home, "images.test:5000")).entrypoint
        assert [asked.path.partition("/v2/")[0] for asked in proxy.asked] == ["http://images.test:5000"] * 2
        for path in home.cache.iterdir():
            path.unlink()
        assert (await look_up(home, server.address)).entrypoint
        assert len(proxy.asked) == 2
        assert len(server.asked) >= 2
