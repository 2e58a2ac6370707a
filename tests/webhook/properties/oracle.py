"""A second implementation of the policy. It shares only the plan's strict reader with the webhook.

`faults(pod, world)` lists every policy property that a pod admitted in enforce mode lacks.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator
from typing import Any

from plan.codec import read_plan
from plan.document import Plan, PlanError
from tests.webhook.properties.worlds import NAMESPACE, SNP_LABEL, World

Json = dict[str, Any]

_INIT = "morphisms-init"
_HELPER = "/morphisms/run/exec"
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_HOOK = {"postStart": {"exec": {"command": ["/usr/libexec/morphisms/exec", "--install"]}}}
_READ_ONLY = {"morphisms-secrets": "/morphisms/secrets", "morphisms-run": "/morphisms/run"}
_MESH = ("istio-proxy", "linkerd-proxy")
# Never the author's application: other webhooks add the first, people write the second beside theirs.
_NEVER = (*_MESH, "queue-proxy", "daprd", "vault-agent")
_HELPERS = ("cloud-sql-proxy",)
_BEFORE_ATTESTATION = (*_MESH, "istio-init", "istio-validation", "linkerd-init", "linkerd-network-validator")
_RUNTIME_ANNOTATIONS = ("io.katacontainers.", "cdi.k8s.io/", "io.kubernetes.cri", "io.containerd.")
_GUEST_WIDE = {"SYS_ADMIN", "SYS_MODULE", "SYS_PTRACE", "SYS_RAWIO", "BPF", "ALL"}
_INLINE = re.compile(r"[$][{]vault:([^}]*)")
_LATE = re.compile(r"[=:, ]vault:[^\s#]*/[^\s#]*#")
# Beside these annotations a reference of any path does not opt in.
_SILENT = {"status", "template", "literal-env"}
_SECRET_NAME = re.compile(r"PASSWORD|API_KEY", re.IGNORECASE)
_SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


def faults(pod: Json, world: World) -> list[str]:
    """The properties that the pod lacks; empty if mode enforce may admit it."""
    return list(_faults(pod, world))


def _faults(pod: Json, world: World) -> Iterator[str]:
    spec = pod["spec"]
    options = options_of(pod)
    name = options.get("profile", world.default_profile)
    profile = world.profiles.get(name)
    if profile is None:
        yield "profile unknown"
        return
    if spec.get("runtimeClassName") != profile.runtime_class:
        yield "runtime class"
    yield from _placement(spec, profile.labels)
    yield from _isolation(spec)
    yield from _secrets_at_rest(pod)
    plan = None
    try:
        plan = plan_of(pod)
    except (LookupError, PlanError) as error:
        yield f"no plan: {error}"
    if plan is not None:
        yield from _init_container(pod, plan, options, world)
        yield from _expansions(pod, plan)
        yield from _plan(pod, plan, options, world, profile.evidence)
        yield from _consumers(pod, plan, options)
    yield from _volumes(spec)


def key_server_faults(pod: Json, user: str) -> list[str]:
    """The properties that a pod created in morphisms-kms lacks; empty if mode enforce may admit it there."""
    spec = pod["spec"]
    lacks = [*_placement(spec, {SNP_LABEL: {"true"}}), *_isolation(spec), *_secrets_at_rest(pod)]
    if spec.get("runtimeClassName") != "kata-qemu-snp":
        lacks.append("runtime class")
    if options_of(pod).get("profile", "kms") != "kms":
        lacks.append("profile")
    if any(each.get("name") == _INIT for each in _every(spec)):
        lacks.append("injected")
    if any(key == "env-from" or key.startswith("secret-") for key in options_of(pod)):
        lacks.append("names secrets")
    owners = [each for each in pod["metadata"].get("ownerReferences") or [] if each.get("controller")]
    if [(each["kind"], each["name"], each["apiVersion"]) for each in owners] != [
        ("StatefulSet", "morphisms-verifier", "apps/v1")
    ]:
        lacks.append("owner")
    if not user.endswith((":statefulset-controller", ":kube-controller-manager")):
        lacks.append("author")
    return lacks


def workloads_of(pod: Json, user: str) -> set[str]:
    """The workloads, KIND/NAME, that an exception may name for a pod which this user creates."""
    owners = [each for each in pod["metadata"].get("ownerReferences") or [] if each.get("controller") is True]
    if not owners:
        return set()
    kind, name = owners[0]["kind"], owners[0]["name"]
    labels = pod["metadata"].get("labels") or {}
    account, version = {
        "ReplicaSet": ("replicaset-controller", "apps/v1"),
        "StatefulSet": ("statefulset-controller", "apps/v1"),
        "DaemonSet": ("daemon-set-controller", "apps/v1"),
        "Job": ("job-controller", "batch/v1"),
    }.get(kind, ("", ""))
    trusted = {f"system:serviceaccount:kube-system:{account}", "system:kube-controller-manager"}
    if not account or owners[0]["apiVersion"] != version or user not in trusted:
        return set()
    found = {f"{kind}/{name}"}
    deployment, _, last = name.rpartition("-")
    if kind == "ReplicaSet" and last == labels.get("pod-template-hash"):
        found.add(f"Deployment/{deployment}")
        if f"{labels.get('serving.knative.dev/revision')}-deployment" == deployment:
            found.add(f"Service/{labels.get('serving.knative.dev/service')}")
    if kind == "Job" and re.fullmatch(r"[0-9]{6,11}", last):
        found.add(f"CronJob/{deployment}")
    return found


def options_of(pod: Json) -> dict[str, str]:
    """The annotations of Morphisms, without their prefix."""
    annotations = pod["metadata"].get("annotations") or {}
    return {key[14:]: value for key, value in annotations.items() if key.startswith("morphisms.dev/")}


def plan_of(pod: Json) -> Plan:
    """The plan in the one init container; LookupError without."""
    (container,) = [each for each in pod["spec"].get("initContainers") or [] if each.get("name") == _INIT] or [{}]
    for variable in container.get("env") or []:
        if variable["name"] == "MORPHISMS_PLAN":
            return read_plan(variable["value"])
    raise LookupError(_INIT)


def is_reference(text: str) -> bool:
    """Whether a variable refers to Vault: `vault:` or `${vault:`, with a `/` and a `#`."""
    return any("/" in part and "#" in part for part in _mentioned(text))


def is_forgotten(text: str) -> bool:
    """Whether a reference lacks its key, or is a ciphertext."""
    return not is_reference(text) and (
        any("/" in part for part in _mentioned(text)) or re.match(r"vault:v\d+:", text) is not None
    )


def is_wrapped(text: str) -> bool:
    """Whether a reference stands in quotes, in brackets or behind blanks."""
    inner = text.lstrip(" \t\r\n\"'`$({<[")
    return inner != text and is_reference(inner) and inner.startswith("vault:") and not is_reference(text)


def _mentioned(text: str) -> list[str]:
    return [*_INLINE.findall(text), *([text] if text.startswith("vault:") else [])]


def texts(pod: Json) -> set[str]:
    """The variables that are text, whatever they look like."""
    return {name.strip() for name in options_of(pod).get("literal-env", "").split(",")}


def opts_in(pod: Json, mode: str) -> bool:
    """Whether the pod opts in in a namespace of this mode."""
    options = options_of(pod)
    inject = options.get("inject")
    if inject not in (None, "false"):
        return True  # any other text than "true" is refused
    if mode == "absent" or inject == "false":
        return False
    return by_itself(pod) or any(each["name"] == _INIT for each in pod["spec"].get("initContainers") or [])


def by_itself(pod: Json) -> bool:
    """Whether annotations and variables opt in."""
    options = options_of(pod)
    if any(key == "env-from" or key.startswith("secret-") for key in options) or options.get("inject") == "true":
        return True
    values = [
        each.get("value") or ""
        for container in _applications(pod)
        if container not in (pod["spec"].get("ephemeralContainers") or []) and container["name"] not in _NEVER
        for each in container.get("env") or []
        if each["name"] not in texts(pod)
    ]
    if any(value.startswith("vault:~/") or "${vault:~/" in value for value in values):
        return True
    return bool(options.keys() - _SILENT) and any(is_reference(value) for value in values)


def _every(spec: Json) -> list[Json]:
    groups = ("initContainers", "containers", "ephemeralContainers")
    return [container for group in groups for container in spec.get(group) or []]


def _applications(pod: Json) -> list[Json]:
    knative = "serving.knative.dev/revision" in (pod["metadata"].get("labels") or {})
    others = (_INIT, *_MESH, *(("queue-proxy",) if knative else ()))
    return [each for each in _every(pod["spec"]) if each["name"] not in others]


def _placement(spec: Json, labels: dict[str, set[str]]) -> Iterator[str]:
    if spec.get("nodeName"):
        yield "preset node"
    if spec.get("schedulerName") not in (None, "", "default-scheduler"):
        yield "scheduler"
    if (spec.get("os") or {}).get("name", "linux") != "linux":
        yield "operating system"
    if labels and widening_terms(spec, labels):
        yield "affinity admits other nodes"
    for toleration in spec.get("tolerations") or []:
        if not toleration.get("key") or toleration["key"] == "node-role.kubernetes.io/control-plane":
            yield "tolerates single-purpose nodes"


def widening_terms(spec: Json, labels: dict[str, set[str]]) -> list[int]:
    """Indexes of the terms that some node without the labels satisfies; [-1] if the pod requires no term.

    By trial: for each label, every value that could make a difference is put on an imagined node.
    """
    node_affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    terms = (node_affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms")
    if not terms:
        return [-1]
    wide = []
    for place, term in enumerate(terms):
        expressions, fields = term.get("matchExpressions") or [], term.get("matchFields") or []
        if not expressions and not fields:
            continue  # "a null or empty node selector term matches no objects"
        for key, good in labels.items():
            about = [each for each in expressions if each["key"] == key]
            trials = {None, "other", "", "1", *good, *(value for each in about for value in each.get("values") or [])}
            if any(trial not in good and all(_satisfies(trial, each) for each in about) for trial in trials):
                wide.append(place)
    return wide


def _satisfies(value: str | None, expression: Json) -> bool:
    values = expression.get("values") or []
    match expression["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt" as operator:
            if value is None or not value.isdecimal():
                return False
            return int(value) > int(values[0]) if operator == "Gt" else int(value) < int(values[0])
    return True


def _isolation(spec: Json) -> Iterator[str]:
    for member in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(member):
            yield member
    if spec.get("hostUsers") is False:
        yield "hostUsers"
    if spec.get("ephemeralContainers"):
        yield "ephemeral containers"
    for volume in spec.get("volumes") or []:
        if volume.get("hostPath") is not None:
            yield "hostPath"
    for container in _every(spec):
        context = container.get("securityContext") or {}
        if context.get("privileged") or context.get("procMount", "Default") != "Default":
            yield "privileged"
        if (context.get("seccompProfile") or {}).get("type") == "Unconfined":
            yield "unconfined"
        added = (context.get("capabilities") or {}).get("add") or []
        if {name.upper().replace("CAP_", "") for name in added} & _GUEST_WIDE:
            yield "capability"
        if container["name"] != _INIT:
            rest = {key: value for key, value in container.items() if key not in ("volumeMounts", "command", "args")}
            if re.search(r'"morphisms-(secrets|run|token)"', json.dumps(rest)):
                yield "our volume named outside a mount"


def _secrets_at_rest(pod: Json) -> Iterator[str]:
    spec = pod["spec"]
    if any("secrets-store" in (each.get("csi") or {}).get("driver", "") for each in spec.get("volumes") or []):
        yield "secrets from the node"
    from_secrets = {each["name"] for each in spec.get("volumes") or [] if each.get("secret") is not None}
    for container in _applications(pod):
        for variable in container.get("env") or []:
            value = variable.get("value") or ""
            if (variable.get("valueFrom") or {}).get("secretKeyRef") is not None:
                yield "secretKeyRef"
            literal = variable["name"] in texts(pod) or container["name"] in _NEVER
            if is_reference(value) and not literal:
                yield "unresolved reference"
            elif is_forgotten(value) and not literal and by_itself(pod):
                yield "forgotten key"
            elif is_wrapped(value) and not literal and (by_itself(pod) or "vault:~/" in value):
                yield "reference in quotes"
            elif value.removeprefix("vault:") and _SECRET_NAME.search(variable["name"]):
                yield "plaintext secret"
            if ">>vault:" in value and not literal:
                yield "another injector's reference"
        for word in (*(container.get("command") or ()), *(container.get("args") or ())):
            if is_reference(word) or _LATE.search(word):
                yield "reference in a command"
        if any(source.get("secretRef") is not None for source in container.get("envFrom") or []):
            yield "secretRef"
        if any(mount.get("name") in from_secrets for mount in container.get("volumeMounts") or []):
            yield "secret volume"
        if "@sha256:" not in container["image"]:
            yield "image by tag"
    injectors = ("vault.hashicorp.com/agent-inject", "vault.security.banzaicloud.io/vault-addr")
    annotations = pod["metadata"].get("annotations") or {}
    if any(key in annotations for key in injectors):
        yield "two injectors"
    if any(key.startswith(_RUNTIME_ANNOTATIONS) and not key.endswith(".cc_init_data") for key in annotations):
        yield "hypervisor annotation"


def _init_container(pod: Json, plan: Plan, options: dict[str, str], world: World) -> Iterator[str]:
    spec = pod["spec"]
    inits = spec["initContainers"]
    (place,) = [index for index, each in enumerate(inits) if each["name"] == _INIT]
    container = inits[place]
    user = common_user(pod, plan, options)
    if any(each["name"] == _INIT for each in spec["containers"]):
        yield "two of our name"
    if container.get("image") != world.image:
        yield "init image"
    if container.get("securityContext") != {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "runAsUser": world.user if user is None else user,
        "seccompProfile": {"type": "RuntimeDefault"},
    }:
        yield "init security context"
    if [each["name"] for each in container["env"]] != ["MORPHISMS_PLAN"]:
        yield "init env"
    if any(container.get(member) for member in ("command", "args", "envFrom", "volumeDevices")):
        yield "init runs something else"
    hooked = _starts_by_hook(pod, plan, options)
    if container.get("lifecycle") != (_HOOK if hooked else None):
        yield "init's hook"
    mounts = [
        (each["name"], each["mountPath"]) for each in container["volumeMounts"] if each["mountPath"] != _SERVICE_ACCOUNT
    ]
    if mounts != [*_READ_ONLY.items(), ("morphisms-token", "/morphisms/token")]:
        yield "init mounts"
    stays = options.get("agent") == "sidecar"
    if (container.get("restartPolicy") == "Always") != stays or ("startupProbe" in container) != (stays and not hooked):
        yield "init or sidecar"
    if any(_mounts(each).keys() & _READ_ONLY.keys() for each in inits[:place]):
        yield "init after a consumer"
    if any(each["name"] not in _BEFORE_ATTESTATION for each in inits[:place]):
        yield "the application runs before attestation"
    if set(container["resources"]) - {"requests", "limits"} or {
        name for amounts in container["resources"].values() for name in amounts
    } - {"cpu", "memory", "ephemeral-storage"}:
        yield "a device for init"


def _starts_by_hook(pod: Json, plan: Plan, options: dict[str, str]) -> bool:
    """Nothing of the author's runs before the secrets are there, and queue-proxy alone says when the pod is ready."""
    spec, metadata = pod["spec"], pod["metadata"]
    if options.get("agent") != "sidecar" or "template" in options:
        return False
    if any(key.endswith("cc_init_data") for key in metadata.get("annotations") or {}):
        return False
    others = [each for each in (*(spec.get("initContainers") or []), *spec["containers"]) if each["name"] != _INIT]
    if "serving.knative.dev/revision" not in (metadata.get("labels") or {}):
        return False
    behind = [each for each in spec["containers"] if each["name"] == "queue-proxy"]
    waiting = {each.container for each in plan.env} | {each.container for each in plan.env_from}
    return bool(behind) and all(
        each in behind
        or (each["name"] in waiting and (each.get("command") or [""])[0] == _HELPER and not _is_run_in_meanwhile(each))
        for each in others
    )


