"""What each guard is for, in plain Python: an implementation of docs/install.md's tables that knows nothing of CEL.

Each guard is a function from an attempt to True (it refuses), False (it looked, and lets through) or None (the attempt
does not concern it).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests.webhook.properties.oracle import is_reference, options_of, texts

Object = Mapping[str, Any]

KNATIVE: Final = "system:serviceaccount:knative-serving:controller"
WEBHOOK: Final = "system:serviceaccount:morphisms-system:morphisms-webhook"
SCANNER: Final = "system:serviceaccount:morphisms-system:morphisms-scanner"
NAMESPACE_CONTROLLER: Final = "system:serviceaccount:kube-system:namespace-controller"
DEPLOYMENT_CONTROLLER: Final = "system:serviceaccount:kube-system:deployment-controller"
REPLICASET_CONTROLLER: Final = "system:serviceaccount:kube-system:replicaset-controller"
STATEFULSET_CONTROLLER: Final = "system:serviceaccount:kube-system:statefulset-controller"
CONTROLLER_MANAGER: Final = "system:kube-controller-manager"
BREAKS_GLASS: Final = "boss"
"""Has the verbs `loosen` and `break-glass`; nobody else has them, but for `loosen` in one namespace."""
LOOSENS_ONE: Final = "half-boss"

MODE: Final = "morphisms.dev/mode"
_STRENGTH: Final = {None: 0, "audit": 1, "inject": 2, "enforce": 3}
_HANDLERS: Final = {"kata-qemu-snp": "kata-qemu-snp", "kata-remote": "kata-remote"}
_NOT_OURS: Final = ("kube-system", "kube-node-lease", "morphisms-system")
_BEGIN_FREELY: Final = (*_NOT_OURS, "default", "kube-public", "morphisms-kms", "knative-serving")
_WRITERS: Final = {"morphisms-webhook": "", "morphisms-webhook-templates": WEBHOOK, "morphisms-probes": SCANNER}
_COPIED: Final = ("pods", "pods/status", "pods/binding", "bindings", "configurations", "revisions")
_WORKLOADS: Final = (
    "deployments",
    "replicasets",
    "statefulsets",
    "daemonsets",
    "jobs",
    "cronjobs",
    "replicationcontrollers",
)
_SILENT: Final = {"status", "template", "literal-env"}


@dataclass(frozen=True)
class Attempt:
    """A request as admission sees it. `labels`: of the namespace, whose name is empty for what lies in none.

    `loosens_in`: the namespace in which LOOSENS_ONE may loosen.
    """

    user: str
    operation: str
    resource: str
    name: str = ""
    namespace: str = ""
    labels: Mapping[str, str] | None = None
    new: Object | None = None
    old: Object | None = None
    is_dry: bool = True
    groups: tuple[str, ...] = ()
    loosens_in: str = ""

    @property
    def item(self) -> Object:
        """The object that the attempt is about."""
        return (self.old if self.operation == "DELETE" else self.new) or {}


Verdict = bool | None


def _mode(labels: Mapping[str, str] | None) -> str | None:
    value = (labels or {}).get(MODE)
    return value if value in _STRENGTH else "enforce"


def _labels(item: Object | None) -> Mapping[str, str]:
    return ((item or {}).get("metadata") or {}).get("labels") or {}


def _may_loosen(attempt: Attempt, namespace: str) -> bool:
    return attempt.user == BREAKS_GLASS or (attempt.user == LOOSENS_ONE and namespace == attempt.loosens_in)


def mode_ratchet(attempt: Attempt) -> Verdict:
    """Nobody loosens a namespace's mode, or deletes one that injects or enforces, without the verb."""
    is_one = attempt.resource.partition("/")[0] == "namespaces" and attempt.operation in ("UPDATE", "DELETE")
    if not is_one or MODE not in _labels(attempt.old):
        return None
    before = _STRENGTH[_mode(_labels(attempt.old))]
    if attempt.operation == "DELETE":
        loosens = before >= _STRENGTH["inject"]
    else:
        loosens = _STRENGTH[_mode(_labels(attempt.new))] < before
    return loosens and not _may_loosen(attempt, attempt.name)


