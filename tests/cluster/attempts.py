"""Requests that the guards judge: generated for each of them, a bounded number, the same in every run."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tests.cluster import guard_oracle as oracle
from tests.cluster.asking import INJECTED, PODS, make_pod
from tests.cluster.client import Answer, Client, Object
from tests.cluster.guard_oracle import MODE, Attempt
from tests.cluster.guarded import CLASSES, NAMESPACES, runtime_class

Change = Callable[[Object], None]

REGISTRATION: Final = "/apis/admissionregistration.k8s.io/v1"
SYSTEM: Final = "morphisms-system"
KMS: Final = "morphisms-kms"
KNATIVES: Final = {"serving.knative.dev/service": "payments"}
USERS: Final = (
    "mallory",
    oracle.BREAKS_GLASS,
    oracle.LOOSENS_ONE,
    oracle.KNATIVE,
    oracle.WEBHOOK,
    oracle.SCANNER,
    oracle.NAMESPACE_CONTROLLER,
    oracle.DEPLOYMENT_CONTROLLER,
    oracle.REPLICASET_CONTROLLER,
    oracle.STATEFULSET_CONTROLLER,
    oracle.CONTROLLER_MANAGER,
)
"""Each may do everything that RBAC knows, but for the verbs of morphisms.dev."""

_POD: Final = {"containers": [{"name": "app", "image": "registry.example/app"}]}
_TRIES: Final = 50
_MODES: Final = (None, "audit", "inject", "enforce", "mistyped", "")


@dataclass(frozen=True)
class Try:
    """An attempt, and the path that it is made on. `change` makes the new object from the one that is there."""

    attempt: Attempt
    path: str
    change: Change | None = None

    def __str__(self) -> str:
        of = self.attempt
        return f"{of.user}: {of.operation} {of.resource} {of.name} in {of.namespace or '-'} of {of.labels}: {of.new}"


@dataclass
class Stage:
    """Where the attempts are made. `namespaces` by mode; the last one is LOOSENS_ONE's own, of mode enforce."""

    admin: Client
    client: Callable[[str], Client]
    node: Client
    namespaces: dict[str | None, str]
    own: str
    on_node: Object
    random: random.Random = field(default_factory=lambda: random.Random(15))

    def labels(self, mode: str | None) -> dict[str, str]:
        """A namespace's."""
        return {} if mode is None else {MODE: mode}

    def ask(self, tried: Try) -> tuple[Attempt, Answer]:
        """Make it, as a dry run where it is one; with the objects that admission saw."""
        of = tried.attempt
        client = self.node if of.groups else self.client(of.user)
        query = {"dryRun": "All"} if of.is_dry else {}
        if of.operation == "CONNECT":
            return of, client.request("POST", f"{tried.path}?command=id&stdout=true")
        if of.operation == "CREATE":
            return of, client.request("POST", tried.path, of.new, query=query)
        part = of.resource.partition("/")[2]  # not each can be read
        for _ in range(_TRIES):
            old = self.admin.get(tried.path.removesuffix(f"/{part}") if part else tried.path)
            if of.operation == "DELETE":
                return replace(of, old=old), client.request("DELETE", tried.path, query=query)
            new = copy.deepcopy(old)
            assert tried.change is not None
            tried.change(new)
            answer = client.request("PUT", tried.path, new, query=query)
            if answer.status != 409:  # else a controller has changed it meanwhile
                break
        return replace(of, old=old, new=new), answer

    def some(self, count: int, *from_: Any) -> Any:
        """So many of them at random, or all."""
        return self.random.sample(from_, min(count, len(from_)))


def every_try(stage: Stage) -> Iterator[Try]:
    """All of them."""
    yield from _namespaces(stage)
    yield from _registrations()
    yield from _config_maps(stage)
    yield from _pods(stage)
    yield from _runtime_classes()
    yield from _labels(stage)
    yield from _workloads(stage)
    yield from _tokens(stage)
    yield from _key_server()


def _set_labels(**labels: str | None) -> Change:
    def change(item: Object) -> None:
        found = item["metadata"].setdefault("labels", {})
        for key, value in labels.items():
            name = MODE if key == "mode" else key
            if value is None:
                found.pop(name, None)
            else:
                found[name] = value

    return change


