"""Attacks on injection itself: being there before us, coming after us, and not being looked at."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.attacks import (
    IMAGE,
    OTHER_IMAGE,
    SECRET,
    allowed,
    developer,
    is_confidential,
    make_pod,
    reasons,
    try_pod,
)
from tests.cluster.client import Object
from tests.cluster.controlplane import ControlPlane
from tests.cluster.installation import Installation
from tests.cluster.namespace import Namespace
from tests.cluster.pki import Authority
from tests.support.until import until

pytestmark = pytest.mark.usefixtures("morphisms")
Make = Callable[..., Namespace]
_REGISTRATION = "/apis/admissionregistration.k8s.io/v1"
_REFERENCE = {"name": "PASSWORD", "value": "vault:secret/shop/db#password"}
_UNDO = "example.org/undo"


@pytest.fixture
def here(namespace: Make) -> Namespace:
    return namespace("enforce")


# Without us.


@pytest.fixture
def unregistered(cluster: ControlPlane, morphisms: Installation) -> Iterator[None]:
    """The registration is gone, as after the first line of the page on emergencies, or a wrong sync."""
    for kind in ("mutatingwebhookconfigurations", "validatingwebhookconfigurations"):
        cluster.admin.delete(f"{_REGISTRATION}/{kind}/morphisms")
    yield
    morphisms.install()
    morphisms.wait_until_answered()


@pytest.mark.usefixtures("unregistered")
def test_c24_pod_that_says_it_was_injected(cluster: ControlPlane, namespace: Make) -> None:
    """The author writes what injection leaves. The guard reads the pod, and no annotation about it."""
    enforced, free = namespace("enforce"), namespace()
    status = {"morphisms.dev/status": '{"injector":1}'}
    fake: Object = {"name": "morphisms-init", "image": OTHER_IMAGE}
    attacks = [
        (enforced, make_pod(annotations=status, nodeName="plain-0", hostPID=True)),
        (enforced, make_pod(annotations=status | SECRET, initContainers=[fake])),
        (enforced, make_pod(annotations=status, runtimeClassName="kata-qemu-snp", hostNetwork=True)),
        (enforced, make_pod(annotations=status | {"morphisms.dev/profile": "system"})),
        (free, make_pod(annotations=status | {"morphisms.dev/inject": "true"})),
        (free, make_pod(annotations=status | SECRET | {"morphisms.dev/inject": "true"}, initContainers=[fake])),
    ]
    for here, pod in attacks:
        # API servers notice a registration's end some time later.
        until(
            lambda here=here, pod=pod: (
                reasons(try_pod(developer(cluster), here, pod))  # type: ignore[misc]
                == {"injection-present.morphisms.dev"}
            )
        )
    assert not is_confidential(allowed(try_pod(developer(cluster), free, make_pod())))


# Before us.


def test_c46_status_written_by_the_author(cluster: ControlPlane, here: Namespace) -> None:
    """A pod that says it was injected is injected."""
    claims = make_pod(annotations={"morphisms.dev/status": '{"injector":1}'})
    assert is_confidential(allowed(try_pod(developer(cluster), here, claims)))


def test_c46_init_container_of_his_own(cluster: ControlPlane, here: Namespace) -> None:
    """Called as ours is: it becomes ours, or the pod is refused."""
    fake: Object = {"name": "morphisms-init", "image": OTHER_IMAGE}
    admitted = allowed(try_pod(developer(cluster), here, make_pod(initContainers=[fake], annotations=SECRET)))
    assert is_confidential(admitted)
    assert OTHER_IMAGE not in json.dumps(admitted["spec"])
    for pod in (
        make_pod(container={"name": "morphisms-init"}),
        make_pod(annotations=SECRET, container={"ports": [{"containerPort": 15790}]}),
    ):
        assert "isolation/reserved-names" in reasons(try_pod(developer(cluster), here, pod))


def test_c46_measured_pod_that_is_none(cluster: ControlPlane, here: Namespace) -> None:
    """A document that no guest could read is refused before a guest is started with it."""
    measured = make_pod(
        annotations={"io.katacontainers.config.hypervisor.cc_init_data": base64.b64encode(b"x").decode()}
    )
    assert "isolation/initdata" in reasons(try_pod(developer(cluster), here, measured))
    assert is_confidential(allowed(try_pod(developer(cluster), here, make_pod())))


def test_c39_secrets_on_a_volume_of_his_own(cluster: ControlPlane, here: Namespace) -> None:
    """Called as ours is, and not in memory."""
    sources: list[Object] = [{"emptyDir": {}}, {"hostPath": {"path": "/tmp"}}]
    for source in sources:
        pod = make_pod(annotations=SECRET, volumes=[{"name": "morphisms-secrets", **source}])
        refused = reasons(try_pod(developer(cluster), here, pod))
        assert refused & {"secrets/volumes", "isolation/reserved-names"}
    mine = make_pod(annotations=SECRET, volumes=[{"name": "mine", "emptyDir": {}}])
    assert is_confidential(allowed(try_pod(developer(cluster), here, mine)))


@pytest.mark.parametrize(
    "mount",
    [
        {"name": "morphisms-secrets", "mountPath": "/stolen"},
        {"name": "morphisms-secrets", "mountPath": "/stolen", "readOnly": True, "subPath": "..data"},
        {"name": "morphisms-run", "mountPath": "/stolen"},
        {"name": "morphisms-token", "mountPath": "/stolen", "readOnly": True},
        {"name": "mine", "mountPath": "/morphisms/run"},
        {"name": "mine", "mountPath": "/other/../morphisms/secrets"},
    ],
    ids=["secrets", "subpath", "run", "token", "over", "detour"],
)
@pytest.mark.parametrize("group", ["initContainers", "containers"])
def test_c28_mount_of_our_volumes(cluster: ControlPlane, here: Namespace, group: str, mount: Object) -> None:
    def pod(mounts: list[Object]) -> Object:
        made = make_pod(
            annotations=SECRET | {"morphisms.dev/containers": "app"}, volumes=[{"name": "mine", "emptyDir": {}}]
        )
        made["spec"].setdefault(group, []).append({"name": "thief", "image": IMAGE, "volumeMounts": mounts})
        return made

    assert reasons(try_pod(developer(cluster), here, pod([mount]))) == {"isolation/foreign-mounts"}
    allowed(try_pod(developer(cluster), here, pod([{"name": "mine", "mountPath": "/mine"}])))


@pytest.mark.parametrize("volume", ["morphisms-secrets", "morphisms-run", "morphisms-token"])
def test_c28_file_of_our_volumes_as_a_variable(cluster: ControlPlane, here: Namespace, volume: str) -> None:
    """Kubernetes reads it without a mount (fileKeyRef, a feature that an older API server drops)."""

    def pod(name: str) -> Object:
        source = {"fileKeyRef": {"volumeName": name, "path": "db", "key": "password"}}
        thief = {"name": "thief", "image": IMAGE, "env": [{"name": "STOLEN", "valueFrom": source}]}
        made = make_pod(
            annotations=SECRET | {"morphisms.dev/containers": "app"}, volumes=[{"name": "mine", "emptyDir": {}}]
        )
        made["spec"]["containers"].append(thief)
        return made

    if try_pod(developer(cluster), here, pod("mine")).status == 422:
        pytest.skip("this API server has no fileKeyRef")
    assert reasons(try_pod(developer(cluster), here, pod(volume))) == {"isolation/foreign-mounts"}


def test_c38_container_before_attestation(cluster: ControlPlane, here: Namespace) -> None:
    """The author's init containers run after the guest has been attested."""
    pod = make_pod(initContainers=[{"name": "early", "image": IMAGE}])
    spec = allowed(try_pod(developer(cluster), here, pod))["spec"]
    assert [each["name"] for each in spec["initContainers"]] == ["morphisms-init", "early"]


