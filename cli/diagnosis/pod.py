"""What an API server shows of a pod that should have got secrets, and who can help. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from cli.audit.words import mode_phrase
from cli.preflight.lines import Line, State
from plan.layout import CONTAINER
from server.kubernetes.untyped import condition_of, mapping, mappings, text
from server.text import printable
from webhook.configuration.model import Configuration
from webhook.errors import MalformedError
from webhook.modes import Mode
from webhook.pod.opt_in import opts_out, requests_injection
from webhook.scanner.evaluation import Evaluator
from webhook.scanner.events.trouble import time_of_event, trouble_of_pod
from webhook.scanner.finding import FindingClass
from webhook.scanner.made_pod import next_pod
from webhook.snapshot import Snapshot

_REASONS: Final = "docs/doctor.md#reasons"
_MODES: Final = "docs/reference.md#modes"
_PAGE: Final = "docs/doctor.md"
_MOST_EVENTS: Final = 10
_LONGEST: Final = 400
# The exec helper's own exit codes (sidecar/exec/README.md).
_EXEC_HELPER: Final = range(80, 88)

WHOM_TO_ASK: Final[Mapping[int, str]] = {
    10: "the author of the pod's annotations, else the administrators of Morphisms: its configuration or its image",
    11: "the operators of the cluster's nodes",
    12: "the verifier's operators",
    13: "the operators of the network between the pod and the verifier, then the verifier's operators",
    14: "the operators of Vault: the policy of the role",
    15: "the operators of the network between the pod and Vault, then Vault's operators",
    16: "the person who writes the secret to Vault",
    17: "the verifier's and Vault's operators: a server is slow",
    18: "the author of the pod's annotations: it requests more than its memory volumes hold",
    19: "the verifier's operators: it did not prove itself",
    70: "the developers of Morphisms, with this line",
}
"""By exit code of `morphisms-init`."""


def examine(
    pod: dict[str, Any],
    events: Iterable[Mapping[str, Any]] | None,
    mode: Mode,
    configuration: Configuration,
    snapshot: Snapshot | None,
) -> Iterator[Line]:
    """The lines, in the order in which a pod starts. `events` are those about the pod; None: they were not read."""
    status = mapping(pod.get("status"))
    init = next((each for each in mappings(mapping(pod.get("spec")).get("initContainers")) if _is_ours(each)), None)
    if init is None:
        yield from _not_injected(pod, mode, configuration, snapshot)
    else:
        yield Line("injection", State.OK, f"the pod has {CONTAINER}; its namespace has {mode_phrase(mode)}", _MODES)
    yield from _scheduling(status)
    if init is not None:
        yield from _init(pod, init, status)
    yield from _helpers(status)
    yield from _events(events)


def _is_ours(container: Mapping[str, Any]) -> bool:
    return container.get("name") == CONTAINER


def _not_injected(
    pod: dict[str, Any], mode: Mode, configuration: Configuration, snapshot: Snapshot | None
) -> Iterator[Line]:
    namespace = text(mapping(pod.get("metadata")).get("namespace"))
    try:
        made = next_pod(pod, namespace, configuration, snapshot).pod
        opted_in, out = requests_injection(made, mode), opts_out(made, mode)
    except MalformedError as error:
        yield Line("injection", State.NOT_EVALUATED, f"the pod cannot be read: {error}", _MODES)
        return
    if out:
        why = 'its annotation morphisms.dev/inject is "false"; remove it from the template'
    elif not opted_in and mode in (Mode.ABSENT, Mode.AUDIT):
        why = f'its namespace has {mode_phrase(mode)} and it does not opt in; write morphisms.dev/inject: "true"'
    else:
        why = "it was created before its namespace had its mode, or while it could not be injected; create it anew"
    yield Line("injection", State.FAILED, f"the pod has no {CONTAINER}: {why}", _MODES)
    evaluation = None if out else Evaluator(configuration, snapshot).evaluate(pod, target=mode, mode=mode)
    for finding in () if evaluation is None else evaluation.findings:
        if finding.kind is FindingClass.YOURS_TO_CHANGE:
            place = f" ({finding.field})" if finding.field else ""
            state = State.FAILED if finding.denies else State.NOTE
            yield Line("rule", state, f"[{finding.rule}] {finding.message}{place}", finding.link)


def _scheduling(status: Mapping[str, Any]) -> Iterator[Line]:
    if condition := condition_of(status, "PodScheduled", "False"):
        words = _short(condition.get("message")) or _short(condition.get("reason"))
        yield Line("scheduling", State.FAILED, f"no node takes the pod: {words}", "docs/install.md")


def _init(pod: Mapping[str, Any], container: Mapping[str, Any], status: Mapping[str, Any]) -> Iterator[Line]:
    found = next((each for each in mappings(status.get("initContainerStatuses")) if _is_ours(each)), {})
    trouble = trouble_of_pod(pod)
    if trouble is None:
        # With a startup probe "started" means published. Behind a hook the application says it, by being ready.
        is_ready = bool(condition_of(status, "Ready", "True"))
        says = is_ready if "lifecycle" in container else bool(found.get("started"))
        yield _without_trouble(mapping(found.get("state")), says)
        return
    yield Line("init", State.FAILED, f"[{trouble.code}] {trouble.message}", _REASONS)
    code = _exit_code(found)
    whom = WHOM_TO_ASK.get(code) if code is not None else None
    if trouble.correlation_id:
        about = f"correlation id {trouble.correlation_id}: morphisms explain {trouble.correlation_id}"
        yield Line("ask", State.NOTE, f"{whom or WHOM_TO_ASK[12]}, with {about}", _PAGE)
    elif whom is not None:
        yield Line("ask", State.NOTE, whom, _PAGE)


def _exit_code(status: Mapping[str, Any]) -> int | None:
    for state in (mapping(status.get("state")), mapping(status.get("lastState"))):
        code = mapping(state.get("terminated")).get("exitCode")
        if type(code) is int:
            return code
    return None


def _without_trouble(state: Mapping[str, Any], published: bool) -> Line:
    ended = mapping(state.get("terminated"))
    if ended.get("exitCode") == 0 or (published and "running" in state):
        return Line("init", State.OK, f"{CONTAINER} has published the pod's secrets", _PAGE)
    words = "runs, and has not published yet" if "running" in state else "has not run yet"
    why = _short(mapping(state.get("waiting")).get("reason"))
    return Line("init", State.NOT_EVALUATED, f"{CONTAINER} {words}" + (f": {why}" if why else ""), _PAGE)


def _helpers(status: Mapping[str, Any]) -> Iterator[Line]:
    for container in mappings(status.get("containerStatuses")):
        code = _exit_code(container)
        if code in _EXEC_HELPER:
            name = _short(container.get("name"))
            words = f"container {name}: the exec helper ended with exit code {code} before the application"
            yield Line("exec-helper", State.FAILED, words, "sidecar/exec/README.md")


def _events(events: Iterable[Mapping[str, Any]] | None) -> Iterator[Line]:
    if events is None:
        yield Line("events", State.NOT_EVALUATED, "the Events of the pod could not be listed", _PAGE)
        return
    warnings = [each for each in events if each.get("type") == "Warning"]
    newest: Sequence[Mapping[str, Any]] = sorted(warnings, key=time_of_event)[-_MOST_EVENTS:]
    for event in newest:
        yield Line("events", State.NOTE, f"{_short(event.get('reason'))}: {_short(event.get('message'))}", _PAGE)


def _short(value: object) -> str:
    return printable(" ".join(text(value).split()))[:_LONGEST]
