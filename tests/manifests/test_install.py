"""What is rendered, looked at object by object: names, permissions, pods' security, configurations."""

from __future__ import annotations

import contextlib
import re
import tomllib
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from attestation.verifier import configuration as verifier_configuration
from attestation.verifier.key_custody import check_key_custody
from cli.guards import GUARDS
from cli.main import build_parser
from server.yaml.strict import ConfigurationError
from tests.manifests.rendering import MANIFESTS, RENDERED, guard_file, rendered
from webhook.configuration_file import load_configuration

_ROOT = MANIFESTS.parent
_VERSION = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]["version"]
Object = dict[str, Any]


def _every() -> Iterator[Object]:
    for name in RENDERED:
        yield from rendered(name)


def _one(kind: str, name: str, file: str = "install.yaml") -> Object:
    (found,) = (each for each in rendered(file) if each["kind"] == kind and each["metadata"]["name"] == name)
    return found


def _guards() -> dict[str, list[Object]]:
    """Policies and bindings of `base`, and of the component on others' objects, by their names."""
    folder = MANIFESTS / "components" / "cluster-guards"
    component = [each for name in GUARDS[1:] for each in yaml.safe_load_all((folder / f"{name}.yaml").read_text())]
    found = {"base": list(_every()), "cluster-guards": component}
    kinds = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    return {name: [each for each in items if each["kind"] in kinds] for name, items in found.items()}


def _deployments() -> list[Object]:
    return [each for each in _every() if each["kind"] == "Deployment"]


def _pods() -> list[Object]:
    return [each["spec"]["template"] for each in _deployments()]