def test_c14_profile_that_asks_for_less(cluster: ControlPlane, here: Namespace) -> None:
    """`system` is placement only, `peer-pod` needs no node, and there is no profile `none`; `inject: "false"` is no way
    out of enforce."""
    for name in ("system", "none", "peer-pod"):
        pod = make_pod(annotations={"morphisms.dev/profile": name})
        assert reasons(try_pod(developer(cluster), here, pod)) == {"placement/profile"}
    out = make_pod(annotations={"morphisms.dev/inject": "false"})
    assert is_confidential(allowed(try_pod(developer(cluster), here, out)))


# After us.


class _LaterWebhook(ThreadingHTTPServer):
    """Somebody else's mutating webhook: takes away what the pod's annotation says, wherever it is there."""

    def __init__(self, folder: Path) -> None:
        authority = Authority(folder / "pki")
        certificate, key = authority.server("later")
        self.ca = base64.b64encode(authority.certificate.read_bytes()).decode()
        super().__init__(("127.0.0.1", 0), _Later)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
        self.socket = context.wrap_socket(self.socket, server_side=True)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.server_address[1]}/"


class _Later(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["request"]
        operations = json.loads(request["object"]["metadata"].get("annotations", {}).get(_UNDO, "[]"))
        patch = [operation for operation in operations if _is_to_do(operation, request["object"])]
        response: Object = {"uid": request["uid"], "allowed": True}
        if patch:
            response |= {"patchType": "JSONPatch", "patch": base64.b64encode(json.dumps(patch).encode()).decode()}
        review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}
        body = json.dumps(review).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a test says what went wrong."""


def _is_to_do(operation: Object, pod: Object) -> bool:
    """Whether there is something to take away, or the list lacks what is to be added."""
    *steps, last = (step.replace("~1", "/") for step in operation["path"].split("/")[1:])
    place: Any = pod
    for step in steps:
        place = place[int(step)] if isinstance(place, list) else place.get(step, {})
    if last == "-":
        return not any(operation["value"].items() <= each.items() for each in place)
    return last in place if isinstance(place, dict) else int(last) < len(place)


@pytest.fixture(scope="module")
def later(cluster: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The label of namespaces in which it runs, after ours and whenever the pod has changed since."""
    server = _LaterWebhook(tmp_path_factory.mktemp("later"))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    entry = {
        "name": "later.example.org",
        "clientConfig": {"url": server.url, "caBundle": server.ca},
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}],
        "namespaceSelector": {"matchLabels": {"example.org/later": "true"}},
        "reinvocationPolicy": "IfNeeded",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    kind = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration"}
    # Called in the order of the configurations' names.
    cluster.admin.apply({**kind, "metadata": {"name": "zz-later"}, "webhooks": [entry]})
    try:
        yield "example.org/later"
    finally:
        cluster.admin.delete(f"{_REGISTRATION}/mutatingwebhookconfigurations/zz-later")
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("/spec/runtimeClassName", "injection-present.morphisms.dev"),
        ("/spec/affinity/nodeAffinity", "placement/node-affinity"),
        ("/spec/initContainers/0/securityContext", "secrets/init-container"),
        ("/spec/initContainers", "injection-present.morphisms.dev"),
        ("/spec/containers/0/volumeMounts/1", "secrets/consumers"),
    ],
)
def test_c15_later_webhook_that_takes_away(
    cluster: ControlPlane, namespace: Make, later: str, path: str, rule: str
) -> None:
    here = namespace("enforce", **{later: "true"})

    def undone(*operations: Object) -> Object:
        return make_pod(annotations=SECRET | {_UNDO: json.dumps(operations)})

    # It is in force once it does what it is told.
    sign: Object = {"op": "add", "path": "/spec/hostname", "value": "later"}
    sign_pod = undone(sign)
    sign_pod["spec"]["hostname"] = "before"
    until(lambda: try_pod(developer(cluster), here, sign_pod).body["spec"]["hostname"] == "later")
    removed = try_pod(developer(cluster), here, undone({"op": "remove", "path": path}))
    assert rule in reasons(removed)
    assert is_confidential(allowed(try_pod(developer(cluster), here, undone())))