def _is_run_in_meanwhile(container: Json) -> bool:
    return any("exec" in (container.get(name) or {}) for name in _PROBES) or "exec" in (
        (container.get("lifecycle") or {}).get("postStart") or {}
    )


def _plan(
    pod: Json, plan: Plan, options: dict[str, str], world: World, evidence: list[tuple[str, str]]
) -> Iterator[str]:
    labels = pod["metadata"].get("labels") or {}
    service = labels.get("serving.knative.dev/service", "")
    workload = (plan.workload.cluster, plan.workload.namespace, plan.workload.service, plan.workload.service_account)
    if workload != (world.cluster, NAMESPACE, service, pod["spec"].get("serviceAccountName") or "default"):
        yield "plan for another workload"
    if [(each.name, each.address) for each in plan.evidence] != evidence:
        yield "plan's evidence"
    if plan.verifier.url != "https://morphisms-verifier.morphisms-kms.svc":
        yield "plan's verifier"
    if plan.verifier.role != options.get("vault-role", "default"):
        yield "plan's role"
    if plan.vault.url != "https://vault.vault.svc:8200":
        yield "plan's Vault"
    home = f"secret/knative/{world.cluster}/{NAMESPACE}/{service}/"
    wanted = []
    for key, value in options.items():
        if key.startswith("secret-"):
            name = key[7:]
            path, part, version = split_reference(value, home)
            extras = (options.get(f"mode-{name}"), options.get(f"template-{name}"))
            wanted.append((name, path, part, version, options.get(f"file-{name}", name), *extras))
    if sorted(wanted) != sorted(
        (each.name, each.path, each.key, each.version, each.file, each.mode, each.template) for each in plan.secrets
    ):
        yield "plan's secrets"
    whole = {split_reference(part, home)[::2] for part in options.get("env-from", "").split(",") if part}
    if {(each.path, each.version) for each in plan.env_from} != whole:
        yield "plan's env-from"
    if plan.agent != options.get("agent", "init") or plan.on_change != options.get("on-change", "none"):
        yield "plan's agent"
    if plan.file_mode != ("0440" if common_user(pod, plan, options) is None else "0400"):
        yield "plan's file mode"


