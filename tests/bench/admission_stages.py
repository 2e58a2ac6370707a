"""Where the processor time of one admission goes, stage by stage, and the same requests to the Go handler.

The server's own stages are differences: of a request without TLS, one with TLS, one that carries a review, and one on a
connection of its own. Each is the server's processor time (/proc/PID/task/*/schedstat), which other programs on the
machine change less than they change waiting times. The function's stages are timed in this process.
A third table shares one review's time out to operations: a sampler sits in the server's process.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from server.service import tune_garbage_collector
from tests.bench.figures import microseconds
from tests.bench.operations import Operation, print_operations
from tests.bench.served import REVIEW, Served, go_floor, load, objects, processor_seconds, send, webhook
from tests.support.certificates import write_pair
from tests.webhook.server.control_plane import pods_control_plane
from webhook.configuration.model import Configuration
from webhook.decide import PATHS, decide
from webhook.modes import Mode
from webhook.pod.opt_in import requests_injection
from webhook.pod.pod import Pod
from webhook.review import read_review, write_review
from webhook.rewrite import rewrite
from webhook.rules import NEEDED_FOR_INJECTION
from webhook.rules.rule import Subject, evaluate
from webhook.snapshot import RuntimeClassRecord, Snapshot

_ROUNDS = 3
_REQUESTS, _HANDSHAKES, _SAMPLED = 2_000, 500, 10_000
# Functions of ours that call the library, and it works.
_BELOW_OURS = tuple(
    f"server.{function} {library}"
    for function in ("service:_handle", "service:_respond", "service:_collect", "connections:data_received")
    for library in ("aiohttp", "yarl", "multidict")
)
_OPERATIONS = (
    Operation("parse, and look for a member twice", ("webhook.review:_parse",)),
    Operation("read the request", ("webhook.review:read", "webhook.review:_", "webhook.request")),
    Operation("serialise", ("webhook.review:write",)),
    Operation("the object's shape", ("webhook.pod.schema",)),
    Operation("the view of the pod", ("webhook.pod", "webhook.cached", "webhook.rewrite.template_choice")),
    Operation("the rewrite and its patch", ("webhook.rewrite", "plan", "measured", "webhook.configuration")),
    Operation("the rules", ("webhook.rules", "webhook.detection")),
    Operation("the view of the cluster, metrics", ("webhook.cluster", "webhook.snapshot", "webhook.metrics")),
    Operation("the rest of the decision", ("webhook.admission", "webhook.decide", "webhook.decision", "webhook.work")),
    # The review is freed when its handler returns; the sampler finds that in the next call.
    Operation("the call itself, and freeing the review", ("webhook.server", "webhook", "server.load:leave")),
    Operation("the deadline's timer", ("server.service:_respond asyncio",)),
    Operation("HTTP: the library", (*_BELOW_OURS, " aiohttp.web", " aiohttp.s", " yarl", " multidict")),
    Operation("HTTP: our part (limits, load, metrics)", ("server", "logline")),
    Operation("TLS and the system's calls below it", (" ssl", " asyncio.sslproto", " aiohttp.http_writer")),
    Operation("the event loop", (" asyncio", " selectors", " uvloop", " _weakrefset")),
)


def main() -> None:
    """The tables: the function, the server around it, and one review by operation."""
    body = json.dumps(json.loads(REVIEW.read_text()), separators=(",", ":")).encode()
    tune_garbage_collector()  # as the server does
    inside = _function(body)
    with tempfile.TemporaryDirectory() as folder:
        write_pair(Path(folder))
        (Path(folder) / "body.json").write_bytes(body)
        _server(Path(folder), inside)
        _by_operation(Path(folder))


def _function(body: bytes) -> float:
    """The stages of one decision, which share a pod: each stage is what it adds to those before. Returns the whole."""
    configuration = Configuration()
    classes = {"kata-qemu-snp": RuntimeClassRecord("kata-qemu-snp", "kata-qemu-snp")}
    snapshot = Snapshot({"default": Mode.INJECT}, {}, classes)
    request = read_review(body, "/mutate/pod")
    item = request.object or {}

    def viewed() -> Pod:
        pod = Pod(item, request.namespace, configuration)
        requests_injection(pod, Mode.INJECT)
        return pod

    def rewritten() -> object:
        pod = viewed()
        return pod.rewritten(rewrite(pod, snapshot).result)

    def evaluated() -> object:
        pod = viewed()
        after = pod.rewritten(rewrite(pod, snapshot).result)
        return list(evaluate(NEEDED_FOR_INJECTION, Subject(after, snapshot, request.user, just_rewritten=True)))

    decision = decide(request, configuration, snapshot)
    parse, shape, view, patch, rules, whole, serialise = _interleaved(
        lambda: read_review(body, "/mutate/pod"),
        lambda: PATHS["/mutate/pod"].validate(item),
        viewed,
        rewritten,
        evaluated,
        lambda: decide(request, configuration, snapshot),
        lambda: write_review("u", decision),
    )
    print(f"one decision on the recorded Knative pod ({len(body):,} bytes), median of {_ROUNDS * 20} rounds:")
    rows = {
        "parse (and look for a member twice)": parse,
        "decide: shape of the object": shape,
        "decide: view of the pod, opt-in": view,
        "decide: rewrite and its patch": patch - view,
        "decide: rules on the result": rules - patch,
        "decide: names, reason, audit": whole - shape - rules,
        "serialise": serialise,
    }
    _table(rows)
    return parse + whole + serialise


def _interleaved(*calls: Callable[[], object]) -> list[float]:
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(_ROUNDS):
        for call, found in zip(calls, times, strict=True):
            found.extend(microseconds(call, rounds=20))
    return [statistics.median(found) for found in times]


def _server(folder: Path, inside: float) -> None:
    with (
        pods_control_plane(folder / "account", objects(3)) as url,
        go_floor(folder) as go,
        webhook(folder, url) as served,
    ):
        ours, peer = _Requests(folder, served), _Requests(folder, go)
        for _ in range(_ROUNDS):
            ours.round()
            peer.round()
    print(f"processor of the server for one request, µs, median of {_ROUNDS} rounds of {_REQUESTS:,} (Go beside it):")
    rows = {
        "HTTP: a GET without TLS": ("plain",),
        "TLS: the same on a kept connection": ("kept", "plain"),
        "the review: its body read, decided, answered": ("review", "kept"),
        "a handshake: the GET on a connection of its own": ("fresh", "kept"),
        "the same, a session resumed": ("resumed", "kept"),
    }
    for name, of in rows.items():
        print(f"  {name:50} {ours.spent(*of):8.1f}   Go {peer.spent(*of):8.1f}")
    whole = ours.spent("review")
    print(f"  {'the whole request, kept connection':50} {whole:8.1f}   Go {peer.spent('review'):8.1f}")
    print(f"  of it parse, decide and serialise, as above: {inside:.1f} ({inside / whole:.0%})")


def _by_operation(folder: Path) -> None:
    samples = folder / "samples.json"
    with pods_control_plane(folder / "account", objects(3)) as url, webhook(folder, url, samples=samples) as served:
        load(folder, served.port, 60, most=_REQUESTS)
        os.kill(served.pid, signal.SIGUSR2)  # the samples begin here
        before = processor_seconds(served.pid)
        run = load(folder, served.port, 120, most=_SAMPLED)
        spent = (processor_seconds(served.pid) - before) / run["requests"] * 1e6
    print(f"processor time of one review over TLS, by operation; with the sampler {spent:.0f} µs")
    print_operations(json.loads(samples.read_text()), _OPERATIONS, spent)


class _Requests:
    """What each kind of request costs one server."""

    def __init__(self, folder: Path, served: Served) -> None:
        self._folder = folder
        self._pid = served.pid
        secure = f"https://127.0.0.1:{served.port}"
        self._kinds: dict[str, tuple[str, tuple[object, ...], int]] = {
            "plain": (f"http://127.0.0.1:{served.plain_port}/healthz", (), _REQUESTS),
            "kept": (f"{secure}/healthz", (), _REQUESTS),
            "review": (f"{secure}/mutate/pod", ("-body", folder / "body.json"), _REQUESTS),
            "fresh": (f"{secure}/healthz", ("-fresh",), _HANDSHAKES),
            "resumed": (f"{secure}/healthz", ("-fresh", "-resume"), _HANDSHAKES),
        }
        self._found: dict[str, list[float]] = {kind: [] for kind in self._kinds}

    def round(self) -> None:
        for kind, (url, options, most) in self._kinds.items():
            before = processor_seconds(self._pid)
            result = send(url, self._folder, *options, seconds=60, most=most)
            if result["failed"]:
                raise RuntimeError(f"{result['failed']} requests of kind {kind} failed")
            self._found[kind].append((processor_seconds(self._pid) - before) / result["requests"] * 1e6)

    def spent(self, kind: str, less: str | None = None) -> float:
        """Median of a kind, or of what it costs beyond another one."""
        found = self._found[kind]
        if less is not None:
            found = [more - base for more, base in zip(found, self._found[less], strict=True)]
        return statistics.median(found)


def _table(rows: dict[str, float]) -> None:
    whole = sum(rows.values())
    for name, value in rows.items():
        print(f"  {name:40} {value:7.1f} µs {value / whole:6.1%}")
    print(f"  {'together':40} {whole:7.1f} µs")
