"""One replica and the ConfigMap with the container templates, without a cluster: what it goes by after each change."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from server.kubernetes.client import Client
from webhook.cluster.replica import Replica
from webhook.cluster.templates import Templates
from webhook.configuration.container_template import ContainerTemplate
from webhook.configuration.model import Configuration
from webhook.configuration.templates_map import WARN_BYTES, template_key

_ONE, _TWO = (
    Configuration.model_validate({"sidecar": {"image": f"registry.example/sidecar:{number}"}}).container_template
    for number in (1, 2)
)


class Seen:
    """A replica that sees what a test writes."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.templates = Templates(
            Replica("morphisms-system", "replica-0"),
            connect=_connect,
            configuration=Configuration,
            registry=self.registry,
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
