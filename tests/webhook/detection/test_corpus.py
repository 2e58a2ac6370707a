"""Detection on a corpus of variables whose answers were written before the detectors changed for it."""

from __future__ import annotations

from tests.webhook.detection.corpus import Variable, half
from webhook.detection import Detector


def _rates(variables: list[Variable]) -> tuple[float, float, list[str]]:
    """(share of the secrets that is found, share of the others that is taken for one, the lines that are wrong)."""
    find = Detector().find
    answers = [(each, find(each.name, each.value) is not None) for each in variables]
    wrong = [f"{each.line}: {each.name}" for each, found in answers if found != each.is_secret]
    secrets = [found for each, found in answers if each.is_secret]
    others = [found for each, found in answers if not each.is_secret]
    return sum(secrets) / len(secrets), sum(others) / len(others), wrong


def test_the_first_half_is_found_and_few_others_are_taken_for_secrets() -> None:
    found, mistaken, wrong = _rates(half("first"))
    assert found >= 0.9, wrong
    assert mistaken <= 0.03, wrong


def test_the_second_half_shows_what_the_formats_are_worth_on_values_not_seen() -> None:
    """No pattern was added for it, so the bounds are what was measured less a margin."""
    found, mistaken, wrong = _rates(half("second"))
    assert found >= 0.85, wrong
    assert mistaken <= 0.12, wrong


def test_the_corpus_is_large_enough() -> None:
    first, second = half("first"), half("second")
    assert len(first) + len(second) >= 300
    for variables in (first, second):
        assert sum(each.is_secret for each in variables) >= 70
        assert sum(not each.is_secret for each in variables) >= 70
