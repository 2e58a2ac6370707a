"""webhook.pod: the containers that get secrets, and the references that can be moved."""

from __future__ import annotations

from typing import Any

import pytest

from webhook.configuration.model import Configuration
from webhook.pod.container import Container, display_name
from webhook.pod.env_references import Spelling, read_env_references
from webhook.pod.pod import Pod
from webhook.pod.references import SecretPrefix

PREFIX = SecretPrefix("secret/knative/cluster/shop/payments/")
SECRET = {"secret-db": "secret/shop/db"}


def _pod(
    *containers: dict[str, Any], annotations: dict[str, str] | None = None, service: str = "payments", **spec: Any
) -> Pod:
    ours = {f"morphisms.dev/{key}" if "/" not in key else key: value for key, value in (annotations or {}).items()}
    labels = {"serving.knative.dev/revision": "payments-1", "serving.knative.dev/service": service} if service else {}
    item = {"metadata": {"annotations": ours, "labels": labels}, "spec": {"containers": [*containers], **spec}}
    return Pod(item, "shop", Configuration())


def _names(pod: Pod) -> list[str]:
    return [each.name for each in pod.consumers]


PORT = {"ports": [{"containerPort": 8080}]}
REFERENCE = {"command": ["x"], "env": [{"name": "A", "value": "vault:secret/shop/db#a"}]}


def test_no_consumer_without_a_secret() -> None:
    assert _names(_pod({"name": "app"}, annotations={"inject": "true"})) == []


def test_the_only_container_is_the_serving_one() -> None:
    assert _names(_pod({"name": "app"}, annotations=SECRET)) == ["app"]


def test_queue_proxy_is_never_a_consumer() -> None:
    assert _names(_pod({"name": "app"}, {"name": "queue-proxy", **PORT}, annotations=SECRET)) == ["app"]


def test_the_container_with_a_port_is_the_serving_one() -> None:
    assert _names(_pod({"name": "a"}, {"name": "b", **PORT}, annotations=SECRET)) == ["b"]


_USER_PORT = {"ports": [{"name": "user-port", "containerPort": 8080}]}
_METRICS = {"ports": [{"name": "metrics", "containerPort": 9187}]}
_DEFAULT = "kubectl.kubernetes.io/default-container"


@pytest.mark.parametrize(
    ("containers", "default", "chosen"),
    [
        # Knative makes the port of a Service unique, and names it in its pods.
        ([{"name": "a"}, {"name": "b", **PORT}], "a", ["b"]),
        ([{"name": "a", **_USER_PORT}, {"name": "b", **PORT}], None, ["a"]),
        ([{"name": "a", **PORT}, {"name": "b", **PORT}], None, []),
        ([{"name": "a", **PORT}, {"name": "b", **PORT}], "b", ["b"]),
        ([{"name": "a"}, {"name": "daprd", **PORT}], None, ["a"]),
        ([{"name": "a", **_USER_PORT}, {"name": "exporter", **_METRICS}], None, ["a"]),
    ],
)
def test_the_serving_container_of_a_service(
    containers: list[dict[str, Any]], default: str | None, chosen: list[str]
) -> None:
    annotations = {**SECRET, **({_DEFAULT: default} if default else {})}
    assert _names(_pod(*containers, {"name": "queue-proxy", **PORT}, annotations=annotations)) == chosen


@pytest.mark.parametrize(
    ("containers", "annotations", "chosen"),
    [
        ([{"name": "app", **PORT}], {}, ["app"]),
        # A port does not say who the application is.
        ([{"name": "worker"}, {"name": "exporter", **_METRICS}], {}, []),
        ([{"name": "worker"}, {"name": "redis-exporter", **_METRICS}], {}, []),
        ([{"name": "web", **PORT}, {"name": "log-shipper"}], {}, []),
        ([{"name": "web", **PORT}, {"name": "queue-proxy", **PORT}], {}, ["web"]),
        # What other webhooks add, and helpers that are known.
        ([{"name": "daprd", **PORT}, {"name": "worker"}], {}, ["worker"]),
        ([{"name": "worker"}, {"name": "cloud-sql-proxy", **PORT}], {}, ["worker"]),
        ([{"name": "worker"}, {"name": "istio-proxy", **PORT}], {}, ["worker"]),
        ([{"name": "daprd", **PORT}], {}, []),
        # Someone says so.
        ([{"name": "worker"}, {"name": "exporter", **_METRICS}], {_DEFAULT: "worker"}, ["worker"]),
        ([{"name": "worker"}, {"name": "exporter", **_METRICS}], {_DEFAULT: "none"}, []),
        ([{"name": "worker"}, {"name": "exporter"}, {"name": "daprd", **PORT}], {_DEFAULT: "daprd"}, []),
        ([{"name": "worker"}, {"name": "exporter", **_METRICS}], {"containers": "exporter"}, ["exporter"]),
        ([{"name": "worker"}, {"name": "cloud-sql-proxy"}], {"containers": "cloud-sql-proxy"}, ["cloud-sql-proxy"]),
        ([{"name": "worker"}, {"name": "daprd", **PORT}], {"containers": "worker,daprd"}, ["worker"]),
        ([{"name": "worker"}, {"name": "exporter"}], {_DEFAULT: "migrate"}, ["migrate"]),
        ([{"name": "worker"}], {"containers": "migrate"}, ["migrate"]),
    ],
)
def test_the_container_that_gets_files_elsewhere(
    containers: list[dict[str, Any]], annotations: dict[str, str], chosen: list[str]
) -> None:
    inits = [{"name": "migrate"}]
    assert _names(_pod(*containers, annotations={**SECRET, **annotations}, service="", initContainers=inits)) == chosen