def test_c15_later_webhook_that_adds(cluster: ControlPlane, namespace: Make, later: str) -> None:
    here = namespace("enforce", **{later: "true"})
    mount = {"name": "morphisms-secrets", "mountPath": "/stolen"}
    thief = {"name": "thief", "image": IMAGE, "volumeMounts": [mount]}

    def added(path: str, value: object) -> Object:
        operations = [{"op": "add", "path": path, "value": value}]
        consumers = {"morphisms.dev/containers": "app"}
        return make_pod(annotations=SECRET | consumers | {_UNDO: json.dumps(operations)})

    cases: list[tuple[str, object, str]] = [
        ("/spec/initContainers/-", thief, "isolation/foreign-mounts"),
        (
            "/spec/tolerations/-",
            {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"},
            "placement/reserved-nodes",
        ),
        ("/spec/containers/-", {"name": "other", "image": "dev.local/other"}, "images/digest"),
    ]
    for path, value, rule in cases:
        until(lambda path=path, value=value: try_pod(developer(cluster), here, added(path, value)).status == 403)  # type: ignore[misc]
        assert reasons(try_pod(developer(cluster), here, added(path, value))) == {rule}
    allowed(try_pod(developer(cluster), here, added("/spec/containers/-", {"name": "other", "image": IMAGE})))


def test_c15_mutating_policy(cluster: ControlPlane, namespace: Make) -> None:
    """It runs before webhooks and again after: what it takes away comes back, what it adds is judged."""
    here = namespace("enforce")
    kind = "mutatingadmissionpolicies"
    api = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": f"{here.name}.example.org"}}
    expression = (
        "!has(object.metadata.annotations) || !('example.org/do' in object.metadata.annotations) ? [] :"
        " object.metadata.annotations['example.org/do'] == 'undo' && has(object.spec.initContainers)"
        " ? [JSONPatch{op: 'remove', path: '/spec/initContainers'}, JSONPatch{op: 'remove', path: '/spec/affinity'}] :"
        " object.metadata.annotations['example.org/do'] == 'share'"
        " ? [JSONPatch{op: 'add', path: '/spec/shareProcessNamespace', value: true}] : []"
    )
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}
    policy = {
        "matchConstraints": {"resourceRules": [rule]},
        "failurePolicy": "Fail",
        "reinvocationPolicy": "IfNeeded",
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}],
    }
    selector = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": here.name}}}
    binding = {"policyName": f"{here.name}.example.org", "matchResources": selector}
    cluster.admin.create(f"{_REGISTRATION}/{kind}", {**api, "kind": "MutatingAdmissionPolicy", "spec": policy})
    cluster.admin.create(
        f"{_REGISTRATION}/mutatingadmissionpolicybindings",
        {**api, "kind": "MutatingAdmissionPolicyBinding", "spec": binding},
    )
    try:
        share = make_pod(annotations={"example.org/do": "share"})
        until(lambda: try_pod(developer(cluster), here, share).status == 403)
        assert reasons(try_pod(developer(cluster), here, share)) == {"isolation/process-namespace"}
        undo = make_pod(annotations=SECRET | {"example.org/do": "undo"})
        assert is_confidential(allowed(try_pod(developer(cluster), here, undo)))
        assert is_confidential(allowed(try_pod(developer(cluster), here, make_pod(annotations=SECRET))))
    finally:
        for each in (f"{kind}bindings".replace("policiesbindings", "policybindings"), kind):
            cluster.admin.delete(f"{_REGISTRATION}/{each}/{here.name}.example.org")


