"""What authors write, on a kubelet: templates, env-from, several containers, scaling, traffic, other workloads.

Evidence is simulated, and the runtime class is plain runc.
"""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.cluster.client import Object
from tests.cluster.conditions import holds
from tests.node.services import RESTRICTED, RESTRICTED_NAMESPACE, digest, service
from tests.node.stack import Stack
from tests.support.until import until

pytestmark = [pytest.mark.node, pytest.mark.slow]

NAMESPACE = "story"
_OF_ROOT = "story-of-root"
_HOME = f"knative/cluster/{NAMESPACE}"
_PATIENCE_SECONDS = 600.0
_PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"


@pytest.fixture(scope="module")
def story(stack: Stack) -> Stack:
    """A namespace in inject, whose pods may be restricted ones only."""
    stack.namespace(NAMESPACE, {"morphisms.dev/mode": "inject", **RESTRICTED_NAMESPACE})
    return stack


def test_a_template_and_every_key_of_a_secret(story: Stack) -> None:
    story.morphisms.write_secret(f"{_HOME}/everything/db", user="ada", password="of <everything>")
    story.morphisms.write_secret(f"{_HOME}/everything/settings", FIRST="one", SECOND="two & three")
    annotations = {
        "morphisms.dev/secret-dsn": "~/db",
        "morphisms.dev/template-dsn": "postgres://{{{user}}}:{{{password}}}@db",
        "morphisms.dev/env-from": "~/settings",
    }
    env = {"FILES": "/morphisms/secrets/dsn", "VARIABLES": "FIRST,SECOND"}
    place = f"{NAMESPACE}/everything"
    story.apply(service(story.application.pinned, place, annotations, command=["/application"], env=env))
    story.ready_pod(NAMESPACE, "everything", seconds=_PATIENCE_SECONDS)
    answer = story.request(NAMESPACE, "everything-00001")
    assert answer.status == 200, answer.body
    assert answer.content["files"] == {"/morphisms/secrets/dsn": digest("postgres://ada:of <everything>@db")}
    assert answer.content["variables"] == {"FIRST": digest("one"), "SECOND": digest("two & three")}


def test_an_image_without_a_user_reads_its_secrets_as_root(stack: Stack) -> None:
    """In a namespace that lets pods run as root, unlike the others here."""
    stack.namespace(_OF_ROOT, {"morphisms.dev/mode": "inject"})
    stack.morphisms.write_secret(f"knative/cluster/{_OF_ROOT}/userless/db", password="of root")
    made = service(
        stack.userless.pinned,
        f"{_OF_ROOT}/userless",
        {"morphisms.dev/secret-db": "~/db#password"},
        command=["/application"],
        env={"FILES": "/morphisms/secrets/db", "A": "vault:~/db#password", "VARIABLES": "A"},
        securityContext={key: value for key, value in RESTRICTED.items() if key != "runAsNonRoot"},
    )
    stack.apply(made)
    pod = stack.ready_pod(_OF_ROOT, "userless", seconds=_PATIENCE_SECONDS)
    answer = stack.ask(pod)
    assert answer["user"] == 0
    assert (answer["files"], answer["variables"]) == (
        {"/morphisms/secrets/db": digest("of root")},
        {"A": digest("of root")},
    )


def test_of_several_containers_each_gets_what_it_names(story: Stack) -> None:
    story.morphisms.write_secret(f"{_HOME}/several/db", password="of several")
    place = f"{NAMESPACE}/several"
    made = service(
        story.application.pinned,
        place,
        {"morphisms.dev/secret-db": "~/db#password"},
        env={"FILES": "/morphisms/secrets/db", "VARIABLES": "KEY"},
        name="web",
        ports=[{"containerPort": 8080}],
    )
    made["spec"]["template"]["spec"]["containers"] += [
        _beside(story, "helper", 7070, command=["/application"], KEY="vault:~/db#password", VARIABLES="KEY"),
        _beside(story, "idle", 7071, VARIABLES="KEY"),
    ]
    story.apply(made)
    pod = story.ready_pod(NAMESPACE, "several", seconds=_PATIENCE_SECONDS)
    web = story.request(NAMESPACE, "several-00001").content
    assert (web["files"], web["variables"]) == ({"/morphisms/secrets/db": digest("of several")}, {"KEY": "unset"})
    assert story.ask(pod, 7070)["variables"] == {"KEY": digest("of several")}
    assert story.ask(pod, 7071)["variables"] == {"KEY": "unset"}
    (idle,) = [each for each in pod["spec"]["containers"] if each["name"] == "idle"]
    assert not [mount for mount in idle.get("volumeMounts", ()) if mount["name"].startswith("morphisms-")]


