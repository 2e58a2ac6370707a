"""What an author decides beside the pod: the containers whose output the host may read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from cli.rendering.refused import RefusedError
from measured.pod import Choices
from measured.refusal import Refusal, member, objects
from measured.users import GROUPS
from plan.layout import CONTAINER
from webhook.pod.annotations import HOST_READS, container_names, own_annotations
from webhook.wellknown import PREFIX

_LOGS, _TERMINATION = HOST_READS
_ALWAYS: Final = frozenset({CONTAINER})
"""The termination message of morphisms-init says why it ended, and holds no secret."""


def choices_of(pod: Mapping[str, Any], *, automounts_token: bool, copies_claims: bool) -> Choices:
    """The choices in the annotations of an injected pod. Raises RefusedError for a container that it does not have."""
    metadata, spec = member(pod, "metadata"), member(pod, "spec")
    own = own_annotations(metadata.get("annotations"))
    present = {str(container.get("name")) for group in GROUPS for container in objects(spec.get(group))}
    named = {key: frozenset(container_names(own[key]) or ()) if key in own else frozenset() for key in HOST_READS}
    refusals = [
        Refusal(f"metadata.annotations[{PREFIX}{key}]", f"names {name}, which is no container of the pod")
        for key, names in named.items()
        for name in sorted(names - present)
    ]
    if refusals:
        raise RefusedError(refusals)
    return Choices(named[_LOGS], named[_TERMINATION] | _ALWAYS, automounts_token, copies_claims)
