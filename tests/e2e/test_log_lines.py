"""Webhook, verifier and sidecar write one form of log line, and one key joins the lines of one request."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.attestation.verifier.process import Verifier
from tests.sidecar.pod import Pod
from tests.webhook.server.process import CLUSTER, webhook

_HEAD = ["time", "level", "event"]
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture(scope="module")
def webhook_lines(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What a webhook logs until it has answered one request that is not a review."""
    with webhook(tmp_path_factory.mktemp("webhook"), "--snapshot", CLUSTER) as running:
        running.post("/validate/pod", b"{}")
        running.terminate()
        return running.log()


def test_every_line_of_every_process_has_one_form(
    pod: Pod, verifier_process: Verifier, webhook_lines: list[dict[str, Any]]
) -> None:
    sidecar = pod.run().events
    for lines in (sidecar, verifier_process.log(), webhook_lines):
        assert lines
        for line in lines:
            assert list(line)[:3] == _HEAD
            assert _TIME.fullmatch(line["time"])
            assert line["level"] in ("info", "warning", "error")
            assert re.fullmatch(r"[a-z]+(_[a-z]+)*", line["event"])
            assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", key) for key in line)


def test_a_correlation_id_joins_the_lines_of_sidecar_and_verifier(pod: Pod, verifier_process: Verifier) -> None:
    (attested,) = pod.run().named("attested")
    (attestation,) = verifier_process.events("attestation", attested["correlation_id"])
    (login,) = verifier_process.events("login", attested["correlation_id"])
    lines = verifier_process.log()
    assert lines.index(attestation) < lines.index(login)
