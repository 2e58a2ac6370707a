"""Every published format is detected, and values that only resemble one are not."""

from __future__ import annotations

import json

import pytest

from tests.webhook.detection.samples import NEAR_MISSES, SAMPLES
from webhook.detection import DETECTORS, Allow, Detector
from webhook.detection.formats import FORMATS

_ALL = [pytest.param(identifier, each, id=f"{identifier}-{n}") for identifier in SAMPLES
        for n, each in enumerate(SAMPLES[identifier])]  # fmt: skip


@pytest.mark.parametrize(("identifier", "secret"), _ALL)
def test_a_secret_is_detected_under_any_name(identifier: str, secret: str) -> None:
    for name in ("SETTING", "SOME_URL", "COMMIT_ID", "DB_PASSWORD"):
        found = Detector().find(name, secret)
        assert found is not None, name
        assert (found.kind, found.detector) == ("value", identifier)


@pytest.mark.parametrize(("identifier", "secret"), _ALL)
@pytest.mark.parametrize("frame", [" {}\n", '"{}"', "first {} last", "key: {}", "a,{},b", "x={}"])
def test_a_secret_is_detected_inside_a_text(identifier: str, secret: str, frame: str) -> None:
    found = Detector().find("SETTING", frame.replace("{}", secret))
    assert found is not None
    assert found.kind == "value"


def test_a_secret_is_detected_deep_in_a_document() -> None:
    document = json.dumps({"rules": ["a rule of some length"] * 1000, "key": SAMPLES["google-api-key"][0]})
    found = Detector().find("SETTING", document)
    assert found is not None
    assert found.detector == "google-api-key"


@pytest.mark.parametrize("value", [pytest.param(value, id=title) for title, value in NEAR_MISSES.items()])
def test_a_value_that_resembles_a_secret_is_not_detected(value: str) -> None:
    assert Detector().find("SETTING", value) is None


@pytest.mark.parametrize("identifier", list(SAMPLES))
def test_a_format_can_be_disabled(identifier: str) -> None:
    detector = Detector(Allow(detectors=(identifier, "entropy")))
    for secret in SAMPLES[identifier]:
        found = detector.find("SETTING", secret)
        assert found is None or found.detector != identifier


def test_with_every_detector_disabled_nothing_is_detected() -> None:
    detector = Detector(Allow(detectors=tuple(DETECTORS)))
    assert [each for samples in SAMPLES.values() for each in samples if detector.find("DB_PASSWORD", each)] == []


def test_every_format_has_samples_a_source_and_a_name_of_its_own() -> None:
    assert [each.id for each in FORMATS] == list(dict.fromkeys(each.id for each in FORMATS))
    assert {each.id for each in FORMATS} == set(SAMPLES)
    assert {each.id for each in FORMATS} | {"name", "entropy"} == DETECTORS
    assert all(each.source.startswith("https://") for each in FORMATS)
