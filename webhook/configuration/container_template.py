"""What injection adds to every pod under one configuration: built once, shared, never changed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from plan import layout
from plan.document import EvidenceSource, Vault, Verifier
from webhook.configuration import sections
from webhook.configuration.profiles import Profile
from webhook.wellknown import INJECTOR_VERSION


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Whom the sidecar calls: evidence sources, verifier, Vault."""

    evidence: tuple[EvidenceSource, ...]
    verifier: Verifier
    vault: Vault


class ContainerTemplate:
    """Volumes, mounts and the constant parts of the container `morphisms-init`.

    Every field that the API server would default is written out, so that what comes back from it compares equal.
    `digest` is the configuration's.
    """

    def __init__(
        self, sidecar: sections.Sidecar, verifier: sections.Verifier, vault: sections.Vault, digest: str
    ) -> None:
        self._verifier = verifier
        self._vault = vault
        self._digest = digest
        self._statuses: dict[str, str] = {}
        self._endpoints: dict[str, Endpoints] = {}
        self.volumes: tuple[dict[str, Any], ...] = (
            {
                "name": layout.SECRETS_VOLUME,
                "emptyDir": {"medium": "Memory", "sizeLimit": sidecar.secretsSizeLimit},
            },
            {
                "name": layout.RUN_VOLUME,
                "emptyDir": {"medium": "Memory", "sizeLimit": sidecar.runSizeLimit},
            },
            {
                "name": layout.TOKEN_VOLUME,
                "projected": {
                    # Only morphisms-init mounts it. The kubelet narrows the mode itself where the pod has an fsGroup.
                    "defaultMode": 0o444,
                    "sources": [
                        {
                            "serviceAccountToken": {
                                "audience": verifier.audience,
                                "expirationSeconds": layout.TOKEN_SECONDS,
                                "path": layout.TOKEN_FILE,
                            }
                        }
                    ],
                },
            },
        )
        self.volume_names = frozenset(volume["name"] for volume in self.volumes)
        limits, requests = dict(sidecar.resources.limits), dict(sidecar.resources.requests)
        self.resources = {"requests": requests, "limits": limits}
        self.guaranteed_resources = {"requests": limits, "limits": limits}
        self.container: dict[str, Any] = {
            "name": layout.CONTAINER,
            "image": sidecar.image,
            "imagePullPolicy": sidecar.imagePullPolicy,
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
            "volumeMounts": [
                {"name": layout.SECRETS_VOLUME, "mountPath": layout.SECRETS_PATH},
                {"name": layout.RUN_VOLUME, "mountPath": layout.RUN_PATH},
                {"name": layout.TOKEN_VOLUME, "mountPath": layout.TOKEN_PATH, "readOnly": True},
            ],
        }
        self.probes = _probes(sidecar.deadlineSeconds)

    def endpoints(self, profile: Profile) -> Endpoints:
        """The plan's endpoints, which are the same for every pod of the profile."""
        parts = self._endpoints.get(profile.name)
        if parts is None:
            verifier, vault = self._verifier, self._vault
            parts = self._endpoints[profile.name] = Endpoints(
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
                "configuration": self._digest,
                "profile": profile,
            }
            status = self._statuses[profile] = json.dumps(members, separators=(",", ":"))
        return status


def security_context(user: int) -> dict[str, Any]:
    """What Pod Security's `restricted` level demands, and more."""
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
    """The native sidecar's probes. HTTP, because an exec probe needs a permission of the guest's agent policy."""
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