def test_it_scales_from_zero_to_ten_and_back_and_leaves_no_token(story: Stack) -> None:
    story.morphisms.write_secret(f"{_HOME}/scaled/db", password="of scaled")
    annotations = {
        "morphisms.dev/secret-db": "~/db#password",
        "autoscaling.knative.dev/initial-scale": "0",
        "autoscaling.knative.dev/max-scale": "10",
    }
    place = f"{NAMESPACE}/scaled"
    made = service(
        story.application.pinned,
        place,
        annotations,
        env={"FILES": "/morphisms/secrets/db"},
        pod={"containerConcurrency": 1},
    )
    story.apply(made)
    _revision_exists(story, "scaled-00001")
    assert story.pods(NAMESPACE, "scaled") == []
    first = story.request(NAMESPACE, "scaled-00001", seconds=_PATIENCE_SECONDS)
    assert (first.status, first.content["files"]) == (200, {"/morphisms/secrets/db": digest("of scaled")})
    ten = threading.Event()
    with ThreadPoolExecutor(14) as pool:
        asking = [pool.submit(_keep_asking, story, ten) for _ in range(14)]
        try:
            label = "serving.knative.dev/service=scaled"
            story.admin.until(_PODS, lambda pods: _ready(pods) >= 10, seconds=_PATIENCE_SECONDS, labelSelector=label)
        finally:
            ten.set()
        answers = [answer for each in asking for answer in each.result()]
    assert {(status, seen) for status, seen in answers} == {(200, digest("of scaled"))}
    story.gone(NAMESPACE, "scaled", seconds=_PATIENCE_SECONDS)
    assert story.tokens(NAMESPACE, "scaled") == 0


def test_revisions_beside_each_other_keep_the_version_that_they_name(story: Stack) -> None:
    """A split of the traffic, and the way back to the older one."""
    place, path = f"{NAMESPACE}/split", f"{_HOME}/split/db"
    story.morphisms.write_secret(path, password="older")
    env = {"FILES": "/morphisms/secrets/db"}
    image = story.application.pinned
    story.apply(service(image, place, {"morphisms.dev/secret-db": "~/db#password@1"}, env=env))
    story.ready_pod(NAMESPACE, "split", seconds=_PATIENCE_SECONDS)
    story.morphisms.write_secret(path, password="newer")
    newer = service(image, place, {"morphisms.dev/secret-db": "~/db#password@2"}, env=env)
    newer["spec"]["traffic"] = [
        {"revisionName": "split-00001", "percent": 50},
        {"latestRevision": True, "percent": 50},
    ]
    story.apply(newer)
    _revision_exists(story, "split-00002")
    seen = [_file(story, revision) for revision in ("split-00001", "split-00002")]
    assert seen == [digest("older"), digest("newer")]
    newer["spec"]["traffic"] = [{"revisionName": "split-00001", "percent": 100}]
    story.apply(newer)
    story.gone(NAMESPACE, "split", seconds=_PATIENCE_SECONDS)
    assert _file(story, "split-00001") == digest("older")


@pytest.fixture(scope="module")
def rotated(story: Stack) -> Object:
    """The one pod of a Service whose application is told of each change by a signal."""
    story.morphisms.write_secret(f"{_HOME}/rotated/db", password="first")
    annotations = {
        "morphisms.dev/secret-db": "~/db#password",
        "morphisms.dev/agent": "sidecar",
        "morphisms.dev/on-change": "signal:SIGHUP:application",
        "autoscaling.knative.dev/min-scale": "1",
    }
    made = service(
        story.application.pinned,
        f"{NAMESPACE}/rotated",
        annotations,
        env={"FILES": "/morphisms/secrets/db"},
        pod={"shareProcessNamespace": True},
    )
    made["spec"]["template"]["spec"]["containers"][0]["securityContext"] = {**RESTRICTED, "runAsUser": 65532}
    story.apply(made)
    return story.ready_pod(NAMESPACE, "rotated", seconds=_PATIENCE_SECONDS)


