"""The webhook's configuration: one typed YAML file. Unknown keys are refused; defaults suffice for trying it out."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from plan.document import SIMULATED
from server.yaml.fields import ClusterName
from webhook.configuration.container_template import ContainerTemplate
from webhook.configuration.exceptions import PolicyException
from webhook.configuration.profiles import PRESETS, Profile
from webhook.configuration.section import Section
from webhook.configuration.sections import (
    Certificates,
    Identities,
    NamespaceProfiles,
    Plaintext,
    Reserved,
    RuleActions,
    Sidecar,
    Vault,
    Verifier,
)
from webhook.policy_version import FIRST, is_known, known
from webhook.wellknown import (
    ATTEST_INJECTOR_VERSION,
    FORMER_INJECTOR_VERSION,
    INJECTOR_VERSION,
    KMS_NAMESPACE,
    KMS_PROFILE,
)


class Configuration(Section):
    """The whole file."""

    version: Literal[1] = Field(1, description="of this file's format")
    cluster: ClusterName = Field(
        "cluster",
        description="its name, also in the verifier's configuration and policies, and a part of ~/",
    )
    profiles: tuple[Profile, ...] = Field(
        (), description="added to the presets; one of the same name replaces a preset"
    )
    defaultProfile: str = Field("kata-snp", description="for pods that name none")
    namespaces: dict[str, NamespaceProfiles] = Field(
        {}, description="by name; the pods of others use the default profile alone"
    )
    runtimeClassConflict: Literal["refuse", "replace"] = Field(
        "refuse", description="when a pod names a RuntimeClass that its profile does not allow"
    )
    sidecar: Sidecar = Field(Sidecar(), description="the container that is injected")
    verifier: Verifier = Field(Verifier(), description="attests the pods")
    vault: Vault = Field(Vault(), description="holds the secrets")
    policy: str | None = Field(
        None,
        description="the release whose rules deny, such as 0.1; what is newer is recorded; left out: the first release",
        pattern=r"^\d{1,4}\.\d{1,4}$",
    )
    rules: dict[str, RuleActions] = Field({}, description="by rule id; docs/rules.md lists them")
    exceptions: tuple[PolicyException, ...] = Field(
        (), description="rules that a workload may violate until a date; they end by themselves"
    )
    plaintext: Plaintext = Field(Plaintext(), description="exceptions from secrets/plaintext-env")
    platformImages: tuple[str, ...] = Field(
        (), description="globs of images that the platform injects by tag, such as a mesh's; images/digest accepts them"
    )
    schedulers: tuple[str, ...] = Field(("default-scheduler",), description="that pods may name")
    hypervisorAnnotations: tuple[str, ...] = Field(
        (),
        description="annotations for the hypervisor or the container runtime that pods may carry, besides the initdata",
    )
    secretDrivers: tuple[str, ...] = Field(
        (
            "*secret*",
            "*vault*",
            "*cert-manager.io",
            "csi.spiffe.io",
            "csi.vso.hashicorp.com",
            "csi.sharedresource.openshift.io",
            "azure/kv",
        ),
        description="globs of drivers of inline CSI and Flex volumes that fetch secrets on the node",
    )
    execGroups: tuple[str, ...] = Field((), description="groups that may exec, attach and port-forward in enforce mode")
    identities: Identities = Field(Identities(), description="Knative's and Kubernetes' controllers")
    reserved: Reserved = Field(Reserved(), description="nodes with a single purpose")
    certificates: Certificates = Field(Certificates(), description="periods, with --own-ca")
    snapshotMaxAgeSeconds: int = Field(
        300, ge=120, description="an older view of the cluster fails closed in enforce; a quiet watch may be 90 s old"
    )

    @model_validator(mode="after")
    def _names_are_known(self) -> Configuration:
        known = self.profile_by_name
        named = {self.defaultProfile}
        for entry in self.namespaces.values():
            named.update((*entry.profiles, *((entry.profile,) if entry.profile else ())))
        if unknown := sorted(named - known.keys()):
            raise PydanticCustomError(
                "unknown_profile", f"unknown profile {', '.join(unknown)}; known are {', '.join(sorted(known))}"
            )
        return self

    @model_validator(mode="after")
    def _policy_is_known(self) -> Configuration:
        if self.policy is not None and not is_known(self.policy):
            raise PydanticCustomError(
                "unknown_policy",
                "policy: this release does not know it; write one of {known}, and upgrade before you name a newer one",
                {"known": known()},
            )
        return self

    @property
    def policy_in_force(self) -> str:
        """The release whose rules deny."""
        return self.policy or FIRST

    @model_validator(mode="after")
    def _key_server_is_apart(self) -> Configuration:
        """The key server's profile and namespace are each other's alone; a looser entry would open either."""
        profile = self.profile_by_name[KMS_PROFILE]
        if profile.isolation != "pod-vm" or not profile.runtimeClasses or profile.evidence:
            raise PydanticCustomError(
                "kms_profile",
                f"profile {KMS_PROFILE} needs isolation: pod-vm and runtimeClasses, and takes no evidence: the verifier"
                " attests itself",
            )
        users = [name for name, entry in self.namespaces.items() if KMS_PROFILE in (entry.profile, *entry.profiles)]
        if self.defaultProfile == KMS_PROFILE or not set(users) <= {KMS_NAMESPACE}:
            raise PydanticCustomError(
                "kms_profile", f"profile {KMS_PROFILE} is for namespace {KMS_NAMESPACE} alone; remove it elsewhere"
            )
        entry = self.namespaces.get(KMS_NAMESPACE)
        if entry is not None and not {entry.profile, *entry.profiles} <= {None, KMS_PROFILE}:
            raise PydanticCustomError(
                "kms_namespace",
                f"namespaces.{KMS_NAMESPACE}: its pods use profile {KMS_PROFILE} alone; remove the entry",
            )
        return self

    @model_validator(mode="after")
    def _attest_can_be_met(self) -> Configuration:
        """A plan that the sidecar refuses would stop every pod, a simulated root in a real one would prove nothing."""
        attest = self.verifier.attest
        if attest is None:
            return self
        if not self.sidecar.is_said_to_read_attest:
            raise PydanticCustomError(
                "attest_unread",
                "verifier.attest: nothing says that sidecar.image reads it; state sidecar.injector:"
                f" {ATTEST_INJECTOR_VERSION} or more for an image that does",
            )
        usable = {self.defaultProfile, *(name for entry in self.namespaces.values() for name in entry.profiles)}
        usable.update(entry.profile for entry in self.namespaces.values() if entry.profile is not None)
        real = sorted(
            name for name in usable if any(each.source != SIMULATED for each in self.profile_by_name[name].evidence)
        )
        if attest.simulatedRoot and real:
            raise PydanticCustomError(
                "attest_simulated",
                f"verifier.attest.simulatedRoot: only where all evidence is simulated, not in {', '.join(real)}",
            )
        return self

    @model_validator(mode="after")
    def _exceptions_do_not_overlap(self) -> Configuration:
        """Two entries for one rule of one workload would have two dates, and a reader could not tell which counts."""
        seen: dict[tuple[str, str, str], int] = {}
        for place, entry in enumerate(self.exceptions):
            for rule in entry.rules:
                first = seen.setdefault((entry.namespace, entry.workload, rule), place)
                if first != place:
                    raise PydanticCustomError(
                        "exception_twice",
                        "exceptions[{second}] covers the same rule of the same workload as exceptions[{first}];"
                        " keep one of them",
                        {"first": first, "second": place},
                    )
        return self

    @cached_property
    def exceptions_of(self) -> dict[tuple[str, str], tuple[PolicyException, ...]]:
        """The exceptions by (namespace, workload as KIND/NAME)."""
        found: dict[tuple[str, str], tuple[PolicyException, ...]] = {}
        for entry in self.exceptions:
            key = (entry.namespace, entry.workload)
            found[key] = (*found.get(key, ()), entry)
        return found

    @cached_property
    def profile_by_name(self) -> dict[str, Profile]:
        """Presets and configured profiles; the latter win."""
        return {profile.name: profile for profile in (*PRESETS, *self.profiles)}

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the effective configuration, defaults included."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @cached_property
    def container_template(self) -> ContainerTemplate:
        """What injection adds to every pod under this configuration, by its injector version or else the newest."""
        return self._container_template(INJECTOR_VERSION)

    @cached_property
    def former_container_template(self) -> ContainerTemplate:
        """The same by its injector version or else the former one."""
        return self._container_template(FORMER_INJECTOR_VERSION)

    def _container_template(self, version: int) -> ContainerTemplate:
        sidecar = self.sidecar if self.sidecar.injector else self.sidecar.model_copy(update={"injector": version})
        used = {self.defaultProfile}
        for entry in self.namespaces.values():
            used.update((*entry.profiles, *((entry.profile,) if entry.profile else ())))
        profiles = self.profile_by_name
        return ContainerTemplate(
            cluster=self.cluster,
            sidecar=sidecar,
            verifier=self.verifier,
            vault=self.vault,
            evidence={name: profiles[name].evidence for name in sorted(used) if profiles[name].evidence},
        )

    @cached_property
    def node_label_keys(self) -> frozenset[str]:
        """The node labels that decisions read."""
        keys = {need.key for profile in self.profile_by_name.values() for need in profile.requirements}
        return frozenset(keys | set(self.reserved.keys))

    def default_profile_of(self, namespace: str) -> str:
        """The profile of a pod that names none."""
        if namespace == KMS_NAMESPACE:
            return KMS_PROFILE
        entry = self.namespaces.get(namespace)
        return self.defaultProfile if entry is None or entry.profile is None else entry.profile

    def profiles_allowed_in(self, namespace: str) -> frozenset[str]:
        """Names of the profiles that pods of the namespace may use: its default, and those listed for it.

        An author's annotation never chooses a profile that the operator did not list: it could ask for less.
        """
        entry = self.namespaces.get(namespace)
        listed = () if entry is None else entry.profiles
        return frozenset((self.default_profile_of(namespace), *listed))