def _namespaces(stage: Stage) -> Iterator[Try]:
    places = [*stage.namespaces.items(), ("enforce", stage.own)]
    for user in ("mallory", oracle.BREAKS_GLASS, oracle.LOOSENS_ONE):
        for mode, name in places:
            of = Attempt(user, "UPDATE", "namespaces", name, labels=stage.labels(mode), loosens_in=stage.own)
            path = f"{NAMESPACES}/{name}"
            for new in stage.some(3, *_MODES):
                yield Try(of, path, _set_labels(mode=new))
            for part in ("status", "finalize"):
                [new] = stage.some(1, *_MODES)
                yield Try(replace(of, resource=f"namespaces/{part}"), f"{path}/{part}", _set_labels(mode=new))
            yield Try(of, path, _set_labels(note="x"))
            yield Try(replace(of, operation="DELETE"), path)
        for name in ("shop", "default", "knative-serving", KMS):
            for mode in stage.some(3, *_MODES):
                metadata = {"name": name, "labels": stage.labels(mode)}
                item = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
                of = Attempt(user, "CREATE", "namespaces", name, labels=stage.labels(mode), new=item)
                yield Try(of, NAMESPACES)


_BUNDLE: Final = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg=="


def _bundle(item: Object) -> None:
    item["webhooks"][1]["clientConfig"]["caBundle"] = _BUNDLE


def _fails_open(item: Object) -> None:
    item["webhooks"][0]["failurePolicy"] = "Ignore"


def _bundle_and_fails_open(item: Object) -> None:
    _bundle(item)
    _fails_open(item)


def _leaves_out(item: Object) -> None:
    item["webhooks"][2]["objectSelector"] = {"matchLabels": {"opted": "in"}}


def _drops(item: Object) -> None:
    del item["webhooks"][0]


def _swaps(item: Object) -> None:
    item["webhooks"][0], item["webhooks"][1] = item["webhooks"][1], item["webhooks"][0]


def _elsewhere(item: Object) -> None:
    item["webhooks"][3]["clientConfig"]["service"]["path"] = "/healthz"


def _nothing(item: Object) -> None:
    """Written again as it is."""


def _registrations() -> Iterator[Try]:
    for kind in ("Mutating", "Validating"):
        resource = f"{kind.lower()}webhookconfigurations"
        path = f"{REGISTRATION}/{resource}"
        for user in ("mallory", oracle.BREAKS_GLASS, oracle.WEBHOOK, oracle.SCANNER):
            of = Attempt(user, "UPDATE", resource, "morphisms")
            changes = (
                _bundle,
                _fails_open,
                _bundle_and_fails_open,
                _leaves_out,
                _drops,
                _swaps,
                _elsewhere,
                _nothing,
                _set_labels(mine="x"),
            )
            for change in changes:
                yield Try(of, f"{path}/morphisms", change)
            yield Try(replace(of, operation="DELETE"), f"{path}/morphisms")
            for name in ("morphisms", "theirs"):
                item = {
                    "apiVersion": "admissionregistration.k8s.io/v1",
                    "kind": f"{kind}WebhookConfiguration",
                    "metadata": {"name": name},
                }
                yield Try(replace(of, operation="CREATE", name=name, new=item), path)


def _data(**members: Any) -> Change:
    def change(item: Object) -> None:
        for key, value in members.items():
            if value is None:
                item.pop(key, None)
            else:
                item[key] = value

    return change


def _config_maps(stage: Stage) -> Iterator[Try]:
    users = ("mallory", oracle.BREAKS_GLASS, oracle.WEBHOOK, oracle.SCANNER, oracle.NAMESPACE_CONTROLLER)
    elsewhere = stage.namespaces["enforce"]
    for user in users:
        for name in ("morphisms-webhook", "morphisms-webhook-templates", "morphisms-probes", "theirs"):
            path = f"{NAMESPACES}/{SYSTEM}/configmaps"
            of = Attempt(user, "UPDATE", "configmaps", name, SYSTEM, {})
            changes = (
                _data(data={"a": "other"}),
                _data(data=None),
                _data(binaryData={"x": "eA=="}),
                _data(immutable=True),
                _set_labels(note="x"),
                _nothing,
            )
            yield from (Try(of, f"{path}/{name}", change) for change in stage.some(4, *changes))
            yield Try(replace(of, operation="DELETE"), f"{path}/{name}")
            for data in ({}, {"data": {"a": "b"}}):
                item = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, **data}
                made = replace(of, operation="CREATE", new=item)
                yield Try(made, path)
                if user == "mallory":
                    yield Try(replace(made, namespace=elsewhere), f"{NAMESPACES}/{elsewhere}/configmaps")


