"""A pod whose plan does not demand the verifier's proof as the configuration does is refused, and never repaired."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import jsonpatch
import pytest

from kbs.verifier_attest import SignedReferences, SignerKey, VerifierAttest
from plan import layout
from plan.codec import read_plan, write_plan
from plan.document import Plan
from tests.support.paths import REVIEWS
from webhook.configuration.model import Configuration
from webhook.decide import decide
from webhook.decision import Decision
from webhook.modes import Mode
from webhook.review import read_review
from webhook.snapshot import RuntimeClassRecord, Snapshot

_SNAPSHOT = Snapshot(
    {"default": Mode.ENFORCE, "shop": Mode.ENFORCE},
    {},
    {"kata-qemu-snp": RuntimeClassRecord("kata-qemu-snp", "kata-qemu-snp")},
)
_SIGNER = {"kty": "EC", "crv": "P-256", "x": "A" * 43, "y": "B" * 43}
_CONFIGURATION = Configuration.model_validate({"verifier": {"attest": {"signer": _SIGNER, "minSerial": 3}}})
_OTHER = VerifierAttest(SignedReferences(SignerKey("C" * 43, "D" * 43), 3))


def _ask(path: str, pod: dict[str, Any]) -> Decision:
    review = json.loads((REVIEWS / "pods-create-payments-by-replicaset-controller.json").read_text())
    review["request"]["object"] = pod
    return decide(read_review(json.dumps(review).encode(), path), _CONFIGURATION, _SNAPSHOT)


def _injected() -> dict[str, Any]:
    review = json.loads((REVIEWS / "pods-create-payments-by-replicaset-controller.json").read_text())
    pod = review["request"]["object"]
    pod["spec"]["containers"][0]["env"] = []
    pod["metadata"].setdefault("annotations", {})["morphisms.dev/secret-tls"] = "~/tls"
    mutated = _ask("/mutate/pod", pod)
    assert mutated.denial is None
    found: dict[str, Any] = copy.deepcopy(jsonpatch.apply_patch(pod, list(mutated.operations)))
    return found


def _variable(pod: dict[str, Any]) -> dict[str, Any]:
    (container,) = (each for each in pod["spec"]["initContainers"] if each["name"] == layout.CONTAINER)
    variable: dict[str, Any] = container["env"][0]
    return variable


def test_the_pod_as_it_was_injected_is_admitted() -> None:
    pod = _injected()
    attest = read_plan(_variable(pod)["value"]).verifier.attest
    assert attest == VerifierAttest(SignedReferences(SignerKey("A" * 43, "B" * 43), 3))
    assert _ask("/validate/pod", pod).denial is None


@pytest.mark.parametrize(
    "change",
    [
        lambda plan: plan._replace(verifier=plan.verifier._replace(attest=None)),
        lambda plan: plan._replace(verifier=plan.verifier._replace(attest=_OTHER)),
        lambda plan: plan._replace(
            verifier=plan.verifier._replace(
                attest=plan.verifier.attest._replace(references=_OTHER.references._replace(min_serial=0))
            ),
        ),
    ],
    ids=["without it", "by another signer", "by an earlier serial"],
)
def test_a_plan_with_another_demand_is_refused(change: Callable[[Plan], Plan]) -> None:
    """As another webhook, or whoever may write pods, would change it after injection."""
    pod = _injected()
    variable = _variable(pod)
    variable["value"] = write_plan(change(read_plan(variable["value"])))
    denial = _ask("/validate/pod", pod).denial
    assert denial is not None
    assert "secrets/init-container" in {cause.reason for cause in denial.causes}
