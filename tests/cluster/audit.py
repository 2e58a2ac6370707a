"""The API server's audit log, as tests ask it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests.cluster.client import Client

Event = dict[str, Any]

_EVERYTHING = [
    ("", ["pods", "pods/*", "bindings", "services", "configmaps", "namespaces", "nodes", "replicationcontrollers"]),
    ("apps", []),
    ("batch", []),
    ("serving.knative.dev", []),
    ("node.k8s.io", []),
    ("admissionregistration.k8s.io", []),
]

# Whole bodies, patches of webhooks included, of whatever a workload's secret could be in; of Secrets, tokens and the
# rest that a request was made. Events are left out, but for those that the scanner writes.
POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "Metadata", "users": ["system:serviceaccount:morphisms-system:morphisms-scanner"]},
        {"level": "None", "resources": [{"group": "", "resources": ["events"]}, {"group": "events.k8s.io"}]},
        {"level": "None", "users": ["system:apiserver"], "verbs": ["get", "list", "watch"]},
        {"level": "Metadata", "verbs": ["get", "list", "watch"]},
        {
            "level": "RequestResponse",
            "resources": [{"group": group, "resources": resources} for group, resources in _EVERYTHING],
        },
        {"level": "Metadata"},
    ],
}


def creates(event: Event, resource: str, namespace: str) -> bool:
    """Whether it is the creation of such an object: not of a part of it, such as the binding that bears its name."""
    about = event.get("objectRef") or {}
    asked = (event["verb"], about.get("resource"), about.get("namespace"), about.get("subresource"))
    return asked == ("create", resource, namespace, None)


class AuditLog:
    """`mark` gives the place where the log ends now; events are asked for from such a place on.

    A request's event is written after its answer, and perhaps after those of requests that the answer led to. So a test
    that expects events awaits each of them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def mark(self) -> int:
        return self.path.stat().st_size

    def content(self, since: int = 0) -> bytes:
        """All that was written from there on."""
        with self.path.open("rb") as log:
            log.seek(since)
            return log.read()

    def events(self, since: int = 0) -> Iterator[Event]:
        """Those from there on, in order. A line that was being written at the mark is of something before it."""
        with self.path.open("rb") as log:
            if since:
                log.seek(since - 1)
                log.readline()
            for line in log:
                if line.endswith(b"\n"):
                    yield json.loads(line)

    def until(self, condition: Callable[[Event], bool], since: int = 0, seconds: float = 180) -> Event:
        """The first event that fits."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for event in self.events(since):
                if condition(event):
                    return event
            time.sleep(0.1)
        raise TimeoutError("no such audit event")

    def until_now(self, admin: Client) -> None:
        """Return when what was answered before this call is in the log: a request of our own is, which came after."""
        mark, name = self.mark(), f"mark-{uuid4()}"
        admin.request("GET", f"/api/v1/namespaces/{name}")
        self.until(lambda event: event.get("objectRef", {}).get("name") == name, mark)
