"""The registration in a real API server: who is asked about what, and what goes on while nobody answers.

In place of the webhook stands what an API server may meet there: a listener that notes what it is sent and allows it,
one that is broken, one that never answers, or nobody at all.
"""

from __future__ import annotations

import base64
import copy
import json
import ssl
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import binaries
from tests.cluster.asking import INJECTED, LOOK_LIKE_OPTING_IN, PODS, STATUS, make_pod
from tests.cluster.caught_up import wait_for_webhooks
from tests.cluster.client import MERGE_PATCH, Answer, Client, Object
from tests.cluster.controlplane import ControlPlane, control_plane
from tests.cluster.definitions import wait_until_established
from tests.cluster.nodes import add_node
from tests.cluster.pki import Authority
from tests.manifests.rendering import rendered
from tests.support.until import until
from webhook.configuration.model import Configuration
from webhook.decide import PATHS
from webhook.modes import Mode, mode_of_label
from webhook.pod.opt_in import requests_injection
from webhook.pod.pod import Pod

_NAMESPACES = "/api/v1/namespaces"
_DRY = {"dryRun": "All"}
_CALL_SECONDS = 30
_REGISTRATIONS = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
_NO_SERVICE_ACCOUNT = {"automountServiceAccountToken": False}


@dataclass
class Endpoint:
    """Where the API server turns to. `manner`: allow, broken or hang; `seen`: (path, operation, resource) so far.

    The paths are without their last segment, the mode, which is in `modes` instead.
    """

    port: int
    bundle: str
    manner: str = "allow"
    seen: list[tuple[str, str, str]] = field(default_factory=list)
    modes: set[str] = field(default_factory=set)
    released: threading.Event = field(default_factory=threading.Event)

    def take(self) -> list[tuple[str, str, str]]:
        """What was seen since the last time."""
        seen, self.seen = self.seen, []
        self.modes.clear()
        return seen

    def asked(self) -> list[tuple[str, str, str]]:
        """As `take`, each once: the API server does a patch over when it had looked at an old version."""
        return list(dict.fromkeys(self.take()))


def _handler(endpoint: Endpoint) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["request"]
            resource = review["resource"]["resource"] + "/" + review.get("subResource", "")
            path = PATHS[self.path.partition("?")[0]]
            if path.mode is not None:
                endpoint.modes.add(path.mode.path_segment)
            endpoint.seen.append((path.family, review["operation"], resource.rstrip("/")))
            if endpoint.manner == "hang":
                endpoint.released.wait(600)
            answer = {
                "apiVersion": "admission.k8s.io/v1",
                "kind": "AdmissionReview",
                "response": {"uid": review["uid"], "allowed": True},
            }
            body = json.dumps(answer).encode() if endpoint.manner == "allow" else b"broken"
            self.send_response(200 if endpoint.manner == "allow" else 500)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    """It listens; what it does is up to its `manner`."""
    with tempfile.TemporaryDirectory() as folder:
        authority = Authority(Path(folder) / "pki")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*authority.server("endpoint"))
        bundle = base64.b64encode(authority.certificate.read_bytes()).decode()
        endpoint = Endpoint(0, bundle)
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(endpoint))
        server.daemon_threads = True
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        endpoint.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield endpoint
        endpoint.released.set()
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def registered(_programs: None, endpoint: Endpoint) -> Iterator[ControlPlane]:
    """A control plane of its own with the registration alone, and one node."""
    with control_plane("registration") as cluster:
        try:
            add_node(cluster.admin, "plain-0")
            definition = binaries.KNATIVE.folder / "serving" / "config" / "core" / "300-resources" / "service.yaml"
            cluster.kubectl("apply", "--server-side", "-f", definition)
            wait_until_established(cluster.admin)
            cluster.kubectl("apply", "--server-side", "-f", "-", input=_registrations(endpoint))
            wait_for_webhooks(cluster.admin)
            _wait_until_asked(cluster, endpoint)
            yield cluster
        finally:
            endpoint.released.set()


