"""Who answers for the guest: the engine that Kata's agent has, and where it cannot be built, PyPI's binding of it."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest

from tests.measured import pods
from tests.measured.test_policy_admits import allowed, container_of
from tests.measured.test_policy_refuses import CREATE_APP
from tests.support import policy_engine
from tests.support.policy_engine import Engine, program

# Kata's agent is built without them: a policy that calls one loads, and then refuses every request.
MISSING_IN_GUESTS = (
    'crypto.sha256("x")',
    "time.now_ns()",
    'glob.match("*", [], "x")',
    'hex.encode("x")',
    'semver.is_valid("1")',
)


@pytest.fixture
def stand_in() -> Iterator[Engine]:
    policy_engine.regorus()
    with Engine(pods.policy(), binding=True) as engine:
        yield engine


def test_the_stand_in_of_a_machine_without_rust_answers_as_the_guests_engine_does(stand_in: Engine) -> None:
    for ask in pods.honest():
        if container_of(ask) == "app":
            for name, change in CREATE_APP.items():
                changed = copy.deepcopy(ask)
                change(changed["request"])
                assert not allowed(stand_in, changed), name
        assert allowed(stand_in, ask), ask["kind"]
    assert not stand_in.ask("ExecProcessRequest", {"container_id": "x"})
    assert not stand_in.ask("UnknownRequest", {})


def test_a_machine_without_rust_takes_the_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    policy_engine.regorus()
    monkeypatch.setattr(policy_engine, "_CACHE", policy_engine._CACHE / "empty")
    monkeypatch.setattr("shutil.which", lambda _: None)
    with Engine(pods.policy()) as engine:
        assert all(allowed(engine, ask) for ask in pods.honest())


@pytest.mark.parametrize("builtin", MISSING_IN_GUESTS)
def test_a_builtin_that_guests_lack_refuses_every_request(builtin: str) -> None:
    if program() is None:
        pytest.skip("needs Rust's cargo: the binding that stands in for the guests' engine has builtins that they lack")
    with Engine(
        f"package agent_policy\nimport future.keywords.if\nExecProcessRequest if {{ x := {builtin}; x != 0 }}\n"
    ) as guest:
        assert not guest.ask("ExecProcessRequest", {})
        assert guest.error
