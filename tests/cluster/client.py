"""The API server as one identity sees it: plain requests, waiting by a watch, and kubectl."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import urllib3
import yaml

from tests.cluster.binaries import KUBERNETES, binary

T = TypeVar("T")
Object = dict[str, Any]

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
# The API server closes a connection that was idle for 90 s, and a request that is on its way then is lost.
_IDLE_SECONDS = 45


@dataclass(frozen=True)
class Answer:
    """What the API server said; `body` is empty where it was no JSON object."""

    status: int
    body: Object
    warnings: tuple[str, ...]

    @property
    def message(self) -> str:
        """The reason of a refusal."""
        return str(self.body.get("message", ""))


class ApiError(Exception):
    """A status of 400 or more."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"{answer.status}: {answer.message}")
        self.answer = answer
        self.status = answer.status
        self.message = answer.message


@dataclass(frozen=True)
class Done:
    """A kubectl that has ended."""

    code: int
    out: str
    err: str

    @property
    def warnings(self) -> list[str]:
        """What it printed as warnings of the API server."""
        return [line.removeprefix("Warning: ") for line in self.err.splitlines() if line.startswith("Warning: ")]


@dataclass(frozen=True)
class Credentials:
    """A client certificate and key, or a bearer token."""

    certificate: tuple[Path, Path] | None = None
    token: str = ""


