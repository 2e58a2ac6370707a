"""What a guest policy pins of one container."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from measured.environment import arguments, environment
from measured.image import Image, digest_of
from measured.refusal import Refusals, member, objects
from measured.volumes import mounts

_DEFAULT_CAPABILITIES: Final = frozenset(
    [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "NET_RAW",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ]
)
_PROBES: Final = ("livenessProbe", "readinessProbe", "startupProbe")


@dataclass(frozen=True, slots=True)
class PodFacts:
    """What its containers need to know of a pod. `reads_*`: containers whose output the host may read."""

    pod: Mapping[str, Any]
    volumes: Mapping[str, Mapping[str, Any]]
    security: Mapping[str, Any]
    has_token: bool
    reads_logs: frozenset[str]
    reads_termination: frozenset[str]
    copies_claims: bool


def measure_container(
    container: Mapping[str, Any],
    kind: str,
    after: list[str],
    facts: PodFacts,
    image: Image,
    where: str,
    refusals: Refusals,
) -> dict[str, Any]:
    """The container's entry. `kind` is init, sidecar or app; `after` names those that must have started before."""
    name = str(container.get("name", ""))
    security = member(container, "securityContext")
    _refuse_what_guests_lack(container, security, where, refusals)
    _refuse_image_volumes(container, image, where, refusals)
    variables = environment(container, facts.pod, image, where, refusals)
    return {
        "name": name,
        "kind": kind,
        "after": after,
        "image": {"digest": digest_of(container.get("image")) or ""},
        "args": arguments(container, image, variables, where, refusals),
        "cwd": str(container.get("workingDir") or image.working_dir or "/"),
        "env": variables.exact,
        "envOfHost": variables.of_host,
        "user": _user(security, facts.security, image, where, refusals),
        "capabilities": _capabilities(
            member(security, "capabilities"), f"{where}.securityContext.capabilities", refusals
        ),
        "noNewPrivileges": security.get("allowPrivilegeEscalation") is False,
        "readOnly": security.get("readOnlyRootFilesystem") is True,
        "mounts": mounts(container, facts.volumes, facts.has_token, facts.copies_claims, where, refusals),
        "termination": {
            "path": str(container.get("terminationMessagePath") or "/dev/termination-log"),
            "policy": str(container.get("terminationMessagePolicy") or "File"),
        },
        "readLogs": name in facts.reads_logs,
        "readTermination": name in facts.reads_termination,
    }


def _user(
    own: Mapping[str, Any], pod: Mapping[str, Any], image: Image, where: str, refusals: Refusals
) -> dict[str, Any]:
    """UID, GID and all groups as a runtime without the image's layers sets them."""
    uid = _first_number(own.get("runAsUser"), pod.get("runAsUser"), image.uid)
    gid = _first_number(own.get("runAsGroup"), pod.get("runAsGroup"), 0)
    if uid is None:
        refusals.add(
            f"{where}.securityContext.runAsUser",
            "is not set, and the image names its user by a word, which a guest cannot look up; write the number",
        )
    supplemental = [group for group in pod.get("supplementalGroups") or [] if type(group) is int]
    groups = {gid, *supplemental, *([pod["fsGroup"]] if type(pod.get("fsGroup")) is int else [])}
    return {"uid": uid or 0, "gid": gid, "groups": sorted(group for group in groups if group is not None)}


def _first_number(*values: object) -> int | None:
    return next((value for value in values if type(value) is int), None)


def _capabilities(change: Mapping[str, Any], where: str, refusals: Refusals) -> list[str]:
    added = {str(name).upper().removeprefix("CAP_") for name in change.get("add") or []}
    dropped = {str(name).upper().removeprefix("CAP_") for name in change.get("drop") or []}
    if "ALL" in added:
        refusals.add(f"{where}.add", "ALL differs from kernel to kernel; name the capabilities")
    kept = frozenset() if "ALL" in dropped else _DEFAULT_CAPABILITIES - dropped
    return sorted(
        f"CAP_{name}" for name in kept | (added - dropped if "ALL" not in dropped else added) if name != "ALL"
    )


def _refuse_what_guests_lack(
    container: Mapping[str, Any], security: Mapping[str, Any], where: str, refusals: Refusals
) -> None:
    refuse = refusals.unless_empty
    refuse(
        security.get("privileged"), f"{where}.securityContext.privileged", "opens the guest to the container; remove it"
    )
    refuse(
        security.get("seLinuxOptions"),
        f"{where}.securityContext.seLinuxOptions",
        "is not passed on to a guest; remove it",
    )
    if security.get("procMount") not in (None, "Default"):
        refusals.add(f"{where}.securityContext.procMount", "must be Default")
    for name in ("stdin", "tty"):
        refuse(container.get(name), f"{where}.{name}", "lets the host write into the container; remove it")
    refuse(
        member(container, "resources").get("claims"),
        f"{where}.resources.claims",
        "brings a device of the host's; remove it",
    )
    exec_ = "runs a command in the guest at the host's word, which its policy refuses; use httpGet, tcpSocket or grpc"
    for name in _PROBES:
        refuse("exec" in member(container, name), f"{where}.{name}.exec", exec_)
    for name, hook in member(container, "lifecycle").items():
        refuse(isinstance(hook, dict) and "exec" in hook, f"{where}.lifecycle.{name}.exec", exec_)


def _refuse_image_volumes(container: Mapping[str, Any], image: Image, where: str, refusals: Refusals) -> None:
    mounted = {mount.get("mountPath") for mount in objects(container.get("volumeMounts"))}
    for path in image.volumes:
        if path not in mounted:
            refusals.add(
                f"{where}.image",
                f"declares a volume at {path}, which would come from the host; mount an emptyDir there",
            )
