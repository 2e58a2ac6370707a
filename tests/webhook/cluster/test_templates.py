"""One replica and the ConfigMap with the container templates, without a cluster: what it goes by after each change."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from server.kubernetes.client import Client
from server.kubernetes.clock import ServerClock
from webhook.cluster.replica import Replica
from webhook.cluster.templates import Templates
from webhook.configuration.accepted_templates import AcceptedTemplates
from webhook.configuration.container_template import ContainerTemplate
from webhook.configuration.model import Configuration
from webhook.configuration.templates_map import WARN_BYTES, template_key

_ONE, _TWO = (
    Configuration.model_validate({"sidecar": {"image": f"registry.example/sidecar:{number}"}}).container_template
    for number in (1, 2)
)


class Workers:
    """Those of a replica: what they got, and whether all of them use it."""

    def __init__(self) -> None:
        self.got: list[AcceptedTemplates] = []
        self.all_use_it = False

    def share(self, templates: AcceptedTemplates) -> None:
        self.got.append(templates)

    def is_shared(self) -> bool:
        return self.all_use_it


class ApiServer:
    """As much of a client as a report takes."""

    clock = ServerClock()

    def __init__(self) -> None:
        self.patches: list[Any] = []

    async def patch(self, _path: str, _kind: str, body: Any) -> None:
        self.patches.append(body)


class Seen:
    """A replica that sees what a test writes."""

    def __init__(self, sharing: Workers | None = None) -> None:
        self.registry = CollectorRegistry()
        self.templates = Templates(
            Replica("morphisms-system", "replica-0"),
            connect=_connect,
            configuration=Configuration,
            registry=self.registry,
            sharing=sharing,
        )

    def write(self, *templates: ContainerTemplate, **data: Any) -> None:
        """The ConfigMap is now this."""
        entries = {template_key(each.digest): each.text for each in templates} | data
        self.templates._watched.accept({"metadata": {"name": "morphisms-webhook-templates"}, "data": entries})

    @property
    def rendered(self) -> ContainerTemplate | None:
        return self.templates.current().rendered(Configuration())


async def _connect() -> Client:
    raise NotImplementedError


@pytest.fixture
def seen() -> Seen:
    return Seen()


def test_a_replica_that_has_not_read_them_renders_nothing_and_is_not_ready(seen: Seen) -> None:
    assert seen.rendered is None
    assert "try again" in seen.templates.current().why_unusable
    assert seen.templates.problem() == "not read yet"
    seen.write(_ONE, current=_ONE.digest)
    assert seen.rendered == _ONE
    assert seen.templates.problem() == "read, and not reported yet"


async def test_a_template_is_reported_only_once_every_worker_uses_it() -> None:
    workers, client = Workers(), ApiServer()
    seen = Seen(workers)
    seen.write(_ONE, current=_ONE.digest)
    assert workers.got == [seen.templates.current()]
    await seen.templates._say(client)  # type: ignore[arg-type]
    assert client.patches == []
    assert seen.templates.problem() == "read, and not reported yet"
    workers.all_use_it = True
    await seen.templates._say(client)  # type: ignore[arg-type]
    assert _ONE.digest[:16] in client.patches[0]["data"]["known.replica-0"]
    assert seen.templates.problem() is None


@pytest.mark.parametrize("damage", [{}, {"current": "0" * 64}, {"current": ""}, {"x": "y", "current": "null"}])
def test_damage_to_the_mark_leaves_the_template_in_force(seen: Seen, damage: dict[str, str]) -> None:
    seen.write(_ONE, _TWO, current=_TWO.digest)
    seen.write(_ONE, **damage)
    assert seen.rendered == _TWO
    assert set(seen.templates.current().by_digest) == {_ONE.digest, _TWO.digest}


def test_a_former_template_that_an_operator_removes_is_accepted_no_more(seen: Seen) -> None:
    seen.write(_ONE, _TWO, current=_TWO.digest)
    seen.write(_TWO, current=_TWO.digest)
    assert set(seen.templates.current().by_digest) == {_TWO.digest}


def test_a_revoked_template_is_withdrawn_from_memory_too(seen: Seen) -> None:
    seen.write(_ONE, current=_ONE.digest)
    seen.write(**{f"{_ONE.digest}.revoked": "CVE"})
    assert seen.templates.current().by_digest == {}
    assert seen.templates.current().is_revoked(_ONE)


def test_a_large_configmap_and_refused_entries_are_told_once(seen: Seen, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        seen.write(_ONE, current=_ONE.digest, note="x" * WARN_BYTES)
        seen.write(_ONE, current=_ONE.digest, note="y" * WARN_BYTES)
    events = [record.getMessage() for record in caplog.records]
    assert events.count("templates_large") == 1
    assert events.count("template_refused") == 1
    assert seen.registry.get_sample_value("morphisms_templates_bytes") > WARN_BYTES  # type: ignore[operator]
    assert seen.registry.get_sample_value("morphisms_templates", {"state": "refused"}) == 1
    assert seen.registry.get_sample_value("morphisms_template_current_info", {"digest": _ONE.digest}) == 1
