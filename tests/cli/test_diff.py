"""`--diff`: the structure and our additions are readable, no value of an author's is."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import pytest

from cli.support.diff import redacted_diff
from cli.support.redaction import Redaction
from cli.support.terminal import wants_colour
from plan.codec import write_plan
from plan.document import EnvVariable
from plan.layout import EXEC_HELPER
from tests.cli.recorded import Command, pod, write
from webhook.configuration.model import Configuration
from webhook.pod.pod import Pod
from webhook.rewrite.plan import make_plan

SECRET = "c4nary-7f"

# Where people have been seen to put secrets, and where they might.
PLACES: dict[str, tuple[Any, ...]] = {
    "env": ("spec", "containers", 0, "env", 0, "value"),
    "command": ("spec", "containers", 0, "command", 1),
    "program": ("spec", "containers", 0, "command", 0),
    "args": ("spec", "containers", 0, "args", 0),
    "inline": ("spec", "containers", 0, "env", 1, "value"),
    "broken reference": ("spec", "containers", 0, "env", 2, "value"),
    "probe header": ("spec", "containers", 0, "readinessProbe", "httpGet", "httpHeaders", 0, "value"),
    "probe path": ("spec", "containers", 0, "readinessProbe", "httpGet", "path"),
    "hook": ("spec", "containers", 0, "lifecycle", "preStop", "exec", "command", 0),
    "working directory": ("spec", "containers", 0, "workingDir"),
    "annotation": ("metadata", "annotations", "example.com/note"),
    "annotation called name": ("metadata", "annotations", "name"),
    "label": ("metadata", "labels", "note"),
    "own template": ("metadata", "annotations", "morphisms.dev/template-db"),
    "own path that is none": ("metadata", "annotations", "morphisms.dev/secret-db"),
    "own unknown": ("metadata", "annotations", "morphisms.dev/pasword"),
    "own status": ("metadata", "annotations", "morphisms.dev/status"),
    "volume": ("spec", "volumes", 0, "csi", "volumeAttributes", "token"),
    "volume of our name": ("spec", "volumes", 1, "csi", "volumeAttributes", "token"),
    "init container of our name": ("spec", "initContainers", 0, "env", 0, "value"),
    "host alias": ("spec", "hostAliases", 0, "hostnames", 0),
    "unknown member": ("spec", "unknown", "deep", 0),
    "status": ("status", "message"),
}


def secretive(place: str) -> dict[str, Any]:
    """A pod with something at every place, the secret at the given one."""
    item = pod(
        volumes=[
            {"name": "data", "csi": {"driver": "d", "volumeAttributes": {"token": "x"}}},
            {"name": "morphisms-run", "csi": {"driver": "d", "volumeAttributes": {"token": "x"}}},
        ],
        initContainers=[{"name": "morphisms-init", "image": "i", "env": [{"name": "X", "value": "x"}]}],
        hostAliases=[{"ip": "10.0.0.1", "hostnames": ["x"]}],
        unknown={"deep": ["x"]},
    )
    item["status"] = {"message": "x"}
    item["metadata"] |= {
        "labels": {"note": "x"},
        "annotations": {
            "example.com/note": "x",
            "name": "x",
            "morphisms.dev/template-db": "x",
            "morphisms.dev/secret-db": "secret/db",
            "morphisms.dev/pasword": "x",
            "morphisms.dev/status": "x",
        },
    }
    item["spec"]["containers"][0] |= {
        "command": ["/app", "x"],
        "args": ["x"],
        "workingDir": "x",
        "env": [{"name": "A", "value": "x"}, {"name": "B", "value": "x"}, {"name": "C", "value": "x"}],
        "readinessProbe": {"httpGet": {"path": "x", "httpHeaders": [{"name": "Authorization", "value": "x"}]}},
        "lifecycle": {"preStop": {"exec": {"command": ["x"]}}},
    }
    here: Any = item
    for step in PLACES[place][:-1]:
        here = here[step]
    texts = {"inline": f"postgres://u:{SECRET}@${{vault:secret/db#x}}", "broken reference": f"vault:{SECRET}"}
    assert here[PLACES[place][-1]]
    here[PLACES[place][-1]] = texts.get(place, SECRET)
    return item


@pytest.mark.parametrize("place", PLACES)
def test_a_secret_is_not_shown_wherever_it_stands(place: str) -> None:
    before = secretive(place)
    after = copy.deepcopy(before)
    # Every line is in the diff then: what stands near a change is as visible as the change.
    after["spec"]["containers"][0]["command"].insert(0, "/morphisms/run/exec")
    for text in (
        redacted_diff("t", before, {}, Configuration()),
        redacted_diff("t", {}, before, Configuration()),
        redacted_diff("t", before, after, Configuration()),
    ):
        assert text
        assert SECRET not in text


@pytest.mark.parametrize("place", PLACES)
def test_a_secret_is_not_shown_after_injection_either(place: str, command: Command, tmp_path: Path) -> None:
    result = command("inject", "--diff", "-f", write(tmp_path / "pod.yaml", secretive(place)))
    assert SECRET not in result.out + result.err


@pytest.fixture
def story(command: Command, tmp_path: Path) -> str:
    item = pod()
    item["metadata"]["annotations"] = {"morphisms.dev/template-db": SECRET, "morphisms.dev/secret-db": "secret/db"}
    item["spec"]["containers"][0] |= {
        "args": ["--port", SECRET],
        "env": [
            {"name": "PASSWORD", "value": "vault:secret/shop/db#password"},
            {"name": "URL", "value": f"postgres://u:{SECRET}${{vault:secret/shop/db#password}}"},
            {"name": "LEVEL", "value": SECRET},
        ],
    }
    return command("inject", "--diff", "-f", write(tmp_path / "pod.yaml", item)).out


def test_our_additions_are_readable(story: str) -> None:
    added = [line[1:].strip() for line in story.splitlines() if line.startswith("+")]
    for line in (
        "runtimeClassName: kata-qemu-snp",
        "- key: amd.feature.node.kubernetes.io/snp",
        "- name: morphisms-init",
        "path: secret/shop/db",
        "- /morphisms/run/exec",
        "mountPath: /morphisms/secrets",
        "medium: Memory",
        "audience: morphisms-verifier",
    ):
        assert line in added
    assert any('morphisms.dev/status: \'{"injector":3,"template":"sha256:' in line for line in added)


def test_a_moved_reference_is_readable_and_the_authors_text_around_it_is_not(story: str) -> None:
    assert "-      value: vault:secret/shop/db#password" in story
    assert SECRET not in story
    assert "postgres" not in story


def test_the_same_text_is_hidden_under_the_same_number() -> None:
    before, after = pod(), pod()
    before["spec"]["containers"][0] |= {"command": ["/app"], "args": ["--port", SECRET, "--port"]}
    after["spec"]["containers"][0]["command"] = [EXEC_HELPER, "app", "--", "/app", "--port", SECRET, "--port"]
    redaction = Redaction(Configuration(), before)
    old, new = (redaction.redacted(each)["spec"]["containers"][0] for each in (before, after))
    assert new["command"] == [EXEC_HELPER, "app", "--", *old["command"], *old["args"]]
    assert len({*old["command"], *old["args"]}) == 3


def test_a_command_that_imitates_the_exec_helper_is_hidden_all_the_same() -> None:
    item = pod()
    item["spec"]["containers"][0]["command"] = [EXEC_HELPER, SECRET, "--", "/app"]
    assert SECRET not in redacted_diff("t", {}, item, Configuration())


def test_an_unchanged_object_has_an_empty_diff() -> None:
    assert redacted_diff("t", pod(), pod(), Configuration()) == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colour_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert wants_colour(Terminal())
    assert not wants_colour(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_colour(Terminal())


def test_a_coloured_diff_has_the_same_text() -> None:
    plain = redacted_diff("t", pod(), pod(hostPID=True), Configuration())
    coloured = redacted_diff("t", pod(), pod(hostPID=True), Configuration(), colour=True)
    assert "\x1b[32m+  hostPID: true\x1b[0m" in coloured
    assert "\x1b" not in plain


def imitation(**members: Any) -> dict[str, Any]:
    """A pod with a hand-written container that looks like ours."""
    own = {"name": "morphisms-init", "image": Configuration().sidecar.image, **members}
    return pod(initContainers=[own])


def test_a_container_like_ours_that_its_author_wrote_is_not_shown() -> None:
    pair = EnvVariable("app", "A", None, "secret/db", "a", None)
    view = Pod(pod(), "shop", Configuration())
    assert view.profile is not None
    plan = make_plan(view, view.profile)._replace(env=(pair,))
    before = imitation(args=[SECRET], env=[{"name": "MORPHISMS_PLAN", "value": write_plan(plan)}])
    assert SECRET not in redacted_diff("t", before, {}, Configuration())


def test_a_container_of_our_name_without_a_plan_is_not_shown() -> None:
    after = imitation(env=[{"name": "MORPHISMS_PLAN", "value": SECRET}])
    assert SECRET not in redacted_diff("t", {}, after, Configuration())
