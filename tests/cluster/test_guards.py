"""Every guard, hit both ways: the API server refuses what an oracle in plain Python says, by that guard, and no more.

The oracle (`guard_oracle.py`) states what each guard is for; the attempts (`attempts.py`) are dry runs on a control
plane that has no webhook of ours.
"""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cli.support.admission import Admission
from tests.cluster import guard_oracle as oracle
from tests.cluster.attempts import (
    KINDS,
    KMS,
    KNATIVES,
    SYSTEM,
    USERS,
    Stage,
    Try,
    every_try,
    path_of,
    pod_in,
    workload,
)
from tests.cluster.client import Answer, Object
from tests.cluster.controlplane import ControlPlane
from tests.cluster.definitions import wait_until_established
from tests.cluster.guard_oracle import GUARDS, Attempt
from tests.cluster.guarded import NAMESPACES, RBAC, bind
from tests.cluster.policies import wait_for_policies
from tests.manifests.rendering import MANIFESTS
from tests.support.until import until
from tests.webhook.properties.pods import careful_pods, pods
from webhook.configuration.model import Configuration
from webhook.errors import MalformedError
from webhook.modes import Mode
from webhook.request import User
from webhook.snapshot import RuntimeClassRecord, Snapshot

_KEY_SERVER: Final = MANIFESTS / "overlays" / "kms-in-guests" / "guard.yaml"
_REFUSED: Final = re.compile(r"ValidatingAdmissionPolicy '([a-z-]+)\.morphisms\.dev'")
_MAPS: Final = ("morphisms-webhook", "morphisms-webhook-templates", "morphisms-probes", "theirs")
_GROUPS: Final = ["", "apps", "batch", "node.k8s.io", "admissionregistration.k8s.io", "serving.knative.dev"]


def _guards_of_the_manifests() -> set[str]:
    """By the policies that lie there, wherever they lie: not by a list."""
    rendered = ("install.yaml", "install-verifier.yaml")
    files = (path for path in MANIFESTS.rglob("*.yaml") if path.name not in rendered and "previous" not in path.parts)
    items = (item for path in files for item in yaml.safe_load_all(path.read_text()) if isinstance(item, dict))
    policies = (item["metadata"]["name"] for item in items if item.get("kind") == "ValidatingAdmissionPolicy")
    return {name.removesuffix(".morphisms.dev") for name in policies}


@pytest.fixture(scope="module")
def stage(guarded: ControlPlane) -> Iterator[Stage]:
    """Namespaces of each mode, users who may do everything but what the guards ask for, and objects to change."""
    admin = guarded.admin
    admin.apply(_definition("Configuration"), _definition("Revision"))
    wait_until_established(admin)
    rules = [{"apiGroups": _GROUPS, "resources": ["*"], "verbs": ["*"]}]
    admin.apply({"apiVersion": f"{RBAC}/v1", "kind": "ClusterRole", "metadata": {"name": "attempts"}, "rules": rules})
    bind(admin, "attempts", *USERS)
    modes = (None, "audit", "inject", "enforce", "mistyped", "")
    names = {mode: f"guards-{mode or ('none' if mode is None else 'empty')}" for mode in modes}
    own = "guards-own"
    for mode, name in [*names.items(), ("enforce", own), (None, KMS)]:
        labels = {} if mode is None else {oracle.MODE: mode}
        admin.create(
            NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        )
    for name in (*names.values(), KMS, SYSTEM):
        admin.until(f"{NAMESPACES}/{name}/serviceaccounts", bool)
    bind(admin, "morphisms-loosen", oracle.LOOSENS_ONE, namespace=own)
    admin.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}})
    free = names[None]
    for name, labels in (("labelled", KNATIVES), ("plain", {})):
        admin.create(f"{NAMESPACES}/{free}/pods", _pod(name, labels, nodeSelector={"none": "x"}))
        for kind in ("Configuration", "Revision"):
            item = {"apiVersion": "serving.knative.dev/v1", "kind": kind, "metadata": {"name": name, "labels": labels}}
            admin.create(f"/apis/serving.knative.dev/v1/namespaces/{free}/{kind.lower()}s", {**item, "spec": {}})
        for kind in KINDS:
            admin.create(path_of(kind, names["enforce"]), workload(kind, name, labels))
    for name in _MAPS:
        item = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}}
        admin.request("DELETE", f"{NAMESPACES}/{SYSTEM}/configmaps/{name}")
        admin.create(f"{NAMESPACES}/{SYSTEM}/configmaps", item)
    token = {"serviceAccountToken": {"audience": "morphisms-verifier", "path": "token"}}
    volumes = [{"name": "token", "projected": {"sources": [token]}}]
    on_node = admin.create(f"{NAMESPACES}/{free}/pods", _pod("on-n1", {}, nodeName="n1", volumes=volumes))
    # Before its guard is there.
    admin.create(f"{NAMESPACES}/{KMS}/pods", _pod("server", {}, nodeSelector={"none": "x"}))
    guarded.kubectl("apply", "--server-side", "-f", _KEY_SERVER)
    wait_for_policies(admin)
    for user in USERS:
        until(lambda user=user: guarded.user(user).can("update", "revisions", group="serving.knative.dev"))  # type: ignore[misc]
    until(lambda: guarded.user(oracle.LOOSENS_ONE).can("loosen", "modes", own, "morphisms.dev"))
    node = guarded.node("n1")
    until(lambda: node.can("create", "serviceaccounts/token", free, name="default"))
    yield Stage(admin, guarded.user, node, names, own, on_node)
    for name in _MAPS:
        admin.delete(f"{NAMESPACES}/{SYSTEM}/configmaps/{name}")
    guarded.kubectl("delete", "-f", _KEY_SERVER)


