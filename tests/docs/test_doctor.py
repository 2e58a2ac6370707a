"""The doctor's page lists each reason and exit code of the sidecar as the code has them."""

from __future__ import annotations

import re

from attestation.evidence.errors import Code
from sidecar.attest.handshake import evidence_reason
from sidecar.reasons import CAUSES, Exit, Reason
from tests.support.paths import ROOT

_ROWS = re.findall(
    r"^\| `([a-z-]+)` \| ([0-9]+) \| (.+?) \| (.+?) \|$", (ROOT / "docs" / "doctor.md").read_text(), re.MULTILINE
)


def test_the_page_lists_each_reason_with_its_exit_code_once_and_in_order() -> None:
    assert [(reason, int(code)) for reason, code, _, _ in _ROWS] == [
        (each.value, int(each.exit_code)) for each in Reason
    ]


def test_each_evidence_code_has_a_reason() -> None:
    assert [evidence_reason(code).value for code in Code] == [f"evidence-{code.value}" for code in Code]


def test_each_exit_code_has_a_cause_and_a_reason() -> None:
    assert list(CAUSES) == list(Exit)
    assert {each.exit_code for each in Reason} == set(Exit) - {Exit.PUBLISHED}