def _expanded(text: str) -> set[str]:
    """The names that Kubernetes expands: a dollar before the parenthesis that no other one escapes."""
    return {name for dollars, name in re.findall(r"([$]+)[(]([^)]*)[)]", text) if len(dollars) % 2}


def _expansions(pod: Json, plan: Plan) -> Iterator[str]:
    """No text of a container names a variable that is known in the guest only, neither does the plan."""
    for container in _applications(pod):
        secret = {each.name for each in plan.env if each.container == container.get("name")}
        texts = [*(container.get("command") or []), *(container.get("args") or [])]
        texts += [each.get("value") or "" for each in container.get("env") or []]
        texts += [each.get("subPathExpr") or "" for each in container.get("volumeMounts") or []]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            texts += ((container.get(probe) or {}).get("exec") or {}).get("command") or []
        if any(_expanded(text) & secret for text in texts):
            yield f"{container.get('name')} expands a secret"
    for each in plan.env:
        if set(each.expand) & {other.name for other in plan.env if other.container == each.container}:
            yield "plan expands a secret"
        if not set(each.expand) <= _expanded(each.value or ""):
            yield "plan expands a name that the value does not have"


def split_reference(text: str, home: str) -> tuple[str, str | None, int | None]:
    """(path, key, version) of `PATH[#KEY][@N]`, or Bank-Vaults' `PATH#KEY#N`, for well-formed text."""
    path, *rest = re.split("[#@]", text.strip())
    key = rest.pop(0) if rest and "#" in text else None
    return re.sub("^~/", home, path), key, int(rest[0]) if rest else None


