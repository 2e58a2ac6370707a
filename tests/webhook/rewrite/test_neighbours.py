"""What injection makes of legitimate pods: resources of the whole pod, claims, quantities in any spelling, meshes."""

from __future__ import annotations

import copy
import itertools
from decimal import Decimal
from typing import Any

import jsonpatch
import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.admission.injection_notes import injection_notes
from webhook.configuration.model import Configuration
from webhook.pod.pod import Pod
from webhook.quantity import amount_of, quantity_text, same_amount
from webhook.rewrite import rewrite

Json = dict[str, Any]
_IMAGE = "r.example/a@sha256:" + "b" * 64


def _pod(containers: list[Json] | None = None, annotations: Json | None = None, **spec: Any) -> Json:
    return {
        "metadata": {"name": "p", "annotations": {"morphisms.dev/secret-a": "secret/x#k", **(annotations or {})}},
        "spec": {"containers": containers or [{"name": "app", "image": _IMAGE}], **spec},
    }


def _rewritten(pod: Json, configuration: Configuration | None = None) -> Json:
    view = Pod(pod, "shop", configuration or Configuration())
    patch = rewrite(view, None)
    after: Json = copy.deepcopy(jsonpatch.apply_patch(pod, patch.operations))
    again = rewrite(Pod(after, "shop", configuration or Configuration()), None)
    assert again.operations == []
    return after


def _notes(pod: Json) -> list[str]:
    return list(injection_notes(Pod(pod, "shop", Configuration())))


def _init(pod: Json) -> Json:
    return next(each for each in pod["spec"]["initContainers"] if each["name"] == "morphisms-init")


# Resources of the whole pod.


def _problems_of_the_api_server(spec: Json) -> list[str]:
    """As validatePodResourceConsistency has it: what the containers request together, and the limit of each."""
    found = []
    resources = spec.get("resources") or {}

    def amount(container: Json, kind: str, name: str) -> Decimal:
        own = container.get("resources") or {}
        text = (own.get(kind) or {}).get(name)
        if text is None and kind == "requests":
            text = (own.get("limits") or {}).get(name)
        return amount_of(text) or Decimal(0)

    for name in ("cpu", "memory"):
        request = amount_of((resources.get("requests") or {}).get(name))
        limit = amount_of((resources.get("limits") or {}).get(name))
        inits = spec.get("initContainers") or []
        beside = [each for each in inits if each.get("restartPolicy") == "Always"]
        steps = [
            amount(each, "requests", name)
            + sum(amount(other, "requests", name) for other in inits[:index] if other in beside)
            for index, each in enumerate(inits)
        ]
        total = sum((amount(each, "requests", name) for each in (*spec["containers"], *beside)), Decimal(0))
        if request is not None and request < max([total, *steps]):
            found.append(f"requests.{name}")
        if limit is not None:
            if any(amount(each, "limits", name) > limit for each in (*spec["containers"], *inits)):
                found.append(f"limits.{name}")
            if request is not None and request > limit:
                found.append(f"requests above limits.{name}")
    return found


_cpu = st.sampled_from(["5m", "0.01", "100m", "0.5", "500m", "1", "2"])
_memory = st.sampled_from(["32Mi", "64M", "65536Ki", "128Mi", "1Gi"])


@st.composite
def _resources(draw: Any, most: bool) -> Json:
    """Requests and limits; `most`: for the whole pod, at least what its containers need."""
    amounts = {"cpu": draw(_cpu), "memory": draw(_memory)}
    chosen = {name: value for name, value in amounts.items() if draw(st.booleans())}
    if most:
        chosen = {name: {"cpu": "4", "memory": "4Gi"}[name] if draw(st.booleans()) else chosen[name] for name in chosen}
    kinds = draw(st.sampled_from([("requests",), ("limits",), ("requests", "limits")]))
    return {kind: dict(chosen) for kind in kinds}


@given(
    _resources(True),
    st.lists(_resources(False), min_size=1, max_size=2),
    st.sampled_from(["init", "sidecar"]),
    st.booleans(),
)
def test_a_pod_that_the_api_server_admits_is_admitted_after_injection(
    whole: Json, each: list[Json], agent: str, native: bool
) -> None:
    containers = [{"name": f"c{n}", "image": _IMAGE, "resources": one} for n, one in enumerate(each)]
    annotations = {"morphisms.dev/agent": agent, "morphisms.dev/containers": "c0"}
    proxy = {"name": "istio-proxy", "image": _IMAGE, "restartPolicy": "Always", "resources": each[0]}
    pod = _pod(containers, annotations, resources=whole, **({"initContainers": [proxy]} if native else {}))
    if _problems_of_the_api_server(pod["spec"]):
        return
    after = _rewritten(pod)
    assert _problems_of_the_api_server(after["spec"]) == []
    for name in ("cpu", "memory"):
        before = [(whole.get(kind) or {}).get(name) for kind in ("requests", "limits")]
        now = [(after["spec"]["resources"].get(kind) or {}).get(name) for kind in ("requests", "limits")]
        if None not in before and same_amount(*before):
            assert same_amount(*now)