def _definition(kind: str) -> Object:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"kind": kind, "plural": f"{kind.lower()}s"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.lower()}s.serving.knative.dev"},
        "spec": {"group": "serving.knative.dev", "scope": "Namespaced", "names": names, "versions": [version]},
    }


def _pod(name: str, labels: dict[str, str], **spec: Any) -> Object:
    metadata = {"name": name, "labels": labels}
    containers = [{"name": "app", "image": "registry.example/app"}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": containers, **spec}}


@dataclass
class Asked:
    """What came of the attempts. `disagreements` are what the API server and the oracle do not say alike."""

    refused: Counter[str] = field(default_factory=Counter)
    let_through: Counter[str] = field(default_factory=Counter)
    disagreements: list[str] = field(default_factory=list)

    def take(self, attempt: Attempt, answer: Answer, what: object) -> None:
        """Count it, by guard."""
        verdicts = {name: guard(attempt) for name, guard in GUARDS.items()}
        expected = {name for name, verdict in verdicts.items() if verdict}
        named = _REFUSED.search(answer.message) if answer.status == 403 else None
        if named is not None:
            self.refused[named[1]] += 1
        else:
            self.let_through.update(name for name, verdict in verdicts.items() if verdict is False)
        # Of several that refuse, the API server names one.
        agrees = (named is None and not expected) or (named is not None and named[1] in expected)
        if not agrees or (named is None and not _reached(attempt, answer)):
            said = f"{answer.status} {answer.message[:300]}"
            self.disagreements.append(f"{what}\n  the oracle: {sorted(expected)}; the API server: {said}")


def _reached(attempt: Attempt, answer: Answer) -> bool:
    """Whether the attempt came past admission: what is not there, or there already, is looked up afterwards."""
    if attempt.operation == "CONNECT":
        return answer.status in (400, 404)
    return answer.status in (200, 201) or answer.body.get("reason") == "AlreadyExists"


@pytest.fixture(scope="module")
def asked(stage: Stage) -> Asked:
    """All attempts, made once."""
    found = Asked()
    for tried in every_try(stage):
        attempt, answer = stage.ask(tried)
        found.take(attempt, answer, tried)
    return found


def test_the_api_server_refuses_what_a_guard_is_for_and_nothing_else(asked: Asked) -> None:
    assert asked.disagreements == [], "\n".join(asked.disagreements[:20])


def test_a_guard_that_was_added_has_an_oracle_here() -> None:
    assert GUARDS.keys() == _guards_of_the_manifests()


@pytest.mark.parametrize("guard", sorted(_guards_of_the_manifests()))
def test_each_guard_was_hit_both_ways(asked: Asked, guard: str) -> None:
    assert (asked.refused[guard] > 0, asked.let_through[guard] > 0) == (True, True), asked


_CLASSES: Final = {"kata-qemu-snp": RuntimeClassRecord("kata-qemu-snp", "kata-qemu-snp")}
_CONTROLLER: Final = User(oracle.REPLICASET_CONTROLLER)


def test_no_guard_refuses_a_pod_that_enforce_admits(stage: Stage) -> None:
    """What `preflight` calls ready is admitted by the webhook's rules as injection leaves it, and by the guards too."""
    here = stage.namespaces["enforce"]
    admission = Admission(Configuration(), Snapshot({here: Mode.ENFORCE}, runtime_classes=_CLASSES))
    asked, outcomes = Asked(), Counter[str]()

    def create(pod: Object) -> str:
        """The guard that refuses it; empty for none. What the API server finds wrong with it comes before."""
        tried: Try = pod_in(here, stage.labels("enforce"), pod, oracle.REPLICASET_CONTROLLER)
        attempt, answer = stage.ask(tried)
        if answer.status in (200, 201) or _REFUSED.search(answer.message):
            asked.take(attempt, answer, tried)
            outcomes["judged"] += 1
        named = _REFUSED.search(answer.message)
        return named[1] if named is not None else ""

    @settings(
        max_examples=60,
        derandomize=True,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.one_of(pods(), careful_pods()))
    def law(pod: Object) -> None:
        pod["metadata"]["namespace"] = here
        try:
            admitted = admission.pod(copy.deepcopy(pod), here, _CONTROLLER)
        except MalformedError:
            return
        outcomes["refused as it is"] += bool(create(pod))
        if admitted.denial is None:
            assert create(admitted.object) == ""
            outcomes["admitted"] += 1

    law()
    assert asked.disagreements == []
    assert min(outcomes[each] for each in ("judged", "refused as it is", "admitted")) >= 10, outcomes
