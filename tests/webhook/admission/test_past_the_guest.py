"""Ways in which secrets or foreign influence reach a pod past its guest: refused in enforce; harmless twins are not."""

from __future__ import annotations

import copy
import json
import time
from typing import Any

import jsonpatch
import pytest

from tests.support.paths import REVIEWS
from webhook.configuration.model import Configuration
from webhook.decide import decide
from webhook.decision import Decision
from webhook.detection.detector import Detection, Detector
from webhook.modes import Mode
from webhook.pod.pod import Pod
from webhook.pod.runtime_annotations import reaches_runtime
from webhook.request import Request, User
from webhook.review import read_review
from webhook.rules.isolation import foreign_mounts
from webhook.rules.rule import Subject
from webhook.rules.secrets import plaintext_fields
from webhook.snapshot import RuntimeClassRecord, Snapshot

Json = dict[str, Any]
_POD = REVIEWS / "pods-create-payments-by-replicaset-controller.json"
_SNAPSHOT = Snapshot(
    {"default": Mode.ENFORCE, "shop": Mode.ENFORCE},
    {},
    {"kata-qemu-snp": RuntimeClassRecord("kata-qemu-snp", "kata-qemu-snp")},
)
_DIGEST = "@sha256:" + "b" * 64


def _ask(path: str, pod: Json, configuration: Configuration | None = None) -> Decision:
    review = json.loads(_POD.read_text())
    review["request"]["object"] = pod
    return decide(read_review(json.dumps(review).encode(), path), configuration or Configuration(), _SNAPSHOT)


def _compliant() -> Json:
    pod: Json = json.loads(_POD.read_text())["request"]["object"]
    pod["spec"]["containers"][0]["env"] = []
    return pod


def _rules(changes: Json, configuration: Configuration | None = None) -> set[str]:
    """The rules for which the compliant pod is denied once the changes are merged into it and it is injected."""
    pod = _merged(_compliant(), changes)
    mutated = _ask("/mutate/pod", pod, configuration)
    if mutated.denial is not None:
        return {cause.reason for cause in mutated.denial.causes}
    after = copy.deepcopy(jsonpatch.apply_patch(pod, list(mutated.operations)))
    decision = _ask("/validate/pod", after, configuration)
    return set() if decision.denial is None else {cause.reason for cause in decision.denial.causes}


def _merged(item: Any, changes: Any) -> Any:
    """The changes laid over the item: dicts member by member, a list's first element onto the list's first."""
    if isinstance(item, dict) and isinstance(changes, dict):
        return item | {key: _merged(item.get(key), value) for key, value in changes.items()}
    if isinstance(item, list) and isinstance(changes, list) and item and isinstance(item[0], dict):
        return [_merged(item[0], changes[0]), *item[1:]] if changes else item
    return changes


def _container(**members: Any) -> Json:
    return {"spec": {"containers": [members]}}


def _variable(**source: Any) -> Json:
    return _container(env=[{"name": "A", "valueFrom": source}])


def _volume(**members: Any) -> Json:
    return {"spec": {"volumes": [{"name": "v", **members}]}}


def _annotated(key: str, value: str = "x") -> Json:
    return {"metadata": {"annotations": {key: value}}}


_CONTEXT = "isolation/confinement"
_RUNTIME = "isolation/hypervisor-annotations"
_TEXT = "secrets/plaintext-fields"
_TOKEN = "ghp_" + "aB3" * 12