def test_pod_level_requests_are_raised_to_fit_the_init_container() -> None:
    pod = _pod(resources={"requests": {"cpu": "5m", "memory": "32Mi"}})
    assert _rewritten(pod)["spec"]["resources"] == {"requests": {"cpu": "10m", "memory": "64Mi"}}


def test_pod_level_requests_equal_to_the_containers_are_raised_by_the_sidecars() -> None:
    amounts = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "1Gi"}}
    pod = _pod([{"name": "app", "image": _IMAGE, "resources": amounts}], {"morphisms.dev/agent": "sidecar"})
    pod["spec"]["resources"] = copy.deepcopy(amounts)
    assert _rewritten(pod)["spec"]["resources"] == {
        "requests": {"cpu": "1010m", "memory": "1152Mi"},
        "limits": {"cpu": "2500m", "memory": "1152Mi"},
    }


# LimitRanges and quantities.


def test_requests_and_limits_fit_a_limit_range_where_the_operator_says_so() -> None:
    """maxLimitRequestRatio 4: docs/operations.md."""
    resources = {"requests": {"cpu": "125m", "memory": "64Mi"}, "limits": {"cpu": "500m", "memory": "128Mi"}}
    configuration = Configuration.model_validate({"sidecar": {"resources": resources}})
    assert _init(_rewritten(_pod(), configuration))["resources"] == resources


def test_a_request_above_its_limit_is_refused_at_load() -> None:
    resources = {"requests": {"cpu": "0.6"}, "limits": {"cpu": "500m"}}
    with pytest.raises(ValueError, match="above limits"):
        Configuration.model_validate({"sidecar": {"resources": resources}})


_SPELLINGS = {
    "cpu": [["1", "1000m", "1.0", "1e0", 1, 1.0, "1000000u"], ["500m", "0.5", ".5", 0.5, "5e-1", "500000000n"]],
    "memory": [["1Gi", "1024Mi", "1073741824", 1073741824, "1048576Ki"], ["128M", "128000000", "128e6", "128E6"]],
}


@pytest.mark.parametrize(
    ("cpu", "memory"),
    [
        (cpu, memory)
        for cpus, memories in zip(_SPELLINGS["cpu"], _SPELLINGS["memory"], strict=True)
        for cpu, memory in zip(itertools.product(cpus, cpus), itertools.cycle(itertools.product(memories, memories)))
    ],
)
def test_a_pod_is_guaranteed_however_its_quantities_are_spelled(cpu: tuple[Any, Any], memory: tuple[Any, Any]) -> None:
    """https://github.com/argoproj/argo-cd/issues/17682: the API server writes 1000m as 1."""
    resources = {
        "limits": {"cpu": cpu[0], "memory": memory[0]},
        "requests": {"cpu": cpu[1], "memory": memory[1]},
    }
    pod = _pod([{"name": "app", "image": _IMAGE, "resources": resources}])
    assert _init(_rewritten(pod))["resources"]["requests"] == {"cpu": "500m", "memory": "128Mi"}


@given(st.integers(1, 10**7), st.sampled_from(["cpu", "memory"]))
def test_a_written_quantity_is_the_amount(number: int, resource: str) -> None:
    amount = Decimal(number) / 1000 if resource == "cpu" else Decimal(number) * 512
    assert amount_of(quantity_text(amount, resource)) == amount


@pytest.mark.parametrize("text", ["", ".", "1e", "e3", "1e3x", "1 Gi", "0x1", "1_000", "nan", "inf", True, None, [1]])
def test_what_is_no_quantity_has_no_amount(text: Any) -> None:
    assert amount_of(text) is None


# Claims.


@pytest.mark.parametrize("source", [{"persistentVolumeClaim": {"claimName": "d"}}, {"ephemeral": {}}])
def test_beside_a_claim_only_a_mismatch_changes_the_group_and_the_author_is_warned(source: Json) -> None:
    pod = _pod(volumes=[{"name": "data", **source}])
    context = _rewritten(pod)["spec"]["securityContext"]
    assert context == {"fsGroup": 65532, "fsGroupChangePolicy": "OnRootMismatch"}
    assert len(_notes(pod)) == 1
    assert "data" in _notes(pod)[0]


def test_an_authors_own_group_and_policy_stay() -> None:
    claim = {"name": "data", "persistentVolumeClaim": {"claimName": "d"}}
    own = _pod(volumes=[claim], securityContext={"fsGroup": 7})
    assert _rewritten(own)["spec"]["securityContext"] == {"fsGroup": 7}
    assert _notes(own) == []
    always = _pod(volumes=[claim], securityContext={"fsGroupChangePolicy": "Always"})
    assert _rewritten(always)["spec"]["securityContext"] == {"fsGroupChangePolicy": "Always", "fsGroup": 65532}
    assert _rewritten(_pod())["spec"]["securityContext"] == {"fsGroup": 65532}
    assert _notes(_pod()) == []


# Meshes.