def test_a_running_application_gets_each_rotation_by_file_and_signal(story: Stack, rotated: Object) -> None:
    """The tier's configuration says `rereadSeconds: 5`."""
    assert _file(story, "rotated-00001") == digest("first")
    for number, password in enumerate(("second", "third"), 1):
        story.morphisms.write_secret(f"{_HOME}/rotated/db", password=password)
        _shows(story, digest(password), number)
    (same,) = story.pods(NAMESPACE, "rotated")
    assert same["metadata"]["uid"] == rotated["metadata"]["uid"]
    assert all(status["restartCount"] == 0 for status in same["status"]["containerStatuses"])


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "Job"])
def test_other_workloads_are_told_that_the_verifier_knows_no_service_of_theirs(story: Stack, kind: str) -> None:
    """The verifier reads a pod's Service from Knative's label, which the guard lets no other workload write.

    In a namespace in inject they opt out, and run.
    """
    _apply_workload(story, kind, "within", {})
    fields = f"involvedObject.kind={kind},involvedObject.name=within-{kind.lower()},source=morphisms-scanner"
    path = f"/api/v1/namespaces/{NAMESPACE}/events"

    def refused(events: list[Object]) -> bool:
        return any("[verifier-refused, correlation id " in event["message"] for event in events)

    story.admin.until(path, refused, seconds=_PATIENCE_SECONDS, fieldSelector=fields)
    _apply_workload(story, kind, "outside", {"morphisms.dev/inject": "false"})
    phase = "Succeeded" if kind == "Job" else "Running"

    def reached(pods: list[Object]) -> bool:
        return any(pod["status"].get("phase") == phase for pod in pods)

    story.admin.until(_PODS, reached, seconds=_PATIENCE_SECONDS, labelSelector=f"app=outside-{kind.lower()}")


def _apply_workload(story: Stack, kind: str, prefix: str, annotations: dict[str, str]) -> None:
    """PREFIX-KIND of one pod with the tests' application; as a Job it ends after one look."""
    name = f"{prefix}-{kind.lower()}"
    container: dict[str, Any] = {"name": "app", "image": story.application.pinned, "securityContext": RESTRICTED}
    pod: dict[str, Any] = {"containers": [container]}
    template = {"metadata": {"labels": {"app": name}, "annotations": annotations}, "spec": pod}
    spec: dict[str, Any] = {"template": template}
    if kind == "Job":
        pod["restartPolicy"] = "Never"
    else:
        container["env"] = [{"name": "PORT", "value": "8080"}]
        spec |= {"selector": {"matchLabels": {"app": name}}, "replicas": 1}
    version = "batch/v1" if kind == "Job" else "apps/v1"
    metadata = {"name": name, "namespace": NAMESPACE}
    story.apply({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec})


def _beside(story: Stack, name: str, port: int, command: list[str] | None = None, **env: str) -> Object:
    """A further container of a Service, whose application listens on `port`."""
    variables = [{"name": key, "value": value} for key, value in {"PORT": str(port), **env}.items()]
    container = {"name": name, "image": story.application.pinned, "securityContext": RESTRICTED, "env": variables}
    return {**container, "command": command} if command else container


def _keep_asking(story: Stack, stop: threading.Event) -> list[tuple[int, str]]:
    """Each request is held, so that one pod each is needed."""
    answers = []
    while not stop.is_set():
        answer = story.request(NAMESPACE, "scaled-00001", seconds=_PATIENCE_SECONDS, path="/?hold=2s")
        answers.append((answer.status, answer.content["files"]["/morphisms/secrets/db"]))
    return answers


def _ready(pods: list[Object]) -> int:
    count = 0
    for pod in pods:
        with contextlib.suppress(KeyError):
            count += all(status["ready"] for status in pod["status"]["containerStatuses"])
    return count


def _revision_exists(story: Stack, name: str) -> None:
    path = f"/apis/serving.knative.dev/v1/namespaces/{NAMESPACE}/revisions"

    def routable(revisions: list[Object]) -> bool:
        """The activator knows it by then."""
        return any(holds(revision) for revision in revisions if revision["metadata"]["name"] == name)

    story.admin.until(path, routable, seconds=_PATIENCE_SECONDS)


def _content(story: Stack, revision: str) -> dict[str, Any]:
    answer = story.request(NAMESPACE, revision, seconds=_PATIENCE_SECONDS)
    assert answer.status == 200, answer.body
    return answer.content


def _shows(story: Stack, seen: str, hangups: int) -> None:
    """Wait until the application has the file, and was told so often."""

    def told() -> bool:
        content = _content(story, "rotated-00001")
        return content["files"] == {"/morphisms/secrets/db": seen} and content["hangups"] == hangups

    until(told, _PATIENCE_SECONDS)


def _file(story: Stack, revision: str) -> str:
    return str(_content(story, revision)["files"]["/morphisms/secrets/db"])
