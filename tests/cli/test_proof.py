"""`morphisms render --check` proves a rendering: its policy lets the pod run, and refuses what a hostile host asks."""

from __future__ import annotations

import importlib.util
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from cli.main import main
from cli.proof.engine import VARIABLE, Engine, found_engine
from cli.proof.guest_requests import Host, guest_requests
from cli.proof.proof import prove
from measured.image import digest_of, read_image
from measured.pod import measure
from measured.policy import write_policy
from tests.cli import kinds
from tests.measured import pods
from tests.support.policy_engine import program

# Small, and with each kind of thing that is attacked: an init container, a variable, memory, a copied volume.
POD: Final[dict[str, Any]] = {
    "metadata": {"name": "payments-0", "namespace": "shop", "uid": "u"},
    "spec": {
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "initContainers": [{"name": "first", "image": pods.TOOL, "command": ["prepare"]}],
        "containers": [
            {
                "name": "app",
                "image": pods.TOOL,
                "command": ["run"],
                "env": [{"name": "COLOUR", "value": "blue"}],
                "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [
                    {"name": "memory", "mountPath": "/memory"},
                    {"name": "settings", "mountPath": "/settings", "readOnly": True},
                ],
            }
        ],
        "volumes": [
            {"name": "memory", "emptyDir": {"medium": "Memory"}},
            {"name": "settings", "configMap": {"name": "settings"}},
        ],
    },
}
IMAGES: Final = {pods.TOOL: pods.CONFIGURATIONS[pods.TOOL]}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    built = program()
    with found_engine(None if built is None else str(built)) as found:
        assert found is not None
        yield found


def _policy(pod: dict[str, Any]) -> str:
    return write_policy(measure(pod, {digest_of(pods.TOOL) or "": read_image(IMAGES[pods.TOOL])}))


def test_the_policy_of_a_pod_is_proven(engine: Engine) -> None:
    proof = prove([POD], IMAGES, _policy(POD), engine)
    assert (proof.refused, proof.passed) == ([], [])
    assert proof.sequences == 3
    assert proof.attacks > 300


def test_the_policy_of_another_pod_is_not(engine: Engine) -> None:
    other = {**POD, "metadata": {**POD["metadata"], "name": "billing-0"}}
    proof = prove([other], IMAGES, _policy(POD), engine)
    assert proof.refused == ["CreateContainer of billing-0"] * 3
    assert not proof.holds


# A rule that is missing, by its text, and an attack that the proof finds then.
MISSING: Final[dict[str, tuple[str, str, str]]] = {
    "image": ("  has_image(container)\n", "", "first: image: none"),
    "root": (
        '  oci.Root.Path == concat("", ["/run/kata-containers/", input.container_id, "/rootfs"])\n',
        "",
        "root: elsewhere, with its image",
    ),
    "one variable": ("  count(names) == count(entries)\n", "", "env: another in the place of"),
    "user": ("  has_user(container.user)\n", "", "user: UID"),
    "shm": ('  mount.source == "/run/kata-containers/sandbox/shm"\n', "", "mount: /dev/shm by a detour"),
    "order": (
        "  every earlier in container.after { state[started_key(earlier)] }\n",
        "",
        "CreateContainer first: state: app before its init containers",
    ),
    "one at a time": ("  not state[live_key(container.name)]\n", "", "state: a second instance"),
    "exec": ("default ExecProcessRequest := false", "default ExecProcessRequest := true", "request: ExecProcess"),
    "loopback": ('  device != "lo"\n', "", "interface: name"),
}


@pytest.mark.parametrize(("rule", "instead", "attack"), MISSING.values(), ids=MISSING)
def test_a_rule_that_is_missing_is_found(engine: Engine, rule: str, instead: str, attack: str) -> None:
    policy = _policy(POD)
    assert rule in policy
    proof = prove([POD], IMAGES, policy.replace(rule, instead), engine)
    assert proof.refused == []
    assert any(attack in each for each in proof.passed), proof.passed


def test_the_binding_decides_as_the_engine_of_guests(engine: Engine) -> None:
    if importlib.util.find_spec("regorus") is None:
        pytest.skip("needs celine-regorus, the binding that `render --check` uses where it is installed")
    policy = _policy(POD)
    weak = policy.replace("  has_image(container)\n", "")
    with found_engine(None) as binding:
        assert binding is not None
        for text in (policy, weak):
            assert prove([POD], IMAGES, text, binding) == prove([POD], IMAGES, text, engine)


def test_the_same_seed_makes_the_same_requests() -> None:
    """A proof that failed once fails again."""
    first, again = (guest_requests(POD, IMAGES, Host(random.Random(5))) for _ in range(2))
    assert first == again


def _check(tmp_path: Path, *options: str) -> int:
    return main([*kinds.write_inputs(tmp_path, kinds.workload("Pod")), "--check", *options])


def test_the_command_proves_a_rendering_with_an_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    built = program()
    assert _check(tmp_path, *(() if built is None else ("--engine", str(built)))) == 0
    told = capsys.readouterr().err
    assert "the pod, by 1 names, is the one that the document measures" in told
    assert "3 honest sequences" in told
    assert "all as it has to be" in told
    assert not (tmp_path / "out").exists()


def test_without_an_engine_the_command_says_what_it_did_not_try(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setitem(sys.modules, "regorus", None)
    assert _check(tmp_path) == 0
    told = capsys.readouterr().err
    assert "is the one that the document measures" in told
    assert "honest requests and attacks were not tried" in told


@pytest.mark.parametrize(
    ("engine", "expected"), [("/nowhere/engine", "No such file"), ("/bin/cat", "policy"), ("/bin/true", "policy")]
)
def test_a_program_that_is_no_engine_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, engine: str, expected: str
) -> None:
    monkeypatch.setenv(VARIABLE, engine)
    assert _check(tmp_path) == 2
    assert expected in capsys.readouterr().err
