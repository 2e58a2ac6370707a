"""The command: what goes where, and the exit code."""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

import pytest
import yaml

from cli.commands import convert

POD = """\
apiVersion: v1
kind: Pod
metadata:
  name: shop
  annotations:
    vault.hashicorp.com/agent-inject: "true"
    vault.hashicorp.com/{}: "true"
spec:
  containers: []
"""


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    convert.configure(parser)
    return convert.run(parser.parse_args(words))


def test_yaml_to_stdout_messages_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text(POD.format("agent-init-first"))
    assert run("-f", str(path)) == 0
    out, err = capsys.readouterr()
    assert out.startswith("apiVersion: v1\nkind: Pod\n")
    assert "vault.hashicorp.com" not in out
    assert err == (
        "note: Pod/shop: vault.hashicorp.com/agent-init-first: morphisms-init comes before each container that gets"
        " secrets\n"
    )


def test_an_annotation_that_stays_gives_exit_code_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(POD.format("tls-skip-verify").encode())))
    assert run("-f", "-") == 1
    out, err = capsys.readouterr()
    assert "vault.hashicorp.com/tls-skip-verify" in out
    assert "left: Pod/shop: vault.hashicorp.com/tls-skip-verify: " in err


def test_pods_of_a_typed_list_are_translated_though_their_kind_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`kubectl get --raw /api/v1/namespaces/shop/pods > pods.json` in PowerShell writes such a list, in UTF-16."""
    pods = {"apiVersion": "v1", "kind": "PodList", "items": [yaml.safe_load(POD.format("agent-init-first"))]}
    for name in ("apiVersion", "kind"):
        del pods["items"][0][name]
    for name, text, encoding in [("a", json.dumps(pods), "utf-8"), ("b", yaml.safe_dump(pods), "utf-16")]:
        path = tmp_path / name
        path.write_text(text, encoding=encoding)
        assert run("-f", str(path)) == 0
        out, err = capsys.readouterr()
        (pod,) = yaml.safe_load(out)["items"]
        assert pod["metadata"]["annotations"] == {"morphisms.dev/inject": "true", "morphisms.dev/agent": "sidecar"}
        assert err.startswith("note: Pod/shop: ")


def test_unusable_input_is_2_and_writes_no_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-f", str(tmp_path / "missing.yaml")) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("missing.yaml: cannot be read: No such file or directory\n")


@pytest.mark.parametrize(("terminal", "plain", "colored"), [(True, "", True), (True, "1", False), (False, "", False)])
def test_color_on_a_terminal_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool, plain: str, colored: bool
) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text(POD.format("agent-init-first"))
    stderr = io.StringIO()
    monkeypatch.setattr(stderr, "isatty", lambda: terminal)
    monkeypatch.setattr("sys.stderr", stderr)
    monkeypatch.setenv("NO_COLOR", plain)
    run("-f", str(path))
    assert ("\x1b[" in stderr.getvalue()) is colored


def test_the_namespace_says_which_configmaps_belong_to_a_pod(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text("""\
apiVersion: v1
kind: Pod
metadata: {name: a, annotations: {vault.security.banzaicloud.io/vault-role: a}}
spec: {containers: [{name: a, envFrom: [{configMapRef: {name: plain}}]}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: plain, namespace: shop}
data: {port: "8080"}
""")
    assert run("-f", str(path)) == 1
    assert "ConfigMap plain is not in the input" in capsys.readouterr().err
    assert run("-f", str(path), "-n", "shop") == 0


def test_comments_stay_and_a_document_that_loses_them_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pod.yaml"
    text = "# kept\n" + POD.format("agent-init-first") + "---\n" + POD.format("agent-init-first")
    path.write_text(text.replace("metadata:", "metadata: # said").replace("containers: []", "containers: []  # none"))
    assert run("-f", str(path)) == 0
    out, err = capsys.readouterr()
    assert (out.count("# said"), out.count("# none"), out[:7], "lost" in err) == (2, 2, "# kept\n", False)
    path.write_text("""\
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Widget, metadata: {annotations: &a {vault.hashicorp.com/agent-inject: "false"}}}  # lost
- {apiVersion: v1, kind: Pod, metadata: {annotations: *a}, spec: {containers: []}}
""")
    assert run("-f", str(path)) == 1
    out, err = capsys.readouterr()
    assert ("# lost" in out, "its comments and anchors are lost" in err) == (False, True)
