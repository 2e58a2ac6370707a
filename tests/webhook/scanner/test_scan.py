"""One pass over a cluster: whose findings each object's are, and what is not called clean."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from server.kubernetes.errors import StatusError
from webhook.configuration.model import Configuration
from webhook.modes import Mode
from webhook.scanner.evaluation import Evaluator
from webhook.scanner.kinds import ScannedKind
from webhook.scanner.lister import AbsentKindError
from webhook.scanner.never_looked_at import MAX_MAKERS, NEVER_LOOKED_AT, never_looked_at
from webhook.scanner.scan import NOT_LISTED, ScanResult, scan
from webhook.snapshot import RuntimeClassRecord, Snapshot

Json = dict[str, Any]

_SNAPSHOT = Snapshot(
    namespaces={"shop": Mode.AUDIT, "morphisms-system": Mode.ENFORCE, "free": Mode.ABSENT},
    runtime_classes={"kata-qemu-snp": RuntimeClassRecord("kata-qemu-snp", "kata-qemu-snp")},
)
_SERVING = "serving.knative.dev/v1"


class Listed:
    """A cluster of these objects; `fails` maps a kind to what listing it raises."""

    def __init__(self, *items: Json, **fails: Exception) -> None:
        self._items = items
        self._fails = fails

    async def pages(self, kind: ScannedKind, namespace: str | None = None) -> AsyncIterator[list[Json]]:
        if kind.kind in self._fails:
            raise self._fails[kind.kind]
        yield [item for item in self._items if (item["apiVersion"], item["kind"]) == (kind.api_version, kind.kind)]


def _pod_spec(**more: Any) -> Json:
    return {"containers": [{"name": "app", "image": "registry.example/app@sha256:" + "a" * 64}], **more}


def _item(version: str, kind: str, name: str, spec: Json, *, namespace: str = "shop", **metadata: Any) -> Json:
    return {
        "apiVersion": version,
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace, **metadata},
        "spec": spec,
    }


def _service() -> Json:
    return _item(_SERVING, "Service", "web", {"template": {"spec": _pod_spec()}})


def _revision(name: str, state: str = "active", **spec: Any) -> Json:
    labels = {"serving.knative.dev/service": "web", "serving.knative.dev/routingState": state}
    return _item(_SERVING, "Revision", name, _pod_spec(**spec), labels=labels)


def _deployment(name: str, namespace: str = "shop", **spec: Any) -> Json:
    return _item("apps/v1", "Deployment", name, {"template": {"spec": _pod_spec(**spec)}}, namespace=namespace)


async def _scan(*items: Json, **fails: Exception) -> ScanResult:
    return await scan(
        Listed(*items, **fails), Evaluator(Configuration(), _SNAPSHOT), _SNAPSHOT, without=("morphisms-system",)
    )


async def test_an_old_routable_revision_keeps_its_service_from_being_ready() -> None:
    """The Service itself complies, and its old Revision comes back from zero hours later."""
    result = await _scan(_service(), _revision("web-00001", hostNetwork=True), _revision("web-00002"))
    ((_, kind, name),) = result.workloads
    assert (kind, name) == ("Service", "web")
    (service,) = result.workloads.values()
    assert not service.is_ready
    (failed,) = [each for each in service.results if each.result == "fail"]
    assert dict(failed.properties)["object"] == "Revision/web-00001"
    retired = await _scan(_service(), _revision("web-00001", "reserve", hostNetwork=True), _revision("web-00002"))
    assert all(each.is_ready for each in retired.workloads.values())


async def test_a_revision_without_its_service_is_a_workload_itself() -> None:
    result = await _scan(_revision("web-00001", hostNetwork=True))
    assert [kind for _, kind, _ in result.workloads] == ["Revision"]


async def test_namespaces_without_a_mode_and_our_own_are_left_out_but_for_what_opts_in() -> None:
    opting_in = _deployment("opting-in", "free")
    opting_in["spec"]["template"]["metadata"] = {"annotations": {"morphisms.dev/inject": "true"}}
    items = (_deployment("one", "free"), opting_in, _deployment("two", "morphisms-system", hostNetwork=True))
    result = await _scan(*items, _deployment("three"))
    assert sorted(name for _, _, name in result.workloads) == ["opting-in", "three"]
    assert result.namespaces().keys() == {"shop"}


async def test_a_namespace_is_ready_when_all_of_its_workloads_are() -> None:
    state = (await _scan(_deployment("good"), _deployment("bad", hostNetwork=True))).namespaces()["shop"]
    assert (state.workloads, state.ready, state.is_ready) == (2, 1, False)
    assert (await _scan(_deployment("good"))).namespaces()["shop"].is_ready


@pytest.mark.parametrize("error", [StatusError(403), StatusError(500)])
async def test_where_revisions_cannot_be_listed_no_service_is_called_clean(error: Exception) -> None:
    result = await _scan(_service(), _deployment("good"), Revision=error)
    assert result.not_listed == ["Revision"]
    ready = {kind: each.is_ready for (_, kind, _), each in result.workloads.items()}
    assert ready == {"Service": False, "Deployment": True}
    (service,) = [each for each in result.workloads.values() if each.workload.kind == "Service"]
    assert NOT_LISTED in {each.rule for each in service.results}


async def test_a_namespace_of_which_a_kind_was_not_listed_is_not_ready_and_an_empty_one_is() -> None:
    assert (await _scan()).namespaces()["shop"].is_ready
    state = (await _scan(_deployment("good"), CronJob=StatusError(403))).namespaces()["shop"]
    assert (state.workloads, state.ready, state.is_ready) == (1, 1, False)


async def test_a_cluster_without_knative_is_whole() -> None:
    absent = AbsentKindError("x")
    result = await _scan(_deployment("good"), Service=absent, Configuration=absent, Revision=absent)
    assert not result.not_listed
    assert set(result.absent) == {"Service", "Configuration", "Revision"}


def _secret_spec() -> Json:
    spec = _pod_spec()
    spec["containers"][0]["env"] = [{"name": "DB_PASSWORD", "value": "hunter2-Tr0ub4dor-correct"}]
    return spec


def _owned(kind: str, name: str, owner: str, spec: Json, **more: Any) -> Json:
    reference = {"apiVersion": "apps/v1", "kind": owner, "name": "web", "controller": True}
    return _item("apps/v1", kind, name, spec, ownerReferences=[reference]) | more


def _remnants(result: ScanResult) -> list[tuple[str, str]]:
    """(kind of the workload, where the secret is) of each remnant."""
    assert "hunter2" not in str(result)
    return [
        (each.workload.kind, dict(found.properties)["object"])
        for each in result.workloads.values()
        for found in each.results
        if found.rule == "scan/remnant"
    ]


async def test_a_secret_in_a_former_version_is_found_with_what_removes_it() -> None:
    """The Service was mended, and etcd still has the password of yesterday."""
    former = _revision("web-00001", "reserve", **_secret_spec())
    result = await _scan(_service(), former, _revision("web-00002"))
    assert _remnants(result) == [("Service", "Revision/web-00001")]
    (service,) = result.workloads.values()
    (found,) = [each for each in service.results if each.rule == "scan/remnant"]
    assert "rotate the secret, then: kubectl delete revision -n shop web-00001" in found.message
    assert dict(found.properties)["field"] == "spec.containers[0].env[0]"
    assert service.is_ready, "no pod is refused for it"

    old = _owned("ReplicaSet", "web-1", "Deployment", {"replicas": 0, "template": {"spec": _secret_spec()}})
    assert _remnants(await _scan(_deployment("web"), old)) == [("Deployment", "ReplicaSet/web-1")]
    in_use = {**old, "spec": {**old["spec"], "replicas": 1}}
    assert _remnants(await _scan(_deployment("web"), in_use)) == []


@pytest.mark.parametrize("kind", ["StatefulSet", "DaemonSet"])
async def test_of_controller_revisions_the_present_one_is_no_remnant(kind: str) -> None:
    workload = {**_deployment("web"), "kind": kind}
    data = {"spec": {"template": {"$patch": "replace", "spec": _secret_spec()}}}
    first = _owned("ControllerRevision", "web-a", kind, {}, revision=1, data=data)
    second = _owned("ControllerRevision", "web-b", kind, {}, revision=2, data=data)
    assert _remnants(await _scan(workload, first, second)) == [(kind, "ControllerRevision/web-a")]
    assert _remnants(await _scan(workload, second)) == []


def _replica_set(version: str, kind: str, namespace: str = "shop") -> Json:
    owner = {"apiVersion": version, "kind": kind, "name": "web", "uid": "u", "controller": True}
    spec = {"template": {"spec": _pod_spec()}}
    return _item("apps/v1", "ReplicaSet", f"web-{kind}".lower(), spec, namespace=namespace, ownerReferences=[owner])


def _never(result: ScanResult) -> list[str]:
    entries = list(never_looked_at(result.makers))
    # Nothing that is not looked at stands against a namespace, and none of it is called clean.
    assert {each.result for each in entries} == {"skip"}
    return [each.message.removeprefix("never looked at: ") for each in entries]


async def test_an_officer_reads_which_kinds_with_pod_templates_were_never_looked_at() -> None:
    """A Rollout's own template, and the plaintext in it, is read by nobody: only the ReplicaSet that it made is."""
    result = await _scan(
        _replica_set("argoproj.io/v1alpha1", "Rollout"),
        _replica_set("example.org/v1", "Other", namespace="free"),
        _replica_set("apps/v1", "Deployment"),
        _deployment("api"),
    )
    assert _never(result) == [
        *NEVER_LOOKED_AT,
        "objects of kind Rollout (argoproj.io); only what they make here is looked at",
    ]


async def test_an_owner_of_the_name_of_a_known_kind_is_told_apart_by_its_group() -> None:
    result = await _scan(
        _replica_set("example.org/v1", "Deployment"), _replica_set("evil.example/v1", "X\x1b[31m\u202e")
    )
    assert sorted(result.makers)[0] == "Deployment (example.org)"
    assert all(each.isprintable() for each in _never(result))


async def test_a_cluster_of_many_unknown_kinds_does_not_fill_the_report() -> None:
    result = await _scan(*(_replica_set("example.org/v1", f"Kind{number}") for number in range(500)))
    said = _never(result)
    assert len(said) == len(NEVER_LOOKED_AT) + MAX_MAKERS + 1
    assert said[-1] == "objects of more kinds than these 20 that make what is looked at"
