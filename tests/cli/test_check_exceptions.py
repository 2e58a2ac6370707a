"""`morphisms check` with exceptions: what is covered, until when, and in each output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.recorded import Command, pod, service, write

_PLAIN = {"env": [{"name": "DB_PASSWORD", "value": "correct-horse-battery"}]}


def _deployment(kind: str = "Deployment", name: str = "web") -> dict[str, Any]:
    template = pod()
    template["spec"]["containers"][0] |= _PLAIN
    del template["apiVersion"], template["kind"]
    template["metadata"] = {}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"template": template},
    }


@pytest.fixture
def configuration(tmp_path: Path) -> str:
    entry = {"namespace": "shop", "rules": ["secrets/plaintext-env"], "reason": "SEC-123", "expires": "2027-02-01"}
    entries = [entry | {"service": "payments"}, entry | {"owner": "Deployment/web"}]
    path = tmp_path / "configuration.yaml"
    path.write_text(yaml.safe_dump({"exceptions": entries}))
    return str(path)


def _service(name: str = "payments") -> dict[str, Any]:
    item = service(_PLAIN)
    item["metadata"] |= {"name": name, "namespace": "shop"}
    return item


def test_what_an_exception_covers_is_reported_and_does_not_count(
    command: Command, tmp_path: Path, configuration: str
) -> None:
    path = write(tmp_path / "all.yaml", _service(), _deployment())
    result = command("check", "-f", path, "--config", configuration, "--at", "2027-01-31T23:59:59Z")
    assert result.code == 0
    assert result.out.splitlines() == [
        f"{path}: {title}: [secrets/plaintext-env] excepted until 2027-02-01T00:00:00Z: SEC-123"
        f" (spec.template.spec.containers[0].env[0])"
        for title in ("Service/shop/payments", "Deployment/shop/web")
    ]
    assert "2 objects, 0 violations (0 of them denied); 2 violations are excepted" in result.err


def test_the_same_manifests_fail_at_the_time_that_the_exception_ends(
    command: Command, tmp_path: Path, configuration: str
) -> None:
    path = write(tmp_path / "all.yaml", _service(), _deployment())
    result = command("check", "-f", path, "--config", configuration, "--at", "2027-02-01")
    assert result.code == 1
    assert result.out.count("[secrets/plaintext-env] ") == 2
    assert "exceptions[0]: the exception of Service/payments in namespace shop expired" in result.err


@pytest.mark.parametrize(
    "item",
    [
        _service("web"),
        _deployment(name="payments"),
        _deployment("StatefulSet"),
        {**_deployment(), "metadata": {"name": "web", "namespace": "other"}},
        pod() | {"metadata": {"name": "web", "namespace": "shop"}, "spec": _deployment()["spec"]["template"]["spec"]},
        {"apiVersion": "serving.knative.dev/v1", "kind": "Configuration"}
        | {key: _service()[key] for key in ("metadata", "spec")},
    ],
    ids=["service", "deployment", "stateful-set", "namespace", "bare-pod", "configuration"],
)
def test_other_workloads_are_not_covered(
    command: Command, tmp_path: Path, configuration: str, item: dict[str, Any]
) -> None:
    path = write(tmp_path / "one.yaml", item)
    result = command("check", "-f", path, "--config", configuration, "--at", "2027-01-01")
    assert (result.code, result.out.count("[secrets/plaintext-env] ")) == (1, 1)


def test_json_and_sarif_say_what_is_excepted(command: Command, tmp_path: Path, configuration: str) -> None:
    options = ("check", "-f", write(tmp_path / "one.yaml", _service()), "--config", configuration, "--at", "2027-01-01")
    document = json.loads(command(*options, "-o", "json").out)
    assert document["violations"] == []
    assert document["summary"]["excepted"] == 1
    (one,) = document["excepted"]
    assert (one["rule"], one["reason"], one["expires"]) == ("secrets/plaintext-env", "SEC-123", "2027-02-01T00:00:00Z")
    (result,) = json.loads(command(*options, "-o", "sarif").out)["runs"][0]["results"]
    assert result["suppressions"] == [
        {"kind": "external", "status": "accepted", "justification": "SEC-123 (until 2027-02-01T00:00:00Z)"}
    ]


@pytest.mark.parametrize("text", ["tomorrow", "2027-02-30", "2027-01-01T00:00:00", "1801353600", ""])
def test_a_time_that_nothing_can_mean_is_refused(
    command: Command, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        command("check", "-f", "/dev/null", "--at", text)
    assert raised.value.code == 2
    assert "write one such as 2027-01-31" in capsys.readouterr().err


def test_review_decides_at_the_given_time(command: Command, tmp_path: Path, configuration: str) -> None:
    review = {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "1",
            "kind": {"group": "serving.knative.dev", "version": "v1", "kind": "Service"},
            "operation": "CREATE",
            "namespace": "shop",
            "userInfo": {"username": "dev"},
            "object": _service(),
        },
    }
    path = tmp_path / "review.json"
    path.write_text(json.dumps(review))
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}
    namespace["metadata"] = {"name": "shop", "labels": {"morphisms.dev/mode": "enforce"}}
    runtime_class = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "kata-qemu-snp"}}
    snapshot = write(tmp_path / "cluster.yaml", namespace, runtime_class | {"handler": "kata-qemu-snp"})
    for at, code in (("2027-01-01", 0), ("2027-02-01", 1)):
        options = ("--config", configuration, "--snapshot", snapshot, "--path", "/validate/service", "--at", at)
        assert command("review", *options, str(path)).code == code