def test_several_without_a_serving_one_are_no_consumers() -> None:
    assert _names(_pod({"name": "a"}, {"name": "b"}, annotations=SECRET)) == []


def test_a_container_that_holds_a_reference_is_a_consumer() -> None:
    assert _names(_pod({"name": "a"}, {"name": "b", **REFERENCE})) == ["b"]
    assert _names(_pod({"name": "a", **PORT}, {"name": "b", **REFERENCE}, annotations=SECRET)) == ["a", "b"]


def test_init_containers_may_be_consumers() -> None:
    assert _names(_pod({"name": "a"}, initContainers=[{"name": "migrate", **REFERENCE}])) == ["migrate"]


def test_the_containers_annotation_decides() -> None:
    annotations = {**SECRET, "containers": "b,c"}
    assert _names(_pod({"name": "a", **PORT}, {"name": "b"}, {"name": "c"}, annotations=annotations)) == ["b", "c"]


def _problems(**container: Any) -> list[tuple[str, str]]:
    pod = _pod({"name": "app", **container})
    return list(read_env_references(pod.containers[0], Spelling(PREFIX)).problems)


def test_references_are_moved_in_order() -> None:
    env = [
        {"name": "PLAIN", "value": "x"},
        {"name": "WHOLE", "value": "vault:~/db#a@2"},
        {"name": "FIELD", "valueFrom": {}},
        {"name": "INLINE", "value": "u:${vault:secret/shop/db#b}@h"},
    ]
    pod = _pod({"name": "app", "command": ["x"], "env": env})
    moved = read_env_references(pod.containers[0], Spelling(PREFIX))
    assert moved.problems == ()
    assert moved.indices == (1, 3)
    whole, inline = moved.variables
    assert (whole.path, whole.key, whole.version) == ("secret/knative/cluster/shop/payments/db", "a", 2)
    assert inline.value == "u:${vault:secret/shop/db#b}@h"


def test_a_missing_command_is_reported_with_the_line_to_add() -> None:
    ((where, message),) = _problems(env=REFERENCE["env"])
    assert where == "spec.containers[0].command"
    assert message == (
        "container app gets secrets as env and has no command; Kubernetes does not know an image's entrypoint."
        ' Add it (morphisms entrypoint IMAGE prints it), such as command: ["/path/to/program"], or use files:'
        " morphisms.dev/secret-NAME"
    )


@pytest.mark.parametrize("text", ["$(A)", "x$(A)y", "$$$(A)", "$(B)$(A)"])
@pytest.mark.parametrize("member", ["args", "env"])
def test_expansions_of_a_reference_are_refused(text: str, member: str) -> None:
    env = [*REFERENCE["env"], {"name": "DSN", "value": text if member == "env" else ""}]
    ((_, message),) = _problems(command=["x"], args=[text if member == "args" else ""], env=env)
    assert message == "$(A) expands a Vault reference; write ${vault:PATH#KEY} in env in its place"


@pytest.mark.parametrize("text", ["$$(A)", "$(AB)", "$A", "${A}", "$(A", "$$$$(A)"])
def test_text_that_kubernetes_does_not_expand_is_allowed(text: str) -> None:
    assert _problems(command=["x"], args=[text], env=REFERENCE["env"]) == []


@pytest.mark.parametrize("member", ["command", "args"])
def test_references_in_command_and_args_are_refused(member: str) -> None:
    words = {"command": ["x"], member: ["x", "--password=${vault:secret/shop/db#a}"]}
    assert _problems(**words) == [
        (f"spec.containers[0].{member}", f"container app has a Vault reference in {member}; use env")
    ]


def test_a_bad_reference_is_reported_by_its_variable() -> None:
    ((where, message),) = _problems(command=["x"], env=[{"name": "A", "value": "vault:kanarie/x#"}])
    assert where == "spec.containers[0].env[0]"
    assert message.startswith("env A has no key")
    assert "kanarie" not in message


def test_a_forgotten_key_is_reported_where_it_is_a_mistake() -> None:
    container = {"name": "app", "command": ["x"], "env": [{"name": "A", "value": "vault:kanarie/x"}]}
    (read, text, literal) = (
        read_env_references(_pod(container).containers[0], spelling)
        for spelling in (
            Spelling(PREFIX, refuses_incomplete=True),
            Spelling(PREFIX),
            Spelling(PREFIX, frozenset("A"), refuses_incomplete=True),
        )
    )
    ((where, message),) = read.problems
    assert where == "spec.containers[0].env[0]"
    assert message == (
        "env A looks like a Vault reference without its key; write vault:PATH#KEY; where it is text,"
        " annotate morphisms.dev/literal-env: A"
    )
    assert text.problems == literal.problems == ()


def test_a_wrapped_command_is_recognised() -> None:
    def wrapped(item: dict[str, Any]) -> bool:
        return Container("containers", 0, "app", item).is_wrapped

    assert wrapped({"command": ["/morphisms/run/exec", "app", "--", "x"]})
    assert not wrapped({"command": ["/morphisms/run/exec", "other", "--", "x"]})
    assert not wrapped({"command": None})
    assert not wrapped({})


def test_hostile_names_are_made_safe_for_a_message() -> None:
    assert display_name("A\n\x1b[31m") == "A??[31m"
    assert len(display_name("x" * 1000)) == 63