def _registrations(endpoint: Endpoint) -> list[Object]:
    """Ours, but for the address, and that an answer is waited for as long as may be: a busy machine may be late."""
    found = [copy.deepcopy(each) for each in rendered("install.yaml") if each["kind"] in _REGISTRATIONS]
    for item in found:
        for webhook in item["webhooks"]:
            path = webhook["clientConfig"]["service"]["path"]
            address = f"https://127.0.0.1:{endpoint.port}{path}"
            webhook["clientConfig"] = {"url": address, "caBundle": endpoint.bundle}
            webhook["timeoutSeconds"] = _CALL_SECONDS
    return found


def _wait_until_asked(cluster: ControlPlane, endpoint: Endpoint) -> None:
    """The API server takes a registration up some time after it was written, and tells nobody."""
    namespace = _namespace(cluster, "enforce")
    deadline = time.monotonic() + 180
    while {"/mutate/pod", "/validate/pod"} - {path for path, *_ in endpoint.take()}:
        _create(cluster.admin, f"{_NAMESPACES}/{namespace}/pods", make_pod())
        assert time.monotonic() < deadline, "the webhook is not asked"


@pytest.fixture(autouse=True)
def _allowing(endpoint: Endpoint) -> Iterator[None]:
    endpoint.take()
    yield
    endpoint.manner = "allow"


@pytest.fixture
def away(registered: ControlPlane, endpoint: Endpoint) -> Iterator[Callable[[str], None]]:
    """`away(manner)`: from now on the endpoint is broken, hangs, or is not there at all."""

    def go(manner: str) -> None:
        if manner == "absent":
            _point(registered, 1)
        if manner == "hang":
            _point(registered, endpoint.port, hurried=True)
        endpoint.manner = manner

    yield go
    endpoint.released.set()
    endpoint.released = threading.Event()
    endpoint.manner = "allow"
    _point(registered, endpoint.port)
    _wait_until_asked(registered, endpoint)


def _point(cluster: ControlPlane, port: int, *, hurried: bool = False) -> None:
    """Change the registrations' port; `hurried`: the API server waits no longer for an answer than ours say."""
    ours = {each["kind"]: each for each in rendered("install.yaml") if each["kind"] in _REGISTRATIONS}
    for kind in _REGISTRATIONS:
        path = f"/apis/admissionregistration.k8s.io/v1/{kind.lower()}s/morphisms"
        seconds = {each["name"]: each["timeoutSeconds"] for each in ours[kind]["webhooks"]}
        item = cluster.admin.get(path)
        for webhook in item["webhooks"]:
            address = webhook["clientConfig"]["url"]
            webhook["clientConfig"]["url"] = f"https://127.0.0.1:{port}/{address.split('/', 3)[3]}"
            webhook["timeoutSeconds"] = seconds[webhook["name"]] if hurried else _CALL_SECONDS
        cluster.admin.replace(path, item)
    wait_for_webhooks(cluster.admin)


def _create(client: Client, path: str, item: Object) -> Answer:
    return client.request("POST", path, item, query=_DRY)


