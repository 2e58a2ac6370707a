"""What an officer is told of the cluster itself: the manifests give no finding, and each damage to them gives one."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import yaml

from cli.guards import GUARDS, guard
from tests.manifests.rendering import MANIFESTS, rendered
from webhook.configuration.model import Configuration
from webhook.configuration.templates_map import TemplatesMap, read_map
from webhook.node_records import NodeRecord
from webhook.scanner.cluster.facts import CLUSTER_GUARDS, ClusterFacts
from webhook.scanner.cluster.facts import GUARDS as BASE_GUARDS
from webhook.scanner.cluster.findings import cluster_findings, registered_entries
from webhook.scanner.cluster.guard_texts import DIGESTS, digest_of
from webhook.scanner.reports.results import Result
from webhook.snapshot import RuntimeClassRecord, Snapshot

Json = dict[str, Any]

_SNP = "amd.feature.node.kubernetes.io/snp"
_TRUSTED = "morphisms.node-restriction.kubernetes.io/snp"


@cache
def _rendered() -> list[Json]:
    folder = MANIFESTS / "components" / "cluster-guards"
    guards = [each for name in GUARDS[1:] for each in yaml.safe_load_all((folder / f"{name}.yaml").read_text())]
    return [*rendered("install.yaml"), *guards]


def _objects() -> list[Json]:
    return deepcopy(_rendered())


def _by_guard(kind: str) -> Json:
    return {
        each["metadata"]["name"].removesuffix(".morphisms.dev"): each for each in _objects() if each["kind"] == kind
    }


def _registration(kind: str) -> Json:
    (found,) = (each for each in _objects() if each["kind"] == f"{kind.title()}WebhookConfiguration")
    for webhook in found["webhooks"]:
        webhook["clientConfig"]["caBundle"] = "bundle"
    return found  # type: ignore[no-any-return]


def _sound() -> ClusterFacts:
    api_server = {
        "metadata": {"name": "a"},
        "spec": {"containers": [{"command": ["x", "--encryption-provider-config=f"]}]},
    }
    return ClusterFacts(
        {kind: _registration(kind) for kind in ("mutating", "validating")},
        _by_guard("ValidatingAdmissionPolicy"),
        _by_guard("ValidatingAdmissionPolicyBinding"),
        {"system-internal-tls": "Enabled"},
        (_system_pod("snp-0"),),
        (api_server,),
        (),
    )


def _system_pod(node: str) -> Json:
    return {"metadata": {"name": "activator-1", "labels": {"app": "activator"}}, "spec": {"nodeName": node}}


_SNAPSHOT = Snapshot(
    nodes={
        "snp-0": NodeRecord("snp-0", ((_SNP, "true"), (_TRUSTED, "true")), ()),
        "plain-0": NodeRecord("plain-0", (), ()),
    },
    runtime_classes={"kata-qemu-snp": RuntimeClassRecord("kata-qemu-snp", "kata-qemu-snp")},
)


def _found(facts: ClusterFacts, snapshot: Snapshot = _SNAPSHOT, templates: TemplatesMap | None = None) -> list[Result]:
    results = list(cluster_findings(Configuration(), snapshot, facts, templates or TemplatesMap()))
    # What the defaults leave open: labels of the preset, and a verifier that pods do not attest.
    return [each for each in results if each.rule not in ("cluster/spoofable-labels", "cluster/verifier-unattested")]


def test_the_manifests_as_they_are_give_no_finding() -> None:
    assert _found(_sound()) == []


def test_the_entries_looked_for_are_those_of_the_manifests() -> None:
    for kind in ("mutating", "validating"):
        entries = {
            each["name"]: (each["clientConfig"]["service"]["path"], each["failurePolicy"])
            for each in _registration(kind)["webhooks"]
        }
        entries.pop("validate-namespace.morphisms.dev", None)  # it warns alone
        assert registered_entries(kind) == entries
    assert {*BASE_GUARDS, *CLUSTER_GUARDS} == _by_guard("ValidatingAdmissionPolicy").keys()


def test_the_guards_texts_are_those_of_the_manifests() -> None:
    policies = _by_guard("ValidatingAdmissionPolicy")
    assert {name: digest_of(policy) for name, policy in policies.items()} == DIGESTS


@pytest.mark.parametrize("name", GUARDS)
def test_a_guard_that_follows_another_configuration_was_not_edited(name: str) -> None:
    configuration = Configuration.model_validate(
        {
            "namespaces": {"shop": {"profiles": ["peer-pod", "kata-snp"]}, "bank": {"profile": "peer-pod"}},
            "verifier": {"audience": "it's [another], {one}"},
            "identities": {
                "knative": [],
                "podControllers": ["system:serviceaccount:kube-system:replicaset-controller"],
            },
        }
    )
    assert digest_of(yaml.safe_load(guard(name, configuration))) == DIGESTS[name]


def _narrowed(spec: Json) -> None:
    spec["matchConstraints"]["resourceRules"][0]["operations"] = ["DELETE"]


_NOBODY = {"matchLabels": {"nobody": "has-this"}}
_EDITS: dict[str, Callable[[Json], Any]] = {
    "what it holds": lambda spec: spec["validations"][0].update(expression="true"),
    "one way more out": lambda spec: spec["validations"][0].update(
        expression=f"request.userInfo.username == 'eve' || {spec['validations'][0]['expression']}"
    ),
    "a validation fewer": lambda spec: spec["validations"].pop(),
    "another condition": lambda spec: spec.setdefault("matchConditions", []).append(
        {"name": "x", "expression": "false"}
    ),
    "a condition's text": lambda spec: spec["matchConditions"][-1].update(expression="false"),
    "a variable": lambda spec: spec.setdefault("variables", []).insert(0, {"name": "x", "expression": "true"}),
    "fewer operations": _narrowed,
    "an exception": lambda spec: spec["matchConstraints"].update(excludeResourceRules=[{"resources": ["*"]}]),
    "other namespaces": lambda spec: spec["matchConstraints"].update(namespaceSelector=_NOBODY),
    "other objects": lambda spec: spec["matchConstraints"].update(objectSelector=_NOBODY),
}


@pytest.mark.parametrize("edit", sorted(_EDITS))
@pytest.mark.parametrize("name", sorted(DIGESTS))
def test_an_edited_guard_is_found(name: str, edit: str) -> None:
    facts = _sound()
    policies = deepcopy(dict(facts.policies))
    spec = policies[name]["spec"]
    _EDITS[edit](spec)
    (found,) = _found(replace(facts, policies=policies))
    assert (found.rule, found.result) == ("cluster/guard", "fail")
    assert f"the guard {name} was edited" in found.message


def test_what_an_api_server_fills_in_is_no_edit() -> None:
    policies = _by_guard("ValidatingAdmissionPolicy")
    for policy in policies.values():
        matched = policy["spec"]["matchConstraints"]
        matched.setdefault("namespaceSelector", {})
        matched.setdefault("objectSelector", {})
        matched["matchPolicy"] = "Equivalent"
        policy["status"] = {"typeChecking": {}}
    assert _found(replace(_sound(), policies=policies)) == []


def _entry(change: Callable[[Json], Any]) -> Callable[[ClusterFacts], ClusterFacts]:
    def damage(facts: ClusterFacts) -> ClusterFacts:
        registration = deepcopy(dict(facts.registrations["validating"]))
        change(next(each for each in registration["webhooks"] if each["name"] == "validate-pod.enforce.morphisms.dev"))
        return replace(facts, registrations={**facts.registrations, "validating": registration})

    return damage


def _binding(**spec: Any) -> Callable[[ClusterFacts], ClusterFacts]:
    def damage(facts: ClusterFacts) -> ClusterFacts:
        binding = deepcopy(dict(facts.bindings["injection-present"]))
        binding["spec"] |= spec
        return replace(facts, bindings={**facts.bindings, "injection-present": binding})

    return damage


def _key_server(facts: ClusterFacts) -> ClusterFacts:
    (verifier,) = (each for each in rendered("install-verifier.yaml") if each["kind"] == "Deployment")
    return replace(facts, key_server=(verifier,))


@pytest.mark.parametrize(
    ("damage", "rule", "said"),
    [
        pytest.param(
            lambda facts: replace(facts, registrations={"mutating": facts.registrations["mutating"]}),
            "cluster/registration",
            "is absent",
            id="no-registration",
        ),
        pytest.param(_entry(lambda each: each.update(name="other")), "cluster/registration", "absent", id="no-entry"),
        pytest.param(_entry(lambda each: each.update(failurePolicy="Ignore")), "cluster/fails-open", "Fail", id="open"),
        pytest.param(
            _entry(lambda each: each["clientConfig"]["service"].update(path="/validate/pod/audit")),
            "cluster/registration",
            "another path",
            id="milder-path",
        ),
        pytest.param(
            _entry(lambda each: each["clientConfig"].pop("caBundle")), "cluster/registration", "caBundle", id="no-ca"
        ),
        pytest.param(
            _entry(lambda each: each["namespaceSelector"]["matchExpressions"][0]["values"].append("shop")),
            "cluster/registration",
            "shop",
            id="namespace-left-out",
        ),
        pytest.param(
            lambda facts: replace(facts, policies={}, bindings=facts.bindings),
            "cluster/guard",
            "policy",
            id="no-policy",
        ),
        pytest.param(lambda facts: replace(facts, bindings={}), "cluster/guard", "binding", id="no-binding"),
        pytest.param(_binding(validationActions=["Warn"]), "cluster/guard", "does not deny", id="guard-warns"),
        pytest.param(
            _binding(matchResources={"namespaceSelector": {}}),
            "cluster/guard",
            "leaves objects out",
            id="guard-narrowed",
        ),
        pytest.param(
            lambda facts: replace(facts, network={}), "cluster/data-path", "system-internal-tls", id="plain-text"
        ),
        pytest.param(
            lambda facts: replace(facts, system_pods=(_system_pod("plain-0"),)),
            "cluster/system-pods",
            "activator-1",
            id="plain-node",
        ),
        pytest.param(_key_server, "cluster/keys-in-etcd", "morphisms-verifier-keys", id="keys"),
        pytest.param(
            lambda facts: replace(facts, api_servers=()), "cluster/encryption-at-rest", "not evaluated", id="unseen"
        ),
        pytest.param(
            lambda facts: replace(facts, api_servers=({"metadata": {"name": "api"}, "spec": {}},)),
            "cluster/encryption-at-rest",
            "--encryption-provider-config",
            id="unencrypted",
        ),
        pytest.param(
            lambda facts: replace(facts, unread=("guards",), policies={}, bindings={}),
            "cluster/not-read",
            "guards",
            id="not-allowed",
        ),
    ],
)
def test_each_damage_is_found_and_says_what_to_do(
    damage: Callable[[ClusterFacts], ClusterFacts], rule: str, said: str
) -> None:
    found = _found(damage(_sound()))
    assert {each.rule for each in found} == {rule}
    assert said in found[0].message


@pytest.mark.parametrize(
    ("snapshot", "rules"),
    [
        pytest.param(replace(_SNAPSHOT, runtime_classes={}), {"cluster/runtime-class"}, id="no-class"),
        pytest.param(
            replace(_SNAPSHOT, runtime_classes={"kata-qemu-snp": RuntimeClassRecord("kata-qemu-snp", "runc")}),
            {"cluster/runtime-class"},
            id="wrong-handler",
        ),
        pytest.param(
            replace(_SNAPSHOT, nodes={"plain-0": NodeRecord("plain-0", (), ())}), {"cluster/nodes"}, id="no-node"
        ),
    ],
)
def test_a_profile_whose_pods_could_not_run_is_found(snapshot: Snapshot, rules: set[str]) -> None:
    facts = replace(_sound(), system_pods=())
    assert {each.rule for each in _found(facts, snapshot)} == rules


def test_labels_that_a_kubelet_sets_itself_and_an_unattested_verifier_are_named() -> None:
    results = list(cluster_findings(Configuration(), _SNAPSHOT, _sound(), TemplatesMap()))
    assert {each.rule for each in results} == {"cluster/spoofable-labels", "cluster/verifier-unattested"}
    assert not any("profile system" in each.message for each in results)


def test_replicas_that_disagree_are_named() -> None:
    data = {"known.webhook-1": "2027-01-01T00:00:00Z", "x.json": "no template"}
    found = _found(_sound(), templates=read_map(data))
    assert "cluster/templates" in {each.rule for each in found}
