"""A pod's moments are read from what API server, containerd and containers wrote, and from nothing like it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.bench.node.moments import audited, contained, logged, seconds
from tests.bench.node.starts import PHASES, Start

_NAME = "web-1"
_UNREADY = {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}
_READY = {
    "status": {"conditions": [{"type": "ContainersReady", "status": "True"}, {"type": "Ready", "status": "True"}]}
}


def _event(verb: str, second: str, subresource: str = "", code: int = 201, **answer: Any) -> dict[str, Any]:
    about = {"resource": "pods", "namespace": "bench", **({"subresource": subresource} if subresource else {})}
    if subresource:
        about["name"] = _NAME
    stamps = {
        "requestReceivedTimestamp": "2026-01-01T00:00:01.000000Z",
        "stageTimestamp": f"2026-01-01T00:00:{second}Z",
    }
    event: dict[str, Any] = {"verb": verb, "objectRef": about, "responseStatus": {"code": code}, **stamps}
    return {**event, "responseObject": answer}


def test_the_api_servers_log_gives_the_first_time_of_each() -> None:
    events = [
        _event("create", "01.1", code=403),
        _event("create", "01.5", "binding"),  # the API server's answer to the creation ended after that
        _event("create", "01.25", metadata={"name": _NAME}),
        _event("create", "01.75", "binding"),
        _event("patch", "02.0", "status", 200, **_UNREADY),
        _event("patch", "02.5", "status", 409, **_READY),
        _event("patch", "03.5", "status", 200, **_READY),
        _event("patch", "04.5", "status", 200, **_READY),
    ]
    of_before = _event("patch", "00.5", "status", 200, **_READY)
    of_before["objectRef"]["name"] = "web-0"
    elsewhere = _event("create", "00.5", metadata={"name": "other"})
    elsewhere["objectRef"]["namespace"] = "others"
    (moments,) = audited([of_before, *events, elsewhere], "bench").values()
    begun = seconds("2026-01-01T00:00:01Z")
    assert {name: value - begun for name, value in moments.items()} == {
        "requested": 0.0,
        "created": 0.25,
        "bound": 0.5,
        "ready": 2.5,
    }


def _logged(second: str, message: str) -> str:
    quoted = message.replace('"', '\\"')
    return f'time="2026-01-01T00:00:{second}Z" level=info msg="{quoted}"\n'


def test_containerds_log_gives_sandbox_and_containers_of_their_pod() -> None:
    sandbox = f"RunPodSandbox for &PodSandboxMetadata{{Name:{_NAME},Uid:u,Namespace:bench,Attempt:0,}}"
    made = 'CreateContainer within sandbox "5a" for &ContainerMetadata{Name:%s,Attempt:%d,} returns container id "%s"'
    lines = [
        _logged("01.000000000", sandbox),
        _logged("02.000000001", f'{sandbox} returns sandbox id "5a"'),
        _logged("02.1", made % ("user-container", 0, "c0")),
        _logged("02.2", 'StartContainer for "c0"'),
        _logged("03.25", 'StartContainer for "c0" returns successfully'),
        _logged("04.1", made % ("user-container", 1, "c1")),
        _logged("04.2", 'StartContainer for "c1" returns successfully'),
        _logged("04.3", 'StartContainer for "of-another-sandbox" returns successfully'),
        "a line of another form\n",
    ]
    (moments,) = contained(lines).values()
    begun = seconds("2026-01-01T00:00:02Z")
    assert moments["sandbox"] - begun < 0.001
    assert moments["started user-container"] - begun == pytest.approx(1.25)
    assert moments.keys() == {"sandbox", "started user-container"}


def test_an_agents_log_gives_its_first_line_of_each_kind() -> None:
    lines = [
        '2026-01-01T00:00:01.500000000Z stderr F {"event":"started"}',
        '2026-01-01T00:00:02.500000000Z stderr F {"event":"published"}',
        '2026-01-01T00:00:09.500000000Z stderr F {"event":"published"}',
    ]
    begun = seconds("2026-01-01T00:00:01.5Z")
    moments = logged(lines, ('"started"', '"published"'), ("running", "published"))
    assert {name: value - begun for name, value in moments.items()} == {"running": 0.0, "published": 1.0}


_ALL = {
    name: float(number)
    for number, name in enumerate(
        (
            "requested",
            "created",
            "bound",
            "sandbox",
            "running",
            "attested",
            "published",
            "started user-container",
            "ready",
        )
    )
}


def test_phases_add_up_to_the_whole() -> None:
    start = Start.of("init", 1, 0, _ALL)
    assert list(start.phases) == list(PHASES)
    assert start.phases == dict.fromkeys(PHASES, 1000.0)
    assert start.total == 8000.0


def test_without_an_agent_the_application_follows_the_sandbox() -> None:
    plain = {name: value for name, value in _ALL.items() if name not in ("running", "attested", "published")}
    phases = Start.of("plain", 1, 0, plain).phases
    assert (phases["agent"], phases["attest"], phases["vault"], phases["application"]) == (0.0, 0.0, 0.0, 4000.0)


@pytest.mark.parametrize("missing", ["requested", "bound", "sandbox", "attested", "started user-container", "ready"])
def test_a_moment_that_is_missing_is_no_figure(missing: str) -> None:
    with pytest.raises(KeyError, match=missing):
        Start.of("init", 1, 0, {name: value for name, value in _ALL.items() if name != missing})
