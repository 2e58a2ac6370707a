"""Every rule is violated in some golden case, so that its words are reviewed."""

from __future__ import annotations

import pytest

from tests.webhook.golden.golden import CASES
from webhook.rules import BY_ID

_TEXT = "".join(path.read_text() for path in CASES.glob("*.yaml"))


@pytest.mark.parametrize("rule", BY_ID)
def test_a_case_violates_the_rule(rule: str) -> None:
    assert rule in _TEXT
