"""What keeps a workload's pods from starting, read from pods, ReplicaSets and the Events of other controllers. Pure.

Authors write most of these objects, so every text is bounded and printable, and nothing of it is trusted as a name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from plan import layout
from server.kubernetes.untyped import condition_of, controller_of, mapping, mappings, text
from server.text import printable
from webhook.scanner.finding import ObjectId
from webhook.wellknown import KNATIVE_SERVICE

DENIED: Final = "MorphismsDenied"
INIT_FAILED: Final = "MorphismsInitFailed"

# etcd stores each, and kubectl shows it on one line.
_MAX_MESSAGE: Final = 1000
_CODE: Final = re.compile(r"\[([a-z][a-z0-9-]{1,63})(?:, correlation id ([A-Za-z0-9._-]{1,64}))?\]\s*\Z")
_RULE: Final = re.compile(r"\[([a-z]{2,32}/[a-z0-9-]{2,64})\]")
# What the API server writes around a webhook's and a policy's message.
_WEBHOOK: Final = re.compile(
    r'admission webhook "[a-z0-9.-]{1,200}\.morphisms\.dev" denied the request: (.*)', re.DOTALL
)
_POLICY: Final = re.compile(
    r"ValidatingAdmissionPolicy '([a-z0-9.-]{1,200})\.morphisms\.dev' with binding '[^']{1,253}' denied request: (.*)",
    re.DOTALL,
)
_UNREACHABLE: Final = re.compile(r'failed calling webhook "[a-z0-9.-]{1,200}\.morphisms\.dev"')
_STOPPED: Final = 143  # by SIGTERM: the pod was deleted
_PULLING: Final = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
_NOT_A_FAILURE: Final = frozenset({0, _STOPPED})


@dataclass(frozen=True, slots=True)
class Trouble:
    """One object's trouble. `reason` is the Event's; `code` is the sidecar's reason, the rules, or another short word.

    `source` is the pod or ReplicaSet that shows it, `owner` its controlling owner; `service` the Knative Service that
    its label claims. `at` is when it happened, as the API writes times. `is_state`: it lasts until its object changes.
    """

    reason: str
    code: str
    message: str
    source: ObjectId
    owner: ObjectId | None
    service: str
    at: str
    correlation_id: str = ""
    is_state: bool = True


def trouble_of_pod(pod: Mapping[str, Any]) -> Trouble | None:
    """The failure of the pod's `morphisms-init`; None where it has not failed, or runs again beside the application.

    Before the application starts, a failure counts also while the next try runs: a busy kubelet reports the end of one
    and the start of the other together, and the next end may come a minute later.
    """
    metadata = mapping(pod.get("metadata"))
    if metadata.get("deletionTimestamp"):
        return None
    for status in mappings(mapping(pod.get("status")).get("initContainerStatuses")):
        if status.get("name") == layout.CONTAINER:
            found = _init_failure(status, tries_again=_tries_again(pod, status))
            if found is None:
                return None
            code, message, at, correlation_id = found
            at = at or text(metadata.get("creationTimestamp"))
            return _trouble(INIT_FAILED, code, message, ("v1", "Pod"), metadata, at, correlation_id)
    return None


def trouble_of_replica_set(replica_set: Mapping[str, Any]) -> Trouble | None:
    """The denial of the ReplicaSet's pods by this webhook or its guards; None for none, or another's."""
    condition = condition_of(mapping(replica_set.get("status")), "ReplicaFailure", "True")
    found = _denial(text(condition.get("message")))
    if found is None:
        return None
    metadata, at = mapping(replica_set.get("metadata")), text(condition.get("lastTransitionTime"))
    return _trouble(DENIED, *found, ("apps/v1", "ReplicaSet"), metadata, at)


def trouble_of_event(event: Mapping[str, Any]) -> Trouble | None:
    """The denial that a controller's FailedCreate Event about a ReplicaSet tells.

    A ReplicaSet's condition keeps its first message, so a later one is in its Events only. Other controllers' Events
    are on the object already that people look at.
    """
    about = mapping(event.get("involvedObject"))
    if (about.get("apiVersion"), about.get("kind"), event.get("reason")) != ("apps/v1", "ReplicaSet", "FailedCreate"):
        return None
    found = _denial(text(event.get("message")))
    if found is None:
        return None
    at = time_of_event(event)
    code, message = found
    source = ObjectId("apps/v1", "ReplicaSet", *(text(about.get(key)) for key in ("namespace", "name", "uid")))
    return Trouble(DENIED, code, message, source, None, "", at, is_state=False)


def time_of_event(event: Mapping[str, Any]) -> str:
    """When it was last seen; empty where it does not say."""
    return text(event.get("lastTimestamp")) or text(event.get("eventTime"))


def _tries_again(pod: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    """Whether it waits for its next try or is at it, and the pod's secrets are not there yet."""
    state = mapping(status.get("state"))
    if "running" not in state:
        return bool(mapping(state.get("waiting")))
    if mapping(pod.get("status")).get("phase") != "Pending":
        return False
    # A native sidecar has started once it has published; an init container that has published runs no longer.
    written = mappings(mapping(pod.get("spec")).get("initContainers"))
    own = next((each for each in written if each.get("name") == layout.CONTAINER), {})
    return own.get("restartPolicy") != "Always" or status.get("started") is not True


