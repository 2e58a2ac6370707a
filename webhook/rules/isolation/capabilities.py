"""No container adds a capability that reaches out of it: it would control the guest, as a privileged one does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from webhook.pod.container import display_name
from webhook.rules.rule import FieldMessage, Rule, Severity, Subject

# Those of Pod Security's baseline level, and those that act on the pod's own network, memory locks and priorities. Any
# other one is refused, also one that a later kernel adds.
# https://kubernetes.io/docs/concepts/security/pod-security-standards/#baseline
_HARMLESS: Final = frozenset(
    {
        "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE",
        "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT", "NET_ADMIN", "NET_RAW", "NET_BROADCAST",
        "IPC_LOCK", "IPC_OWNER", "LEASE", "SYS_NICE", "SYS_RESOURCE",
    }
)  # fmt: skip


def check(subject: Subject) -> Iterator[FieldMessage]:
    for container in subject.pod.containers:
        capabilities = (container.object.get("securityContext") or {}).get("capabilities") or {}
        for index, name in enumerate(capabilities.get("add") or ()):
            # Runtimes read the name in any case, and with or without its prefix.
            if name.upper().removeprefix("CAP_") not in _HARMLESS:
                yield (
                    f"{container.field}.securityContext.capabilities.add[{index}]",
                    f"remove capability {display_name(name)} from container {container.label}: it reaches the guest's"
                    " other containers",
                )


RULE = Rule(
    id="isolation/capabilities",
    severity=Severity.HIGH,
    summary="no container adds a capability that reaches the other containers",
    check=check,
)
