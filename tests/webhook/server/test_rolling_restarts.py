"""Replicas that are replaced one after another while clients post: no request fails."""

from __future__ import annotations

import contextlib
import http.client
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.balancer import UPDATE_SECONDS
from tests.support.certificates import write_pair
from tests.support.paths import REVIEWS
from tests.support.ports import free_port
from tests.support.processes import running
from tests.support.until import until
from tests.webhook.server.load import Load
from tests.webhook.server.process import CLUSTER, Webhook, webhook

_POD = REVIEWS / "pods-create-payments-by-replicaset-controller.json"
_REPLICAS = 2
_POSTS = 1000
# Each client uses its connection during a lame duck, which is when it learns that it has to open another one.
_LAME_DUCK_SECONDS = 3 * UPDATE_SECONDS
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
        with Load(connect, _POD.read_bytes(), _PAUSES) as load:
            until(lambda: load.answered > 100)
            serving = list(old)
            for number, replica in enumerate(old):
                serving.append(start(f"new-{number}"))
                _list(backends, serving)
                assert replica.terminate() == 0
                serving.remove(replica)
                _list(backends, serving)
            until(lambda: load.answered >= _POSTS, 60)
        assert load.failures == []
