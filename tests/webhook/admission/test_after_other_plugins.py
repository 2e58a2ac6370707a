"""Changes of an injected pod by the API server and other admission plugins: harmless ones are admitted, others not."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import jsonpatch
import pytest

from tests.support.paths import REVIEWS
from webhook.configuration.model import Configuration
from webhook.decide import decide
from webhook.decision import Decision
from webhook.modes import Mode
from webhook.review import read_review
from webhook.snapshot import RuntimeClassRecord, Snapshot

_POD = REVIEWS / "pods-create-payments-by-replicaset-controller.json"
_SNAPSHOT = Snapshot(
    {"default": Mode.ENFORCE}, {}, {"kata-qemu-snp": RuntimeClassRecord("kata-qemu-snp", "kata-qemu-snp")}
)
_CONFIGURATION = Configuration.model_validate(
    {"sidecar": {"secretsSizeLimit": "1024Ki", "resources": {"limits": {"cpu": "0.5", "memory": "128Mi"}}}}
)
Json = dict[str, Any]


def _ask(path: str, pod: Json) -> Decision:
    review = json.loads(_POD.read_text())
    review["request"]["object"] = pod
    return decide(read_review(json.dumps(review).encode(), path), _CONFIGURATION, _SNAPSHOT)


@pytest.fixture
def injected() -> Json:
    pod = json.loads(_POD.read_text())["request"]["object"]
    pod["metadata"]["annotations"]["morphisms.dev/secret-db"] = "~/db"
    pod["spec"]["containers"][0]["env"] = []
    return copy.deepcopy(jsonpatch.apply_patch(pod, list(_ask("/mutate/pod", pod).operations)))


def _init(pod: Json) -> Json:
    return next(each for each in pod["spec"]["initContainers"] if each["name"] == "morphisms-init")


def _always_pull(pod: Json) -> None:
    _init(pod)["imagePullPolicy"] = "Always"


def _limit_range(pod: Json) -> None:
    _init(pod)["resources"]["limits"]["ephemeral-storage"] = "1Gi"
    _init(pod)["resources"]["requests"]["ephemeral-storage"] = "1Gi"


def _canonical(pod: Json) -> None:
    _init(pod)["resources"]["limits"]["cpu"] = "500m"
    next(each for each in pod["spec"]["volumes"] if each["name"] == "morphisms-secrets")["emptyDir"]["sizeLimit"] = (
        "1Mi"
    )


def _service_account(pod: Json) -> None:
    mount = {"name": "kube-api-access-gfn4r", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
    _init(pod)["volumeMounts"].append(mount | {"readOnly": True})


@pytest.mark.parametrize("plugin", [_always_pull, _limit_range, _canonical, _service_account])
def test_changes_by_the_api_servers_own_plugins_are_admitted(injected: Json, plugin: Callable[[Json], None]) -> None:
    plugin(injected)
    assert _ask("/validate/pod", injected).denial is None
    assert list(_ask("/mutate/pod", injected).operations) == []


def _environment(pod: Json) -> None:
    _init(pod)["env"].append({"name": "LD_PRELOAD", "value": "/x.so"})


def _less_memory(pod: Json) -> None:
    _init(pod)["resources"]["limits"]["memory"] = "1Mi"


def _other_volume(pod: Json) -> None:
    mount = {"name": "evil", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": True}
    _init(pod)["volumeMounts"].append(mount)


def _sub_path(pod: Json) -> None:
    _service_account(pod)
    _init(pod)["volumeMounts"][-1]["subPath"] = "x"


def _second_token(pod: Json) -> None:
    source = {"serviceAccountToken": {"audience": "morphisms-verifier", "path": "token"}}
    pod["spec"]["volumes"].append({"name": "tok", "projected": {"sources": [source]}})


@pytest.mark.parametrize("tamper", [_environment, _less_memory, _other_volume, _sub_path, _second_token])
def test_changes_that_could_take_over_the_container_are_refused(injected: Json, tamper: Callable[[Json], None]) -> None:
    assert _ask("/validate/pod", copy.deepcopy(injected)).denial is None
    tamper(injected)
    assert _ask("/validate/pod", injected).denial is not None


@pytest.mark.parametrize("text", ["banana", "-1", "0", "1e3x", ""])
def test_an_invalid_quantity_is_refused_at_load(text: str) -> None:
    with pytest.raises(ValueError, match="quantity"):
        Configuration.model_validate({"sidecar": {"secretsSizeLimit": text}})