_ANNOTATIONS: Final[tuple[dict[str, str], ...]] = (
    {},
    {"inject": "true"},
    {"inject": "false"},
    {"inject": "yes"},
    {"secret-db": "secret/shop/db"},
    {"env-from": "secret/shop/db"},
    {"agent": "sidecar"},
    {"status": "{}"},
    {"literal-env": "P"},
    {"profile": "kata-snp"},
    {"profile": "system"},
    {"profile": "kms"},
)
_VALUES: Final = (
    "text",
    "vault:~/db#password",
    "a:${vault:~/db#password}@db",
    "vault:secret/shop/db#password",
    "a:${vault:secret/shop/db#password}@db",
    "vault:1.15",
    "vault:secret/shop/db",
    "${vault:none} see http://docs/#vault",
)
_SPECS: Final[tuple[Object, ...]] = (
    {"runtimeClassName": "kata-qemu-snp"},
    {"runtimeClassName": "kata-qemu-snp"},
    {"runtimeClassName": "runc"},
    {},
)
_BREAKING: Final[tuple[Object, ...]] = (
    {},
    {},
    {},
    {"nodeName": "plain-0"},
    {"hostNetwork": True},
    {"hostPID": True},
    {"hostIPC": True},
    {"hostNetwork": False},
)


def _generated_pod(stage: Stage) -> Object:
    choose = stage.random.choice
    annotations = {**choose(_ANNOTATIONS), **choose(_ANNOTATIONS)}
    init = [[], [INJECTED], [INJECTED], [{"name": "morphisms-init2", "image": "i"}]]
    return make_pod(
        {f"morphisms.dev/{key}": value for key, value in annotations.items()},
        env=[{"name": choose("PQ"), "value": choose(_VALUES)}],
        init=choose(init),
        more={**choose(_SPECS), **choose(_BREAKING)},
    )


def pod_in(namespace: str, labels: dict[str, str], pod: Object, user: str = "mallory") -> Try:
    """The pod's creation."""
    return Try(Attempt(user, "CREATE", "pods", "", namespace, labels, pod), f"{NAMESPACES}/{namespace}/pods")


def _pods(stage: Stage) -> Iterator[Try]:
    for mode, name in stage.namespaces.items():
        for pod in (*stage.some(5, *PODS.values()), *(_generated_pod(stage) for _ in range(15))):
            yield pod_in(name, stage.labels(mode), pod)
    enforced = stage.namespaces["enforce"]
    yield pod_in(enforced, stage.labels("enforce"), make_pod(), oracle.KNATIVE)
    really = pod_in(enforced, stage.labels("enforce"), make_pod(), oracle.KNATIVE)
    yield replace(really, attempt=replace(really.attempt, is_dry=False))
    yield pod_in(SYSTEM, {}, make_pod({"morphisms.dev/inject": "true"}))
    # A kubelet's mirror of its static pod, and a person's forgery of one.
    node = stage.on_node["spec"]["nodeName"]
    mirror = make_pod({"kubernetes.io/config.mirror": "x", "kubernetes.io/config.source": "file"})
    mirror["spec"]["nodeName"] = node
    mirror["metadata"]["ownerReferences"] = [
        {
            "apiVersion": "v1",
            "kind": "Node",
            "name": node,
            "uid": stage.admin.get(f"/api/v1/nodes/{node}")["metadata"]["uid"],
            "controller": True,
        }
    ]
    for namespace, labels in ((enforced, stage.labels("enforce")), (KMS, {})):
        tried = pod_in(namespace, labels, mirror)
        yield tried
        yield replace(tried, attempt=replace(tried.attempt, user=f"system:node:{node}", groups=("system:nodes",)))


