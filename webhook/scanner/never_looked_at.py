"""What no audit looks at: said in each one, because nothing is called clean that was not looked at. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from server.kubernetes.untyped import controller_of, mapping, text
from webhook.pod.container import display_name
from webhook.scanner.kinds import SCANNED_KINDS
from webhook.scanner.reports.results import Result

NEVER_LOOKED_AT: Final = (
    "Helm's release Secrets (sh.helm.release.v1.*), which hold the manifests of every release",
    "objects of other kinds that have a pod template, such as an Argo Rollout (their pods are looked at)",
)
"""What no audit looks at, whatever its user may list; so it stands against no namespace."""

MAX_MAKERS: Final = 20
RULE: Final = "scan/never-looked-at"

_KNOWN: Final = frozenset((kind.api_version.partition("/")[0], kind.kind) for kind in SCANNED_KINDS) | {("v1", "Node")}


def maker_of(item: Mapping[str, Any]) -> str:
    """`KIND (GROUP)` of what makes the object, where that is of a kind that is not looked at; else empty."""
    owner = controller_of(mapping(item.get("metadata")))
    group, kind = text(owner.get("apiVersion")).partition("/")[0], text(owner.get("kind"))
    if not owner or (group, kind) in _KNOWN:
        return ""
    return f"{display_name(kind)} ({display_name(group)})"


def never_looked_at(makers: Collection[str]) -> Iterator[Result]:
    """The entries of the cluster's report. `makers`: which unknown kinds make what is looked at."""
    for each in NEVER_LOOKED_AT:
        yield Result(RULE, "skip", "info", f"never looked at: {each}", ())
    for maker in sorted(makers)[:MAX_MAKERS]:
        message = f"never looked at: objects of kind {maker}; only what they make here is looked at"
        yield Result(RULE, "skip", "info", message, ())
    if len(makers) > MAX_MAKERS:
        message = f"never looked at: objects of more kinds than these {MAX_MAKERS} that make what is looked at"
        yield Result(RULE, "skip", "info", message, ())
