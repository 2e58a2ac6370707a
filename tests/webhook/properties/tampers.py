"""Changes that an attacker may make to a rewritten pod before its admission. Each returns None if it does not apply."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from plan.codec import write_plan
from plan.document import EnvFrom, SecretFile
from tests.webhook.properties.oracle import options_of, plan_of
from tests.webhook.properties.pods import REQUIRED

Json = dict[str, Any]
Tamper = Callable[[Json], Json | None]


def _init(pod: Json) -> Json:
    return next(each for each in pod["spec"]["initContainers"] if each["name"] == "morphisms-init")


def _own_containers(pod: Json) -> list[Json]:
    groups = (*pod["spec"]["initContainers"], *pod["spec"]["containers"])
    return [each for each in groups if each["name"] not in ("morphisms-init", "queue-proxy", "istio-proxy")]


def _wrapped(pod: Json) -> Json | None:
    return next(
        (each for each in _own_containers(pod) if (each.get("command") or [""])[0] == "/morphisms/run/exec"), None
    )


def _terms(pod: Json) -> list[Json] | None:
    node_affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    return (node_affinity.get(REQUIRED) or {}).get("nodeSelectorTerms")


def remove_init(pod: Json) -> Json:
    pod["spec"]["initContainers"].remove(_init(pod))
    return pod


def change_init_image(pod: Json) -> Json:
    _init(pod)["image"] = "evil@sha256:" + "0" * 64
    return pod


def give_init_a_command(pod: Json) -> Json:
    _init(pod)["command"] = ["/bin/true"]
    return pod


def run_init_as_root(pod: Json) -> Json:
    _init(pod)["securityContext"]["runAsUser"] = 0
    return pod


def add_init_variable(pod: Json) -> Json:
    _init(pod)["env"].append({"name": "LD_PRELOAD", "value": "/x"})
    return pod


def drop_init_mount(pod: Json) -> Json:
    _init(pod)["volumeMounts"].pop()
    return pod


def change_agent(pod: Json) -> Json:
    init = _init(pod)
    if init.pop("restartPolicy", None) is None:
        init["restartPolicy"] = "Always"
    return pod


def init_after_its_consumers(pod: Json) -> Json | None:
    inits = pod["spec"]["initContainers"]
    if not any("morphisms" in str(each.get("volumeMounts")) for each in inits if each["name"] != "morphisms-init"):
        return None
    init = _init(pod)
    inits.remove(init)
    inits.append(init)
    return pod


def move_init_among_containers(pod: Json) -> Json:
    init = _init(pod)
    pod["spec"]["initContainers"].remove(init)
    pod["spec"]["containers"].append(init)
    return pod


def second_init(pod: Json) -> Json:
    pod["spec"]["initContainers"].append(copy.deepcopy(_init(pod)))
    return pod


def ask_for_another_secret(pod: Json) -> Json:
    plan = plan_of(pod)
    added = SecretFile(name="zz", path="secret/other/team", file="zz")
    _init(pod)["env"][0]["value"] = write_plan(plan._replace(secrets=(*plan.secrets, added)))
    return pod


def ask_for_a_whole_secret(pod: Json) -> Json:
    plan = plan_of(pod)
    added = EnvFrom(_own_containers(pod)[0]["name"], "secret/other/team")
    _init(pod)["env"][0]["value"] = write_plan(plan._replace(env_from=(*plan.env_from, added)))
    return pod


def another_verifier(pod: Json) -> Json:
    plan = plan_of(pod)
    verifier = plan.verifier._replace(url="https://verifier.evil.example")
    _init(pod)["env"][0]["value"] = write_plan(plan._replace(verifier=verifier))
    return pod


def another_vault(pod: Json) -> Json:
    plan = plan_of(pod)
    vault = plan.vault._replace(url="https://vault.evil.example")
    _init(pod)["env"][0]["value"] = write_plan(plan._replace(vault=vault))
    return pod


def another_workload(pod: Json) -> Json:
    plan = plan_of(pod)
    workload = plan.workload._replace(service="somebody-else")
    _init(pod)["env"][0]["value"] = write_plan(plan._replace(workload=workload))
    return pod


def simulated_evidence(pod: Json) -> Json:
    plan = plan_of(pod)
    evidence = (plan.evidence[0]._replace(name="simulated"),)
    _init(pod)["env"][0]["value"] = write_plan(plan._replace(evidence=evidence))
    return pod


def spoil_the_plan(pod: Json) -> Json:
    _init(pod)["env"][0]["value"] += " "
    return pod


def plan_from_a_config_map(pod: Json) -> Json:
    source = {"configMapKeyRef": {"name": "plans", "key": "plan"}}
    _init(pod)["env"] = [{"name": "MORPHISMS_PLAN", "valueFrom": source}]
    return pod


def unwrap_command(pod: Json) -> Json | None:
    container = _wrapped(pod)
    if container is None:
        return None
    container["command"] = container["command"][3:]
    return pod


def drop_command(pod: Json) -> Json | None:
    container = _wrapped(pod)
    if container is None:
        return None
    del container["command"]
    return pod


def another_containers_secrets(pod: Json) -> Json | None:
    container = _wrapped(pod)
    if container is None:
        return None
    container["command"][1] = "another"
    return pod


def mount_writable(pod: Json) -> Json | None:
    for container in _own_containers(pod):
        for mount in container.get("volumeMounts") or []:
            if mount["name"].startswith("morphisms-"):
                mount["readOnly"] = False
                return pod
    return None


def mount_elsewhere(pod: Json) -> Json:
    container = _own_containers(pod)[0]
    mount = {"name": "morphisms-secrets", "mountPath": "/mine", "readOnly": True}
    container["volumeMounts"] = [*(container.get("volumeMounts") or []), mount]
    return pod


def mount_token(pod: Json) -> Json:
    container = _own_containers(pod)[0]
    mount = {"name": "morphisms-token", "mountPath": "/morphisms/token", "readOnly": True}
    container["volumeMounts"] = [*(container.get("volumeMounts") or []), mount]
    return pod


def mount_over_ours(pod: Json) -> Json:
    container = _own_containers(pod)[0]
    mount = {"name": "cache", "mountPath": "/morphisms/run"}
    container["volumeMounts"] = [*(container.get("volumeMounts") or []), mount]
    return pod


def drop_every_mount(pod: Json) -> Json | None:
    """Only if the pod requests files or whole secrets: the plan then names containers that read them."""
    if not any(key.startswith(("secret-", "env-from")) for key in options_of(pod)):
        return None
    for container in _own_containers(pod):
        container["volumeMounts"] = []
    return pod


def _volume(pod: Json, name: str) -> Json:
    return next(each for each in pod["spec"]["volumes"] if each["name"] == name)


def secrets_on_disk(pod: Json) -> Json:
    _volume(pod, "morphisms-secrets")["emptyDir"] = {}
    return pod


def unbounded_memory(pod: Json) -> Json:
    del _volume(pod, "morphisms-run")["emptyDir"]["sizeLimit"]
    return pod


def helper_from_a_claim(pod: Json) -> Json:
    volume = _volume(pod, "morphisms-run")
    del volume["emptyDir"]
    volume["persistentVolumeClaim"] = {"claimName": "mine"}
    return pod


def second_volume(pod: Json) -> Json:
    pod["spec"]["volumes"].append({"name": "morphisms-secrets", "emptyDir": {"medium": "Memory"}})
    return pod


def drop_volume(pod: Json) -> Json:
    pod["spec"]["volumes"].remove(_volume(pod, "morphisms-token"))
    return pod


def token_for_the_api_server(pod: Json) -> Json:
    sources = _volume(pod, "morphisms-token")["projected"]["sources"]
    sources[0] = {"serviceAccountToken": {"path": "token", "expirationSeconds": 600}}
    return pod


def another_runtime_class(pod: Json) -> Json:
    pod["spec"]["runtimeClassName"] = "kata-qemu-snp-debug"
    return pod


def no_runtime_class(pod: Json) -> Json:
    del pod["spec"]["runtimeClassName"]
    return pod


def widen_affinity(pod: Json) -> Json | None:
    terms = _terms(pod)
    if not terms or options_of(pod).get("profile") == "peer-pod":
        return None
    terms.append({"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]})
    return pod


def pick_a_node_by_field(pod: Json) -> Json | None:
    terms = _terms(pod)
    if not terms or options_of(pod).get("profile") == "peer-pod":
        return None
    terms.append({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["plain"]}]})
    return pod


def no_affinity(pod: Json) -> Json | None:
    if options_of(pod).get("profile") == "peer-pod":
        return None
    pod["spec"].pop("affinity", None)
    return pod


def preset_node(pod: Json) -> Json:
    pod["spec"]["nodeName"] = "plain"
    return pod


def own_scheduler(pod: Json) -> Json:
    pod["spec"]["schedulerName"] = "mine"
    return pod


def tolerate_everything(pod: Json) -> Json:
    pod["spec"]["tolerations"] = [*(pod["spec"].get("tolerations") or []), {"operator": "Exists"}]
    return pod


def host_network(pod: Json) -> Json:
    pod["spec"]["hostNetwork"] = True
    return pod


def share_processes(pod: Json) -> Json:
    pod["spec"]["shareProcessNamespace"] = True
    return pod


def privileged_container(pod: Json) -> Json:
    pod["spec"]["containers"].append(
        {"name": "root", "image": "x@sha256:" + "0" * 64, "securityContext": {"privileged": True}}
    )
    return pod


def host_path(pod: Json) -> Json:
    pod["spec"]["volumes"].append({"name": "host", "hostPath": {"path": "/"}})
    return pod


def debug_container(pod: Json) -> Json:
    pod["spec"]["ephemeralContainers"] = [{"name": "debugger", "image": "x@sha256:" + "0" * 64}]
    return pod


def secrets_by_file_key(pod: Json) -> Json:
    """Kubernetes 1.34 reads a variable from a file of a volume that the container does not mount."""
    container = _own_containers(pod)[0]
    source = {"fileKeyRef": {"volumeName": "morphisms-secrets", "path": "db", "key": "password"}}
    container["env"] = [*(container.get("env") or []), {"name": "STOLEN", "valueFrom": source}]
    return pod


def secrets_by_a_field_to_come(pod: Json) -> Json:
    _own_containers(pod)[-1]["futureSources"] = [{"from": {"volumes": ["morphisms-run"]}}]
    return pod


def token_as_a_device(pod: Json) -> Json:
    _own_containers(pod)[0]["volumeDevices"] = [{"name": "morphisms-token", "devicePath": "/dev/token"}]
    return pod


def device_over_ours(pod: Json) -> Json:
    _own_containers(pod)[0]["volumeDevices"] = [{"name": "disk", "devicePath": "/morphisms/secrets/x"}]
    return pod


def termination_message_over_ours(pod: Json) -> Json:
    _own_containers(pod)[0]["terminationMessagePath"] = "/morphisms/run/exec"
    return pod


def give_init_a_device(pod: Json) -> Json:
    _init(pod)["resources"]["claims"] = [{"name": "gpu"}]
    return pod


def give_init_an_extended_resource(pod: Json) -> Json:
    for amounts in ("limits", "requests"):
        _init(pod)["resources"][amounts] = {**_init(pod)["resources"][amounts], "example.com/device": "1"}
    return pod


def inject_a_device(pod: Json) -> Json:
    pod["metadata"]["annotations"]["cdi.k8s.io/vendor"] = "example.com/device=all"
    return pod


def mount_by_a_runtime_plugin(pod: Json) -> Json:
    pod["metadata"]["annotations"]["mounts.nri.io/container.app"] = "- source: /"
    return pod


def _with_context(pod: Json, **members: Any) -> Json:
    container = _own_containers(pod)[0]
    container["securityContext"] = {**(container.get("securityContext") or {}), **members}
    return pod


def control_the_guest_by_a_capability(pod: Json) -> Json:
    return _with_context(pod, capabilities={"add": ["cap_sys_ptrace"]})


def unmask_proc(pod: Json) -> Json:
    return _with_context(pod, procMount="Unmasked")


def switch_seccomp_off(pod: Json) -> Json:
    return _with_context(pod, seccompProfile={"type": "Unconfined"})


def secrets_from_the_node(pod: Json) -> Json:
    pod["spec"]["volumes"].append({"name": "s", "csi": {"driver": "secrets-store.csi.k8s.io"}})
    return pod


def run_before_attestation(pod: Json) -> Json:
    pod["spec"]["initContainers"].insert(0, {"name": "early", "image": "x@sha256:" + "0" * 64})
    return pod


def password_in_arguments(pod: Json) -> Json:
    container = _own_containers(pod)[0]
    container["args"] = [*(container.get("args") or []), "postgres://app:s3cr3t@db/shop"]
    return pod


def token_in_a_probe(pod: Json) -> Json:
    headers = [{"name": "Authorization", "value": "Bearer abcdefghijklmnop12345678"}]
    _own_containers(pod)[0]["livenessProbe"] = {"httpGet": {"port": 1, "httpHeaders": headers}}
    return pod


def plaintext_password(pod: Json) -> Json:
    container = _own_containers(pod)[0]
    container["env"] = [*(container.get("env") or []), {"name": "DB_PASSWORD", "value": "Tr0ub4dor&3-x91"}]
    return pod


def secret_key_ref(pod: Json) -> Json:
    container = _own_containers(pod)[0]
    source = {"secretKeyRef": {"name": "keys", "key": "k"}}
    container["env"] = [*(container.get("env") or []), {"name": "KEY", "valueFrom": source}]
    return pod


def new_reference(pod: Json) -> Json:
    container = _own_containers(pod)[0]
    container["env"] = [*(container.get("env") or []), {"name": "LATE", "value": "vault:secret/shop/db#password"}]
    return pod


def image_by_tag(pod: Json) -> Json:
    _own_containers(pod)[0]["image"] = "app:latest"
    return pod


def kernel_parameters(pod: Json) -> Json:
    pod["metadata"]["annotations"]["io.katacontainers.config.hypervisor.kernel_params"] = "agent.log=debug"
    return pod


def request_more_secrets(pod: Json) -> Json:
    pod["metadata"]["annotations"]["morphisms.dev/secret-late"] = "secret/shop/late"
    return pod


def other_container_mounts_secrets(pod: Json) -> Json:
    mount = {"name": "morphisms-secrets", "mountPath": "/morphisms/secrets", "readOnly": True}
    pod["spec"]["containers"].append({"name": "stranger", "image": "x@sha256:" + "0" * 64, "volumeMounts": [mount]})
    return pod


def drop_helper_mount(pod: Json) -> Json | None:
    container = _wrapped(pod)
    if container is None:
        return None
    container["volumeMounts"] = [each for each in container["volumeMounts"] if each["name"] != "morphisms-run"]
    return pod


def drop_secrets_mount(pod: Json) -> Json | None:
    container = _wrapped(pod)
    if container is None:
        return None
    container["volumeMounts"] = [each for each in container["volumeMounts"] if each["name"] != "morphisms-secrets"]
    return pod


def mount_over_ours_through_dot_dot(pod: Json) -> Json:
    container = _own_containers(pod)[0]
    mount = {"name": "cache", "mountPath": "/tmp/..//morphisms/run"}
    container["volumeMounts"] = [*(container.get("volumeMounts") or []), mount]
    return pod


def plaintext_in_the_name_of_a_mesh(pod: Json) -> Json | None:
    if any(each["name"] == "istio-proxy" for each in pod["spec"]["containers"]):
        return None
    variables = [{"name": "DB_PASSWORD", "value": "Tr0ub4dor&3-x91"}]
    pod["spec"]["containers"].append({"name": "istio-proxy", "image": "x@sha256:" + "0" * 64, "env": variables})
    return pod


TAMPERS: tuple[Tamper, ...] = (
    remove_init,
    change_init_image,
    give_init_a_command,
    run_init_as_root,
    add_init_variable,
    drop_init_mount,
    change_agent,
    init_after_its_consumers,
    move_init_among_containers,
    second_init,
    ask_for_another_secret,
    ask_for_a_whole_secret,
    another_verifier,
    another_vault,
    another_workload,
    simulated_evidence,
    spoil_the_plan,
    plan_from_a_config_map,
    unwrap_command,
    drop_command,
    another_containers_secrets,
    mount_writable,
    mount_elsewhere,
    mount_token,
    mount_over_ours,
    drop_every_mount,
    secrets_on_disk,
    unbounded_memory,
    helper_from_a_claim,
    second_volume,
    drop_volume,
    token_for_the_api_server,
    another_runtime_class,
    no_runtime_class,
    widen_affinity,
    pick_a_node_by_field,
    no_affinity,
    preset_node,
    own_scheduler,
    tolerate_everything,
    host_network,
    share_processes,
    privileged_container,
    host_path,
    debug_container,
    plaintext_password,
    secret_key_ref,
    new_reference,
    image_by_tag,
    kernel_parameters,
    request_more_secrets,
    other_container_mounts_secrets,
    drop_helper_mount,
    drop_secrets_mount,
    mount_over_ours_through_dot_dot,
    plaintext_in_the_name_of_a_mesh,
    secrets_by_file_key,
    secrets_by_a_field_to_come,
    token_as_a_device,
    device_over_ours,
    termination_message_over_ours,
    give_init_a_device,
    give_init_an_extended_resource,
    inject_a_device,
    mount_by_a_runtime_plugin,
    control_the_guest_by_a_capability,
    unmask_proc,
    switch_seccomp_off,
    secrets_from_the_node,
    run_before_attestation,
    password_in_arguments,
    token_in_a_probe,
)