# Not being looked at.

_MANY = {f"example.org/note-{number}": "x" for number in range(200)}
# An annotation beside which a reference of any path opts in.
_BESIDE = {"morphisms.dev/agent": "init"}
_ASKS: dict[str, Object] = {
    "told to, among others": make_pod(
        annotations={f"a{n}": "x" for n in range(200)} | {"morphisms.dev/inject": "true"}
    ),
    "a name that is no name": make_pod(annotations={"morphisms.dev/secret-": "secret/shop/db"}),
    "an empty value": make_pod(annotations={"morphisms.dev/env-from": ""}),
    "after two thousand others": make_pod(
        annotations=_BESIDE,
        container={"command": ["a"], "env": [*({"name": f"V{n}", "value": "x"} for n in range(2000)), _REFERENCE]},
    ),
    "after variables without values": make_pod(
        annotations=_BESIDE,
        container={
            "command": ["a"],
            "env": [
                {"name": "EMPTY"},
                {"name": "FIELD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                _REFERENCE,
            ],
        },
    ),
    "in an init container": make_pod(
        annotations=_BESIDE, initContainers=[{"name": "first", "image": IMAGE, "command": ["a"], "env": [_REFERENCE]}]
    ),
    "inside other text": make_pod(
        annotations=_BESIDE,
        container={"command": ["a"], "env": [{"name": "URL", "value": "db://u:${vault:secret/shop/db#password}@db"}]},
    ),
    "given twice": make_pod(
        annotations=_BESIDE, container={"command": ["a"], "env": [_REFERENCE, {**_REFERENCE, "value": "plain"}]}
    ),
    "on a command line": make_pod(
        annotations=SECRET, container={"command": ["a", "--password=vault:secret/shop/db#password"]}
    ),
    "in a comma list of arguments": make_pod(
        annotations=SECRET, container={"args": ["-o", "user=x,pass=vault:secret/shop/db#password"]}
    ),
    "without a command": make_pod(annotations=_BESIDE, container={"env": [_REFERENCE]}),
    "our own spelling": make_pod(container={"command": ["a"], "env": [{"name": "P", "value": "vault:~/db#password"}]}),
    "our own spelling after two thousand others": make_pod(
        container={
            "env": [*({"name": f"V{n}", "value": "x"} for n in range(2000)), {"name": "P", "value": "vault:~/db#p"}]
        }
    ),
    "our own spelling inside other text": make_pod(
        container={"env": [{"name": "URL", "value": "db://u:${vault:~/db#password}@db"}]}
    ),
    "an inject that is neither": make_pod(annotations={"morphisms.dev/inject": "True"}),
}
_ASKS_NOT: dict[str, Object] = {
    "another case": make_pod(
        annotations={"Morphisms.dev/inject": "true"},
        container={"env": [{"name": "P", "value": "VAULT:secret/shop/db#password"}]},
    ),
    "a host's name": make_pod(
        container={"args": ["--address=vault:8200"], "env": [{"name": "A", "value": "http://vault:8200"}]}
    ),
    "opted out": make_pod(annotations={"morphisms.dev/inject": "false"} | SECRET),
    "nothing at all": make_pod(),
    "a bare reference": make_pod(container={"command": ["a"], "env": [_REFERENCE]}),
    "our own spelling as text": make_pod(
        annotations={"morphisms.dev/literal-env": "P"}, container={"env": [{"name": "P", "value": "vault:~/db#p"}]}
    ),
}


@pytest.mark.parametrize("mode", ["audit", "inject"])
def test_c43_shapes_that_the_conditions_might_not_see(cluster: ControlPlane, namespace: Make, mode: str) -> None:
    """Each pod that asks is injected or refused by a rule. In mode audit those that do not ask stay as they are."""
    here = namespace(mode)
    for what, pod in _ASKS.items():
        answer = try_pod(developer(cluster), here, pod)
        assert is_confidential(answer.body) if answer.status == 201 else reasons(answer), what
        without_name = {**pod, "metadata": {**pod["metadata"], "name": "", "generateName": "attack-"}}
        assert try_pod(developer(cluster), here, without_name).status == answer.status, what
    for what, pod in _ASKS_NOT.items():
        admitted = allowed(try_pod(developer(cluster), here, pod))
        assert is_confidential(admitted) is (mode == "inject" and what != "opted out"), what


def test_c43_pod_too_large_for_the_conditions(cluster: ControlPlane, namespace: Make) -> None:
    """Over a megabyte of arguments or values: the API server still finds the reference, or refuses the pod."""
    asks = {"name": "asks", "image": IMAGE, "command": ["a"], "env": [_REFERENCE]}
    texts = ["x" * 100_000] * 12
    large = {"name": "large", "image": IMAGE, "command": ["a"], "args": texts}
    wordy = {"name": "wordy", "image": IMAGE, "env": [{"name": f"V{n}", "value": text} for n, text in enumerate(texts)]}
    for mode in ("audit", "inject"):
        here = namespace(mode)
        for each in (large, wordy):
            answer = try_pod(developer(cluster), here, make_pod(annotations=_BESIDE, containers=[each, asks]))
            assert "cost limit exceeded" in answer.message or is_confidential(allowed(answer)), answer.message
    # Without a mode, and where everything is looked at, nothing has to be worked out.
    told = make_pod(annotations={"morphisms.dev/inject": "true"}, containers=[large, asks])
    for here in (namespace(), namespace("enforce")):
        assert is_confidential(allowed(try_pod(developer(cluster), here, told)))
