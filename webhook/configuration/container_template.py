"""The container template: what `morphisms-init` looks like, never rules. One value, shared by all that it injects.

Its content names all that replicas have to agree on, so that one replica accepts what another one injected. It is
addressed by the digest of its canonical text.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from plan import document, layout
from server.yaml.fields import ClusterName
from webhook.configuration.profiles import Profile, ProfileEvidence
from webhook.configuration.section import Section
from webhook.configuration.sections import Sidecar, Vault, Verifier

# The first with the hook.
_HOOK_INJECTOR_VERSION: Final = 3


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Whom the sidecar calls: evidence sources, verifier, Vault."""

    evidence: tuple[document.EvidenceSource, ...]
    verifier: document.Verifier
    vault: document.Vault


class ContainerTemplate(Section):
    """The parts of a configuration that injection writes into pods: volumes, mounts, `morphisms-init` and its plan.

    Every field that the API server would default is written out, so that what comes back from it compares equal. A
    field that a later release adds has to be None by default, so that the text of a former template stays the same.
    """

    version: Literal[1] = Field(1, description="of this document's format")
    cluster: ClusterName = Field(description="as in the configuration")
    sidecar: Sidecar = Field(description="as in the configuration; `injector` is always named")
    verifier: Verifier = Field(description="as in the configuration")
    vault: Vault = Field(description="as in the configuration")
    evidence: dict[str, tuple[ProfileEvidence, ...]] = Field({}, description="evidence sources, by profile")

    @field_validator("sidecar")
    @classmethod
    def _names_its_version(cls, sidecar: Sidecar) -> Sidecar:
        if sidecar.injector is None:
            raise PydanticCustomError("injector_missing", "injector is not named")
        return sidecar

    @property
    def injector(self) -> int:
        """The version of what is injected."""
        return self.sidecar.injector or 0

    @cached_property
    def text(self) -> str:
        """The canonical text (RFC 8785: sorted members, no blanks)."""
        content = self.model_dump(mode="json", exclude_none=True)
        return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the canonical text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def is_same_but_for_injector(self, other: ContainerTemplate) -> bool:
        """Whether the two differ in nothing but the injector version."""
        return self.with_injector(other.injector) == other

    def with_injector(self, version: int) -> ContainerTemplate:
        """The same template of another injector version."""
        if version == self.injector:
            return self
        parts = {name: getattr(self, name) for name in type(self).model_fields}
        parts["sidecar"] = self.sidecar.model_copy(update={"injector": version})
        return ContainerTemplate(**parts)

    @cached_property
    def volumes(self) -> tuple[dict[str, Any], ...]:
        """The volumes of an injected pod."""
        token = {
            "audience": self.verifier.audience,
            "expirationSeconds": layout.TOKEN_SECONDS,
            "path": layout.TOKEN_FILE,
        }
        return (
            {"name": layout.SECRETS_VOLUME, "emptyDir": _in_memory(self.sidecar.secretsSizeLimit)},
            {"name": layout.RUN_VOLUME, "emptyDir": _in_memory(self.sidecar.runSizeLimit)},
            {
                "name": layout.TOKEN_VOLUME,
                # Only morphisms-init mounts it. The kubelet narrows the mode itself where the pod has an fsGroup.
                "projected": {"defaultMode": 0o444, "sources": [{"serviceAccountToken": token}]},
            },
        )

    @cached_property
    def resources(self) -> dict[str, Any]:
        """The resources of `morphisms-init`."""
        return {"requests": dict(self.sidecar.resources.requests), "limits": dict(self.sidecar.resources.limits)}

    @cached_property
    def guaranteed_resources(self) -> dict[str, Any]:
        """The same in a pod of class Guaranteed."""
        limits = dict(self.sidecar.resources.limits)
        return {"requests": limits, "limits": limits}

    @cached_property
    def container(self) -> dict[str, Any]:
        """The parts of `morphisms-init` that are the same in every pod."""
        return {
            "name": layout.CONTAINER,
            "image": self.sidecar.image,
            "imagePullPolicy": self.sidecar.imagePullPolicy,
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
            "volumeMounts": [
                {"name": layout.SECRETS_VOLUME, "mountPath": layout.SECRETS_PATH},
                {"name": layout.RUN_VOLUME, "mountPath": layout.RUN_PATH},
                {"name": layout.TOKEN_VOLUME, "mountPath": layout.TOKEN_PATH, "readOnly": True},
            ],
        }

    @property
    def may_hook(self) -> bool:
        """Whether the sidecar's image has the hook's program, and the guests take a command from the kubelet."""
        return self.injector >= _HOOK_INJECTOR_VERSION and self.sidecar.postStartExec is not False

    @cached_property
    def probed(self) -> dict[str, Any]:
        """The native sidecar's probes; the startup probe holds back what starts later until everything is published."""
        return _probes(self.sidecar.deadlineSeconds)

    @cached_property
    def hooked(self) -> dict[str, Any]:
        """The same without a startup probe. What starts later finds the exec helper, which waits for the rest.

        The kubelet starts no later container before the hook has ended, and stops this one if the hook fails.
        """
        command = [layout.IMAGE_EXEC_HELPER, "--install"]
        return {
            "lifecycle": {"postStart": {"exec": {"command": command}}},
            "livenessProbe": self.probed["livenessProbe"],
        }

    def endpoints(self, profile: Profile) -> Endpoints:
        """The plan's endpoints, which are the same for every pod of the profile.

        A template that does not know the profile leaves the evidence sources to the configuration.
        """
        parts = self._endpoints.get(profile.name)
        if parts is None:
            sources = self.evidence.get(profile.name, profile.evidence)
            evidence = tuple(document.EvidenceSource(each.source, each.address) for each in sources)
            parts = Endpoints(evidence, self._plan_verifier, self._plan_vault)
            if profile.name in self.evidence:
                self._endpoints[profile.name] = parts
        return parts

    @cached_property
    def _endpoints(self) -> dict[str, Endpoints]:
        return {}

    @cached_property
    def _plan_verifier(self) -> document.Verifier:
        verifier = self.verifier
        attest = None if verifier.attest is None else verifier.attest.plain()
        return document.Verifier(verifier.url, verifier.ca, verifier.audience, verifier.role, attest)

    @cached_property
    def _plan_vault(self) -> document.Vault:
        vault = self.vault
        return document.Vault(vault.url, vault.ca, vault.namespace, tuple(sorted(vault.mounts.items())))


def _in_memory(limit: str) -> dict[str, str]:
    return {"medium": "Memory", "sizeLimit": limit}


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