def test_the_pod_without_a_change_is_admitted() -> None:
    assert _rules({}) == set()


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        *(
            ("secrets/node-fetched", _volume(csi={"driver": driver, "readOnly": True}))
            for driver in (
                "secrets-store.csi.k8s.io",
                "secrets-store-gke.csi.k8s.io",
                "csi.cert-manager.io",
                "spiffe.csi.cert-manager.io",
                "csi.spiffe.io",
                "csi.vso.hashicorp.com",
                "csi.sharedresource.openshift.io",
                "Secrets-Store.csi.k8s.io",
            )
        ),
        ("secrets/node-fetched", _volume(flexVolume={"driver": "azure/kv", "secretRef": {"name": "kv"}})),
        ("secrets/node-fetched", _volume(projected={"sources": [{"podCertificate": {"signerName": "a/b"}}]})),
        *(
            ("isolation/foreign-mounts", _variable(fileKeyRef={"volumeName": name, "path": "db", "key": "k"}))
            for name in ("morphisms-secrets", "morphisms-run", "morphisms-token")
        ),
        ("isolation/foreign-mounts", _container(volumeDevices=[{"name": "morphisms-run", "devicePath": "/dev/x"}])),
        ("isolation/foreign-mounts", _container(volumeDevices=[{"name": "disk", "devicePath": "/morphisms/run"}])),
        ("isolation/foreign-mounts", _container(terminationMessagePath="/x/../morphisms/secrets/db")),
        ("isolation/foreign-mounts", _container(aFieldToCome={"deep": [["morphisms-secrets"]]})),
        ("isolation/foreign-mounts", _container(envFrom=[{"fileRef": {"volumeName": "morphisms-secrets"}}])),
        *(
            ("isolation/capabilities", _container(securityContext={"capabilities": {"add": [name]}}))
            for name in ("SYS_ADMIN", "CAP_SYS_ADMIN", "sys_module", "SYS_PTRACE", "SYS_RAWIO", "ALL", "BPF", "NEW_ONE")
        ),
        (_CONTEXT, _container(securityContext={"procMount": "Unmasked"})),
        (_CONTEXT, _container(securityContext={"seccompProfile": {"type": "Unconfined"}})),
        (_CONTEXT, _container(securityContext={"appArmorProfile": {"type": "Unconfined"}})),
        (_CONTEXT, _container(securityContext={"seLinuxOptions": {"type": "spc_t"}})),
        (_CONTEXT, {"spec": {"securityContext": {"seccompProfile": {"type": "Unconfined"}}}}),
        (_CONTEXT, {"spec": {"securityContext": {"sysctls": [{"name": "kernel.core_pattern", "value": "|/x"}]}}}),
        (_CONTEXT, {"spec": {"securityContext": {"sysctls": [{"name": "kernel/core_pattern", "value": "|/x"}]}}}),
        (_CONTEXT, _annotated("container.apparmor.security.beta.kubernetes.io/app", "unconfined")),
        *(
            (_RUNTIME, _annotated(key))
            for key in (
                "cdi.k8s.io/gpu",
                "io.kubernetes.cri-o.Devices",
                "io.kubernetes.cri.untrusted-workload",
                "io.containerd.runc.v2.x",
                "devices.nri.io/container.app",
                "cpu-quota.crio.io",
                "run.oci.handler",
                "org.systemd.property.DevicePolicy",
            )
        ),
        (_TEXT, _container(args=["--dsn", "postgres://app:s3cr3t@db/shop"])),
        (_TEXT, _container(args=["--db-password=hunter2"])),
        (_TEXT, _container(command=["/app", "--token", _TOKEN])),
        (_TEXT, _container(startupProbe={"exec": {"command": ["curl", "-H", f"Authorization: Bearer {_TOKEN}"]}})),
        (_TEXT, _container(livenessProbe={"httpGet": {"port": 1, "httpHeaders": [{"name": "A", "value": _TOKEN}]}})),
        (_TEXT, _container(lifecycle={"preStop": {"exec": {"command": ["sh", "-c", f"notify {_TOKEN}"]}}})),
        (_TEXT, _container(lifecycle={"preStop": {"httpGet": {"port": 1, "path": f"/?t={_TOKEN}"}}})),
        (_TEXT, _annotated("team.example/token", _TOKEN)),
    ],
    ids=lambda each: each if isinstance(each, str) else json.dumps(each)[:60],
)
def test_it_is_refused_in_enforce(rule: str, changes: Json) -> None:
    assert rule in _rules(changes)