def _runtime_classes() -> Iterator[Try]:
    def scheduling(value: str) -> Change:
        return _data(scheduling={"nodeSelector": {"example.org/snp": value}})

    for user in ("mallory", oracle.BREAKS_GLASS):
        for name, handler in (
            ("kata-remote", "kata-remote"),
            ("kata-remote", "runc"),
            ("kata-qemu-snp", "kata-qemu-snp"),
            ("gvisor", "runsc"),
        ):
            item = runtime_class(name, handler)
            yield Try(Attempt(user, "CREATE", "runtimeclasses", name, new=item), CLASSES)
        for name in ("kata-qemu-snp", "runc"):
            of, path = Attempt(user, "UPDATE", "runtimeclasses", name), f"{CLASSES}/{name}"
            for change in (
                scheduling("true"),
                _data(overhead={"podFixed": {"memory": "1Mi"}}),
                _set_labels(note="x"),
                _nothing,
            ):
                yield Try(of, path, change)
            yield Try(replace(of, operation="DELETE"), path)


_LABELLERS: Final = (
    "mallory",
    oracle.BREAKS_GLASS,
    oracle.KNATIVE,
    oracle.DEPLOYMENT_CONTROLLER,
    oracle.REPLICASET_CONTROLLER,
    oracle.STATEFULSET_CONTROLLER,
)


def _relabel(value: str | None) -> Change:
    return _set_labels(**{"serving.knative.dev/service": value})


def _labels(stage: Stage) -> Iterator[Try]:
    """Labels of what Knative copies them from or to."""
    here, labels = stage.namespaces[None], stage.labels(None)
    core, serving = f"{NAMESPACES}/{here}", f"/apis/serving.knative.dev/v1/namespaces/{here}"
    for user in _LABELLERS:
        for name in ("labelled", "plain"):
            for resource in ("pods", "pods/status", "configurations", "revisions"):
                part = resource.partition("/")[2]
                root = core if resource.startswith("pods") else serving
                path = f"{root}/{resource.partition('/')[0]}/{name}{part and '/' + part}"
                of = Attempt(user, "UPDATE", resource, name, here, labels)
                changes = (_relabel("payments"), _relabel("other"), _relabel(None), _set_labels(note="x"))
                yield from (Try(of, path, change) for change in stage.some(2, *changes))
            for own in ({}, KNATIVES):
                target = {"apiVersion": "v1", "kind": "Node", "name": "plain-0"}
                item = {
                    "apiVersion": "v1",
                    "kind": "Binding",
                    "metadata": {"name": name, "labels": own},
                    "target": target,
                }
                of = Attempt(user, "CREATE", "pods/binding", name, here, labels, item)
                yield Try(of, f"{core}/pods/{name}/binding")
                yield Try(replace(of, resource="bindings"), f"{core}/bindings")
        for own in ({}, KNATIVES):
            pod = make_pod()
            pod["metadata"]["labels"] = own
            yield pod_in(here, labels, pod, user)
            for kind, resource in (("Configuration", "configurations"), ("Revision", "revisions")):
                spec: Object = {"template": {"metadata": {}, "spec": _POD}} if kind == "Configuration" else _POD
                item = {
                    "apiVersion": "serving.knative.dev/v1",
                    "kind": kind,
                    "metadata": {"name": "made", "labels": own},
                    "spec": spec,
                }
                yield Try(Attempt(user, "CREATE", resource, "made", here, labels, item), f"{serving}/{resource}")
    yield pod_in(SYSTEM, {}, {**make_pod(), "metadata": {"generateName": "x-", "labels": KNATIVES}})


KINDS: Final = {
    "Deployment": "apps/v1",
    "ReplicaSet": "apps/v1",
    "StatefulSet": "apps/v1",
    "DaemonSet": "apps/v1",
    "Job": "batch/v1",
    "CronJob": "batch/v1",
    "ReplicationController": "v1",
}


def workload(kind: str, name: str, labels: dict[str, str]) -> Object:
    """One that makes no pod."""
    app = {"app": name}
    is_job = kind in ("Job", "CronJob")
    pod = {**copy.deepcopy(_POD), **({"restartPolicy": "Never"} if is_job else {"nodeSelector": {"none": "x"}})}
    template = {"metadata": {"labels": {**labels, **({} if kind == "Job" else app)}}, "spec": pod}
    spec: Object = {"template": template}
    if kind == "CronJob":
        spec = {"schedule": "0 0 1 1 *", "suspend": True, "jobTemplate": {"spec": spec}}
    elif kind == "Job":
        spec |= {"suspend": True}
    elif kind == "ReplicationController":
        spec |= {"selector": app, "replicas": 0}
    else:
        spec |= {"selector": {"matchLabels": app}}
        spec |= {"serviceName": "x"} if kind == "StatefulSet" else {}
        spec |= {} if kind == "DaemonSet" else {"replicas": 0}
    return {"apiVersion": KINDS[kind], "kind": kind, "metadata": {"name": name}, "spec": spec}


