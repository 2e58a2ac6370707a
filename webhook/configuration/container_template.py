"""What injection adds, as far as it is the same for every pod of a configuration: built once, shared, never changed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from plan import layout
from plan.document import EvidenceSource, Vault, Verifier
from webhook.wellknown import INJECTOR_VERSION

if TYPE_CHECKING:
    from webhook.configuration.model import Configuration
    from webhook.configuration.profiles import Profile


@dataclass(frozen=True, slots=True)
class PlanParts:
    """Where the sidecar shall turn to."""

    evidence: tuple[EvidenceSource, ...]
    verifier: Verifier
    vault: Vault


class Injection:
    """Volumes, mounts and the constant parts of the container, every field that the API server would default written
    out, so that what comes back from it compares equal."""

    def __init__(self, configuration: Configuration) -> None:
        settings = configuration.sidecar
        self._configuration = configuration
        self._statuses: dict[str, str] = {}
        self._plan_parts: dict[str, PlanParts] = {}
        self.volumes: tuple[dict[str, Any], ...] = (
            {
                "name": layout.SECRETS_VOLUME,
                "emptyDir": {"medium": "Memory", "sizeLimit": settings.secretsSizeLimit},
            },
            {
                "name": layout.RUN_VOLUME,
                "emptyDir": {"medium": "Memory", "sizeLimit": settings.runSizeLimit},
            },
            {
                "name": layout.TOKEN_VOLUME,
                "projected": {
                    # Only morphisms-init mounts it. The kubelet narrows the mode itself where the pod has an fsGroup.
                    "defaultMode": 0o444,
                    "sources": [
                        {
                            "serviceAccountToken": {
                                "audience": configuration.verifier.audience,
                                "expirationSeconds": layout.TOKEN_SECONDS,
                                "path": layout.TOKEN_FILE,
                            }
                        }
                    ],
                },
            },
        )
        self.volume_names = frozenset(volume["name"] for volume in self.volumes)
        limits, requests = dict(settings.resources.limits), dict(settings.resources.requests)
        self.resources = {"requests": requests, "limits": limits}
        self.guaranteed_resources = {"requests": limits, "limits": limits}
        self.container: dict[str, Any] = {
            "name": layout.CONTAINER,
            "image": settings.image,
            "imagePullPolicy": settings.imagePullPolicy,
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
            "volumeMounts": [
                {"name": layout.SECRETS_VOLUME, "mountPath": layout.SECRETS_PATH},
                {"name": layout.RUN_VOLUME, "mountPath": layout.RUN_PATH},
                {"name": layout.TOKEN_VOLUME, "mountPath": layout.TOKEN_PATH, "readOnly": True},
            ],
        }
        self.probes = _probes(settings.deadlineSeconds)

    def plan_parts(self, profile: Profile) -> PlanParts:
        """The plan's parts that are the same for every pod of the profile."""
        parts = self._plan_parts.get(profile.name)
        if parts is None:
            verifier, vault = self._configuration.verifier, self._configuration.vault
            parts = self._plan_parts[profile.name] = PlanParts(
                tuple(EvidenceSource(each.source, each.address) for each in profile.evidence),
                Verifier(verifier.url, verifier.ca, verifier.audience, verifier.role),
                Vault(vault.url, vault.ca, vault.namespace, tuple(sorted(vault.mounts.items()))),
            )
        return parts

    def status(self, profile: str) -> str:
        """The value of the status annotation."""
        status = self._statuses.get(profile)
        if status is None:
            members = {
                "injector": INJECTOR_VERSION,
                "configuration": self._configuration.digest,
                "profile": profile,
            }
            status = self._statuses[profile] = json.dumps(members, separators=(",", ":"))
        return status


def security_context(user: int) -> dict[str, Any]:
    """What Pod Security's `restricted` level asks for, and more."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "runAsUser": user,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _probes(deadline_seconds: int) -> dict[str, Any]:
    """Of the native sidecar. HTTP, because an exec probe needs a permission of the guest's agent policy."""
    common = {"successThreshold": 1, "timeoutSeconds": 1}
    port = layout.HEALTH_PORT
    return {
        "startupProbe": {
            "httpGet": {"path": layout.STARTUP_PATH, "port": port, "scheme": "HTTP"},
            "periodSeconds": 1,
            "failureThreshold": deadline_seconds + 10,
            **common,
        },
        "livenessProbe": {
            "httpGet": {"path": layout.LIVENESS_PATH, "port": port, "scheme": "HTTP"},
            "periodSeconds": 10,
            "failureThreshold": 6,
            **common,
        },
    }