@pytest.mark.parametrize(
    "changes",
    [
        _volume(csi={"driver": "inline.storage.kubernetes.io"}),
        _volume(projected={"sources": [{"clusterTrustBundle": {"name": "a", "path": "ca"}}]}),
        _container(env=[{"name": "A", "value": "morphisms-secrets"}], args=["morphisms-run"]),
        _container(volumeMounts=[{"name": "knative-var-log", "mountPath": "/x", "subPath": "morphisms"}]),
        _container(securityContext={"capabilities": {"add": ["NET_ADMIN", "CAP_NET_RAW", "chown"], "drop": ["ALL"]}}),
        _container(securityContext={"seccompProfile": {"type": "Localhost", "localhostProfile": "a.json"}}),
        _container(securityContext={"seLinuxOptions": {"level": "s0:c1,c2"}, "procMount": "Default"}),
        {"spec": {"securityContext": {"sysctls": [{"name": "net.core.somaxconn", "value": "1024"}]}}},
        _annotated("container.apparmor.security.beta.kubernetes.io/app", "runtime/default"),
        _annotated("prometheus.io/scrape", "true"),
        _annotated("team.example/url", "https://shop.example/path?x=1"),
        _container(args=["--password-file=/morphisms/secrets/db", "--url=postgres://db:5432/shop", "--token=$(T)"]),
        _container(startupProbe={"exec": {"command": ["pg_isready", "-U", "app", "-h", "localhost"]}}),
    ],
    ids=lambda each: json.dumps(each)[:60],
)
def test_its_harmless_twin_is_admitted(changes: Json) -> None:
    assert _rules(changes) == set()


def test_the_operator_chooses_drivers_and_annotations() -> None:
    configuration = Configuration.model_validate(
        {"secretDrivers": ["kv.example.com"], "hypervisorAnnotations": ["cdi.k8s.io/gpu"]}
    )
    assert _rules(_volume(csi={"driver": "kv.example.com"}), configuration) == {"secrets/node-fetched"}
    assert _rules(_volume(csi={"driver": "secrets-store.csi.k8s.io"}), configuration) == set()
    assert _rules(_annotated("cdi.k8s.io/gpu"), configuration) == set()


def test_a_service_that_mounts_the_secrets_store_is_refused() -> None:
    """https://github.com/kubernetes-sigs/secrets-store-csi-driver: the node fetches the secrets."""
    mounted = {"image": f"r.example/a{_DIGEST}", "volumeMounts": [{"name": "s", "mountPath": "/mnt/secrets-store"}]}
    volume = {
        "name": "s",
        "csi": {"driver": "secrets-store.csi.k8s.io", "volumeAttributes": {"secretProviderClass": "db"}},
    }
    kind = ("serving.knative.dev", "v1", "Service")
    service = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "c", "namespace": "shop"},
        "spec": {"template": {"spec": {"containers": [mounted], "volumes": [volume]}}},
    }
    request = Request("u", "/validate/service", kind, kind, "", "CREATE", "c", "shop", User("dev"), service)
    decision = decide(request, Configuration(), _SNAPSHOT)
    assert decision.denial is not None
    assert [cause.reason for cause in decision.denial.causes] == ["secrets/node-fetched"]


@pytest.mark.parametrize("key", ["cdi.k8s.io/a", "a.nri.io/b", "nri.io/b", "cpu-quota.crio.io", "io.kubernetes.cri.x"])
def test_a_binding_cannot_carry_an_annotation_for_the_runtime(key: str) -> None:
    kind = ("", "v1", "Binding")
    binding = {"metadata": {"name": "p", "annotations": {key: "x"}}, "target": {"name": "n"}}
    request = Request("u", "/validate/binding", kind, kind, "binding", "CREATE", "p", "shop", User("dev"), binding)
    decision = decide(request, Configuration(), _SNAPSHOT)
    assert decision.denial is not None
    assert "isolation/binding-metadata" in {cause.reason for cause in decision.denial.causes}