def path_of(kind: str, namespace: str) -> str:
    """The collection."""
    version = KINDS[kind]
    root = f"/api/{version}" if version == "v1" else f"/apis/{version}"
    return f"{root}/namespaces/{namespace}/{kind.lower()}s"


def _template(item: Object) -> Object:
    found: Object = item["spec"].get("jobTemplate", item)["spec"]["template"]
    return found


def _new_image(item: Object) -> None:
    _template(item)["spec"]["containers"][0]["image"] = "registry.example/evil"


def _templates_label(value: str | None) -> Change:
    return lambda item: _relabel(value)(_template(item))


def _workloads(stage: Stage) -> Iterator[Try]:
    here, labels = stage.namespaces["enforce"], stage.labels("enforce")
    for user in _LABELLERS:
        for kind in KINDS:
            resource, path = f"{kind.lower()}s", path_of(kind, here)
            for own in ({}, KNATIVES):
                item = workload(kind, "made", own)
                yield Try(Attempt(user, "CREATE", resource, "made", here, labels, item), path)
            for name in ("labelled", "plain"):
                of = Attempt(user, "UPDATE", resource, name, here, labels)
                changes = [_set_labels(note="x"), _relabel("other")]
                # A Job's template is immutable.
                changes += [] if kind == "Job" else [_new_image, _templates_label("payments"), _templates_label(None)]
                yield from (Try(of, f"{path}/{name}", change) for change in stage.some(2, *changes))


def _tokens(stage: Stage) -> Iterator[Try]:
    pod = stage.on_node["metadata"]
    here = pod["namespace"]
    bound = {"apiVersion": "v1", "kind": "Pod", "name": pod["name"], "uid": pod["uid"]}
    for user, groups in (
        ("mallory", ()),
        (oracle.BREAKS_GLASS, ()),
        (oracle.WEBHOOK, ()),
        (f"system:node:{stage.on_node['spec']['nodeName']}", ("system:nodes",)),
    ):
        # NodeRestriction gives a kubelet what the pod's volumes name, one audience at a time.
        others = [] if groups else [["shop", "morphisms-verifier"], ["shop"]]
        for audiences in (["morphisms-verifier"], *others):
            spec = {"audiences": audiences, "boundObjectRef": bound, "expirationSeconds": 600}
            item = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
            of = Attempt(user, "CREATE", "serviceaccounts/token", "default", here, {}, item, groups=groups)
            yield Try(of, f"{NAMESPACES}/{here}/serviceaccounts/default/token")


def _key_server() -> Iterator[Try]:
    path = f"{NAMESPACES}/{KMS}/pods"
    owners: tuple[Object, ...] = (
        {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "morphisms-verifier", "controller": True},
        {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "morphisms-verifier", "controller": False},
        {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "other", "controller": True},
        {"apiVersion": "apps/v1", "kind": "Deployment", "name": "morphisms-verifier", "controller": True},
        {"apiVersion": "example.org/v1", "kind": "StatefulSet", "name": "morphisms-verifier", "controller": True},
    )
    for user in ("mallory", oracle.BREAKS_GLASS, oracle.STATEFULSET_CONTROLLER, oracle.CONTROLLER_MANAGER):
        for owner in (*owners, None):
            pod = make_pod(more={"runtimeClassName": "kata-qemu-snp"})
            pod["metadata"]["ownerReferences"] = [] if owner is None else [{**owner, "uid": "u"}]
            yield pod_in(KMS, {}, pod, user)
        for part in ("exec", "attach", "portforward"):
            for namespace in (KMS, "default"):
                of = Attempt(user, "CONNECT", f"pods/{part}", "server", namespace, {})
                yield Try(of, f"{NAMESPACES}/{namespace}/pods/server/{part}")
        of = Attempt(user, "UPDATE", "pods/ephemeralcontainers", "server", KMS, {})
        yield Try(of, f"{path}/server/ephemeralcontainers", _debug)


def _debug(item: Object) -> None:
    item["spec"]["ephemeralContainers"] = [{"name": "debug", "image": "i"}]
