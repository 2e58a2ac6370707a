"""The caller's own credentials: docker's configuration and the credential helpers that it names.

Order, as docker's own: the registry's helper (`credHelpers`), else the store (`credsStore`), else `auths`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import select
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cli.registry.errors import RegistryError
from measured.refusal import member
from server.files import UnusableInputError, read_bounded

_HELPER_SECONDS: Final = 30.0
_MAX_ANSWER: Final = 256 * 1024
_HELPER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NOT_FOUND: Final = b"credentials not found"
_TOKEN_USER: Final = "<token>"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Of one registry: name and password, or a token to exchange, or one to use as it is."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)

    def __bool__(self) -> bool:
        return bool(self.username or self.password or self.identity_token or self.registry_token)

    @property
    def basic(self) -> str:
        """The value of a header Authorization; empty without a name and a password."""
        if not self.username or not self.password:
            return ""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


class DockerConfiguration:
    """`config.json` in DOCKER_CONFIG, else in `~/.docker`; a file that does not exist holds nothing."""

    def __init__(self, document: Mapping[str, Any], path: Path) -> None:
        self._document = document
        self._path = path

    @classmethod
    def load(cls) -> DockerConfiguration:
        """Read it. Raises UnusableInputError."""
        path = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
        if not path.exists():
            return cls({}, path)
        try:
            document = json.loads(read_bounded(path))
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise UnusableInputError(f"{path}: is not a JSON object")
        return cls(document, path)

    async def find(self, registry: str) -> Credentials:
        """Those of the registry; empty ones where there are none. Raises RegistryError.

        `registry`: a host, or the very key under which the file or the helper keeps them.
        """
        helper = member(self._document, "credHelpers").get(registry) or self._document.get("credsStore") or None
        for key in self._keys(registry):
            found = self._from_file(key) if helper is None else await self._from_helper(helper, key)
            if found:
                return found
        return Credentials()

    def _keys(self, registry: str) -> Iterator[str]:
        yield registry
        for key in member(self._document, "auths"):
            if key != registry and _host_of(key) == registry:
                yield key

    def _from_file(self, key: str) -> Credentials:
        entry = member(member(self._document, "auths"), key)
        texts = {name: value for name, value in entry.items() if isinstance(value, str)}
        username, password = texts.get("username", ""), texts.get("password", "")
        if encoded := texts.get("auth"):
            try:
                username, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
            except ValueError:
                raise RegistryError(f"{self._path}: auths: an entry's auth is not base64 of NAME:PASSWORD") from None
        return Credentials(
            username, password.strip("\0"), texts.get("identitytoken", ""), texts.get("registrytoken", "")
        )

    async def _from_helper(self, helper: object, key: str) -> Credentials:
        if not isinstance(helper, str) or not _HELPER.fullmatch(helper):
            raise RegistryError(f"{self._path}: the name of a credential helper is not one, such as pass")
        program = f"docker-credential-{helper}"
        code, content = await asyncio.to_thread(_ask_helper, program, key)
        if code != 0:
            if _NOT_FOUND in content:
                return Credentials()
            raise RegistryError(f"{program} get: ended with {code}")
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError):
            answer = None
        answered = answer if isinstance(answer, dict) else {}
        username, secret = answered.get("Username"), answered.get("Secret")
        if not isinstance(username, str) or not isinstance(secret, str):
            raise RegistryError(f"{program} get: did not answer with Username and Secret")
        return Credentials(identity_token=secret) if username == _TOKEN_USER else Credentials(username, secret)


def _ask_helper(program: str, key: str) -> tuple[int, bytes]:
    """(exit code, what it wrote). Its own messages on stderr reach the caller's terminal.

    Not by asyncio, which waits for the end of the output, and a child of the helper could keep that open.
    """
    until = time.monotonic() + _HELPER_SECONDS
    try:
        process = subprocess.Popen([program, "get"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603
    except OSError as error:
        raise RegistryError(f"{program}: cannot be run: {error.strerror}") from None
    stdin, stdout = process.stdin, process.stdout
    if stdin is None or stdout is None:
        raise RuntimeError("the helper was started without pipes")
    try:
        with contextlib.suppress(BrokenPipeError):
            stdin.write(key.encode())
            stdin.close()
        content = _read_to_end(stdout.fileno(), until, program)
        return process.wait(max(0.0, until - time.monotonic())), content
    except (TimeoutError, subprocess.TimeoutExpired):
        raise RegistryError(f"{program} get: no answer in {_HELPER_SECONDS:g} s") from None
    finally:
        process.kill()
        stdout.close()
        process.wait()


def _read_to_end(descriptor: int, until: float, program: str) -> bytes:
    content = b""
    while True:
        readable, _, _ = select.select([descriptor], [], [], max(0.0, until - time.monotonic()))
        if not readable:
            raise TimeoutError
        part = os.read(descriptor, 64 * 1024)
        if not part:
            return content
        content += part
        if len(content) > _MAX_ANSWER:
            raise RegistryError(f"{program} get: answered with more than {_MAX_ANSWER} bytes")


def _host_of(key: str) -> str:
    """The host in a key such as https://HOST/v1/."""
    return key.partition("://")[2].partition("/")[0] if "://" in key else key.partition("/")[0]