@pytest.mark.parametrize("key", ["notnri.io/b", "io.kubernetes.container.x", "k8s.v1.cni.cncf.io/networks", "crio"])
def test_annotations_of_others_do_not_reach_the_runtime(key: str) -> None:
    assert not reaches_runtime(key)


_EARLY = {"name": "early", "image": f"r.example/a{_DIGEST}"}


@pytest.mark.parametrize(
    "before", [[_EARLY], [{**_EARLY, "name": "istio-init"}, _EARLY], [{**_EARLY, "restartPolicy": "Always"}]]
)
def test_no_container_of_the_author_runs_before_attestation(before: list[Json]) -> None:
    """A webhook after ours put it there. Injection moves morphisms-init before it, and validation refuses it."""
    pod = _compliant()
    injected = copy.deepcopy(jsonpatch.apply_patch(pod, list(_ask("/mutate/pod", pod).operations)))
    injected["spec"]["initContainers"] = [*before, *injected["spec"]["initContainers"]]
    decision = _ask("/validate/pod", injected)
    assert decision.denial is not None
    assert {cause.reason for cause in decision.denial.causes} == {"secrets/init-container"}
    again = copy.deepcopy(jsonpatch.apply_patch(injected, list(_ask("/mutate/pod", injected).operations)))
    assert again["spec"]["initContainers"][0]["name"] == "morphisms-init"
    assert _ask("/validate/pod", again).denial is None


@pytest.mark.parametrize(
    "mesh",
    [
        [{**_EARLY, "name": "istio-validation"}, {**_EARLY, "name": "istio-proxy", "restartPolicy": "Always"}],
        [{**_EARLY, "name": "linkerd-init"}, {**_EARLY, "name": "linkerd-proxy", "restartPolicy": "Always"}],
        [{**_EARLY, "name": "kuma-init"}, {**_EARLY, "name": "kuma-sidecar", "restartPolicy": "Always"}],
        [{**_EARLY, "name": "consul-connect-inject-init"}, {**_EARLY, "name": "consul-dataplane"}],
    ],
)
def test_a_meshs_own_containers_may_run_before_attestation(mesh: list[Json]) -> None:
    assert _rules({"spec": {"initContainers": mesh}}) == set()


def test_a_native_proxy_after_the_authors_container_does_not_delay_attestation() -> None:
    proxy = {**_EARLY, "name": "istio-proxy", "restartPolicy": "Always"}
    pod = _merged(_compliant(), {"spec": {"initContainers": [_EARLY, proxy]}})
    after = copy.deepcopy(jsonpatch.apply_patch(pod, list(_ask("/mutate/pod", pod).operations)))
    assert [each["name"] for each in after["spec"]["initContainers"]] == ["morphisms-init", "early", "istio-proxy"]


_HOSTILE = ["a", "d=", "=xxx ", "x://u:", "Bearer ", '"password":"', "eyJ", "0:AA", "${"]


@pytest.mark.parametrize("unit", _HOSTILE)
@pytest.mark.parametrize("length", [1, 8, 3_000_000])
def test_three_megabytes_are_searched_up_to_a_bound(unit: str, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice, and no further: all texts at once, then one by one. A pattern that backtracked would take hours."""
    searched: list[int] = []
    find_format = Detector.find_format

    def noted(detector: Detector, text: str, name: str = "") -> Detection | None:
        searched.append(len(text))
        return find_format(detector, text, name)

    monkeypatch.setattr(Detector, "find_format", noted)
    word = (unit * (length // len(unit) + 1))[:length]
    container = {"name": "a", "args": [word] * (3_000_000 // (length + 3) or 1)}
    subject = Subject(Pod({"metadata": {}, "spec": {"containers": [container] * 3}}, "shop", Configuration()))
    start = time.process_time()
    for rule in (plaintext_fields.RULE, foreign_mounts.RULE):
        list(rule.check(subject))
    assert time.process_time() - start < 120
    assert sum(searched) <= 2 * 256 * 1024
