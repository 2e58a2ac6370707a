"""Requests to one registry: bounded in time and size, and with credentials for that registry alone.

Nothing that it answers decides where credentials go. A redirect never carries any. A token server on another host gets
them only where `registries.yaml` lists it, and the token is asked for reading one repository, whatever the registry
proposes. https never becomes http.
"""

from __future__ import annotations

import hashlib
import re
import urllib.request
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import aiohttp
import jiter
from yarl import URL

from cli.registry.challenge import Challenge, read_challenges
from cli.registry.credentials import Credentials, DockerConfiguration
from cli.registry.documents import ACCEPT, MAX_MANIFEST
from cli.registry.errors import RegistryError, UnreachableError
from cli.registry.registries import Endpoint, Registries, is_loopback
from server.bounded_body import whole_body
from server.text import printable

SECONDS: Final = 30.0
"""For one exchange."""
_CONNECT_SECONDS: Final = 10.0
_REDIRECTS: Final = 5
_MAX_TOKEN_ANSWER: Final = 128 * 1024
_REDIRECTION: Final = (301, 302, 303, 307, 308)
_BEARER: Final = re.compile(r"[\x21-\x7e]{1,65536}")
_CLIENT: Final = "morphisms"


@dataclass(frozen=True, slots=True)
class Answer:
    """A body, and what the registry calls it."""

    content: bytes
    media_type: str

    @property
    def digest(self) -> str:
        """Of the body."""
        return f"sha256:{hashlib.sha256(self.content).hexdigest()}"


