"""References, challenges, the cache and the process of an image."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cli.registry.cache import Cache
from cli.registry.challenge import Challenge, read_challenges
from cli.registry.errors import RegistryError
from cli.registry.process import process_of, write_process
from cli.registry.reference import parse_reference
from cli.registry.registries import Registries, endpoint_of, is_loopback, load_registries
from measured.environment import Environment, arguments
from measured.image import Image
from measured.refusal import Refusals
from server.files import UnusableInputError
from tests.cli.registry.conftest import Home

DIGEST = f"sha256:{'a' * 64}"
# The same examples in each run, however busy the machine.
fixed = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize(
    ("text", "host", "repository", "tag"),
    [
        ("registry.test/app", "registry.test", "app", None),
        ("registry.test:5000/team/app:v1", "registry.test:5000", "team/app", "v1"),
        ("localhost/app", "localhost", "app", None),
        ("127.0.0.1:5000/a/b/c", "127.0.0.1:5000", "a/b/c", None),
        ("[::1]:5000/app:V1.2_x-y", "[::1]:5000", "app", "V1.2_x-y"),
        ("app", None, "app", None),
        ("app:v1", None, "app", "v1"),
        ("team/app", None, "team/app", None),
        ("team/a__b.c-d---e", None, "team/a__b.c-d---e", None),
    ],
)
def test_references_are_read_as_runtimes_read_them(
    text: str, host: str | None, repository: str, tag: str | None
) -> None:
    for whole, digest in ((text, None), (f"{text}@{DIGEST}", DIGEST)):
        found = parse_reference(whole)
        assert (found.host, found.repository, found.tag, found.digest) == (host, repository, tag, digest)
        assert found.pinned("sha256:x") == f"{text}@sha256:x"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/app",
        "registry.test/",
        "registry.test/../app",
        "registry.test/a/../../b",
        "registry.test/a//b",
        "registry.test/App",
        "registry.test/app:",
        "registry.test/app:a/b",
        "registry.test/app%2f..",
        "registry.test/app?x=y",
        "registry.test/app#x",
        "user@registry.test/app",
        "user:password@registry.test/app",
        "https://registry.test/app",
        "registry.test:port/app",
        "-registry.test/app",
        "registry..test/app",
        "registry.test/app\n",
        "registry.test/app v1",
        f"registry.test/app@{DIGEST}x",
        f"registry.test/app@{DIGEST}@{DIGEST}",
        "registry.test/app@md5:abc",
        f"registry.test/{'a' * 300}",
        "\x1b[2J",
    ],
)
def test_what_is_no_reference_never_becomes_an_address(text: str) -> None:
    with pytest.raises(RegistryError) as caught:
        parse_reference(text)
    assert str(caught.value).isprintable()


@fixed
@given(st.text())
def test_whatever_is_read_as_a_reference_fits_into_an_address(text: str) -> None:
    try:
        found = parse_reference(text)
    except RegistryError:
        return
    joined = (found.host or "") + found.repository + (found.tag or "")
    assert not set(joined) & set("@?#%\\ \n\r\t")
    assert ".." not in joined
    assert "//" not in joined


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('Basic realm="x"', [Challenge("basic", {"realm": "x"})]),
        ("Basic", [Challenge("basic", {})]),
        (
            'Bearer realm="https://t/token",service="s, t",scope="repository:a/b:pull,push"',
            [Challenge("bearer", {"realm": "https://t/token", "service": "s, t", "scope": "repository:a/b:pull,push"})],
        ),
        (
            'BASIC realm="a\\"b", Bearer Realm = c',
            [Challenge("basic", {"realm": 'a"b'}), Challenge("bearer", {"realm": "c"})],
        ),
        ('Bearer realm="one",realm="two"', [Challenge("bearer", {"realm": "one"})]),
        ('Bearer realm="open', [Challenge("bearer", {})]),
        ("", []),
        ("=,=", []),
        ("Bearer " + "a" * 5000, []),
    ],
)
def test_challenges(header: str, expected: list[Challenge]) -> None:
    assert read_challenges([header]) == expected


@fixed
@given(st.lists(st.text(max_size=200), max_size=3))
def test_no_header_breaks_the_reading_of_challenges(headers: list[str]) -> None:
    for challenge in read_challenges(headers):
        assert challenge.scheme == challenge.scheme.lower()


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9:5000", True),
        ("localhost:5000", True),
        ("[::1]:5000", True),
        ("[::1]", True),
        ("registry.test", False),
        ("127.0.0.1.registry.test", False),
        ("localhost.registry.test", False),
        ("10.0.0.1:5000", False),
        ("[::2]", False),
        ("0.0.0.0", False),
    ],
)
def test_loopback_is_this_machine_alone(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("version: 2\n", "version"),
        ("default: https://registry.test\n", "default"),
        ("registries: {registry.test: {host: 'a/b'}}\n", "host"),
        ("registries: {registry.test: {tokenHosts: ['*']}}\n", "tokenHosts"),
        ("registries: {'*': {}}\n", "registries"),
        ("registries: {registry.test: {namespace: ../x}}\n", "namespace"),
        ("registries: {registry.test: {insecure: true}}\n", "insecure"),
        ("registry: {}\n", "registry"),
        ("- 1\n", "registries.yaml"),
    ],
)
def test_a_broken_file_of_registries_is_explained(home: Home, text: str, expected: str) -> None:
    path = home.folder / "registries.yaml"
    path.write_text(text)
    with pytest.raises(UnusableInputError, match=expected):
        load_registries(str(path), None)
    with pytest.raises(UnusableInputError, match="--default-registry"):
        load_registries(None, "https://registry.test")


@pytest.mark.parametrize("content", ["not a certificate", "\N{SNOWMAN}"])
def test_a_ca_that_is_none_is_explained(home: Home, content: str) -> None:
    (home.folder / "ca.crt").write_text(content)
    registries = Registries.model_validate({"registries": {"registry.test": {"ca": "~/ca.crt"}}})
    endpoint = endpoint_of(parse_reference(f"registry.test/app@{DIGEST}"), registries)
    with pytest.raises(UnusableInputError, match="is not a certificate in PEM"):
        endpoint.tls()


def test_the_cache_stays_within_its_bounds(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", most_files=3, most_bytes=100)
    contents = [bytes([number]) * 30 for number in range(5)]
    digests = [f"sha256:{hashlib.sha256(each).hexdigest()}" for each in contents]
    for number, (digest, content) in enumerate(zip(digests, contents, strict=True)):
        cache.put(digest, content)
        os.utime(tmp_path / "cache" / digest.replace(":", "-"), (number, number))
    # The oldest go.
    assert [cache.get(digest, 30) for digest in digests] == [None, None, *contents[2:]]
    large = b"x" * 90
    cache.put(f"sha256:{hashlib.sha256(large).hexdigest()}", large)
    assert [cache.get(digest, 30) for digest in digests] == [None] * 5
    assert cache.get(f"sha256:{hashlib.sha256(large).hexdigest()}", 89) is None
    assert cache.get(f"sha256:{hashlib.sha256(large).hexdigest()}", 90) == large
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700


def test_the_cache_removes_its_own_files_alone(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("of another program")
    (tmp_path / "folder").mkdir()
    cache = Cache(tmp_path, most_files=1)
    for content in (b"one", b"two"):
        cache.put(f"sha256:{hashlib.sha256(content).hexdigest()}", content)
    assert (tmp_path / "other").exists()
    assert len(list(tmp_path.glob("sha256-*"))) == 1


_WORD = st.text(alphabet=st.sampled_from("$()ab{}"), max_size=6)
_WORDS = st.lists(_WORD, max_size=3)


@fixed
@given(_WORDS, _WORDS, _WORDS)
def test_the_written_process_is_the_one_that_the_image_starts(
    entrypoint: list[str], cmd: list[str], args: list[str]
) -> None:
    """By the code that measures: with command and args as without, whatever dollars the image's words hold."""
    image = Image(entrypoint=tuple(entrypoint), cmd=tuple(cmd))
    container = {"args": args} if args else {}
    before = arguments(container, image, Environment(), "c", Refusals())
    assert write_process(container, image) is bool(before)
    if before:
        assert container["command"]
        # No word of the image's is left to find: Kubernetes ignores them beside a command.
        assert arguments(container, Image(), Environment(), "c", Refusals()) == before


def test_the_lines_can_be_pasted_whatever_the_words_hold() -> None:
    import yaml

    words = ["/app", "it's", '"x"', "a: b", "#", "\x1b[2J", "\u202e", "\N{SNOWMAN}", "\U0001f600", "", "- x", "\n"]
    process = process_of(Image(entrypoint=tuple(words), cmd=("$",)))
    assert process is not None
    text = "\n".join(process.lines())
    assert yaml.safe_load(text) == {"command": words, "args": ["$"]}
    assert text.replace("\n", "").isprintable()
    assert len(text.splitlines()) == 2
