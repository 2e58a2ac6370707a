"""Replicas that are replaced one after another while clients post: no request fails."""

from __future__ import annotations

import contextlib
import http.client
import signal
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.balancer import endpoints
from tests.support.certificates import write_pair
from tests.support.paths import REVIEWS
from tests.support.ports import free_port
from tests.support.processes import running
from tests.support.until import SECONDS, until
from tests.webhook.server.load import Load
from tests.webhook.server.process import CLUSTER, Webhook, webhook

_POD = REVIEWS / "pods-create-payments-by-replicaset-controller.json"
_REPLICAS = 2
_POSTS = 1000
# It lasts until the test ends it: the time in which the balancer learns of it, and in which each client uses its
# connection and so learns that it has to open another one.
_LAME_DUCK_SECONDS = 600
_PAUSES = (0.02,) * 6 + (1.5,) * 30


@pytest.fixture
def balanced(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """The port of a balancer, and the file that lists its replicas."""
    port, backends = free_port(), tmp_path / "backends"
    backends.touch()
    command = [sys.executable, "-m", "tests.support.balancer", str(port), str(backends)]
    with running(command, tmp_path / "balancer.log"):
        yield port, backends


def _list(backends: Path, replicas: list[Webhook]) -> None:
    unfinished = backends.with_suffix(".new")
    unfinished.write_text("".join(f"{each.port} {each.metrics_port}\n" for each in replicas))
    unfinished.replace(backends)


def _goes_to(backends: Path, replicas: list[Webhook]) -> bool:
    """Whether the balancer gives new connections to these replicas alone, and to each of them."""
    return endpoints(backends).ports == {each.port for each in replicas}


def _each_client_asks_again(load: Load) -> None:
    """Wait until each client has had the answer to a request that it sent after now: the second that it gets."""
    before = list(load.answered_each)
    until(lambda: all(now >= then + 2 for now, then in zip(load.answered_each, before, strict=True)), 5 * SECONDS)


@pytest.mark.slow
def test_a_thousand_posts_through_a_rolling_restart_fail_nothing(tmp_path: Path, balanced: tuple[int, Path]) -> None:
    port, backends = balanced
    write_pair(tmp_path)
    context = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))

    def connect() -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=context)

    def answers() -> bool:
        connection = connect()
        with contextlib.closing(connection), contextlib.suppress(OSError):
            connection.request("GET", "/healthz")
            return connection.getresponse().status == 200
        return False

    with contextlib.ExitStack() as stack:
        arguments = ("--snapshot", CLUSTER, "--lame-duck-seconds", _LAME_DUCK_SECONDS)

        def start(name: str) -> Webhook:
            return stack.enter_context(webhook(tmp_path / name, *arguments, certificate=tmp_path))

        old = [start(f"old-{number}") for number in range(_REPLICAS)]
        _list(backends, old)
        until(answers)
        until(lambda: _goes_to(backends, old))
        with Load(connect, _POD.read_bytes(), _PAUSES) as load:
            until(lambda: load.answered > 100)
            serving = list(old)
            for number, replica in enumerate(old):
                serving.append(start(f"new-{number}"))
                _list(backends, serving)
                until(lambda: _goes_to(backends, serving))
                replica.process.send_signal(signal.SIGTERM)
                serving.remove(replica)
                until(lambda: _goes_to(backends, serving))
                _each_client_asks_again(load)
                assert replica.terminate() == 0, "a second signal ends the lame duck"
                _list(backends, serving)
            until(lambda: load.answered >= _POSTS, 10 * SECONDS)
        assert load.failures == []