def expected_consumers(pod: Json, plan: Plan, options: dict[str, str]) -> set[str]:
    """The containers that may get secrets: the named or serving ones, and those with variables in the plan."""
    chosen = {each.container for each in (*plan.env, *plan.env_from)}
    if not plan.secrets and not plan.env_from:
        return chosen
    if "containers" in options:
        return {name.strip() for name in options["containers"].split(",")}
    meant = [each for each in pod["spec"]["containers"] if each["name"] not in (*_NEVER, *_HELPERS)]
    if "serving.knative.dev/revision" in (pod["metadata"].get("labels") or {}):
        for suffices in (lambda port: port.get("name") == "user-port", lambda port: True):
            serving = {each["name"] for each in meant if any(suffices(port) for port in each.get("ports") or [])}
            if len(serving) == 1:
                return chosen | serving
            if serving:
                break
    named = (pod["metadata"].get("annotations") or {}).get("kubectl.kubernetes.io/default-container")
    both = (*(pod["spec"].get("initContainers") or []), *meant)
    if named not in (_INIT, *_NEVER, *_HELPERS) and any(each["name"] == named for each in both):
        return chosen | {named}
    return chosen | ({meant[0]["name"]} if len(meant) == 1 else set())


def common_user(pod: Json, plan: Plan, options: dict[str, str]) -> int | None:
    """The one user, not root, that every consumer runs as."""
    consumers = expected_consumers(pod, plan, options)
    whole = (pod["spec"].get("securityContext") or {}).get("runAsUser")
    users = {
        (each.get("securityContext") or {}).get("runAsUser", whole)
        for each in _applications(pod)
        if each["name"] in consumers
    }
    return next(iter(users)) or None if len(users) == 1 else None