def _namespace(cluster: ControlPlane, mode: str | None) -> str:
    name = f"test-{uuid.uuid4().hex[:8]}"
    labels = {"morphisms.dev/mode": mode} if mode is not None else {}
    metadata = {"name": name, "labels": labels}
    cluster.admin.create(_NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    cluster.admin.until(f"{_NAMESPACES}/{name}/serviceaccounts", bool)
    return name


def _failed(answer: Answer) -> bool:
    """Whether it failed because our webhook did not answer; any other failure is a mistake of the test."""
    if answer.status < 400:
        return False
    assert "failed calling webhook" in answer.message, answer
    assert "morphisms.dev" in answer.message, answer
    return True


def _wait_until_away(cluster: ControlPlane) -> None:
    path = f"{_NAMESPACES}/{_namespace(cluster, 'enforce')}/pods"
    until(lambda: _failed(_create(cluster.admin, path, make_pod())))


# Pods that are asked about.


@pytest.mark.parametrize("mode", [None, "mistyped", "audit", "inject", "enforce"])
def test_who_is_asked_about_a_new_pod(registered: ControlPlane, endpoint: Endpoint, mode: str | None) -> None:
    path = f"{_NAMESPACES}/{_namespace(registered, mode)}/pods"
    endpoint.take()
    for name, pod in PODS.items():
        own = {key: text for key, text in pod["metadata"]["annotations"].items() if key.startswith("morphisms.dev/")}
        told = own.get("morphisms.dev/inject", "false") != "false"
        expected = [("/mutate/pod", "CREATE", "pods"), ("/validate/pod", "CREATE", "pods")]
        assert _create(registered.admin, path, pod).status == 201, name
        # Once each: the entries for pods that ask and for others exclude each other.
        # Where a namespace has no mode, annotations that do nothing are warned of.
        warned = expected[1:] if own else []
        assert endpoint.modes <= {mode_of_label(mode).path_segment}, name
        assert endpoint.take() == (expected if mode is not None or told else warned), name


@pytest.mark.parametrize("mode", [None, "mistyped", "audit", "inject", "enforce"])
def test_pods_that_ask_wait_and_others_go_on_while_nobody_is_there(
    registered: ControlPlane, away: Callable[[str], None], mode: str | None
) -> None:
    namespace = _namespace(registered, mode)
    away("absent")
    _wait_until_away(registered)
    for name, pod in (PODS | {"injected": make_pod(STATUS, init=[INJECTED])}).items():
        waits = mode_of_label(mode) is Mode.ENFORCE or requests_injection(
            Pod(pod, namespace, Configuration()), mode_of_label(mode)
        )
        # The conditions read neither literal-env nor the whole grammar: they may call too often, never too seldom.
        waits = waits or (name in LOOK_LIKE_OPTING_IN and mode in ("audit", "inject"))
        assert _failed(_create(registered.admin, f"{_NAMESPACES}/{namespace}/pods", pod)) is waits, name


def test_the_path_says_the_label_of_the_moment(registered: ControlPlane, endpoint: Endpoint) -> None:
    """One namespace, relabelled: a replica need not have heard of it, and never judges by an old, milder mode."""
    namespace = _namespace(registered, None)
    path = f"{_NAMESPACES}/{namespace}"
    pod = make_pod({"morphisms.dev/inject": "true"})
    for mode in (None, "audit", "mistyped", "inject", "enforce", "", None):
        labels = {"metadata": {"labels": {"morphisms.dev/mode": mode}}}
        registered.admin.patch(path, labels)
        endpoint.take()
        wanted = {mode_of_label(mode).path_segment}
        # The API server's own view of its namespaces lags by an instant.
        deadline = time.monotonic() + 180
        while True:
            assert _create(registered.admin, f"{path}/pods", pod).status == 201
            modes = set(endpoint.modes)
            endpoint.take()
            if modes == wanted:
                break
            assert time.monotonic() < deadline, (mode, modes)


def test_a_pod_of_very_many_variables_waits_rather_than_being_looked_through(
    registered: ControlPlane, away: Callable[[str], None]
) -> None:
    """Looking through 30,000 of them was measured to keep the API server busy for 26 s."""
    pods = {count: make_pod(env=[{"name": f"V{n}", "value": "x"} for n in range(count)]) for count in (1000, 1001)}
    paths = {mode: f"{_NAMESPACES}/{_namespace(registered, mode)}/pods" for mode in (None, "audit", "inject")}
    away("absent")
    _wait_until_away(registered)
    for mode, path in paths.items():
        assert not _failed(_create(registered.admin, path, pods[1000])), mode
        assert _failed(_create(registered.admin, path, pods[1001])) is (mode is not None), mode


# Updates.


def _running(
    cluster: ControlPlane,
    mode: str | None,
    annotations: dict[str, str] | None = None,
    scheduler: str = "nobody",
) -> str:
    namespace = _namespace(cluster, mode)
    pod = make_pod(annotations, more=_NO_SERVICE_ACCOUNT | {"schedulerName": scheduler})
    pod["metadata"] |= {"name": "app", "labels": {"serving.knative.dev/service": "payments"}}
    cluster.admin.create(f"{_NAMESPACES}/{namespace}/pods", pod)
    return f"{_NAMESPACES}/{namespace}/pods/app"


_UPDATED = [("/validate/pod", "UPDATE", "pods")]
_STATUS_UPDATED = [("/validate/pod", "UPDATE", "pods/status")]
_INITDATA = "io.katacontainers.config.hypervisor.cc_init_data"


@pytest.mark.parametrize(
    ("subresource", "body", "expected"),
    [
        ("", {"metadata": {"finalizers": ["example.org/x"]}}, []),
        ("", {"metadata": {"labels": {"team": "shop"}, "annotations": {"note": "x"}}}, []),
        ("/status", {"status": {"phase": "Running", "message": "x"}}, []),
        ("/status", {"metadata": {"annotations": {"morphisms.dev/status": "x"}}}, _STATUS_UPDATED),
        ("", {"metadata": {"annotations": {"morphisms.dev/inject": "false"}}}, _UPDATED),
        ("", {"metadata": {"annotations": {"morphisms.dev/secret-db": None}}}, _UPDATED),
        ("", {"metadata": {"annotations": {_INITDATA: "x"}}}, _UPDATED),
        ("", {"metadata": {"annotations": {"cdi.k8s.io/gpu": "x"}}}, _UPDATED),
        ("", {"metadata": {"annotations": {"devices.nri.io/pod": "x", "note": "x"}}}, _UPDATED),
        ("", {"metadata": {"labels": {"serving.knative.dev/service": "other"}}}, _UPDATED),
        ("", {"metadata": {"labels": {"serving.knative.dev/service": None}}}, _UPDATED),
        ("", {"spec": {"activeDeadlineSeconds": 60}}, _UPDATED),
        (
            "/ephemeralcontainers",
            {"spec": {"ephemeralContainers": [{"name": "debug", "image": "i", "terminationMessagePolicy": "File"}]}},
            [("/validate/pod", "UPDATE", "pods/ephemeralcontainers")],
        ),
    ],
    ids=str,
)
def test_what_changes_a_pod_is_asked_about_and_nothing_else(
    registered: ControlPlane, endpoint: Endpoint, subresource: str, body: Object, expected: list[Any]
) -> None:
    for mode in ("audit", "inject", "enforce"):
        path = _running(registered, mode, {"morphisms.dev/secret-db": "secret/shop/db"})
        endpoint.take()
        content = "application/strategic-merge-patch+json"
        registered.admin.patch(path + subresource, body, content)
        assert endpoint.asked() == expected, mode
    path = _running(registered, None)
    endpoint.take()
    registered.admin.patch(path + subresource, body, content)
    assert endpoint.asked() == []


def test_a_pod_is_deleted_without_us(registered: ControlPlane, endpoint: Endpoint, away: Callable[[str], None]) -> None:
    path = _running(registered, "enforce")
    registered.admin.patch(path, {"metadata": {"finalizers": ["example.org/x"]}})
    away("absent")
    _wait_until_away(registered)
    registered.admin.request("DELETE", path, query={"gracePeriodSeconds": "0"})
    registered.admin.patch(path, {"metadata": {"finalizers": None}})
    assert registered.admin.request("GET", path).status == 404


@pytest.mark.parametrize(("mode", "asked"), [(None, False), ("audit", True), ("inject", True), ("enforce", True)])
def test_bindings_and_connections(registered: ControlPlane, endpoint: Endpoint, mode: str | None, asked: bool) -> None:
    path = _running(registered, mode, scheduler="default-scheduler")
    namespace = path.rpartition("/pods/")[0]
    registered.admin.until(f"{namespace}/pods", lambda pods: pods[0]["spec"].get("nodeName") if pods else None)
    assert endpoint.modes == ({mode} if asked else set())
    seen = endpoint.take()
    assert (("/validate/binding", "CREATE", "pods/binding") in seen) is asked
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": "app"},
        "target": {"kind": "Node", "name": "plain-0"},
    }
    registered.admin.request("POST", f"{namespace}/bindings", binding)
    assert endpoint.asked() == ([("/validate/binding", "CREATE", "bindings")] if asked else [])
    for verb in ("exec", "attach", "portforward"):
        registered.admin.request("POST", f"{path}/{verb}", query={"command": "x", "stdout": "true", "ports": "80"})
        assert endpoint.asked() == ([("/validate/connect", "CONNECT", f"pods/{verb}")] if asked else []), verb


