"""Step 8: the status annotation, which names the template and the configuration that a pod was rewritten by."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any, Final

from webhook.pod.pod import Pod
from webhook.rewrite.patch import Patch
from webhook.wellknown import DIGEST_PREFIX, STATUS, SUPPORTED_INJECTOR_VERSIONS

_TEMPLATE: Final = re.compile(rf"{DIGEST_PREFIX}[0-9a-f]{{64}}")


def set_status(patch: Patch, pod: Pod) -> None:
    """Write the status; a pod that was rewritten before, and needs no change, keeps its own."""
    if not patch.operations and _has_supported_status(pod):
        return
    status = status_text(pod.template.injector, pod.template.digest, pod.configuration.digest, pod.profile_name)
    if pod.annotations.get(STATUS) == status:
        return
    patch.annotate((), STATUS, status)


@lru_cache(maxsize=256)
def status_text(injector: int, template: str, configuration: str, profile: str) -> str:
    """The annotation's value; `template` and `configuration` are digests (hex)."""
    members = {
        "injector": injector,
        "template": f"{DIGEST_PREFIX}{template}",
        "configuration": configuration,
        "profile": profile,
    }
    return json.dumps(members, separators=(",", ":"))


def template_in_status(pod: Pod) -> str | None:
    """The digest of the template that the pod's status names, for information: every author can write it."""
    digest = _status(pod).get("template")
    if isinstance(digest, str) and _TEMPLATE.fullmatch(digest):
        return digest.removeprefix(DIGEST_PREFIX)
    return None


def _has_supported_status(pod: Pod) -> bool:
    """Whether the pod's status names a version of the template that this webhook still renders."""
    version = _status(pod).get("injector")
    return type(version) is int and version in SUPPORTED_INJECTOR_VERSIONS


def _status(pod: Pod) -> dict[str, Any]:
    try:
        status = json.loads(pod.annotations.get(STATUS, ""))
    except (ValueError, RecursionError):
        return {}
    return status if isinstance(status, dict) else {}
