"""A Service's author is told of each annotation that does nothing, in a namespace without a mode too."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.paths import REVIEWS
from webhook.configuration.model import Configuration
from webhook.decide import decide
from webhook.decision import Decision
from webhook.modes import Mode
from webhook.review import read_review
from webhook.snapshot import RuntimeClassRecord, Snapshot

_CLASSES = {"kata-qemu-snp": RuntimeClassRecord("kata-qemu-snp", "kata-qemu-snp")}


def _decide(mode: Mode, annotations: dict[str, str], **container: Any) -> Decision:
    review = json.loads((REVIEWS / "services-create-hello-by-dev.json").read_text())
    template = review["request"]["object"]["spec"]["template"]
    template.setdefault("metadata", {})["annotations"] = {
        f"morphisms.dev/{key}": each for key, each in annotations.items()
    }
    template["spec"]["containers"][0] |= {"env": [], **container}
    request = read_review(json.dumps(review).encode(), "/validate/service")
    return decide(request, Configuration(), Snapshot({request.namespace: mode}, {}, _CLASSES))


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ({"injct": "true"}, "did you mean inject?"),
        ({"profile": "kata-smp"}, "the isolation profile"),
        ({"agent": "sidekick"}, "is not one of"),
        ({"containers": "no-such"}, "names container no-such"),
        ({"literal-env": ""}, "comma list of variable names"),
    ],
    ids=str,
)
@pytest.mark.parametrize("mode", Mode)
def test_an_unusable_annotation_is_answered_in_every_mode(
    mode: Mode, annotations: dict[str, str], message: str
) -> None:
    decision = _decide(mode, annotations)
    said = decision.denial.message if decision.denial else "\n".join(decision.warnings)
    assert message in said
    assert decision.allowed is (mode is not Mode.ENFORCE)


@pytest.mark.parametrize("value", ["True", "yes", ""])
@pytest.mark.parametrize("mode", Mode)
def test_an_unusable_inject_is_refused_in_every_mode(mode: Mode, value: str) -> None:
    decision = _decide(mode, {"inject": value})
    assert decision.denial is not None
    assert 'neither "true" nor "false"' in decision.denial.message


def test_bare_references_are_warned_of_in_audit() -> None:
    env = [{"name": "A", "value": "vault:secret/shop/db#password"}]
    decision = _decide(Mode.AUDIT, {}, command=["x"], env=env)
    assert decision.allowed
    assert "Vault references alone do not opt in" in decision.warnings[0]
    assert not [
        each for each in _decide(Mode.AUDIT, {"agent": "init"}, command=["x"], env=env).warnings if "alone" in each
    ]
