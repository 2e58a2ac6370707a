"""A document before and after, as a unified diff that hides the author's values."""

from __future__ import annotations

import difflib
from typing import Any

from cli.support.redaction import Redaction
from cli.support.terminal import CYAN, GREEN, RED, coloured
from server.yaml.kubernetes import write_documents
from webhook.configuration.model import Configuration

# Wider than diff's own 3, so that a changed container's name is in sight.
_CONTEXT = 4
_COLOURS = {"+": GREEN, "-": RED, "@": CYAN}


def redacted_diff(
    title: str,
    before: dict[str, Any],
    after: dict[str, Any],
    configuration: Configuration,
    *,
    colour: bool = False,
    becomes: str = "as admitted",
) -> str:
    """The unified diff of both as YAML; empty where they are the same. `becomes` says what the second one is."""
    if before == after:
        return ""
    redaction = Redaction(configuration, before)
    old, new = (write_documents([redaction.redacted(each)]).splitlines() for each in (before, after))
    lines = difflib.unified_diff(old, new, title, f"{title} ({becomes})", n=_CONTEXT, lineterm="")
    return "".join(
        coloured(line, _COLOURS.get(line[:1], ""), wanted=colour and line[:1] in _COLOURS) + "\n" for line in lines
    )