class Client:
    """One identity. `kubeconfig` is a file with its credentials, for other programs."""

    def __init__(self, user: str, url: str, ca: Path, credentials: Credentials, folder: Path) -> None:
        self.user = user
        self.url = url
        self.kubeconfig = _kubeconfig(folder / f"{re.sub('[^a-z0-9.-]+', '_', user)}.kubeconfig", url, ca, credentials)
        self._home = folder
        certificate, key = credentials.certificate or (None, None)
        self._headers = {"Authorization": f"Bearer {credentials.token}"} if credentials.token else {}
        self._pool = urllib3.PoolManager(
            maxsize=64,
            retries=False,
            ca_certs=str(ca),
            cert_file=certificate and str(certificate),
            key_file=key and str(key),
        )
        self._used = time.monotonic()

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
        seconds: float = 120,
    ) -> Answer:
        """One request, whatever its status. Raises urllib3.exceptions.HTTPError when no answer comes."""
        if time.monotonic() - self._used > _IDLE_SECONDS:
            self._pool.clear()
        self._used = time.monotonic()
        answer = self._pool.request(
            method,
            self._address(path, query),
            body=None if body is None else json.dumps(body).encode(),
            headers={**self._headers, "Content-Type": content_type, "Accept": "application/json, */*"},
            timeout=seconds,
        )
        try:
            content = json.loads(answer.data)
        except ValueError:
            content = None
        warnings = [_warning(text) for text in answer.headers.getlist("Warning")]
        return Answer(answer.status, content if isinstance(content, dict) else {}, tuple(warnings))

    def get(self, path: str, **query: str) -> Object:
        """An object or a list."""
        return _checked(self.request("GET", path, query=query)).body

    def items(self, path: str, **query: str) -> list[Object]:
        """A list's items."""
        return list(self.get(path, **query)["items"])

    def create(self, path: str, body: Object, **query: str) -> Object:
        """POST to a collection or a subresource."""
        return _checked(self.request("POST", path, body, query=query)).body

    def replace(self, path: str, body: Object, **query: str) -> Object:
        """PUT."""
        return _checked(self.request("PUT", path, body, query=query)).body

    def patch(self, path: str, body: Any, content_type: str = MERGE_PATCH, **query: str) -> Object:
        """PATCH, by default a merge patch."""
        return _checked(self.request("PATCH", path, body, content_type=content_type, query=query)).body

    def delete(self, path: str, **query: str) -> Object:
        """DELETE."""
        return _checked(self.request("DELETE", path, query=query)).body

    def until(
        self, path: str, condition: Callable[[list[Object]], T | None], *, seconds: float = 180, **query: str
    ) -> T:
        """List and watch a collection until the condition on its objects gives something true; that.

        Raises TimeoutError, with what there was then.
        """
        deadline = time.monotonic() + seconds
        while True:
            listed = self.get(path, **query)
            objects = {item["metadata"]["uid"]: item for item in listed["items"]}
            found = condition(list(objects.values()))
            if found:
                return found
            for event in self._watch(path, listed["metadata"]["resourceVersion"], query, deadline):
                if event["type"] not in ("ADDED", "MODIFIED", "DELETED"):
                    break  # too old a version: list again
                uid = event["object"]["metadata"]["uid"]
                objects[uid] = event["object"]
                if event["type"] == "DELETED":
                    del objects[uid]
                found = condition(list(objects.values()))
                if found:
                    return found
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {seconds} s; {path} holds:\n{yaml.safe_dump(list(objects.values()))}")

    def _watch(self, path: str, version: str, query: Mapping[str, str], deadline: float) -> Any:
        left = max(1, int(deadline - time.monotonic()) + 1)
        watching = {**query, "watch": "true", "resourceVersion": version, "timeoutSeconds": str(left)}
        answer = self._pool.request(
            "GET", self._address(path, watching), headers=self._headers, timeout=left + 10, preload_content=False
        )
        try:
            rest = b""
            for chunk in answer.stream():
                *lines, rest = (rest + chunk).split(b"\n")
                yield from map(json.loads, lines)
        finally:
            answer.close()

    def kubectl(self, *arguments: str | Path, input: Any = None, check: bool = True, **environment: str) -> Done:
        """kubectl as this identity. `input` goes to its standard input: text, or objects, written as YAML.

        Raises AssertionError with its message when it fails and `check` is set.
        """
        if input is not None and not isinstance(input, str):
            input = yaml.safe_dump_all(input if isinstance(input, list) else [input])
        own = {"KUBECONFIG": str(self.kubeconfig), "HOME": str(self._home), "KUBECACHEDIR": str(self._home / "cache")}
        done = subprocess.run(
            [binary(KUBERNETES, "kubectl"), *map(str, arguments)],
            input=input,
            capture_output=True,
            text=True,
            env={**os.environ, **own, **environment},
            timeout=300,
            check=False,
        )
        assert not check or done.returncode == 0, f"kubectl {' '.join(map(str, arguments))}: {done.stderr}"
        return Done(done.returncode, done.stdout, done.stderr)

    def apply(self, *objects: Object) -> Done:
        """kubectl apply of these objects."""
        return self.kubectl("apply", "-f", "-", input=list(objects))

    def can(self, verb: str, resource: str, namespace: str = "", group: str = "", name: str = "") -> bool:
        """Whether this identity may."""
        attributes = {"verb": verb, "resource": resource, "namespace": namespace, "group": group, "name": name}
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
        answer = self.create(
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            {**review, "spec": {"resourceAttributes": attributes}},
        )
        return bool(answer["status"]["allowed"])

    def _address(self, path: str, query: Mapping[str, str] | None) -> str:
        return f"{self.url}{path}{'?' + urlencode(query) if query else ''}"


def _checked(answer: Answer) -> Answer:
    if answer.status >= 400:
        raise ApiError(answer)
    return answer


def _warning(header: str) -> str:
    """The text of a Warning header (RFC 7234 5.5), a quoted string."""
    text = header.partition('"')[2].rpartition('"')[0]
    return re.sub(r"\\(.)", r"\1", text)


def _kubeconfig(path: Path, url: str, ca: Path, credentials: Credentials) -> Path:
    user: dict[str, str] = {"token": credentials.token}
    if credentials.certificate is not None:
        certificate, key = credentials.certificate
        user = {"client-certificate": str(certificate), "client-key": str(key)}
    configuration = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "clusters": [{"name": "test", "cluster": {"server": url, "certificate-authority": str(ca)}}],
        "users": [{"name": "test", "user": user}],
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(configuration))
    return path
