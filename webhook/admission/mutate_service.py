"""/mutate/service: copies our annotations from a Service's metadata into its template, where that makes no Revision.

Knative hands only the template's annotations on to pods; people often write them on the Service's metadata.
"""

from __future__ import annotations

from typing import Any

from webhook.admission.knative_template import validate_template_owner_shape
from webhook.configuration.model import Configuration
from webhook.decision import Decision, as_warnings, summary
from webhook.modes import Mode
from webhook.pod.annotations import own_annotations
from webhook.pod.workloads import knative_template
from webhook.quantity import amount_of
from webhook.request import Request
from webhook.rewrite.patch import Patch
from webhook.snapshot import Snapshot
from webhook.wellknown import PREFIX

_STATUS = "status"


def decide(request: Request, configuration: Configuration, snapshot: Snapshot | None, mode: Mode) -> Decision:
    """Copy on CREATE; on UPDATE only what the old template carries, unless the template changes anyway."""
    service = request.object
    if service is None or request.operation not in ("CREATE", "UPDATE"):
        return Decision("skipped", mode, "not-created", audit=summary(mode, "skipped", ()))
    if request.user.name in configuration.identities.knative:
        return Decision("unchanged", mode, "written-by-knative", audit=summary(mode, "unchanged", ()))
    wanted = own_annotations(_annotations(service))
    wanted.pop(_STATUS, None)
    template = service["spec"]["template"]
    copies, late = wanted, tuple[str, ...]()
    if request.operation == "UPDATE" and request.old_object is not None:
        validate_template_owner_shape(request.old_object, "oldObject")
        copies, late = _copies_on_update(request.old_object, template, wanted)
    present = own_annotations(_annotations(template))
    patch = Patch(service)
    for key in sorted(copies):
        if present.get(key) != copies[key] and (key not in present or _was_copied(request.old_object, key)):
            patch.annotate(("spec", "template"), PREFIX + key, copies[key])
    warnings = as_warnings(
        f"[annotations] {PREFIX}{key} on the Service's metadata applies from the next Revision"
        " after this change. Write it in spec.template.metadata.annotations to apply it now"
        for key in late
    )
    if not patch.operations:
        return Decision("unchanged", mode, "nothing-to-copy", warnings=warnings, audit=summary(mode, "unchanged", ()))
    audit = summary(mode, "mutated", ())
    return Decision(
        "mutated", mode, "annotations-copied", patch.operations, patch.result, warnings=warnings, audit=audit
    )


def _copies_on_update(
    old: dict[str, Any], template: dict[str, Any], wanted: dict[str, str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The annotations to copy, and the keys that have to wait for the next Revision."""
    old_template = knative_template(old) or {}
    if changes(_without_ours(template), _without_ours(old_template)) or _adds_ours(template, old_template):
        return wanted, ()
    carried = own_annotations(_annotations(old_template))
    theirs = {**own_annotations(_annotations(template)), **carried}
    late = tuple(
        sorted(
            key
            for key, value in wanted.items()
            if theirs.get(key) != value and (key not in theirs or _was_copied(old, key))
        )
    )
    return {key: carried[key] for key in wanted if key in carried}, late


def _was_copied(old: dict[str, Any] | None, key: str) -> bool:
    """Whether the template's annotation was our copy: the old Service had the same value in both places."""
    if old is None:
        return False
    value = own_annotations(_annotations(old)).get(key)
    return value is not None and value == own_annotations(_annotations(knative_template(old) or {})).get(key)


def changes(new: Any, old: Any) -> bool:
    """Whether something present in `new` differs from `old`, or a list got shorter.

    A field that only `old` has is a default that Knative filled in, not a change. Nor is a different spelling that Go
    writes: a zero value for an absent field, a quantity in its canonical form.
    """
    if isinstance(new, dict):
        if old is None:
            return any(changes(value, None) for value in new.values())
        return not isinstance(old, dict) or any(changes(value, old.get(key)) for key, value in new.items())
    if isinstance(new, list):
        if not isinstance(old, list):
            return bool(new) or old is not None
        return len(new) != len(old) or any(changes(one, other) for one, other in zip(new, old, strict=True))
    if new == old or new is None or (old is None and not new):
        return False
    amount = amount_of(new)
    return amount is None or amount != amount_of(old)


def _adds_ours(template: dict[str, Any], old_template: dict[str, Any]) -> bool:
    """Whether the manifest's template has an annotation of ours that the old one did not have."""
    old = own_annotations(_annotations(old_template))
    return any(old.get(key) != value for key, value in own_annotations(_annotations(template)).items())


def _without_ours(template: dict[str, Any]) -> dict[str, Any]:
    metadata = dict(template.get("metadata") or {})
    metadata["annotations"] = {
        key: value for key, value in (metadata.get("annotations") or {}).items() if not key.startswith(PREFIX)
    }
    return {**template, "metadata": metadata}


def _annotations(item: dict[str, Any]) -> Any:
    metadata = item.get("metadata")
    return metadata.get("annotations") if isinstance(metadata, dict) else None