def test_a_namespace_is_asked_about_when_its_mode_changes(registered: ControlPlane, endpoint: Endpoint) -> None:
    name = _namespace(registered, None)
    endpoint.take()
    path = f"{_NAMESPACES}/{name}"
    for labels, asked in (
        ({"team": "shop"}, False),
        ({"morphisms.dev/mode": "audit"}, True),
        ({"team": "other"}, False),
        ({"morphisms.dev/mode": "mistyped"}, True),
        ({"morphisms.dev/mode": None}, True),
    ):
        registered.admin.patch(path, {"metadata": {"labels": labels}})
        assert endpoint.asked() == ([("/validate/namespace", "UPDATE", "namespaces")] if asked else []), labels


# Knative Services.


def _service(own: dict[str, str] | None = None, template: dict[str, str] | None = None, value: str = "x") -> Object:
    container = {"image": "registry.example/app", "env": [{"name": "A", "value": value}]}
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": f"test-{uuid.uuid4().hex[:8]}", "annotations": own or {}},
        "spec": {"template": {"metadata": {"annotations": template or {}}, "spec": {"containers": [container]}}},
    }


_SECRET = {"morphisms.dev/secret-db": "secret/shop/db"}
_TOLD = {"morphisms.dev/inject": "true"}


@pytest.mark.parametrize(
    ("mode", "service", "paths"),
    [
        (None, _service(), []),
        (None, _service(_TOLD), ["/mutate/service", "/validate/service"]),
        (None, _service(_SECRET), ["/mutate/service", "/validate/service"]),
        (None, _service(template=_TOLD), ["/validate/service"]),
        (None, _service(value="vault:secret/shop/db#password"), ["/validate/service"]),
        ("audit", _service(), ["/validate/service"]),
        ("inject", _service({"morphisms.dev/profile": "x"}), ["/mutate/service", "/validate/service"]),
        ("enforce", _service({"morphisms.dev/status": "x"}), ["/validate/service"]),
        ("enforce", _service(_SECRET), ["/mutate/service", "/validate/service"]),
    ],
)
def test_who_is_asked_about_a_service(
    registered: ControlPlane, endpoint: Endpoint, mode: str | None, service: Object, paths: list[str]
) -> None:
    collection = f"/apis/serving.knative.dev/v1/namespaces/{_namespace(registered, mode)}/services"
    path = f"{collection}/{service['metadata']['name']}"
    endpoint.take()
    registered.admin.create(collection, service)
    assert endpoint.modes <= {mode_of_label(mode).path_segment}
    assert endpoint.asked() == [(each, "CREATE", "services") for each in paths]
    registered.admin.patch(f"{path}/status", {"status": {"observedGeneration": 1}})
    registered.admin.patch(path, {"metadata": {"finalizers": ["example.org/x"], "labels": {"team": "shop"}}})
    assert endpoint.asked() == []
    registered.admin.patch(path, {"spec": {"template": {"spec": {"timeoutSeconds": 60}}}})
    assert endpoint.asked() == [(each, "UPDATE", "services") for each in paths]


