"""`morphisms-init --doctor` as a Job beside a pod: made in a form that the namespace admits, read, and deleted."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from cli.live.job import RESTRICTED_CONTAINER, RESTRICTED_POD, make_job, run_job
from cli.preflight.lines import Line, State
from plan.layout import CONTAINER, PLAN_VARIABLE, RUN_PATH, SECRETS_PATH, TOKEN_PATH, TOKEN_VOLUME
from server.kubernetes.client import Client
from server.kubernetes.errors import StatusError
from server.kubernetes.untyped import mapping, mappings, text
from server.text import printable
from webhook.modes import Mode
from webhook.scanner.events.trouble import trouble_of_pod
from webhook.wellknown import PREFIX

PAGE: Final = "docs/doctor.md#the-doctor"
"""Where a line about the Job is explained."""

_CONTAINER: Final = "doctor"
_MAX_LOG_BYTES: Final = 64 << 10
_STATES: Final = {"ok": State.OK, "FAIL": State.FAILED, "-": State.NOTE, "?": State.NOT_EVALUATED}
# What only morphisms-init holds where every pod is injected, by the doctor's words and reasons.
_OF_INJECTION_ALONE: Final = re.compile(r"\[(pod-token|volume)[,\]]")
_REFUSED: Final = re.compile(r"\[verifier-refused[,\]]")
_TOKEN_SECONDS: Final = 600


def job_of(pod: Mapping[str, Any], mode: Mode) -> dict[str, Any] | None:
    """The Job for an injected pod, with its plan, image, account and node; None for a pod without `morphisms-init`.

    In `enforce` no pod opts out, and only `morphisms-init` may hold the verifier's token. There the Job's own pod is
    injected too, so that attestation comes first, and the doctor then checks the rest without a token.
    """
    spec = mapping(pod.get("spec"))
    init = next((each for each in mappings(spec.get("initContainers")) if each.get("name") == CONTAINER), None)
    plan = next((each for each in mappings((init or {}).get("env")) if each.get("name") == PLAN_VARIABLE), None)
    if init is None or plan is None:
        return None
    is_injected = mode is Mode.ENFORCE
    container: dict[str, Any] = {
        "name": _CONTAINER,
        "image": init.get("image"),
        "args": ["--doctor"],
        "env": [{"name": PLAN_VARIABLE, "value": plan.get("value")}],
        "resources": init.get("resources") or {},
        "securityContext": RESTRICTED_CONTAINER,
    }
    made: dict[str, Any] = {
        "serviceAccountName": spec.get("serviceAccountName") or "default",
        "automountServiceAccountToken": False,
        "securityContext": RESTRICTED_POD,
        "containers": [container],
        **{key: spec[key] for key in ("imagePullSecrets",) if key in spec},
    }
    if not is_injected:
        container["volumeMounts"] = [
            {"name": "secrets", "mountPath": SECRETS_PATH},
            {"name": "run", "mountPath": RUN_PATH},
            {"name": "token", "mountPath": TOKEN_PATH, "readOnly": True},
        ]
        made |= {key: spec[key] for key in ("runtimeClassName", "tolerations") if key in spec}
        if affinity := mapping(spec.get("affinity")).get("nodeAffinity"):
            made["affinity"] = {"nodeAffinity": affinity}
        memory = {"medium": "Memory"}
        token = {"audience": _audience(spec), "expirationSeconds": _TOKEN_SECONDS, "path": "token"}
        made["volumes"] = [
            {"name": "secrets", "emptyDir": memory},
            {"name": "run", "emptyDir": memory},
            {"name": "token", "projected": {"sources": [{"serviceAccountToken": token}]}},
        ]
    return make_job("morphisms-doctor", made, {f"{PREFIX}inject": "true" if is_injected else "false"})


def _audience(spec: Mapping[str, Any]) -> str:
    for volume in mappings(spec.get("volumes")):
        for source in mappings(mapping(volume.get("projected")).get("sources")):
            token = mapping(source.get("serviceAccountToken"))
            if volume.get("name") == TOKEN_VOLUME and token.get("audience"):
                return text(token.get("audience"))
    return "morphisms-verifier"


async def doctor_lines(client: Client, namespace: str, job: dict[str, Any], mode: Mode) -> list[Line]:
    """What the Job found; it is gone afterwards. Raises the client's errors, but for a refusal of its creation."""
    try:
        ended = await run_job(client, namespace, job, _CONTAINER, _MAX_LOG_BYTES)
    except StatusError as error:
        words = f"the API server answers {error.status} to creating the doctor's Job; this needs create on jobs"
        return [Line("job", State.NOT_EVALUATED, words, PAGE)]
    return list(read(ended.pod, ended.log, mode))


def read(pod: Mapping[str, Any], log: str, mode: Mode) -> Iterator[Line]:
    """The doctor's lines, and what its pod's own `morphisms-init` says. A refusal of the Job's pod is skipped."""
    trouble = trouble_of_pod(pod)
    if trouble is not None:
        refused = trouble.code == "verifier-refused"
        yield _skipped("attestation") if refused else Line("job", State.FAILED, trouble.message, PAGE)
    elif not log:
        words = "the doctor's Job gave no line in time; `kubectl describe` of a later one says why"
        yield Line("job", State.NOT_EVALUATED, words, PAGE)
    elif mode is Mode.ENFORCE:
        yield Line("attestation", State.OK, "accepted, from the Job's own pod", PAGE)
    for raw in log.splitlines():
        # As sidecar/doctor.py writes them: a mark, the step and a text, in columns.
        mark, what, words = raw[:4].strip(), raw[6:18].strip().replace(" ", "-").lower(), printable(raw[20:])
        if mark not in _STATES or not words:
            continue
        if mark == "FAIL" and _REFUSED.search(words):
            yield _skipped(what)
        elif mark == "FAIL" and mode is Mode.ENFORCE and _OF_INJECTION_ALONE.search(words):
            continue  # the doctor holds neither here, and its pod's morphisms-init has passed both
        else:
            yield Line(what, _STATES[mark], words, PAGE)


def _skipped(what: str) -> Line:
    words = "skipped: the Job's pod is not one of the workload's, so the verifier's refusal says nothing about those"
    return Line(what, State.NOTE, words, PAGE)
