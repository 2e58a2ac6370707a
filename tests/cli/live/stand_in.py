"""A stand-in of an API server: it lists and gets what a test gives it, refuses what it forbids, stores a mode alone."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from tests.webhook.server.control_plane import write_kubeconfig
from webhook.configuration.model import Configuration
from webhook.scanner.kinds import SCANNED_KINDS

Json = dict[str, Any]

SYSTEM: Final = "/api/v1/namespaces/morphisms-system/configmaps"
_ADMISSION: Final = "/apis/admissionregistration.k8s.io/v1"
_PLUGINS: Final = ("mutatingwebhookconfigurations", "validatingwebhookconfigurations", "validatingadmissionpolicies")


@dataclass
class StandIn:
    """`lists` by path of the collection, `objects` by path; `forbidden` paths answer 403.

    `refusals` are what it says to the next pods that are tried out, by the image of their first container.
    `meanwhile` is called before each request is answered: what others do at that time.
    """

    lists: dict[str, list[Json]] = field(default_factory=dict)
    objects: dict[str, Json] = field(default_factory=dict)
    forbidden: set[str] = field(default_factory=set)
    refusals: dict[str, tuple[int, str]] = field(default_factory=dict)
    meanwhile: Callable[[str, str], None] = lambda method, path: None
    patched: list[tuple[str, Json]] = field(default_factory=list)
    tried: list[Json] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)

    def add(self, namespace: str, mode: str | None, *items: Json) -> None:
        """A namespace, and workloads in it."""
        labels = {} if mode is None else {"morphisms.dev/mode": mode}
        made: Json = {
            "metadata": {"name": namespace, "uid": f"uid-{namespace}", "resourceVersion": "1", "labels": labels}
        }
        self.objects[f"/api/v1/namespaces/{namespace}"] = made
        self.lists.setdefault("/api/v1/namespaces", []).append(made)
        for kind in SCANNED_KINDS:
            found = [each for each in items if (each["apiVersion"], each["kind"]) == (kind.api_version, kind.kind)]
            self.lists.setdefault(kind.path(), []).extend(found)
            self.lists[kind.path(namespace)] = found

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Json) -> tuple[int, Json | str]:
        """Status and body; a text is sent as it is."""
        self.asked.append((method, path))
        self.meanwhile(method, path)
        if path in self.forbidden:
            return 403, {"message": "forbidden: User cannot create resource" if method == "POST" else "forbidden"}
        if method == "POST":
            assert path.endswith("/pods")
            assert query == {"dryRun": ["All"]}
            self.tried.append(body)
            refusal = self.refusals.get(body["spec"]["containers"][0]["image"])
            return (201, body) if refusal is None else (refusal[0], {"message": refusal[1]})
        if method == "PATCH":
            return self._patch(path, query, body)
        if path in self.lists:
            return 200, {"metadata": {}, "items": self.lists[path]}
        return (200, self.objects[path]) if path in self.objects else (404, {})

    def _patch(self, path: str, query: dict[str, list[str]], body: Json) -> tuple[int, Json]:
        found = self.objects[path]["metadata"]
        if body["metadata"].get("resourceVersion") not in (None, found["resourceVersion"]):
            return 409, {"message": "the object has been modified"}
        if "dryRun" not in query:
            self.patched.append((path, body))
            found["labels"] = {**found["labels"], **body["metadata"]["labels"]}
            found["resourceVersion"] = str(int(found["resourceVersion"]) + 1)
        return 200, self.objects[path]


def ready() -> StandIn:
    """A cluster with Morphisms in it, a confidential node and the RuntimeClass."""
    found = StandIn()
    found.objects[f"{SYSTEM}/morphisms-webhook"] = {"data": {"configuration.yaml": "version: 1\ncluster: prod\n"}}
    template = Configuration(cluster="prod").container_template
    known = f"2027-01-01T00:00:00Z {template.digest[:16]}"
    templates = {f"{template.digest}.json": template.text, "current": template.digest, "known.replica-0": known}
    found.objects[f"{SYSTEM}/morphisms-webhook-templates"] = {"data": templates}
    node_labels = {"amd.feature.node.kubernetes.io/snp": "true"}
    allocatable = {"cpu": "8", "memory": "8Gi"}
    found.lists["/api/v1/nodes"] = [
        {"metadata": {"name": "snp-0", "labels": node_labels}, "status": {"allocatable": allocatable}}
    ]
    found.lists["/apis/node.k8s.io/v1/runtimeclasses"] = [
        {"metadata": {"name": "kata-qemu-snp"}, "handler": "kata-qemu-snp"}
    ]
    for plugin in _PLUGINS:
        found.lists[f"{_ADMISSION}/{plugin}"] = [{"metadata": {"name": "morphisms"}}]
    return found


@contextlib.contextmanager
def serving(stand_in: StandIn, folder: Path) -> Iterator[Path]:
    """Serve it on loopback; the path of a kubeconfig for it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # headers and body are two writes, and a reader would wait 40 ms between them

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else {}
            query = parse_qs(parts.query)
            status, answer = stand_in.answer(self.command, parts.path, query, body)
            content = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815 - the server's own spelling

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield write_kubeconfig(folder, f"http://127.0.0.1:{server.server_address[1]}")
    finally:
        server.shutdown()
        server.server_close()