def mode_required(attempt: Attempt) -> Verdict:
    """With the overlay `enforce`, a namespace begins there."""
    if (attempt.resource, attempt.operation) != ("namespaces", "CREATE") or attempt.name in _BEGIN_FREELY:
        return None
    return _labels(attempt.new).get(MODE) != "enforce" and not _may_loosen(attempt, attempt.name)


def configuration_guard(attempt: Attempt) -> Verdict:
    """Our registration stays as it is; the webhook's account writes the CA bundles."""
    kinds = ("mutatingwebhookconfigurations", "validatingwebhookconfigurations")
    if attempt.resource not in kinds or attempt.name != "morphisms":
        return None
    if attempt.user == BREAKS_GLASS:
        return False
    if attempt.operation != "UPDATE":
        return True
    before, after = _without_bundles(attempt.old), _without_bundles(attempt.new)
    return before != after or (_bundles(attempt.old) != _bundles(attempt.new) and attempt.user != WEBHOOK)


def _without_bundles(item: Object | None) -> Any:
    item = item or {}
    kept = ("managedFields", "generation", "resourceVersion")
    metadata = {key: value for key, value in item["metadata"].items() if key not in kept}
    return metadata, [
        {**entry, "clientConfig": {key: each for key, each in entry["clientConfig"].items() if key != "caBundle"}}
        for entry in item.get("webhooks") or ()
    ]


def _bundles(item: Object | None) -> list[Any]:
    return [entry["clientConfig"].get("caBundle") for entry in (item or {}).get("webhooks") or ()]


def configmap_guard(attempt: Attempt) -> Verdict:
    """What our ConfigMaps hold is written by their own account alone, and they are not deleted."""
    is_ours = attempt.namespace == "morphisms-system" and attempt.name in _WRITERS
    if attempt.resource != "configmaps" or not is_ours:
        return None
    if attempt.operation == "DELETE":
        return attempt.user not in (BREAKS_GLASS, NAMESPACE_CONTROLLER) or None
    if attempt.user in (BREAKS_GLASS, _WRITERS[attempt.name]):
        return False
    if attempt.operation == "CREATE":
        # The manifests have it empty.
        return not (attempt.name == "morphisms-webhook-templates" and _content(attempt.new) == ({}, {}, False))
    return _content(attempt.new) != _content(attempt.old)


def _content(item: Object | None) -> tuple[Any, Any, bool]:
    item = item or {}
    return item.get("data") or {}, item.get("binaryData") or {}, bool(item.get("immutable"))


def injection_present(attempt: Attempt) -> Verdict:
    """A pod that opts in, or is of an enforced namespace, has what injection gives."""
    if (attempt.resource, attempt.operation) != ("pods", "CREATE") or attempt.namespace in _NOT_OURS:
        return None
    pod: Any = attempt.new
    if _is_mirror(attempt, pod) or (attempt.user == KNATIVE and attempt.is_dry):
        return None
    return _is_to_be_injected(pod, _mode(attempt.labels)) and not _is_injected(pod, attempt.namespace)


def _is_mirror(attempt: Attempt, pod: Any) -> bool:
    node = pod["spec"].get("nodeName")
    return (
        "kubernetes.io/config.mirror" in (pod["metadata"].get("annotations") or {})
        and "system:nodes" in attempt.groups
        and bool(node)
        and attempt.user == f"system:node:{node}"
    )


def _every(pod: Any) -> list[Any]:
    return [*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]]


def _has_init(pod: Any) -> bool:
    return any(each["name"] == "morphisms-init" for each in pod["spec"].get("initContainers") or ())


def _is_to_be_injected(pod: Any, mode: str | None) -> bool:
    inject = options_of(pod).get("inject")
    if mode == "enforce" or inject not in (None, "false"):
        return True
    return mode is not None and inject is None and (_has_init(pod) or _names_secrets(pod))


def _names_secrets(pod: Any) -> bool:
    options = options_of(pod)
    if any(key == "env-from" or key.startswith("secret-") for key in options):
        return True
    beside = bool(options.keys() - _SILENT)
    for container in _every(pod):
        for variable in container.get("env") or ():
            value = variable.get("value") or ""
            own = value.startswith("vault:~/") or "${vault:~/" in value
            if variable["name"] not in texts(pod) and (own or (beside and is_reference(value))):
                return True
    return False


