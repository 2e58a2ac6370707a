"""The story that `make demo` tells."""

from __future__ import annotations

import copy
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from cli.demo.webhook import DemoWebhook
from cli.diff import masked_diff
from cli.patched import patched
from cli.terminal import CYAN, GREEN, RED, coloured, wants_colour
from webhook.configuration import Configuration

_HERE = Path(__file__).parent
_COLOUR = wants_colour(sys.stdout)


def main() -> int:
    """Tell it; 1 when a step does not end as it should."""
    with (
        tempfile.TemporaryDirectory(prefix="morphisms-demo-") as folder,
        DemoWebhook(Path(folder), _HERE / "cluster.yaml") as webhook,
    ):
        return _tell(webhook)


def _tell(webhook: DemoWebhook) -> int:
    _title("1. A Knative Service names its secrets by reference; nothing else is new to its author")
    print((_HERE / "service.yaml").read_text())
    _title(f"2. `morphisms webhook` serves admission over TLS on port {webhook.port}, for a cluster with nodes")
    print("   snp-0 (SEV-SNP) and plain-0, and the namespace shop in mode enforce\n")

    _title("3. The Service's pod, as Knative's controller made it: a recorded AdmissionReview, before and after")
    review = _review("pod-review.json")
    pod = review["request"]["object"]
    answer = webhook.ask("/mutate/pod", review)
    if not answer["allowed"]:
        return _unexpected(answer)
    confidential = patched(pod, answer["patch"])
    print(masked_diff("pod", pod, confidential, Configuration(), colour=_COLOUR))

    _title("4. What came out is judged anew, trusting nothing of step 3")
    review["request"]["object"] = confidential
    if not _expect(webhook.ask("/validate/pod", review), allowed=True):
        return 1

    _title("5. The same pod, aimed at the plain node by nodeName")
    aimed = copy.deepcopy(review)
    aimed["request"]["object"]["spec"]["nodeName"] = "plain-0"
    if not _expect(webhook.ask("/validate/pod", aimed), allowed=False):
        return 1

    _title("6. The same pod, bound to the plain node past the scheduler's judgement")
    if not _expect(webhook.ask("/validate/binding", _review("binding-review.json")), allowed=False):
        return 1

    _title("7. Another Service, with a password in plain text: its author reads this at `kubectl apply`")
    if not _expect(webhook.ask("/validate/service", _review("service-review.json")), allowed=False):
        return 1
    print("Attestation and the secrets themselves come with the sidecar; `morphisms report verify` judges SNP reports.")
    return 0


def _review(name: str) -> dict[str, Any]:
    review: dict[str, Any] = json.loads((_HERE / name).read_text())
    return review


def _title(text: str) -> None:
    print(coloured(text, CYAN, wanted=_COLOUR))


def _expect(answer: dict[str, Any], *, allowed: bool) -> bool:
    if answer["allowed"]:
        print("   " + coloured("allowed", GREEN, wanted=_COLOUR) + "\n")
    else:
        print("   " + coloured("refused", RED, wanted=_COLOUR))
        for cause in answer["status"].get("details", {}).get("causes", []):
            print(f"   [{cause['reason']}] {cause['message']}")
        print()
    if answer["allowed"] is not allowed:
        _unexpected(answer)
        return False
    return True


def _unexpected(answer: dict[str, Any]) -> int:
    print(f"this should have ended otherwise: {answer.get('status', {}).get('message', 'allowed')}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
