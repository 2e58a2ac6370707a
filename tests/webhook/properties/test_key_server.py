"""Laws of morphisms-kms: nothing is admitted there but the key server's own pod, confidential and never injected."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st

from tests.webhook.properties import rfc6902
from tests.webhook.properties.oracle import key_server_faults
from tests.webhook.properties.pods import pods
from tests.webhook.properties.worlds import CLUSTERS, World, review, worlds
from webhook.decide import decide
from webhook.decision import Decision
from webhook.modes import Mode
from webhook.review import read_review

Json = dict[str, Any]

NAMESPACE = "morphisms-kms"
KEEPER = "system:serviceaccount:kube-system:statefulset-controller"
OWNER = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "morphisms-verifier", "uid": "u", "controller": True}

owners = st.sampled_from(
    [
        [OWNER],
        [OWNER],
        [OWNER],
        None,
        [],
        [{**OWNER, "controller": False}],
        [{**OWNER, "name": "other"}],
        [{**OWNER, "kind": "ReplicaSet"}],
        [{**OWNER, "apiVersion": "example.com/v1"}],
        [OWNER, {**OWNER, "name": "other"}],
    ]
)
users = st.sampled_from(
    [KEEPER, KEEPER, KEEPER, "system:kube-controller-manager", "alice", "system:serviceaccount:a:b"]
)


def _ask(pod: Json, path: str, world: World, user: str) -> Decision:
    snapshot = replace(CLUSTERS[Mode.ENFORCE], namespaces={NAMESPACE: Mode.ENFORCE})
    request = read_review(review(pod, path, namespace=NAMESPACE, user=user), path)
    return decide(request, world.configuration, snapshot)


@settings(max_examples=200)
@given(pods(), worlds, owners, users, st.booleans())
def test_what_is_admitted_beside_the_key_server_is_the_key_server(
    pod: Json, world: World, owner: list[Json] | None, user: str, plain: bool
) -> None:
    if owner is not None:
        pod["metadata"]["ownerReferences"] = owner
    if (
        plain
    ):  # What the StatefulSet of manifests/overlays/kms-in-guests looks like: no reference, no annotation of ours.
        pod["metadata"].pop("annotations", None)
        for container in (*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]):
            container.pop("env", None)
    mutated = _ask(pod, "/mutate/pod", world, user)
    after = json.loads(json.dumps(rfc6902.apply(pod, mutated.operations) if mutated.allowed else pod))
    for candidate in (pod, after):
        admitted = _ask(candidate, "/validate/pod", world, user).allowed
        event(f"admitted: {admitted}")
        if admitted:
            assert key_server_faults(candidate, user) == []
