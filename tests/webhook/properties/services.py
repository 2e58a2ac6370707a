"""Knative Services as users write them, and as the API server stores them with Knative's defaults."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

Json = dict[str, Any]
Draw = Callable[[st.SearchStrategy[Any]], Any]

_ours = st.dictionaries(
    st.sampled_from(["inject", "profile", "secret-db", "agent", "status", "vault-role"]).map(
        lambda key: f"morphisms.dev/{key}"
    ),
    st.sampled_from(["true", "false", "kata-snp", "secret/shop/db", "init"]),
    max_size=3,
)
_theirs = st.dictionaries(
    st.sampled_from(["autoscaling.knative.dev/min-scale", "example.com/a~b"]), st.sampled_from(["1", "2"]), max_size=2
)
_containers = st.fixed_dictionaries(
    {"image": st.sampled_from(["app:1", "app:2"])},
    optional={
        "name": st.just("app"),
        "env": st.lists(
            st.fixed_dictionaries({"name": st.just("A"), "value": st.sampled_from(["1", "2"])}), max_size=2
        ),
        "ports": st.just([{"containerPort": 8080}]),
        "args": st.lists(st.sampled_from(["-v", "-q"]), max_size=2),
        "resources": st.just({"limits": {"cpu": "1", "memory": "1Gi"}}),
    },
)


@st.composite
def services(draw: Draw) -> Json:
    """A Service's manifest."""
    metadata: Json = {"name": "payments", "namespace": "shop"}
    if draw(st.booleans()):
        metadata["annotations"] = {**draw(_ours), **draw(_theirs)}
    template: Json = {"spec": {"containers": draw(st.lists(_containers, min_size=1, max_size=2))}}
    shape = draw(st.sampled_from(["absent", "null", "empty", "annotated", "annotated", "no annotations"]))
    if shape != "absent":
        template["metadata"] = {
            "null": None,
            "empty": {},
            "no annotations": {"labels": {"a": "b"}, "annotations": None},
            "annotated": {"annotations": {**draw(_theirs), **draw(st.one_of(st.just({}), _ours))}},
        }[shape]
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"template": template},
        "oddity": {"kept": [None, 1]},
    }


def as_stored(service: Json) -> Json:
    """The Service after Knative's defaulting webhook."""
    service = copy.deepcopy(service)
    metadata, template = service["metadata"], service["spec"]["template"]
    metadata["annotations"] = {
        **(metadata.get("annotations") or {}),
        "serving.knative.dev/creator": "dev",
        "serving.knative.dev/lastModifier": "dev",
    }
    if template.get("metadata") is None:
        template["metadata"] = {"creationTimestamp": None}
    spec = template["spec"]
    spec.update(containerConcurrency=0, timeoutSeconds=300, enableServiceLinks=False)
    for index, container in enumerate(spec["containers"]):
        container.setdefault("name", f"user-container-{index}")
        container.setdefault("resources", {})
        container["readinessProbe"] = {"successThreshold": 1, "tcpSocket": {"port": 0}}
        for port in container.get("ports") or []:
            port.update(name="user-port", protocol="TCP")
    service["spec"]["traffic"] = [{"latestRevision": True, "percent": 100}]
    service["status"] = {"observedGeneration": 1}
    return service
