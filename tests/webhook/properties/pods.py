"""Generated pods, mostly sane, each with a few of the shapes that break rewriters."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from tests.webhook.properties.worlds import SNP_LABEL, TRUSTED_LABEL

Json = dict[str, Any]
Draw = Callable[[st.SearchStrategy[Any]], Any]

# A test searches for these two: no answer may have them, and a patch may have only the second, in a wrapped command
# with its arguments.
ENV_CANARY = "kanarie-env-5d1f"
ARG_CANARY = "kanarie-arg-8c2e"

DIGEST = "@sha256:" + "0123456789abcdef" * 4
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"

names = st.sampled_from(["app", "web", "helper", "user-container"])
paths = st.sampled_from(["secret/shop/db", "secret/knative/prod/shop/payments/db", "old/team", "~/db"])
good_references = st.builds(
    lambda path, key, version: f"vault:{path}#{key}{version}",
    paths,
    st.sampled_from(["password", "user", "tls.key"]),
    st.sampled_from(["", "@2", "#7"]),
)
inline_references = st.builds(
    lambda path, tail: f"postgres://app:${{vault:{path}#password}}@db{tail}",
    paths,
    st.sampled_from(["", "/shop?x=${vault:secret/shop/db#user@3}", "ü"]),
)
plain_values = st.sampled_from(
    [ENV_CANARY, f"{ENV_CANARY}-$(HOME)", f"{ENV_CANARY} größer ☃", "", f"$$(A) {ENV_CANARY}", f"8080{ENV_CANARY}"]
)
plain_variables = st.fixed_dictionaries(
    {"name": st.sampled_from(["PORT_HINT", "LOG_LEVEL", "GREETING", "A"]), "value": plain_values}
)
reference_variables = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["DB_PASSWORD", "API_KEY", "DSN"]),
        "value": st.one_of(good_references, inline_references),
    }
)
field_variables = st.just({"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}})
variables = st.one_of(plain_variables, field_variables, reference_variables)
commands = st.sampled_from([["/bin/app"], ["/bin/sh", "-c", f"exec app {ARG_CANARY}"], ["python", "-m", "app"]])
arguments = st.lists(st.sampled_from(["--listen", ":8080", f"--name={ARG_CANARY}", "ü", "$$(A)"]), max_size=3)


@st.composite
def containers(draw: Draw, name: str | None = None) -> Json:
    """One container that Kubernetes would accept."""
    container: Json = {"name": name or draw(names), "image": "registry.example/app" + DIGEST}
    container["env"] = draw(st.lists(variables, max_size=4, unique_by=lambda each: each["name"]))
    if draw(st.sampled_from([True, True, True, False])):
        container["command"] = draw(commands)
    if draw(st.booleans()):
        container["args"] = draw(arguments)
    if draw(st.booleans()):
        container["volumeMounts"] = [{"name": "cache", "mountPath": "/cache"}]
    if not container["env"] and draw(st.booleans()):
        del container["env"]
    return container


@st.composite
def options(draw: Draw, container_names: list[str]) -> Json:
    """Annotations of Morphisms that are mostly consistent."""
    annotations: Json = {}
    if draw(st.sampled_from([True, True, False])):
        annotations["inject"] = "true"
    for name in draw(st.lists(st.sampled_from(["db", "tls.crt", "a"]), max_size=2, unique=True)):
        key = draw(st.sampled_from(["", "#password", "#user@4"]))
        annotations[f"secret-{name}"] = draw(paths) + key
        if draw(st.booleans()):
            annotations[f"file-{name}"] = f"conf.d/{name}"
        if draw(st.sampled_from([True, False, False, False])):
            annotations[f"mode-{name}"] = "0440"
        if draw(st.sampled_from([True, False, False])):
            annotations[f"template-{name}"] = "password = {{ password }} $(HOME) ☃\n"
    if draw(st.sampled_from([True, False, False, False])):
        annotations["env-from"] = draw(st.sampled_from(["secret/shop/all", "secret/shop/all@3, ~/more"]))
    if draw(st.sampled_from([True, False, False])):
        annotations["containers"] = ",".join(
            draw(st.lists(st.sampled_from(container_names), min_size=1, max_size=2, unique=True))
        )
    if draw(st.sampled_from([True, False, False])):
        annotations["agent"] = draw(st.sampled_from(["init", "sidecar"]))
    if draw(st.sampled_from([True, False, False, False])):
        annotations["profile"] = draw(st.sampled_from(["kata-snp", "peer-pod"]))
    if draw(st.sampled_from([True, False, False, False])):
        annotations["vault-role"] = "shop-reader"
    return {f"morphisms.dev/{key}": value for key, value in annotations.items()}


@st.composite
def sane_pods(draw: Draw) -> Json:
    """A pod as Knative or a user writes it."""
    knative = draw(st.booleans())
    own = draw(st.lists(names, min_size=1, max_size=3, unique=True))
    metadata: Json = {"namespace": "shop"}
    metadata[draw(st.sampled_from(["name", "generateName"]))] = "payments-00001-"
    spec: Json = {
        "containers": [draw(containers(name)) for name in own],
        "volumes": [{"name": "cache", "emptyDir": {}}],
    }
    if knative or draw(st.booleans()):
        spec["containers"][0]["ports"] = [{"name": "user-port", "containerPort": 8080}]
    if knative:
        metadata["labels"] = {
            "serving.knative.dev/service": "payments",
            "serving.knative.dev/configuration": "payments",
            "serving.knative.dev/revision": "payments-00001",
        }
        spec["containers"].append(
            {
                "name": "queue-proxy",
                "image": "registry.example/queue" + DIGEST,
                "env": [{"name": "SERVING_READINESS_PROBE", "value": ENV_CANARY}],
                "securityContext": {"runAsNonRoot": True, "capabilities": {"drop": ["ALL"]}},
                "oddity": {"kept": [1, None, "x"]},
            }
        )
    annotations = draw(options(own))
    if draw(st.booleans()):
        annotations["example.com/a~b"] = ENV_CANARY
    if annotations or draw(st.booleans()):
        metadata["annotations"] = annotations
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _own_container(pod: Json, draw: Draw) -> Json:
    own_containers = [each for each in pod["spec"]["containers"] if each["name"] != "queue-proxy"]
    return draw(st.sampled_from(own_containers))


def _annotate(pod: Json, key: str, value: str) -> None:
    pod["metadata"]["annotations"] = {**(pod["metadata"].get("annotations") or {}), key: value}


def _add_init(pod: Json, *added: Json, first: bool = False) -> None:
    present = pod["spec"].get("initContainers") or []
    pod["spec"]["initContainers"] = [*added, *present] if first else [*present, *added]


_EXPRESSIONS = (
    {"key": "zone", "operator": "In", "values": ["a", "b"]},
    {"key": SNP_LABEL, "operator": "In", "values": ["true"]},
    {"key": SNP_LABEL, "operator": "In", "values": ["true", "false"]},
    {"key": SNP_LABEL, "operator": "NotIn", "values": ["false"]},
    {"key": SNP_LABEL, "operator": "Exists"},
    {"key": TRUSTED_LABEL, "operator": "In", "values": ["true"]},
    {"key": "size", "operator": "Gt", "values": ["4"]},
)
_terms = st.one_of(
    st.just({}),
    st.just({"matchExpressions": None, "matchFields": None}),
    st.just({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-1"]}]}),
    st.builds(lambda each: {"matchExpressions": each}, st.lists(st.sampled_from(_EXPRESSIONS), max_size=3)),
    st.builds(
        lambda each: {"matchExpressions": each, "matchFields": [], "odd": 1},
        st.lists(st.sampled_from(_EXPRESSIONS), max_size=2),
    ),
)
_affinities = st.one_of(
    st.none(),
    st.just({}),
    st.just({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100}]}}),
    st.just({"nodeAffinity": None}),
    st.just({"nodeAffinity": {REQUIRED: None, "preferredDuringSchedulingIgnoredDuringExecution": []}}),
    st.just({"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": None}}}),
    st.builds(
        lambda each: {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": each, "odd": {}}}, "podAffinity": {}},
        st.lists(_terms, max_size=4),
    ),
)


def affinity(pod: Json, draw: Draw) -> None:
    pod["spec"]["affinity"] = copy.deepcopy(draw(_affinities))


def duplicate_names(pod: Json, draw: Draw) -> None:
    pod["spec"]["containers"].append(draw(containers(pod["spec"]["containers"][0]["name"])))


def init_containers(pod: Json, draw: Draw) -> None:
    _add_init(pod, *(draw(containers(name)) for name in draw(st.sampled_from([["migrate"], ["migrate", "warm"]]))))


def native_mesh(pod: Json, draw: Draw) -> None:
    proxy = {"name": draw(st.sampled_from(["istio-proxy", "linkerd-proxy"])), "image": "mesh" + DIGEST}
    _add_init(pod, {**proxy, "restartPolicy": "Always"}, first=draw(st.booleans()))


def classic_mesh(pod: Json, draw: Draw) -> None:
    _add_init(
        pod, {"name": draw(st.sampled_from(["istio-init", "istio-validation"])), "image": "mesh" + DIGEST}, first=True
    )
    pod["spec"]["containers"].append({"name": "istio-proxy", "image": "mesh" + DIGEST})
    if draw(st.booleans()):
        _annotate(pod, "traffic.sidecar.istio.io/excludeOutboundPorts", draw(st.sampled_from(["", "443, 15", "8200"])))


def platform_sidecars(pod: Json, draw: Draw) -> None:
    name = draw(st.sampled_from(["daprd", "vault-agent", "cloud-sql-proxy"]))
    sidecar = {"name": name, "image": "platform" + DIGEST, "ports": [{"name": "http", "containerPort": 3500}]}
    pod["spec"]["containers"].insert(draw(st.sampled_from([0, 1])), sidecar)


def exporter(pod: Json, draw: Draw) -> None:
    sidecar = {"name": "exporter", "image": "vendor" + DIGEST, "ports": [{"name": "metrics", "containerPort": 9187}]}
    pod["spec"]["containers"].append(sidecar)


def own_volumes_taken(pod: Json, draw: Draw) -> None:
    name = draw(st.sampled_from(["morphisms-secrets", "morphisms-run", "morphisms-token"]))
    source = draw(st.sampled_from([{"emptyDir": {}}, {"emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}]))
    pod["spec"]["volumes"] = [*(pod["spec"].get("volumes") or []), {"name": name, **source}]


def own_container_taken(pod: Json, draw: Draw) -> None:
    impostor = {"name": "morphisms-init", "image": "evil" + DIGEST, "env": [{"name": "MORPHISMS_PLAN", "value": "{}"}]}
    if draw(st.booleans()):
        _add_init(pod, impostor)
    else:
        pod["spec"]["containers"].append(impostor)


def preset_node(pod: Json, draw: Draw) -> None:
    pod["spec"]["nodeName"] = draw(st.sampled_from(["", None, "node-1"]))


def foreign_runtime_class(pod: Json, draw: Draw) -> None:
    pod["spec"]["runtimeClassName"] = draw(
        st.sampled_from(["gvisor", "kata-qemu", "kata-qemu-snp", "kata-remote", "", None])
    )
    if draw(st.booleans()):
        pod["spec"]["overhead"] = {"memory": "64Mi"}
        pod["spec"]["nodeSelector"] = {"sandbox/kind": "gvisor", "zone~x": "a"}


def security_contexts(pod: Json, draw: Draw) -> None:
    users = st.sampled_from([{}, {"runAsUser": 0}, {"runAsUser": 1000}, {"runAsUser": 2000}, {"runAsUser": None}])
    if draw(st.booleans()):
        groups = draw(st.sampled_from([{}, {"fsGroup": 7}, {"fsGroup": None}]))
        pod["spec"]["securityContext"] = draw(st.sampled_from([None, {**draw(users), **groups}]))
    for container in pod["spec"]["containers"]:
        if draw(st.booleans()):
            container["securityContext"] = draw(st.sampled_from([None, draw(users)]))


def tolerations(pod: Json, draw: Draw) -> None:
    pod["spec"]["tolerations"] = draw(
        st.sampled_from(
            [
                None,
                [],
                [{"key": "gpu", "operator": "Exists"}],
                [{"operator": "Exists"}],
                [{"key": "confidential", "operator": "Exists", "effect": "NoSchedule"}],
                [{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}],
            ]
        )
    )


def unknown_fields(pod: Json, draw: Draw) -> None:
    odd = {"a/b": [None, {"~": 1.5}], "☃": True, "": 10**12}
    for place in (pod, pod["metadata"], pod["spec"], *pod["spec"]["containers"], *(pod["spec"].get("volumes") or [])):
        if draw(st.booleans()):
            place["fromTheFuture"] = copy.deepcopy(odd)


def nulls(pod: Json, draw: Draw) -> None:
    members = [
        "affinity",
        "tolerations",
        "initContainers",
        "securityContext",
        "imagePullSecrets",
        "ephemeralContainers",
    ]
    for member in draw(st.lists(st.sampled_from(members), max_size=4)):
        pod["spec"].setdefault(member, None)
    for container in pod["spec"]["containers"]:
        for member in draw(st.lists(st.sampled_from(["env", "args", "volumeMounts", "command", "ports"]), max_size=3)):
            container.setdefault(member, None)
    if not pod["metadata"].get("annotations") and draw(st.booleans()):
        pod["metadata"]["annotations"] = None


def strange_annotations(pod: Json, draw: Draw) -> None:
    for key in draw(st.lists(st.sampled_from(["a~b/c~1d", "ü/☃", "~", "x/~0", "a//b"]), max_size=3)):
        _annotate(pod, key, ENV_CANARY)
    if draw(st.booleans()):
        applied = json.dumps({"spec": {"containers": [{"env": [{"name": "GREETING", "value": ENV_CANARY}]}]}})
        _annotate(pod, "kubectl.kubernetes.io/last-applied-configuration", applied)
    if draw(st.booleans()):
        _annotate(pod, "kubectl.kubernetes.io/default-container", draw(st.sampled_from(["app", "web", "none"])))


def pull_secrets(pod: Json, draw: Draw) -> None:
    pod["spec"]["imagePullSecrets"] = draw(st.sampled_from([[], [{"name": "registry"}], [{"name": "other"}, {}]]))


def host_users(pod: Json, draw: Draw) -> None:
    pod["spec"]["hostUsers"] = draw(st.sampled_from([True, False, None]))


def windows(pod: Json, draw: Draw) -> None:
    pod["spec"]["os"] = draw(st.sampled_from([{"name": "windows"}, {"name": "linux"}, {}, None]))


def process_namespace(pod: Json, draw: Draw) -> None:
    pod["spec"]["shareProcessNamespace"] = draw(st.booleans())


def signal(pod: Json, draw: Draw) -> None:
    _annotate(pod, "morphisms.dev/on-change", draw(st.sampled_from(["none", "signal:SIGHUP:nginx", "signal:HUP"])))
    if draw(st.sampled_from([True, True, False])):
        _annotate(pod, "morphisms.dev/agent", "sidecar")
        pod["spec"]["shareProcessNamespace"] = True
        pod["spec"]["securityContext"] = {"runAsUser": 1000}


def sidecar_agent(pod: Json, draw: Draw) -> None:
    _annotate(pod, "morphisms.dev/agent", "sidecar")


def bad_annotations(pod: Json, draw: Draw) -> None:
    bad = {
        "secret-x": f"no-path-{ENV_CANARY}",
        "secret-bad name": "secret/a",
        "file-nothing": "a",
        "mode-db": "0644",
        "injekt": "true",
        "inject": "yes",
        "agent": "daemon",
        "containers": "App,,",
        "env-from": f"{ENV_CANARY}#",
        "profile": "none-such",
        "status": '{"injector":1}',
    }
    key = draw(st.sampled_from(sorted(bad)))
    _annotate(pod, f"morphisms.dev/{key}", bad[key])


def opting_out(pod: Json, draw: Draw) -> None:
    _annotate(pod, "morphisms.dev/inject", "false")


def host_namespaces(pod: Json, draw: Draw) -> None:
    pod["spec"][draw(st.sampled_from(["hostNetwork", "hostPID", "hostIPC"]))] = draw(st.booleans())


def privileged(pod: Json, draw: Draw) -> None:
    _own_container(pod, draw)["securityContext"] = {"privileged": draw(st.booleans())}


def host_path(pod: Json, draw: Draw) -> None:
    pod["spec"]["volumes"] = [*(pod["spec"].get("volumes") or []), {"name": "host", "hostPath": {"path": "/etc"}}]


def scheduler(pod: Json, draw: Draw) -> None:
    pod["spec"]["schedulerName"] = draw(st.sampled_from(["default-scheduler", "mine", ""]))


def bad_references(pod: Json, draw: Draw) -> None:
    values = [
        "vault:",
        f"vault:{ENV_CANARY}",
        "vault:secret/a",
        f"${{vault:{ENV_CANARY}",
        "vault:v1:8SDd",
        "vault:secret/../a#b",
        "vault:secret/data/shop/db#password",
        ">>vault:secret/data/shop/db#password#{}",
    ]
    variable = {"name": "DB_PASSWORD", "value": draw(st.sampled_from(values))}
    place = _own_container(pod, draw)
    place["env"] = [each for each in place.get("env") or [] if each["name"] != "DB_PASSWORD"] + [variable]


def texts_like_references(pod: Json, draw: Draw) -> None:
    values = ["vault:1.15", "vault:8200", "vault:5000/image", "vault:secret/shop/db#password", "vault:~/db#password"]
    values += ['"vault:secret/shop/db#password"', " vault:~/db#password", "{{vault:secret/shop/db#password}}"]
    name = draw(st.sampled_from(["VAULT_IMAGE", "A"]))
    place = _own_container(pod, draw)
    others = [each for each in place.get("env") or [] if each["name"] != name]
    place["env"] = [*others, {"name": name, "value": draw(st.sampled_from(values))}]
    if draw(st.booleans()):
        _annotate(pod, "morphisms.dev/literal-env", draw(st.sampled_from(["VAULT_IMAGE", "A, VAULT_IMAGE", "B"])))


def bare(pod: Json, draw: Draw) -> None:
    """No annotation opts in; some have no effect by themselves."""
    kept = draw(st.sampled_from([(), ("agent",), ("containers",), ("profile", "vault-role")]))
    annotations = pod["metadata"].get("annotations") or {}
    pod["metadata"]["annotations"] = {
        key: value
        for key, value in annotations.items()
        if not key.startswith("morphisms.dev/") or key.removeprefix("morphisms.dev/") in kept
    }


def expansions(pod: Json, draw: Draw) -> None:
    place = _own_container(pod, draw)
    place["command"] = ["/bin/app"]
    place["env"] = [{"name": "DB_PASSWORD", "value": "vault:secret/shop/db#password"}]
    use = draw(
        st.sampled_from(["$(DB_PASSWORD)", "$$(DB_PASSWORD)", "$$$(DB_PASSWORD)", "x$(DB_PASSWORD", "vault:a/b#c"])
    )
    where = draw(st.sampled_from(["args", "command", "env", "inline", "probe", "path"]))
    if where == "env":
        place["env"].append({"name": "DSN", "value": f"db:{use}"})
    elif where == "inline":
        place["env"].append({"name": "HOST", "value": "h"})
        place["env"].append({"name": "DSN", "value": f"$$$(HOST)$(LATER)${{vault:secret/shop/db#user}}:{use}"})
        place["env"].append({"name": "LATER", "value": "l"})
    elif where == "probe":
        place["livenessProbe"] = {"exec": {"command": ["/bin/app", use]}}
    elif where == "path":
        pod["spec"].setdefault("volumes", []).append({"name": "tenants", "emptyDir": {}})
        mounts = place.setdefault("volumeMounts", [])
        mounts.append({"name": "tenants", "mountPath": "/tenants", "subPathExpr": use})
    else:
        place[where] = ["/bin/app", use]


def env_from(pod: Json, draw: Draw) -> None:
    sources = [{"configMapRef": {"name": "settings"}}, {"secretRef": {"name": "keys"}}]
    _own_container(pod, draw)["envFrom"] = [draw(st.sampled_from(sources))]


def kubernetes_secrets(pod: Json, draw: Draw) -> None:
    place = _own_container(pod, draw)
    if draw(st.booleans()):
        source = {"secretKeyRef": {"name": "keys", "key": "k"}}
        place["env"] = [*(place.get("env") or []), {"name": "FROM_ETCD", "valueFrom": source}]
    else:
        pod["spec"]["volumes"] = [
            *(pod["spec"].get("volumes") or []),
            {"name": "keys", "secret": {"secretName": "keys"}},
        ]
        place["volumeMounts"] = [*(place.get("volumeMounts") or []), {"name": "keys", "mountPath": "/keys"}]


def plaintext(pod: Json, draw: Draw) -> None:
    place = _own_container(pod, draw)
    place["env"] = [*(place.get("env") or []), {"name": "DB_PASSWORD", "value": f"hunter2{ENV_CANARY}Kx9"}]


def ephemeral(pod: Json, draw: Draw) -> None:
    pod["spec"]["ephemeralContainers"] = [{"name": "debugger", "image": "busybox"}]


def mounts_of_ours(pod: Json, draw: Draw) -> None:
    mount = draw(
        st.sampled_from(
            [
                {"name": "morphisms-secrets", "mountPath": "/mine", "readOnly": True},
                {"name": "morphisms-secrets", "mountPath": "/morphisms/secrets"},
                {"name": "morphisms-token", "mountPath": "/morphisms/token", "readOnly": True},
                {"name": "cache", "mountPath": "/morphisms/run"},
                {"name": "cache", "mountPath": "/morphisms"},
            ]
        )
    )
    place = _own_container(pod, draw)
    place["volumeMounts"] = [*(place.get("volumeMounts") or []), mount]


def guaranteed(pod: Json, draw: Draw) -> None:
    for container in pod["spec"]["containers"]:
        container["resources"] = {"limits": {"cpu": "1", "memory": "1Gi"}}


def untagged(pod: Json, draw: Draw) -> None:
    _own_container(pod, draw)["image"] = "registry.example/app:latest"


def initdata(pod: Json, draw: Draw) -> None:
    _annotate(pod, "io.katacontainers.config.hypervisor.cc_init_data", draw(st.sampled_from(["", "H4sI"])))


def hypervisor_annotation(pod: Json, draw: Draw) -> None:
    _annotate(pod, "io.katacontainers.config.hypervisor.kernel_params", ENV_CANARY)


def other_injectors(pod: Json, draw: Draw) -> None:
    key = draw(st.sampled_from(["vault.hashicorp.com/agent-inject", "vault.security.banzaicloud.io/vault-addr"]))
    _annotate(pod, key, "true")


TWISTS = (
    affinity,
    exporter,
    platform_sidecars,
    duplicate_names,
    init_containers,
    native_mesh,
    classic_mesh,
    own_volumes_taken,
    own_container_taken,
    preset_node,
    foreign_runtime_class,
    security_contexts,
    tolerations,
    unknown_fields,
    nulls,
    strange_annotations,
    pull_secrets,
    host_users,
    windows,
    process_namespace,
    signal,
    sidecar_agent,
    bad_annotations,
    opting_out,
    host_namespaces,
    privileged,
    host_path,
    scheduler,
    bad_references,
    texts_like_references,
    bare,
    expansions,
    env_from,
    kubernetes_secrets,
    plaintext,
    ephemeral,
    mounts_of_ours,
    guaranteed,
    untagged,
    initdata,
    hypervisor_annotation,
    other_injectors,
)
# Twists that a careful author's pod may have too: none of them has to be refused.
HARMLESS = (
    affinity,
    platform_sidecars,
    init_containers,
    native_mesh,
    classic_mesh,
    security_contexts,
    unknown_fields,
    nulls,
    strange_annotations,
    pull_secrets,
    sidecar_agent,
    guaranteed,
)


@st.composite
def pods(draw: Draw, twists: tuple[Callable[[Json, Draw], None], ...] = TWISTS, most: int = 4) -> Json:
    """A sane pod after up to `most` twists."""
    pod: Json = draw(sane_pods())
    for twist in draw(st.lists(st.sampled_from(twists), max_size=most, unique=True)):
        twist(pod, draw)
    return pod


def careful_pods() -> st.SearchStrategy[Json]:
    """Pods that are mostly accepted once mutated."""
    return pods(HARMLESS, most=3)