def test_names_are_those_that_the_parts_share() -> None:
    webhook, verifier = _deployments()
    assert (webhook["metadata"]["namespace"], webhook["metadata"]["name"]) == ("morphisms-system", "morphisms-webhook")
    assert (verifier["metadata"]["namespace"], verifier["metadata"]["name"]) == ("morphisms-kms", "morphisms-verifier")
    for deployment, component in ((webhook, "webhook"), (verifier, "verifier")):
        pod = deployment["spec"]["template"]
        assert pod["spec"]["containers"][0]["image"] == f"morphisms/{component}:{_VERSION}"
        assert pod["spec"]["containers"][0]["name"] == component
        assert pod["spec"]["serviceAccountName"] == deployment["metadata"]["name"]
        labels = {"name": "morphisms", "component": component, "part-of": "morphisms"}
        assert pod["metadata"]["labels"] == {f"app.kubernetes.io/{key}": value for key, value in labels.items()}
        assert deployment["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    for name, file in (("morphisms-webhook", "install.yaml"), ("morphisms-verifier", "install-verifier.yaml")):
        (port,) = _one("Service", name, file)["spec"]["ports"]
        assert (port["port"], port["targetPort"]) == (443, "https")


@pytest.mark.parametrize("pod", _pods(), ids=lambda pod: pod["spec"]["containers"][0]["name"])
def test_pods_meet_the_restricted_level_and_more(pod: Object) -> None:
    spec = pod["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 65532
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"} & spec.keys()
    for volume in spec["volumes"]:
        assert volume.keys() - {"name"} <= {"configMap", "secret", "emptyDir"}
        assert volume.get("emptyDir", {}).get("sizeLimit", "") is not None
    for container in spec["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        assert "memory" in container["resources"]["limits"]
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()
        assert not any("value" in each and "SECRET" in each["name"] for each in container.get("env", ()))


def test_a_token_is_mounted_only_where_one_is_needed() -> None:
    webhook, verifier = (pod["spec"]["automountServiceAccountToken"] for pod in _pods())
    assert (webhook, verifier) == (True, False)
    accounts = [each for each in _every() if each["kind"] == "ServiceAccount"]
    assert [each["automountServiceAccountToken"] for each in accounts] == [False, False]


def test_namespaces_are_held_to_the_restricted_level() -> None:
    for namespace in (each for each in _every() if each["kind"] == "Namespace"):
        for mode in ("enforce", "audit", "warn"):
            assert namespace["metadata"]["labels"][f"pod-security.kubernetes.io/{mode}"] == "restricted"
        # A webhook of ours that judged itself could not start.
        assert "morphisms.dev/mode" not in namespace["metadata"]["labels"]


def test_the_drain_fits_into_the_grace_period() -> None:
    from server.limits import Limits

    for pod in _pods():
        (container,) = pod["spec"]["containers"]
        arguments = build_parser(container["args"][0]).parse_args(container["args"])
        limits = Limits(lame_duck_seconds=arguments.lame_duck_seconds)
        assert pod["spec"]["terminationGracePeriodSeconds"] > limits.stop_seconds


def test_the_lame_duck_outlasts_what_endpoints_take_to_update() -> None:
    """A failing readiness probe withdraws an endpoint too: its period times its threshold comes before the update."""
    from server.limits import LAME_DUCK_SECONDS

    for pod in _pods():
        (container,) = pod["spec"]["containers"]
        probe = container["readinessProbe"]
        assert probe["periodSeconds"] * probe["failureThreshold"] + 10 <= LAME_DUCK_SECONDS


def test_three_replicas_at_least_and_no_number_that_fights_the_autoscaler() -> None:
    assert _one("HorizontalPodAutoscaler", "morphisms-webhook")["spec"]["minReplicas"] == 3
    assert "replicas" not in _one("Deployment", "morphisms-webhook")["spec"]
    assert _one("PodDisruptionBudget", "morphisms-webhook")["spec"]["maxUnavailable"] == 1
    spread = _one("Deployment", "morphisms-webhook")["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert {each["topologyKey"] for each in spread} == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}


def test_commands_take_their_arguments() -> None:
    for pod in _pods():
        arguments = pod["spec"]["containers"][0]["args"]
        parsed = build_parser(arguments[0]).parse_args(arguments)
        ports = {port["name"]: port["containerPort"] for port in pod["spec"]["containers"][0]["ports"]}
        assert parsed.listen == ("::", ports["https"])
        assert parsed.metrics_listen == ("::", ports["metrics"])


def test_permissions_are_listed_one_by_one() -> None:
    roles = [each for each in _every() if each["kind"] in ("Role", "ClusterRole")]
    assert roles
    for role in roles:
        for rule in role["rules"]:
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"], role["metadata"]["name"]
            assert "nonResourceURLs" not in rule
            if set(rule["verbs"]) & {"create", "update", "patch", "delete"}:
                assert rule.get("resourceNames"), f"{role['metadata']['name']} writes by name only"
            if "secrets" in rule["resources"]:
                assert role["kind"] == "Role"
                assert "get" not in rule["verbs"]
    bound = {each["roleRef"]["name"] for each in _every() if each["kind"].endswith("RoleBinding")}
    assert not bound & {"morphisms-loosen", "morphisms-break-glass"}, "who may is not ours to say"


def test_each_verb_says_why() -> None:
    for file in MANIFESTS.rglob("*.yaml"):
        if "base" not in file.parts and "components" not in file.parts:
            continue
        verbs = [
            verb
            for document in yaml.safe_load_all(file.read_text())
            if document is not None and document.get("kind") in ("Role", "ClusterRole")
            for rule in document["rules"]
            for verb in rule["verbs"]
        ]
        explained = re.findall(r"^ {6}- ([a-z-]+) +# \w.+$", file.read_text(), re.MULTILINE)
        assert verbs == explained, f"{file.name}: one verb a line, with its reason"


@pytest.mark.parametrize("namespace", ["morphisms-system", "morphisms-kms"])
def test_the_network_is_closed_but_for_what_is_named(namespace: str) -> None:
    policies = {
        each["metadata"]["name"]: each["spec"]
        for each in _every()
        if each["kind"] == "NetworkPolicy" and each["metadata"]["namespace"] == namespace
    }
    deny = policies.pop("default-deny")
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for spec in policies.values():
        assert spec["podSelector"]["matchLabels"]
        for rule in (*spec["ingress"], *spec["egress"]):
            assert rule["ports"], "no rule is for every port"


def test_the_webhooks_configuration_is_accepted(tmp_path: Path) -> None:
    for text in (
        _one("ConfigMap", "morphisms-webhook")["data"]["configuration.yaml"],
        (MANIFESTS / "overlays" / "openbao-dev" / "configuration.yaml").read_text(),
    ):
        (tmp_path / "configuration.yaml").write_text(text)
        loaded = load_configuration(tmp_path / "configuration.yaml").value
        assert loaded.sidecar.image == f"morphisms/sidecar:{_VERSION}"


def test_the_example_in_the_configuration_is_accepted_too(tmp_path: Path) -> None:
    text = _one("ConfigMap", "morphisms-webhook")["data"]["configuration.yaml"]
    lines = text.splitlines()
    first = lines.index("# profiles:")
    last = next(index for index in range(first, len(lines)) if not lines[index].startswith("#"))
    lines[first:last] = [line.removeprefix("# ") for line in lines[first:last]]
    (tmp_path / "configuration.yaml").write_text("\n".join(lines))
    loaded = load_configuration(tmp_path / "configuration.yaml").value
    assert loaded.profile_by_name["kata-snp"].trustedLabel == "morphisms.node-restriction.kubernetes.io/snp"


def test_the_verifiers_configurations_are_accepted(tmp_path: Path) -> None:
    data = _one("ConfigMap", "morphisms-verifier", "install-verifier.yaml")["data"]
    overlay = {"verifier.yaml": (MANIFESTS / "overlays" / "openbao-dev" / "verifier.yaml").read_text()}
    for files, mode in ((data, "production"), (overlay, "development")):
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        loaded = verifier_configuration.load_configuration(tmp_path / "verifier.yaml")
        assert loaded.mode == mode


def test_a_guests_calls_reach_one_replica_of_the_verifier() -> None:
    service = _one("Service", "morphisms-verifier", "install-verifier.yaml")
    assert service["spec"]["sessionAffinity"] == "ClientIP"


def test_no_signing_key_lies_in_a_file_of_any_overlay() -> None:
    """In production the verifier's own credential may, where the operator decides so: the test below."""
    files = sorted(MANIFESTS.rglob("verifier.yaml"))
    assert len(files) >= 2
    for file in files:
        text = file.read_text()
        assert "signing.pem" not in text, file
        assert yaml.safe_load(text)["signing"].keys() <= {"transit", "provisioned", "generated"}, file
    assert "signing.pem" not in (MANIFESTS / "install-verifier.yaml").read_text()


def test_the_base_asks_for_a_decision_about_its_credentials_file(tmp_path: Path) -> None:
    data = _one("ConfigMap", "morphisms-verifier", "install-verifier.yaml")["data"]
    today = date(2030, 1, 1)
    lines = data["verifier.yaml"].splitlines()
    first = lines.index("# exceptions:")
    decided = [line.removeprefix("# ").replace("YYYY-MM-DD", "2030-06-01") for line in lines[first : first + 2]]
    for content, is_accepted in ((lines, False), ([*lines[:first], *decided, *lines[first + 2 :]], True)):
        (tmp_path / "verifier.yaml").write_text("\n".join(content))
        loaded = verifier_configuration.load_configuration(tmp_path / "verifier.yaml")
        with contextlib.nullcontext() if is_accepted else pytest.raises(ConfigurationError, match=r"appRole\.secretId"):
            check_key_custody(loaded, today)


def test_every_file_that_the_verifier_reads_is_mounted() -> None:
    data = _one("ConfigMap", "morphisms-verifier", "install-verifier.yaml")["data"]
    pod = _one("Deployment", "morphisms-verifier", "install-verifier.yaml")["spec"]["template"]["spec"]
    mounts = [each["mountPath"] for each in pod["containers"][0]["volumeMounts"]]
    for path in re.findall(r"/(?:etc|var)/[a-z./-]+", data["verifier.yaml"]):
        assert any(path == mount or path.startswith(f"{mount}/") for mount in mounts), path


def test_profiles_runtime_classes_are_the_guarded_ones() -> None:
    from webhook.configuration.profiles import PRESETS

    policy, _ = yaml.safe_load_all(guard_file("runtime-class-guard").read_text())
    (guarded,) = (each["expression"] for each in policy["spec"]["variables"] if each["name"] == "handlers")
    presets = {name: list(profile.handlers) for profile in PRESETS for name in profile.runtimeClasses}
    assert yaml.safe_load(guarded) == presets


def test_the_guarded_audience_is_the_verifiers() -> None:
    from webhook.configuration.model import Configuration

    policy, _ = yaml.safe_load_all(guard_file("verifier-token").read_text())
    (condition,) = policy["spec"]["matchConditions"]
    expression = " ".join(condition["expression"].split())
    assert f"'{Configuration().verifier.audience}' in object.spec.audiences" in expression


def test_no_policy_lets_through_what_it_cannot_work_out() -> None:
    guards = _guards()
    names = {
        part: {each["metadata"]["name"].removesuffix(".morphisms.dev") for each in items}
        for part, items in guards.items()
    }
    assert names == {
        "base": {"mode-ratchet", "configuration-guard", "configmap-guard", "injection-present"},
        "cluster-guards": {"runtime-class-guard", "knative-labels", "verifier-token"},
    }
    items = [each for part in guards.values() for each in part]
    policies = [each for each in items if each["kind"] == "ValidatingAdmissionPolicy"]
    bindings = {each["metadata"]["name"]: each for each in items if each["kind"] != "ValidatingAdmissionPolicy"}
    for policy in policies:
        assert policy["spec"]["failurePolicy"] == "Fail"
        assert "namespaceObject" not in str(policy["spec"].get("matchConditions"))  # the API server tells none there
        binding = bindings.pop(policy["metadata"]["name"])
        assert binding["spec"] == {"policyName": policy["metadata"]["name"], "validationActions": ["Deny"]}
    assert not bindings


def test_no_registry_is_named() -> None:
    for file in MANIFESTS.rglob("*"):
        if file.is_file() and file.suffix in (".yaml", ".sh", ".hcl"):
            for image in re.findall(r"image: +(\S+)", file.read_text()):
                assert "." not in image.partition("/")[0], f"{file.name}: {image}"
