"""Each allow-list allows the names, values or detectors that it lists, and nothing else."""

from __future__ import annotations

import hashlib

import pytest

from webhook.detection import Allow, Detection, Detector

_NAMED = Detection("name", "name")


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()


@pytest.mark.parametrize("glob", ["DB_PASSWORD", "db_*", "*_PASSWORD", "DB_PASSW?RD", "[cd]b_password"])
def test_names_are_globs_and_ignore_case(glob: str) -> None:
    detector = Detector(Allow(names=("OTHER", glob)))
    assert detector.find("DB_PASSWORD", "hunter2") is None
    assert detector.find("DB_PASSWORD", "postgres://app:" + "x@db") is None
    assert detector.find("MY_DB_PASSWORDS", "hunter2") == _NAMED


def test_a_glob_is_not_a_regular_expression_and_matches_the_whole_name() -> None:
    detector = Detector(Allow(names=("DB.PASSWORD", "PASSWORD")))
    assert detector.find("DB_PASSWORD", "hunter2") == _NAMED


def test_a_value_is_allowed_by_the_digest_of_the_whole_value() -> None:
    detector = Detector(Allow(values_sha256=(_digest("hunter2").upper(),)))
    assert detector.find("DB_PASSWORD", "hunter2") is None
    assert detector.find("DB_PASSWORD", "hunter2 ") == _NAMED
    assert detector.find("DB_PASSWORD", "hunter") == _NAMED
    long = "hunter2 " * 20_000
    assert Detector(Allow(values_sha256=(_digest(long),))).find("DB_PASSWORD", long) is None
    assert Detector(Allow(values_sha256=(_digest(long),))).find("DB_PASSWORD", long + "!") == _NAMED


def test_disabling_detection_by_name_keeps_detection_by_value() -> None:
    detector = Detector(Allow(detectors=("name",)))
    assert detector.find("DB_PASSWORD", "hunter2") is None
    assert detector.find("DB_PASSWORD", "postgres://app:" + "x@db") == Detection("value", "url-password")


def test_an_unknown_detector_disables_no_other() -> None:
    assert Detector(Allow(detectors=("nmae",))).find("DB_PASSWORD", "hunter2") == _NAMED