_ISTIO = "traffic.sidecar.istio.io/exclude{}Ports"
_KEYS = {
    "istio": (_ISTIO.format("Outbound"), _ISTIO.format("Inbound"), "istio-validation", "istio-init", "istio-proxy"),
    "linkerd": (
        "config.linkerd.io/skip-outbound-ports",
        "config.linkerd.io/skip-inbound-ports",
        "linkerd-network-validator",
        "linkerd-init",
        "linkerd-proxy",
    ),
    "kuma": (
        "traffic.kuma.io/exclude-outbound-ports",
        "traffic.kuma.io/exclude-inbound-ports",
        "kuma-validation",
        "kuma-init",
        "kuma-sidecar",
    ),
}


def _meshed(
    init: str, proxy: str, *, native: bool = False, agent: str = "init", annotations: Json | None = None
) -> Json:
    app, sidecar = (
        {"name": "app", "image": _IMAGE, "ports": [{"containerPort": 8080}]},
        {"name": proxy, "image": _IMAGE},
    )
    inits = [{"name": init, "image": _IMAGE}]
    if native:
        inits.append({**sidecar, "restartPolicy": "Always"})
    return _pod(
        [app] if native else [sidecar, app],
        {"morphisms.dev/agent": agent, **(annotations or {})},
        initContainers=inits,
    )


@pytest.mark.parametrize("mesh", _KEYS)
@pytest.mark.parametrize("agent", ["init", "sidecar"])
def test_with_a_cni_plugin_the_ports_are_excluded(mesh: str, agent: str) -> None:
    """https://github.com/linkerd/linkerd2/issues/11124: an init container has no network."""
    outbound, inbound, validator, _, proxy = _KEYS[mesh]
    pod = _meshed(validator, proxy, agent=agent)
    annotations = _rewritten(pod)["metadata"]["annotations"]
    assert annotations[outbound] == "443,8200"
    assert annotations.get(inbound) == ("15790" if agent == "sidecar" else None)
    assert _notes(pod) == []


@pytest.mark.parametrize("mesh", _KEYS)
def test_what_the_author_excludes_stays(mesh: str) -> None:
    outbound, inbound, validator, _, proxy = _KEYS[mesh]
    pod = _meshed(validator, proxy, agent="sidecar", annotations={outbound: "9000, 8200", inbound: "9001"})
    annotations = _rewritten(pod)["metadata"]["annotations"]
    assert annotations[outbound] == "9000, 8200,443"
    assert annotations[inbound] == "9001,15790"


@pytest.mark.parametrize("mesh", _KEYS)
def test_with_a_native_proxy_only_the_probes_port_is_excluded(mesh: str) -> None:
    """https://github.com/istio/istio/issues/36353: a kubelet's plain request meets a proxy that demands mTLS."""
    outbound, inbound, validator, _, proxy = _KEYS[mesh]
    annotations = _rewritten(_meshed(validator, proxy, native=True, agent="sidecar"))["metadata"]["annotations"]
    assert outbound not in annotations
    assert annotations[inbound] == "15790"


@pytest.mark.parametrize("mesh", _KEYS)
def test_without_a_cni_plugin_the_author_is_told_to_exclude_the_probes_port(mesh: str) -> None:
    """The mesh's webhook has written its iptables rules before ours is asked."""
    _, inbound, _, redirects, proxy = _KEYS[mesh]
    pod = _meshed(redirects, proxy, agent="sidecar")
    (note,) = _notes(pod)
    assert inbound in note
    assert "15790" in note
    assert _notes(_meshed(redirects, proxy, agent="sidecar", annotations={inbound: "15790"})) == []
    assert _notes(_meshed(redirects, proxy)) == []


def test_consul_reads_its_annotations_too_early_so_the_author_is_told() -> None:
    pod = _meshed("consul-connect-inject-init", "consul-dataplane", agent="sidecar")
    annotations = _rewritten(pod)["metadata"]["annotations"]
    assert not any(key.startswith("consul.hashicorp.com/") for key in annotations)
    outbound, inbound = _notes(pod)
    assert "443,8200" in outbound
    assert "consul.hashicorp.com/transparent-proxy-exclude-outbound-ports" in outbound
    assert "consul.hashicorp.com/transparent-proxy-exclude-inbound-ports" in inbound


def test_without_a_mesh_nothing_is_excluded() -> None:
    assert set(_rewritten(_pod(annotations={"morphisms.dev/agent": "sidecar"}))["metadata"]["annotations"]) == {
        "morphisms.dev/agent",
        "morphisms.dev/secret-a",
        "morphisms.dev/status",
    }


def test_a_mesh_that_comes_after_injection_is_excluded_on_reinvocation() -> None:
    injected = _rewritten(_pod([{"name": "app", "image": _IMAGE, "ports": [{"containerPort": 1}]}]))
    injected["spec"]["initContainers"].append({"name": "istio-validation", "image": _IMAGE})
    injected["spec"]["containers"].append({"name": "istio-proxy", "image": _IMAGE})
    assert _rewritten(injected)["metadata"]["annotations"][_ISTIO.format("Outbound")] == "443,8200"
