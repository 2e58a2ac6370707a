"""The accepted container templates of a replica, on their way from its parent process to its workers."""

from __future__ import annotations

import json
from typing import Any, Final

from webhook.configuration.accepted_templates import UNREAD, AcceptedTemplates
from webhook.configuration.container_template import ContainerTemplate

TOPIC: Final = "templates"


def written(templates: AcceptedTemplates) -> bytes:
    """The templates as a parent sends them."""
    content = {
        "templates": [template.text for template in templates.by_digest.values()],
        "current": templates.current,
        "revoked": sorted(templates.revoked),
        "withdrawn": [template.text for template in templates.withdrawn],
    }
    return json.dumps(content).encode()


class ReceivedTemplates:
    """What a worker accepts and renders: what its parent last sent."""

    def __init__(self) -> None:
        self._accepted = UNREAD

    def current(self) -> AcceptedTemplates:
        """As `webhook.cluster.templates.Templates.current`."""
        return self._accepted

    def configured(self) -> None:
        """Do nothing: the parent watches the configuration too."""

    def problem(self) -> str | None:
        """Why this worker cannot judge pods yet. A gate of its readiness."""
        return "not received yet" if self._accepted is UNREAD else None

    def take(self, content: bytes) -> None:
        """Take what the parent sent into use. Raises ValueError, and keeps what was."""
        sent = json.loads(content)
        known = {template.digest: template for template in self._accepted.by_digest.values()}
        accepted = [_template(text, known) for text in sent["templates"]]
        self._accepted = AcceptedTemplates(
            {template.digest: template for template in accepted},
            sent["current"],
            frozenset(sent["revoked"]),
            tuple(_template(text, {}) for text in sent["withdrawn"]),
        )


def _template(text: str, known: dict[str, ContainerTemplate]) -> ContainerTemplate:
    content: Any = json.loads(text)
    template = ContainerTemplate.model_validate(content)
    # A template keeps what it has computed for the pods it was rendered into.
    return known.get(template.digest, template)