class RegistryClient:
    """Reads manifests and blobs of one repository. Every method raises RegistryError, and nothing else."""

    def __init__(
        self, endpoint: Endpoint, registries: Registries, docker: DockerConfiguration, seconds: float = SECONDS
    ) -> None:
        self._endpoint = endpoint
        self._plain = {each.host or name for name, each in registries.registries.items() if each.plainHTTP}
        self._docker = docker
        self._seconds = seconds
        self._schemes = list(endpoint.schemes)
        self._authorization = ""
        self._withheld = ""
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=4, ssl=self._endpoint.tls()),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=self._seconds, sock_connect=min(self._seconds, _CONNECT_SECONDS)),
            # Compressed answers could grow; and netrc, which trust_env brings, knows no registries.
            auto_decompress=False,
            trust_env=False,
            headers={"Accept-Encoding": "identity", "User-Agent": _CLIENT},
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def manifest(self, reference: str) -> Answer:
        """A manifest or an index, by tag or digest. The digest is checked."""
        return await self._read(f"manifests/{reference}", reference, ACCEPT, MAX_MANIFEST)

    async def blob(self, digest: str, size: int) -> Answer:
        """A blob of this digest and size. Both are checked."""
        answer = await self._read(f"blobs/{digest}", digest, "*/*", size)
        if len(answer.content) != size:
            raise RegistryError("answered with another size than the manifest names")
        return answer

    async def _read(self, path: str, reference: str, accept: str, limit: int) -> Answer:
        url = f"{self._endpoint.host}/v2/{self._endpoint.repository}/{path}"
        try:
            answer = await self._get(url, accept, limit)
        except TimeoutError:
            raise UnreachableError(f"no answer in {self._seconds:g} s") from None
        except aiohttp.ClientConnectorCertificateError as error:
            reason = getattr(error.certificate_error, "verify_message", "") or "not trusted"
            raise UnreachableError(f"its certificate is not accepted: {printable(reason[:200])}") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # aiohttp's texts quote URLs, which can hold signatures.
            raise UnreachableError(f"cannot be reached: {type(error).__name__}") from None
        if reference.startswith("sha256:") and answer.digest != reference:
            raise RegistryError("answered with other content than the digest names")
        return answer

    async def _get(self, url: str, accept: str, limit: int) -> Answer:
        headers = {"Accept": accept}
        response = await self._open(url, headers)
        if response.status == 401:
            challenges = read_challenges(response.headers.getall("WWW-Authenticate", []))
            response.close()
            self._authorization = await self._authorize(challenges)
            response = await self._open(url, headers)
        try:
            self._check(response)
            return Answer(await _body(response, limit), response.headers.get("Content-Type", ""))
        finally:
            response.close()

    async def _open(self, url: str, headers: dict[str, str]) -> aiohttp.ClientResponse:
        """The response, redirects followed. On loopback a server that speaks no TLS is asked without."""
        own = {**headers, "Authorization": self._authorization} if self._authorization else headers
        try:
            response = await self._send("GET", URL(f"{self._schemes[0]}://{url}"), own)
        except aiohttp.ClientConnectorCertificateError:
            raise
        except aiohttp.ClientConnectionError:
            # A server without TLS answers a handshake in plain text, or resets the connection.
            if len(self._schemes) == 1 or self._authorization:
                raise
            response = await self._send("GET", URL(f"{self._schemes[1]}://{url}"), own)
            del self._schemes[0]
        else:
            del self._schemes[1:]
        for _ in range(_REDIRECTS):
            if response.status not in _REDIRECTION:
                return response
            target = self._target(response)
            response.close()
            response = await self._send("GET", target, headers)
        if response.status in _REDIRECTION:
            response.close()
            raise RegistryError(f"redirects more than {_REDIRECTS} times")
        return response

    def _target(self, response: aiohttp.ClientResponse) -> URL:
        try:
            # As it is: a signed address must not be written anew.
            target = response.url.join(URL(response.headers.get("Location", ""), encoded=True))
        except ValueError:
            response.close()
            raise RegistryError("redirects to an address that is not one") from None
        if not self._may_ask(target, response.url.scheme):
            response.close()
            raise RegistryError("redirects to an address without TLS, or one that is not of HTTP")
        return target

    def _may_ask(self, url: URL, from_scheme: str) -> bool:
        """Whether the address is one to follow: https, or http from http, to loopback or as registries.yaml says."""
        if not url.host or url.user is not None or url.password is not None:
            return False
        if url.scheme == "https":
            return True
        host = url.authority
        return url.scheme == "http" and from_scheme == "http" and (is_loopback(host) or host in self._plain)

    async def _authorize(self, challenges: list[Challenge]) -> str:
        """The value of Authorization that satisfies one of the challenges."""
        credentials = await self._docker.find(self._endpoint.settings.credentials or self._endpoint.name)
        schemes = {challenge.scheme: challenge for challenge in reversed(challenges)}
        if credentials.registry_token and "bearer" in schemes:
            return _bearer(credentials.registry_token)
        if "bearer" in schemes:
            return await self._token(schemes["bearer"], credentials)
        if "basic" in schemes and credentials.basic:
            return credentials.basic
        raise RegistryError(self._refused(401))

    async def _token(self, challenge: Challenge, credentials: Credentials) -> str:
        try:
            realm = URL(challenge.parameters.get("realm", ""))
        except ValueError:
            realm = URL()
        if not realm.is_absolute() or not self._may_ask(realm, self._schemes[0]):
            raise RegistryError("names a token server without TLS, or an address that is not one")
        if credentials and not self._may_have_credentials(realm):
            # A public image can be read without them.
            self._withheld = printable(realm.authority[:255])
            credentials = Credentials()
        service = challenge.parameters.get("service", "")
        scope = f"repository:{self._endpoint.repository}:pull"
        if credentials.identity_token:
            form = {
                "grant_type": "refresh_token",
                "refresh_token": credentials.identity_token,
                "service": service,
                "scope": scope,
                "client_id": _CLIENT,
            }
            response = await self._send("POST", realm, {}, form)
        else:
            headers = {"Authorization": credentials.basic} if credentials.basic else {}
            query = [*realm.query.items(), *([("service", service)] if service else []), ("scope", scope)]
            response = await self._send("GET", realm.with_query(query), headers)
        try:
            if response.status != 200:
                raise RegistryError(self._refused(response.status))
            content = await _body(response, _MAX_TOKEN_ANSWER)
        finally:
            response.close()
        return _bearer(_token_in(content))

    def _may_have_credentials(self, realm: URL) -> bool:
        own = URL(f"{self._schemes[0]}://{self._endpoint.host}")
        return realm.origin() == own.origin() or realm.authority in self._endpoint.settings.tokenHosts

    async def _send(
        self, method: str, url: URL, headers: dict[str, str], form: dict[str, str] | None = None
    ) -> aiohttp.ClientResponse:
        if self._session is None:
            raise RuntimeError("the client is not open")
        return await self._session.request(
            method, url, headers=headers, data=form, allow_redirects=False, proxy=_proxy(url)
        )

    def _check(self, response: aiohttp.ClientResponse) -> None:
        status = response.status
        if status in (401, 403):
            raise RegistryError(self._refused(status))
        if status == 404:
            raise RegistryError("has no such image")
        if status == 429 or status >= 500:
            raise UnreachableError(f"does not serve now ({status}); try again later")
        if status != 200:
            raise RegistryError(f"answered with status {status}")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise RegistryError("answered in an encoding that was not asked for")

    def _refused(self, status: int) -> str:
        if self._withheld:
            return (
                f"refused ({status}); your credentials were not sent to its token server {self._withheld}, which is"
                f" another host: list it in registries.yaml as registries.{self._endpoint.name}.tokenHosts"
            )
        return f"refused ({status}); log in with docker login, or ask for the right to read the image"


async def _body(response: aiohttp.ClientResponse, limit: int) -> bytes:
    content = await whole_body(response, limit)
    if content is None:
        raise RegistryError(f"answered with more than {limit} bytes")
    return content


def _token_in(content: bytes) -> str:
    try:
        answer = jiter.from_json(content)
    except ValueError:
        answer = None
    found = (answer.get("token") or answer.get("access_token")) if isinstance(answer, dict) else None
    if not isinstance(found, str):
        raise RegistryError("its token server answered without a token")
    return found


def _bearer(token: str) -> str:
    if not _BEARER.fullmatch(token):
        raise RegistryError("the token is not one that a header can carry")
    return f"Bearer {token}"


def _proxy(url: URL) -> str | None:
    """As HTTPS_PROXY, HTTP_PROXY and NO_PROXY say."""
    if url.host is None or is_loopback(url.authority) or urllib.request.proxy_bypass(url.authority):
        return None
    return urllib.request.getproxies().get(url.scheme)
