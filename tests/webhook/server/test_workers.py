"""`morphisms webhook --workers 2`: the same answers, the replica's probes and metrics, what cannot start."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
from pathlib import Path

import pytest

from cli.commands.webhook import workers
from server.workers.merging import GAUGES
from tests.support.certificates import write_pair
from tests.support.files import replace
from tests.support.paths import REVIEWS, ROOT
from tests.support.processes import morphisms
from tests.support.until import until
from tests.webhook.server.process import CLUSTER, webhook
from webhook import parent
from webhook.cluster.shared_templates import ReceivedTemplates, written
from webhook.configuration.accepted_templates import UNREAD, AcceptedTemplates
from webhook.configuration.model import Configuration

_BODY = (REVIEWS / "pods-create-payments-by-replicaset-controller.json").read_bytes()


def test_both_workers_answer_what_the_review_command_prints_and_count_as_one(tmp_path: Path) -> None:
    configuration = tmp_path / "configuration.yaml"
    configuration.write_text("version: 1\n")
    command = morphisms("review", "--snapshot", CLUSTER, "--path", "/mutate/pod", "-")
    printed = subprocess.run(command, input=_BODY, capture_output=True, cwd=ROOT, check=False).stdout
    with webhook(tmp_path, "--snapshot", CLUSTER, "--config", configuration, "--workers", 2) as running:
        until(lambda: "morphisms_workers 2.0" in running.get("/metrics")[1])
        connections = [running.connect() for _ in range(4)]
        answers = [running.post("/mutate/pod", _BODY, connection) for connection in connections]
        assert answers == [(200, printed)] * 4
        until(lambda: running.get("/readyz") == (200, "ok\n"))
        decided = re.compile(r"^morphisms_admission_decisions_total\{.*\} 4\.0$", re.MULTILINE)
        until(lambda: decided.search(running.get("/metrics")[1]))
        text = running.get("/metrics")[1]
        assert 'morphisms_requests_total{code="200",route="/mutate/pod"} 4.0' in text
        # What a process shows as a gauge has a stated rule by which several become one.
        gauges = set(re.findall(r"^# TYPE (\S+) gauge$", text, re.MULTILINE))
        assert {name for name in gauges if not name.endswith("_created")} <= GAUGES.keys() | parent.GAUGES.keys()
        # A reloaded configuration reaches both.
        replace(configuration, "version: 1\ncluster: other\n")
        digest = Configuration(cluster="other").digest
        one = f'morphisms_configuration_info{{digest="{digest}"}} 1.0'
        until(
            lambda: re.findall(r"^morphisms_configuration_info.*$", running.get("/metrics")[1], re.MULTILINE) == [one]
        )
        for connection in connections:
            connection.close()


@pytest.mark.parametrize("number", ["0", "-1", "two", "65", "1.5", ""])
def test_a_number_of_workers_that_makes_no_sense_is_refused(number: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected a number from 1 to 64, such as 2"):
        workers(number)


@pytest.mark.parametrize("unusable", ["configuration", "snapshot"])
def test_what_no_worker_can_start_with_ends_the_server_with_2(tmp_path: Path, unusable: str) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("version: 1\nnothing: here\n")
    arguments = ("--config", broken, "--snapshot", CLUSTER) if unusable == "configuration" else ("--snapshot", broken)
    write_pair(tmp_path)
    command = morphisms("webhook", "--listen", "127.0.0.1:0", "--workers", 2, *arguments)
    command += ["--tls-cert", str(tmp_path / "tls.crt"), "--tls-key", str(tmp_path / "tls.key")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=300)
    assert done.returncode == 2
    assert any(json.loads(line)["event"] == "start_failed" for line in done.stderr.splitlines())


def test_a_worker_accepts_what_its_parent_does() -> None:
    one, two, three = (
        Configuration.model_validate({"sidecar": {"image": f"registry.example/sidecar:{number}"}}).container_template
        for number in (1, 2, 3)
    )
    received = ReceivedTemplates()
    assert received.current() is UNREAD
    assert received.problem() == "not received yet"
    accepted = AcceptedTemplates({one.digest: one, two.digest: two}, two.digest, frozenset({three.digest}), (three,))
    received.take(written(accepted))
    assert received.current() == accepted
    assert received.problem() is None
    first = received.current().by_digest[one.digest]
    received.take(written(AcceptedTemplates({one.digest: one})))
    assert received.current() == AcceptedTemplates({one.digest: one})
    assert received.current().by_digest[one.digest] is first
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        received.take(written(accepted)[:-5])
    assert received.current() == AcceptedTemplates({one.digest: one})
