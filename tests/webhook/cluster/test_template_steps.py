"""When a template is marked: a leader, replicas whose watches lag, and one object, moved in every order."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from webhook.cluster.template_steps import Add, Ask, Mark, Settle, Wait, next_step, serving_replicas
from webhook.configuration.accepted_templates import UNREAD, AcceptedTemplates
from webhook.configuration.container_template import ContainerTemplate
from webhook.configuration.model import Configuration
from webhook.configuration.templates_map import (
    MAX_BYTES,
    TemplatesMap,
    known_key,
    known_text,
    read_map,
    template_key,
)

_NOW = datetime(2030, 1, 1, tzinfo=UTC)


def _configuration(number: int) -> Configuration:
    return Configuration.model_validate({"sidecar": {"image": f"registry.example/sidecar:{number}"}})


def _data(*templates: ContainerTemplate, **more: str) -> dict[str, str]:
    return {template_key(each.digest): each.text for each in templates} | more


def _pod(name: str, ready: bool | None = True, **metadata: Any) -> dict[str, Any]:
    since = (_NOW - timedelta(hours=1)).isoformat()
    conditions = [] if ready is None else [{"type": "Ready", "status": str(ready), "lastTransitionTime": since}]
    return {"metadata": {"name": name, **metadata}, "status": {"phase": "Running", "conditions": conditions}}


def _next(data: dict[str, str], configuration: Configuration, serving: frozenset[str] | None) -> object:
    found = read_map(data)
    return next_step(found, found.templates, configuration, serving)


_ONE, _TWO = _configuration(1), _configuration(2)
_OLD, _NEW = _ONE.former_container_template, _TWO.container_template


def test_at_a_first_installation_the_configurations_own_template_is_added_and_marked() -> None:
    assert _next({}, _ONE, None) == Add(_OLD)
    assert _next(_data(_OLD), _ONE, None) == Ask()
    assert _next(_data(_OLD), _ONE, frozenset({"a"})) == Wait(("a",))
    said = {known_key("a"): known_text(AcceptedTemplates({_OLD.digest: _OLD}), _NOW)}
    assert _next(_data(_OLD) | said, _ONE, frozenset({"a"})) == Mark(_OLD.digest)
    assert _next(_data(_OLD, current=_OLD.digest) | said, _ONE, frozenset({"a"})) == Wait()


def test_a_replica_of_the_release_before_never_says_anything_and_is_waited_for() -> None:
    both = AcceptedTemplates({_OLD.digest: _OLD, _NEW.digest: _NEW})
    data = _data(_OLD, _NEW, current=_OLD.digest) | {known_key("new"): known_text(both, _NOW)}
    assert _next(data, _TWO, frozenset({"new", "before"})) == Wait(("before",))
    assert _next(data, _TWO, frozenset({"new"})) == Mark(_NEW.digest)


def test_an_operator_skips_the_wait_once() -> None:
    data = _data(_OLD, _NEW, current=_OLD.digest, immediate="true")
    assert _next(data, _TWO, frozenset({"a"})) == Mark(_NEW.digest)
    assert _next(data | {"current": _NEW.digest}, _TWO, None) == Settle()


def test_a_revoked_mark_moves_at_once_and_never_to_a_revoked_template() -> None:
    data = _data(_OLD, _NEW, current=_OLD.digest) | {f"{_OLD.digest}.revoked": ""}
    assert _next(data, _TWO, frozenset({"a"})) == Mark(_NEW.digest)
    blocked = _next(data, _ONE, frozenset({"a"}))
    assert isinstance(blocked, Wait)
    assert "revoked" in blocked.problem


def test_a_full_configmap_is_not_filled_further() -> None:
    blocked = _next(_data(_OLD, current=_OLD.digest) | {"note": "x" * MAX_BYTES}, _TWO, None)
    assert isinstance(blocked, Wait)
    assert "remove templates" in blocked.problem


@pytest.mark.parametrize(
    ("pod", "serves"),
    [
        (_pod("a"), True),
        (_pod("a", None), False),
        (_pod("a", False), False),
        (_pod("said-just-now", False), True),
        (_pod("said-just-now", None), True),
        (_pod("said-long-ago", False), False),
        (_pod("a", False, deletionTimestamp=(_NOW + timedelta(seconds=40)).isoformat()), True),
        (_pod("a", True, deletionTimestamp=(_NOW - timedelta(seconds=40)).isoformat()), False),
        ({**_pod("a"), "status": {"phase": "Failed", "conditions": _pod("a")["status"]["conditions"]}}, False),
        ({"metadata": None, "status": "text"}, False),
        ("text", False),
    ],
)
def test_which_replicas_api_servers_may_call(pod: Any, serves: bool) -> None:
    said = {
        known_key("said-just-now"): known_text(UNREAD, _NOW - timedelta(seconds=10)),
        known_key("said-long-ago"): known_text(UNREAD, _NOW - timedelta(minutes=10)),
    }
    assert bool(serving_replicas([pod], read_map(said), _NOW)) is serves


def test_one_that_became_unready_just_now_may_still_be_called() -> None:
    pod = _pod("said-long-ago", False)
    pod["status"]["conditions"][0]["lastTransitionTime"] = (_NOW - timedelta(seconds=5)).isoformat()
    said = {known_key("said-long-ago"): known_text(UNREAD, _NOW - timedelta(minutes=10))}
    assert serving_replicas([pod], read_map(said), _NOW) == {"said-long-ago"}


@dataclass
class _Replica:
    """What it has read of the object, which lags behind, and whether it has said so and is ready."""

    name: str
    configuration: Configuration
    read: TemplatesMap | None = None
    said: bool = False
    versions: list[int] = field(default_factory=list)

    @property
    def ready(self) -> bool:
        return self.read is not None and self.said

    def accepts(self, template: ContainerTemplate) -> bool:
        return self.read is not None and template in self.read.templates.accepted(self.configuration)

    def renders(self) -> ContainerTemplate | None:
        return None if self.read is None else self.read.templates.rendered(self.configuration)


class Rollout(RuleBasedStateMachine):
    """Replicas read, say, restart and get new files in any order; what one renders, every ready one accepts."""

    replicas = Bundle("replicas")

    def __init__(self) -> None:
        super().__init__()
        self.history: list[dict[str, str]] = [{}]
        self.all: list[_Replica] = []

    @initialize()
    def first(self) -> None:
        first = _Replica("first", _configuration(1))
        self.all.append(first)
        for _ in range(4):
            self.read(first, 1.0)
            self.say(first)
            self.lead(first)
        self.read(first, 1.0)

    @rule(target=replicas, number=st.integers(1, 3))
    def start(self, number: int) -> _Replica:
        replica = _Replica(f"r{len(self.all)}", _configuration(number))
        self.all.append(replica)
        return replica

    @rule(replica=replicas, how_far=st.floats(0, 1))
    def read(self, replica: _Replica, how_far: float) -> None:
        """Its watch brings some of what it has not seen; a list at the start brings all."""
        seen = replica.versions[-1] if replica.versions else len(self.history) - 1
        version = seen + round(how_far * (len(self.history) - 1 - seen))
        replica.versions.append(version)
        replica.read = read_map(self.history[version])

    @rule(replica=replicas)
    def say(self, replica: _Replica) -> None:
        if replica.read is not None:
            self._write({known_key(replica.name): known_text(replica.read.templates, _NOW)})
            replica.said = True

    @rule(replica=replicas)
    def restart(self, replica: _Replica) -> None:
        """Its memory is gone, and what it had said stays written."""
        replica.read, replica.said = None, False
        replica.versions.clear()

    @rule(replica=replicas, number=st.integers(1, 3))
    def configure(self, replica: _Replica, number: int) -> None:
        replica.configuration = _configuration(number)

    @rule(replica=replicas)
    def lead(self, replica: _Replica) -> None:
        """One step of whichever replica leads; a write from an outdated version is refused."""
        if replica.read is None or replica.versions[-1] != len(self.history) - 1:
            return
        pods = [_pod(each.name, each.ready) for each in self.all]
        found = replica.read
        serving = serving_replicas(pods, found, _NOW)
        step = next_step(found, found.templates, replica.configuration, serving)
        if isinstance(step, Add):
            self._write({template_key(step.template.digest): step.template.text})
        elif isinstance(step, Mark):
            self._write({"current": step.digest})

    @invariant()
    def what_one_renders_every_ready_one_accepts(self) -> None:
        if not self.history[-1].get("current"):
            return
        ready = [replica for replica in self.all if replica.ready]
        for renderer in ready:
            template = renderer.renders()
            assert template is not None
            assert all(each.accepts(template) for each in ready), template.sidecar.image

    def _write(self, data: dict[str, str]) -> None:
        self.history.append(self.history[-1] | data)


TestRollout = Rollout.TestCase
TestRollout.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