def _is_injected(pod: Any, namespace: str) -> bool:
    spec = pod["spec"]
    default = "kms" if namespace == "morphisms-kms" else "kata-snp"
    return (
        options_of(pod).get("profile", default) == default
        and spec.get("runtimeClassName") == "kata-qemu-snp"
        and not spec.get("nodeName")
        and not any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC"))
        and (default == "kms" or _has_init(pod))
    )


def runtime_class_guard(attempt: Attempt) -> Verdict:
    """The profiles' RuntimeClasses keep handler and scheduling, and stay."""
    if attempt.resource != "runtimeclasses" or attempt.user == BREAKS_GLASS:
        return None
    if attempt.name not in _HANDLERS:
        return False
    if attempt.operation == "CREATE":
        return bool(attempt.item["handler"] != _HANDLERS[attempt.name])
    if attempt.operation == "DELETE":
        return True
    keys = ("handler", "scheduling")
    return [attempt.item.get(key) for key in keys] != [(attempt.old or {}).get(key) for key in keys]


def knative_labels(attempt: Attempt) -> Verdict:
    """Knative alone says which Service a pod belongs to."""
    if attempt.namespace in _NOT_OURS or attempt.operation not in ("CREATE", "UPDATE"):
        return None
    if attempt.resource not in (*_COPIED, *_WORKLOADS):
        return None
    is_pods = attempt.resource in ("pods", "pods/status")
    if attempt.user in (KNATIVE, DEPLOYMENT_CONTROLLER, CONTROLLER_MANAGER):
        return None
    if is_pods and attempt.user == REPLICASET_CONTROLLER:
        return None
    if attempt.user == BREAKS_GLASS:
        return False
    on_it = attempt.resource in _COPIED and _knatives(attempt.new) != _knatives(attempt.old)
    template, before = _template(attempt.new), _template(attempt.old)
    in_it = bool(_knatives(template) or _knatives(before)) and template != before
    return on_it or in_it


def _knatives(item: Object | None) -> dict[str, str]:
    return {key: value for key, value in _labels(item).items() if key.startswith("serving.knative.dev/")}


def _template(item: Object | None) -> Object | None:
    spec = (item or {}).get("spec") or {}
    found: Object | None = ((spec.get("jobTemplate") or {}).get("spec") or spec).get("template")
    return found


def verifier_token(attempt: Attempt) -> Verdict:
    """A kubelet alone gets tokens for the verifier."""
    audiences = (attempt.item.get("spec") or {}).get("audiences") or ()
    if attempt.resource != "serviceaccounts/token" or "morphisms-verifier" not in audiences:
        return None
    return "system:nodes" not in attempt.groups and attempt.user != BREAKS_GLASS


def key_server(attempt: Attempt) -> Verdict:
    """In the key server's namespace its StatefulSet's pods are created, and nothing reaches into them."""
    reaching = ("pods/ephemeralcontainers", "pods/exec", "pods/attach", "pods/portforward")
    is_creation = (attempt.resource, attempt.operation) == ("pods", "CREATE")
    if attempt.namespace != "morphisms-kms" or not (is_creation or attempt.resource in reaching):
        return None
    if not is_creation:
        return True
    pod: Any = attempt.new
    if _is_mirror(attempt, pod):
        return None
    owner: Object = next((each for each in pod["metadata"].get("ownerReferences") or () if each.get("controller")), {})
    is_its = (owner.get("apiVersion"), owner.get("kind"), owner.get("name")) == (
        "apps/v1",
        "StatefulSet",
        "morphisms-verifier",
    )
    return not (is_its and attempt.user in (STATEFULSET_CONTROLLER, CONTROLLER_MANAGER))


GUARDS: Final[Mapping[str, Callable[[Attempt], Verdict]]] = {
    re.sub("_", "-", guard.__name__): guard
    for guard in (
        mode_ratchet,
        mode_required,
        configuration_guard,
        configmap_guard,
        injection_present,
        runtime_class_guard,
        knative_labels,
        verifier_token,
        key_server,
    )
}
"""By the policy's name, without `.morphisms.dev`."""
