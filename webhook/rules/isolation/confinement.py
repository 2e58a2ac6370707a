"""Containers keep what confines them: seccomp, AppArmor and SELinux profiles, the masks over /proc, safe sysctls.

https://kubernetes.io/docs/concepts/security/pod-security-standards/#baseline
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from webhook.pod.container import display_name
from webhook.rules.rule import FieldMessage, Rule, Severity, Subject

_UNCONFINED: Final = "Unconfined"
# What Kubernetes read before it had fields for the profiles; runtimes may still read them.
_OLD_ANNOTATIONS: Final = (
    "seccomp.security.alpha.kubernetes.io/",
    "container.seccomp.security.alpha.kubernetes.io/",
    "container.apparmor.security.beta.kubernetes.io/",
)
_SELINUX_TYPES: Final = ("", "container_t", "container_init_t", "container_kvm_t", "container_engine_t")
# Those of a pod's own namespaces; any other one changes the whole guest.
_OWN_SYSCTLS: Final = ("net.", "kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.")


def check(subject: Subject) -> Iterator[FieldMessage]:
    pod = subject.pod
    yield from _of_context(pod.spec.get("securityContext") or {}, "spec.securityContext", "the pod")
    for container in pod.containers:
        context = container.object.get("securityContext")
        if context:
            yield from _of_context(context, f"{container.field}.securityContext", f"container {container.label}")
    for key, value in pod.annotations.items():
        if key.startswith(_OLD_ANNOTATIONS) and value == "unconfined":
            yield f"metadata.annotations[{display_name(key)}]", "remove this annotation: it switches a profile off"


def _of_context(context: dict[str, Any], field: str, whose: str) -> Iterator[FieldMessage]:
    for member in ("seccompProfile", "appArmorProfile"):
        if (context.get(member) or {}).get("type") == _UNCONFINED:
            yield f"{field}.{member}.type", f"set {member} of {whose} to RuntimeDefault, or remove it"
    if context.get("procMount") not in (None, "", "Default"):
        yield f"{field}.procMount", f"remove procMount from {whose}: it uncovers the guest's kernel"
    labels = context.get("seLinuxOptions") or {}
    if labels.get("user") or labels.get("role") or (labels.get("type") or "") not in _SELINUX_TYPES:
        yield f"{field}.seLinuxOptions", f"remove user, role and type from seLinuxOptions of {whose}"
    if (context.get("windowsOptions") or {}).get("hostProcess"):
        yield (
            f"{field}.windowsOptions.hostProcess",
            f"remove hostProcess from {whose}: only Linux pods are confidential",
        )
    for index, sysctl in enumerate(context.get("sysctls") or ()):
        # A slash separates as a dot does: https://man7.org/linux/man-pages/man5/sysctl.d.5.html
        if not (sysctl.get("name") or "").replace("/", ".").startswith(_OWN_SYSCTLS):
            yield f"{field}.sysctls[{index}]", f"remove this sysctl from {whose}: it changes the whole guest"


RULE = Rule(
    id="isolation/confinement",
    severity=Severity.HIGH,
    summary="containers keep the profiles and masks that confine them",
    check=check,
)