def _mounts(container: Json) -> dict[str, Json]:
    return {mount.get("name", ""): mount for mount in container.get("volumeMounts") or []}


def _consumers(pod: Json, plan: Plan, options: dict[str, str]) -> Iterator[str]:
    consumers = expected_consumers(pod, plan, options)
    takers = {each.container for each in (*plan.env, *plan.env_from)}
    for container in _every(pod["spec"]):
        name, mounts = container["name"], _mounts(container)
        if name == _INIT:
            continue
        for mount in container.get("volumeMounts") or []:
            path = posixpath.normpath("/" + mount.get("mountPath", "").lstrip("/"))
            volume = mount.get("name", "")
            if volume in _READ_ONLY:
                if mount != {"name": volume, "mountPath": _READ_ONLY[volume], "readOnly": True}:
                    yield "our volume mounted otherwise"
                if name not in consumers:
                    yield "our volume mounted by a stranger"
            elif volume.startswith("morphisms-"):
                yield "token mounted outside morphisms-init"
            elif path == "/morphisms" or path.startswith("/morphisms/"):
                yield "our folder covered"
        if name in consumers and "morphisms-secrets" not in mounts:
            yield "consumer without its secrets"
        if name in takers:
            if "morphisms-run" not in mounts:
                yield "consumer without its helper"
            if (container.get("command") or [])[:3] != [_HELPER, name, "--"]:
                yield "consumer bypasses its helper"
    if not consumers <= {each["name"] for each in _applications(pod)} - {*_NEVER}:
        yield "consumer missing"


def _volumes(spec: Json) -> Iterator[str]:
    volumes = spec.get("volumes") or []
    for name in _READ_ONLY:
        found = [each for each in volumes if each.get("name") == name]
        if len(found) != 1 or found[0].keys() != {"name", "emptyDir"} or found[0]["emptyDir"].get("medium") != "Memory":
            yield f"{name} is not memory"
        elif not found[0]["emptyDir"].get("sizeLimit"):
            yield f"{name} has no bound"
    tokens = [each for each in volumes if each.get("name") == "morphisms-token"]
    wanted = {"audience": "morphisms-verifier", "expirationSeconds": 600, "path": "token"}
    if len(tokens) != 1 or json.loads(json.dumps(tokens[0])).get("projected", {}).get("sources") != [
        {"serviceAccountToken": wanted}
    ]:
        yield "token volume"