@pytest.mark.parametrize(
    ("mode", "own", "waits"),
    [
        (None, {}, False),
        (None, _SECRET, False),
        (None, _TOLD, True),
        ("audit", _SECRET, True),
        ("audit", {}, False),
        ("inject", _SECRET, True),
        ("inject", {"morphisms.dev/profile": "x"}, False),
        ("inject", {**_SECRET, "morphisms.dev/inject": "false"}, False),
        ("enforce", {}, True),
    ],
)
def test_a_service_that_asks_waits_too(
    registered: ControlPlane, away: Callable[[str], None], mode: str | None, own: dict[str, str], waits: bool
) -> None:
    collection = f"/apis/serving.knative.dev/v1/namespaces/{_namespace(registered, mode)}/services"
    away("absent")
    _wait_until_away(registered)
    assert _failed(_create(registered.admin, collection, _service(own))) is waits


# The cluster without us.


@pytest.mark.parametrize("manner", ["absent", "broken", "hang"])
def test_the_cluster_starts_without_an_answer_of_ours(
    registered: ControlPlane, away: Callable[[str], None], manner: str
) -> None:
    """Control plane restarted; its own pods, ours, and those of namespaces that do not enforce come up."""
    system = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "morphisms-system"}}
    registered.admin.apply(system)
    quiet, audited = _namespace(registered, None), _namespace(registered, "audit")
    away(manner)
    for name in ("kube-scheduler", "kube-controller-manager", "kube-apiserver"):
        registered.processes[name].stop()
    for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler"):
        registered.processes[name].start()
    for namespace in ("kube-system", "morphisms-system", quiet, audited):
        name = f"after-{uuid.uuid4().hex[:8]}"
        deployment = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name},
            "spec": {
                "selector": {"matchLabels": {"app": name}},
                "template": {"metadata": {"labels": {"app": name}}, "spec": make_pod(more=_NO_SERVICE_ACCOUNT)["spec"]},
            },
        }
        registered.admin.create(f"/apis/apps/v1/namespaces/{namespace}/deployments", deployment)
        bound = registered.admin.until(
            f"{_NAMESPACES}/{namespace}/pods",
            lambda pods: next((pod for pod in pods if pod["spec"].get("nodeName")), None),
            seconds=60,
            labelSelector=f"app={name}",
        )
        assert bound["spec"]["nodeName"] == "plain-0"
    registered.admin.patch("/api/v1/nodes/plain-0", {"metadata": {"labels": {"seen": manner}}}, MERGE_PATCH)
    # And nobody gets in meanwhile.
    assert _failed(_create(registered.admin, f"{_NAMESPACES}/{audited}/pods", make_pod(_SECRET)))


