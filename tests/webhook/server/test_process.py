"""The admission server as a process: answers, hostile bodies, drain and certificate swap under load, reload, loss."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.certificates import write_pair
from tests.support.files import replace
from tests.support.paths import REVIEWS, ROOT
from tests.support.processes import morphisms
from tests.support.until import until
from tests.webhook.server.load import Load
from tests.webhook.server.process import CLUSTER, Webhook, webhook

_POD = "pods-create-payments-by-replicaset-controller.json"


def _snapshot(folder: Path, mode: str) -> Path:
    text = CLUSTER.read_text().replace("{name: default}", f"{{name: default, labels: {{morphisms.dev/mode: {mode}}}}}")
    path = folder / "cluster.yaml"
    path.write_text(text)
    return path


def _body(name: str = _POD) -> bytes:
    return (REVIEWS / name).read_bytes()


def test_the_server_answers_what_the_review_command_prints_byte_for_byte(tmp_path: Path) -> None:
    snapshot = _snapshot(tmp_path, "enforce")
    cases = [
        ("/mutate/pod", _POD),
        ("/validate/pod", _POD),
        ("/validate/service", "services-create-payments-by-dev.json"),
        ("/validate/binding", "pods-binding-create-web-by-kube-scheduler.json"),
        ("/validate/connect", "pods-exec-connect-hello-by-dev.json"),
        ("/mutate/pod", "deployments-create-web-by-admin.json"),
    ]
    with webhook(tmp_path, "--snapshot", snapshot) as running:
        for path, name in cases:
            status, answer = running.post(path, _body(name))
            command = morphisms("review", "--snapshot", snapshot, "--path", path, REVIEWS / name)
            printed = subprocess.run(command, capture_output=True, cwd=ROOT, check=False)
            assert (status, printed.stdout, printed.stderr) == (200, answer, b"")
            assert printed.returncode == (0 if json.loads(answer)["response"]["allowed"] else 1)


def _nested(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


_HOSTILE = {
    "empty": b"",
    "not JSON": b"{",
    "not an object": b"[]",
    "another kind": b'{"kind":"Pod","apiVersion":"v1"}',
    "v1beta1": _body().replace(b"admission.k8s.io/v1", b"admission.k8s.io/v1beta1"),
    "3 MB of nesting": _nested(500_000),
    "duplicate members": _body().replace(b'"uid"', b'"uid": "1", "uid"', 1),
    "invalid UTF-8": _body().replace(b"payments", b"\xff\xfe", 1),
    "a lone surrogate": _body().replace(b"payments", b"\\ud800", 1),
    "a huge number": _body().replace(b'"dryRun": false', b'"dryRun": ' + b"9" * 100_000),
    "NaN": _body().replace(b'"dryRun": false', b'"dryRun": NaN'),
    "no request": b'{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}',
    "a request of numbers": b'{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":7}',
    "no uid": b'{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{}}',
    "a uid that is not text": b'{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":[]}}',
    "an object that is not an object": _body().replace(b'"object": {', b'"object": 1, "other": {', 1),
    "containers that are not a list": _body().replace(b'"containers": [', b'"containers": 1, "other": [', 1),
    "a user that is not an object": _body().replace(b'"userInfo": {', b'"userInfo": [], "other": {', 1),
}


@pytest.fixture(scope="module")
def enforcing(tmp_path_factory: pytest.TempPathFactory) -> Webhook:
    folder = tmp_path_factory.mktemp("enforcing")
    with webhook(folder, "--snapshot", _snapshot(folder, "enforce")) as running:
        yield running


@pytest.mark.parametrize("name", _HOSTILE)
@pytest.mark.parametrize("path", ["/mutate/pod", "/validate/pod", "/validate/service", "/validate/binding"])
def test_a_hostile_body_gets_a_denial_or_a_4xx(enforcing: Webhook, name: str, path: str) -> None:
    status, answer = enforcing.post(path, _HOSTILE[name])
    if status == 200:
        response = json.loads(answer)["response"]
        assert response["allowed"] is False
        assert 400 <= response["status"]["code"] < 500
        assert response["uid"]
    else:
        assert 400 <= status < 500


def test_metrics_count_by_rule_mode_and_path_and_logs_name_no_value(enforcing: Webhook) -> None:
    enforcing.post("/validate/pod", _body())
    _, text = enforcing.get("/metrics")
    labels = 'decision="denied",mode="enforce",path="/validate/pod",rule="secrets/plaintext-env"'
    assert f"morphisms_admission_violations_total{{{labels}}}" in text
    assert 'morphisms_configuration_info{digest="' in text
    assert "payments" not in text
    denied = [line for line in enforcing.log() if line.get("decision") == "denied"]
    assert denied[-1]["correlation_id"] == json.loads(_body())["request"]["uid"]
    metadata = json.loads(_body())["request"]["object"]["metadata"]
    (controller,) = metadata["ownerReferences"]
    assert denied[-1]["owner"] == f"ReplicaSet/{controller['name']}"
    assert (denied[-1]["name"], denied[-1]["generate_name"]) == ("", metadata["generateName"])
    assert "hunter2" not in json.dumps(enforcing.log())


def test_log_and_metrics_report_exceptions_also_one_that_has_ended(tmp_path: Path) -> None:
    common = {"namespace": "default", "reason": "SEC-123"}
    exceptions = [
        common | {"service": "payments", "rules": ["secrets/plaintext-env"], "expires": "9999-01-01"},
        common | {"owner": "Deployment/web", "rules": ["images/digest"], "expires": "2020-01-01"},
    ]
    configuration = tmp_path / "configuration.yaml"
    configuration.write_text(json.dumps({"exceptions": exceptions}))
    with webhook(tmp_path, "--snapshot", _snapshot(tmp_path, "audit"), "--config", configuration) as running:
        assert json.loads(running.post("/validate/pod", _body())[1])["response"]["allowed"]
        _, text = running.get("/metrics")
        (line,) = [each for each in running.log() if each["event"] == "decision"]
        assert line["excepted"] == ["secrets/plaintext-env"]
        assert "secrets/plaintext-env" not in line["rules"]
        (ended,) = [each for each in running.log() if each["event"] == "exception_expired"]
        assert "exceptions[1]: the exception of Deployment/web in namespace default expired" in ended["problem"]
    assert 'path="/validate/pod",rule="secrets/plaintext-env",workload="Service/payments"' in text
    left = [each for each in text.splitlines() if each.startswith("morphisms_exception_days_left{")]
    assert [float(each.split()[-1]) > 0 for each in left] == [True, False]


def test_sigterm_under_load_answers_everything_accepted_and_exits_0(tmp_path: Path) -> None:
    arguments = ("--snapshot", _snapshot(tmp_path, "inject"), "--lame-duck-seconds", 600)
    with webhook(tmp_path, *arguments) as running:
        with Load(running.connect, _body()) as load:
            until(lambda: load.least_answered > 20)
            running.process.send_signal(signal.SIGTERM)
            until(lambda: "[-]serving: draining" in running.get("/readyz")[1])
            before = load.answered
            until(lambda: load.answered > before + 50)
        assert load.failures == []
        assert running.terminate() == 0, "a second signal ends the lame duck"


def test_a_certificate_swapped_under_load_fails_no_request(tmp_path: Path) -> None:
    with (
        webhook(tmp_path, "--snapshot", _snapshot(tmp_path, "inject")) as running,
        Load(running.connect, _body()) as load,
    ):
        until(lambda: load.least_answered > 20)  # so each of them has connected, and trusts the certificate before
        write_pair(tmp_path)
        until(lambda: any(line["event"] == "file_reloaded" for line in running.log()))
        before = load.answered
        until(lambda: load.answered > before + 100)
        status, _ = running.post("/mutate/pod", _body())
        assert status == 200, "a client that trusts the new certificate alone"
    assert load.failures == []


def test_a_changed_configuration_is_loaded_and_a_bad_one_reported_and_left_aside(tmp_path: Path) -> None:
    configuration = tmp_path / "config.yaml"
    configuration.write_text("version: 1\ncluster: one\n")
    arguments = ("--snapshot", _snapshot(tmp_path, "inject"), "--config", configuration)
    with webhook(tmp_path, *arguments) as running:
        before = _digest(running)
        assert _cluster_in_plan(running) == "one"
        replace(configuration, "version: 1\nclutser: two\n")
        until(lambda: any(line["event"] == "file_not_reloaded" for line in running.log()))
        problem = next(line for line in running.log() if line["event"] == "file_not_reloaded")["problems"][0]
        assert "did you mean cluster?" in problem
        assert _cluster_in_plan(running) == "one"
        replace(configuration, "version: 1\ncluster: three\n")
        until(lambda: any(line["event"] == "file_reloaded" for line in running.log()))
        assert _cluster_in_plan(running) == "three"
        assert _digest(running) != before


def _digest(running: Webhook) -> str:
    _, text = running.get("/metrics")
    digests = [line for line in text.splitlines() if line.startswith("morphisms_configuration_info{")]
    assert len(digests) == 1
    return digests[0]


def _cluster_in_plan(running: Webhook) -> str:
    _, answer = running.post("/mutate/pod", _body())
    patch = json.loads(base64.b64decode(json.loads(answer)["response"]["patch"]))
    container = next(operation for operation in patch if operation["path"].startswith("/spec/initContainers"))["value"][
        0
    ]
    plan: dict[str, dict[str, str]] = json.loads(container["env"][0]["value"])
    return plan["workload"]["cluster"]


def test_a_configuration_that_cannot_be_used_ends_the_start_with_code_2(tmp_path: Path) -> None:
    write_pair(tmp_path)
    configuration = tmp_path / "config.yaml"
    configuration.write_text("rules: {secrets/plaintext-evn: {audit: ignore}}\n")
    command = morphisms("webhook", "--listen", "127.0.0.1:0", "--config", configuration, "--snapshot", CLUSTER)
    command += ["--tls-cert", str(tmp_path / "tls.crt"), "--tls-key", str(tmp_path / "tls.key")]
    done = subprocess.run(command, capture_output=True, cwd=ROOT, timeout=300, check=False)
    assert done.returncode == 2
    assert b"secrets/plaintext-env" in done.stderr
