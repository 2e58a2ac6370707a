"""Attacks on a webhook process by a pod that can reach its port, and both address families."""

from __future__ import annotations

import contextlib
import http.client
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import REVIEWS
from tests.support.unfinished_bodies import unfinished_bodies
from tests.support.until import until
from tests.webhook.server.process import CLUSTER, Webhook, webhook

_POD = REVIEWS / "pods-create-payments-by-replicaset-controller.json"
_MIB = 1 << 20
# No room for an honest review would show as another gate. A machine that stops for a second lags by itself.
_LAG = "[-]event-loop: the event loop lags\n"
_ATTACKER, _HONEST = "127.0.0.2", "127.0.0.3"


@contextlib.contextmanager
def _unfinished(running: Webhook, count: int, size: int) -> Iterator[None]:
    ca = running.certificate / "ca.crt"
    with unfinished_bodies(running.port, ca, "/mutate/pod", source=_ATTACKER, count=count, size=size):
        yield


@pytest.mark.parametrize("source", [_HONEST, _ATTACKER])
def test_unfinished_bodies_refuse_no_honest_review(tmp_path: Path, source: str) -> None:
    """Five connections of 16 MiB each in a server that holds 64 MiB; the address of an attacker may be ours, by NAT."""
    with webhook(tmp_path, "--snapshot", CLUSTER) as running:
        context = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
        honest = http.client.HTTPSConnection(
            "127.0.0.1", running.port, timeout=60, context=context, source_address=(source, 0)
        )
        with _unfinished(running, 5, 16 * _MIB):
            ends = time.monotonic() + 4  # in which bodies come to their time limit, and are sent anew
            for _ in range(235):
                assert running.post("/mutate/pod", _POD.read_bytes(), honest)[0] == 200
                assert running.get("/readyz")[1] in ("ok\n", _LAG)
                if time.monotonic() > ends:
                    break
                time.sleep(0.01)
        honest.close()


def test_both_address_families_reach_reviews_and_probes(tmp_path: Path) -> None:
    arguments = ("--snapshot", CLUSTER, "--listen", "[::]:0", "--metrics-listen", "[::]:0")
    with webhook(tmp_path, *arguments) as running:
        assert running.post("/mutate/pod", _POD.read_bytes())[0] == 200
        until(lambda: running.get("/readyz") == (200, "ok\n"))
        context = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
        context.check_hostname = False
        try:
            reviews = http.client.HTTPSConnection("::1", running.port, timeout=60, context=context)
            reviews.connect()
        except OSError:
            pytest.skip("this machine has no IPv6 loopback address")
        probes = http.client.HTTPConnection("::1", running.metrics_port, timeout=60)
        for connection in (reviews, probes):
            connection.request("GET", "/healthz")
            assert connection.getresponse().read() == b"ok\n"
            connection.close()