# What the conditions cost the API server.

_LIMIT_PARTS = 4
_MEGABYTE = 1_000_000


def _large(variables: int, length: int, annotations: dict[str, str] | None = None) -> Object:
    """A pod with a megabyte of arguments and so many variables of that length, none of which is a reference."""
    pod = make_pod(annotations, args=["x" * 1000] * (_MEGABYTE // 1000), more=_NO_SERVICE_ACCOUNT)
    pod["spec"]["containers"][0]["env"] = [{"name": f"V{n}", "value": "x" * length} for n in range(variables)]
    return pod


_OURS = {"morphisms.dev/profile": "kata-snp"}
_LARGE: dict[str, Object] = {
    "2,000 variables, 1 MB of arguments": _large(2000, 20),
    "2,000 variables beside an annotation of ours": _large(2000, 20, _OURS),
    "as many variables as are read": _large(1000, 262, _OURS),
    "one variable of as many bytes as are read": _large(1, 262_144, _OURS),
    "one variable of 1 MB": make_pod(_OURS, env=[{"name": "A", "value": "x" * _MEGABYTE}], more=_NO_SERVICE_ACCOUNT),
    "1 MB in variables": make_pod(
        _OURS, env=[{"name": f"V{n}", "value": "x" * 1000} for n in range(1000)], more=_NO_SERVICE_ACCOUNT
    ),
    "500 annotations": _large(1000, 20, {f"example.org/{n}": "x" * 200 for n in range(500)}),
    "10,000 annotations": _large(0, 0, {f"example.org/{n}": "x" for n in range(10_000)}),
    "100,000 arguments": make_pod(args=["x" * 10] * 100_000, more=_NO_SERVICE_ACCOUNT),
}


def _annotations(number: int) -> dict[str, str]:
    return {f"example.org/{n}": "x" for n in range(number)}


def _too_costly(cluster: ControlPlane, services: str, pod: Object, own: dict[str, str]) -> str:
    """What the API server says of the cost of a Service with this pod's containers; empty where it is none."""
    service = _service(own)
    service["spec"]["template"]["spec"]["containers"] = pod["spec"]["containers"]
    answer = _create(cluster.admin, services, service)
    return answer.message if "cost" in answer.message else ""


@pytest.fixture
def multiplied(registered: ControlPlane, endpoint: Endpoint) -> Iterator[Callable[[int], str]]:
    """`multiplied(n)`: a namespace for whose pods each condition of every entry is evaluated n times, and must be."""
    path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
    made = []

    def make(times: int) -> str:
        name = f"times-{times}"
        namespace = _namespace(registered, None)
        entries = [
            {
                **{key: value for key, value in webhook.items() if key != "reinvocationPolicy"},
                "name": f"{'mutate' if item['kind'].startswith('M') else 'validate'}.{webhook['name']}",
                "failurePolicy": "Fail",
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "matchConditions": [
                    {"name": each["name"], "expression": _repeated(each["expression"], times)}
                    for each in webhook["matchConditions"]
                ],
            }
            for item in _registrations(endpoint)
            for webhook in item["webhooks"]
            if webhook["name"].partition(".")[0].endswith(("-pod", "-service")) and webhook.get("matchConditions")
        ]
        kind = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration"}
        registered.admin.create(path, {**kind, "metadata": {"name": name}, "webhooks": entries})
        made.append(name)
        # In force as soon as a pod that opts in is asked about by the entries for each.
        deadline = time.monotonic() + 180
        endpoint.take()
        while len(endpoint.take()) < 3:
            _create(registered.admin, f"{_NAMESPACES}/{namespace}/pods", make_pod({"morphisms.dev/inject": "true"}))
            assert time.monotonic() < deadline
        return namespace

    yield make
    for name in made:
        registered.admin.delete(f"{path}/{name}")


def _repeated(expression: str, times: int) -> str:
    """The condition's value, after it was evaluated so often: the API server adds up what that costs."""
    return f"[{list(range(times))}.map(each, {expression})].exists(values, values[0])"


def test_a_large_pod_costs_less_than_a_quarter_of_what_the_api_server_grants(
    registered: ControlPlane, multiplied: Callable[[int], str]
) -> None:
    """Each condition, and all of an entry together, four times: an error of any would refuse the pod."""
    namespace = multiplied(_LIMIT_PARTS)
    for name, pod in _LARGE.items():
        answer = _create(registered.admin, f"{_NAMESPACES}/{namespace}/pods", pod)
        problem = answer.message if "cost" in answer.message else ""
        assert not problem, f"{name}: {problem}"
    services = f"/apis/serving.knative.dev/v1/namespaces/{namespace}/services"
    for name, pod in _LARGE.items():
        # As many annotations as are read, with which the template is read too; of more, only the number is.
        for own in ({}, _OURS, {**_annotations(499), **_OURS}):
            problem = _too_costly(registered, services, pod, own)
            assert not problem, f"{name}: {problem}"
    problem = _too_costly(registered, services, _LARGE["as many variables as are read"], _annotations(10_000))
    assert not problem, f"10,000 annotations of a Service: {problem}"
    # And what would be too much is seen as such.
    namespace = multiplied(100)
    answer = _create(registered.admin, f"{_NAMESPACES}/{namespace}/pods", _LARGE["as many variables as are read"])
    assert "cost limit exceeded" in answer.message


def test_an_update_of_a_large_pod_costs_less_than_a_quarter_too(
    registered: ControlPlane, multiplied: Callable[[int], str]
) -> None:
    namespace = multiplied(_LIMIT_PARTS)
    pod = make_pod({f"example.org/{n}": "x" for n in range(400)}, more=_NO_SERVICE_ACCOUNT)
    pod["spec"]["containers"][0]["env"] = [{"name": f"V{n}", "value": "x" * 200} for n in range(1000)]
    pod["metadata"] |= {"name": "app", "finalizers": ["example.org/x"]}
    path = f"{_NAMESPACES}/{namespace}/pods"
    created = registered.admin.request("POST", path, pod)
    assert created.status == 201, created.message
    changed = {"metadata": {"annotations": {f"example.net/{n}": "y" * 40 for n in range(150)}, "finalizers": None}}
    answer = registered.admin.request("PATCH", f"{path}/app", changed, content_type=MERGE_PATCH)
    assert answer.status == 200, answer.message


@pytest.mark.parametrize("mode", [None, "audit", "inject", "enforce"])
def test_a_pod_too_large_to_tell_is_for_the_entry_that_fails_closed(
    registered: ControlPlane, endpoint: Endpoint, away: Callable[[str], None], mode: str | None
) -> None:
    """Its conditions are no error, so the webhook decides; and without the webhook it waits, in labelled namespaces."""
    path = f"{_NAMESPACES}/{_namespace(registered, mode)}/pods"
    large = {name: _LARGE[name] for name in ("one variable of 1 MB", "1 MB in variables")}
    large["2,000 variables"] = _large(2000, 20)
    large["annotations"] = _LARGE["10,000 annotations"]
    large["containers"] = make_pod(more=_NO_SERVICE_ACCOUNT)
    large["containers"]["spec"]["containers"] = [{"name": f"c{n}", "image": "i"} for n in range(300)]
    for name, pod in large.items():
        endpoint.take()
        answer = _create(registered.admin, path, pod)
        # Some are refused by the API server's own validation, after the mutating entries were called.
        assert "cost" not in answer.message, (name, answer.message)
        if mode is not None:
            assert ("/mutate/pod", "CREATE", "pods") in endpoint.take(), name
    away("absent")
    _wait_until_away(registered)
    for name, pod in large.items():
        answer = _create(registered.admin, path, pod)
        if mode is not None:
            assert "failed calling webhook" in answer.message, name
            assert "-asks." in answer.message or mode == "enforce", name
        else:
            assert "failed calling webhook" not in answer.message, name


def test_a_condition_that_cannot_be_evaluated_refuses_where_failures_do_and_skips_where_they_are_ignored(
    registered: ControlPlane, endpoint: Endpoint
) -> None:
    """The API server's own rule, on which the two entries of a mode rest."""
    path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
    namespaces = {policy: _namespace(registered, None) for policy in ("Fail", "Ignore")}
    entries = [
        {
            **_registrations(endpoint)[1]["webhooks"][0],
            "name": f"{policy.lower()}.morphisms.dev",
            "failurePolicy": policy,
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            "matchConditions": [{"name": "error", "expression": "object.spec.containers[9].name == 'x'"}],
        }
        for policy, namespace in namespaces.items()
    ]
    kind = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration"}
    registered.admin.create(path, {**kind, "metadata": {"name": "unevaluable"}, "webhooks": entries})
    try:
        deadline = time.monotonic() + 180
        while (
            refused := _create(registered.admin, f"{_NAMESPACES}/{namespaces['Fail']}/pods", make_pod())
        ).status == 201:
            assert time.monotonic() < deadline
        assert (refused.status, "resulted in error" in refused.message) == (403, True)
        endpoint.take()
        assert _create(registered.admin, f"{_NAMESPACES}/{namespaces['Ignore']}/pods", make_pod()).status == 201
        assert endpoint.take() == []
    finally:
        registered.admin.delete(f"{path}/unevaluable")