def _init_failure(status: Mapping[str, Any], *, tries_again: bool) -> tuple[str, str, str, str] | None:
    """(code, message, when, correlation id)"""
    state = mapping(status.get("state"))
    waiting = mapping(state.get("waiting"))
    if (why := text(waiting.get("reason"))) in _PULLING:
        return "image-pull", f"{layout.CONTAINER}: its image cannot be pulled: {why}", "", ""
    ended = mapping(state.get("terminated")) or (
        mapping(mapping(status.get("lastState")).get("terminated")) if tries_again else {}
    )
    exit_code = ended.get("exitCode")
    if type(exit_code) is not int or exit_code in _NOT_A_FAILURE:
        return None
    at = text(ended.get("finishedAt"))
    message = _line(text(ended.get("message")))
    if (code := _CODE.search(message)) is not None:
        return code[1], message, at, code[2] or ""
    why = text(ended.get("reason")) or "Error"
    return _word(why), message or f"{layout.CONTAINER} ended with exit code {exit_code} ({_line(why)})", at, ""


def _denial(text: str) -> tuple[str, str] | None:
    """(rules, message) of a denial of ours."""
    if (denied := _WEBHOOK.search(text)) is not None:
        message = _line(denied[1])
        return ",".join(dict.fromkeys(_RULE.findall(message))) or "refused", message
    if (denied := _POLICY.search(text)) is not None:
        return denied[1], _line(denied[2])
    if _UNREACHABLE.search(text) is not None:
        # Its rest holds the webhook's address, which is of no use to the author.
        return (
            "webhook-unreachable",
            "the webhook of Morphisms does not answer, so this pod waits; the cluster tries again",
        )
    return None


def _trouble(
    reason: str,
    code: str,
    message: str,
    kind: tuple[str, str],
    metadata: Mapping[str, Any],
    at: str,
    correlation_id: str = "",
) -> Trouble:
    source = ObjectId.of({"apiVersion": kind[0], "kind": kind[1], "metadata": metadata})
    owner = source.owner_by(controller_of(metadata))
    service = text(mapping(metadata.get("labels")).get(KNATIVE_SERVICE))
    return Trouble(reason, code, message, source, owner, service, at, correlation_id)


def _line(text: str) -> str:
    line = printable(" ".join(text.split()))
    return line if len(line) <= _MAX_MESSAGE else line[: _MAX_MESSAGE - 1] + "…"


def _word(text: str) -> str:
    """The text as a code, such as `oom-killed` of OOMKilled."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", text[:64])
    return "-".join(word.lower() for word in words) or "error"
