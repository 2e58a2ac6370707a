"""Random words are detected; digests, identifiers and concatenated words are not."""

from __future__ import annotations

import random

import pytest

from tests.webhook.detection.samples import RANDOM_VALUES
from webhook.detection import Allow, Detection, Detector
from webhook.detection.entropy import looks_random, shannon_entropy


@pytest.mark.parametrize("tool", list(RANDOM_VALUES))
def test_most_random_values_are_detected(tool: str) -> None:
    make, share = RANDOM_VALUES[tool]
    source = random.Random(tool)  # the same values in every run, whichever tests run before
    detector = Detector()
    found = [detector.find("SETTING", make(source)) for _ in range(500)]
    assert set(found) <= {None, Detection("entropy", "entropy")}
    assert sum(each is not None for each in found) / len(found) >= share


@pytest.mark.parametrize("tool", list(RANDOM_VALUES))
def test_a_random_value_of_an_identifier_is_not_detected(tool: str) -> None:
    make, _ = RANDOM_VALUES[tool]
    source = random.Random(tool)
    assert {Detector().find(name, make(source)) for name in ("BUILD_ID", "CONFIG_HASH", "CLIENT_ID")} == {None}


def test_a_hint_in_the_name_makes_shorter_words_and_digests_detected() -> None:
    word = "q7Rk2Xv9" + "Lm4Tz8Bw"
    assert Detector().find("SETTING", word) is None
    assert Detector().find("MAPS_KEY", word) == Detection("entropy", "entropy")
    digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    assert Detector().find("SETTING", digest) is None
    assert Detector().find("MAPS_KEY", digest) == Detection("entropy", "entropy")


def test_detection_by_entropy_can_be_disabled() -> None:
    assert Detector(Allow(detectors=("entropy",))).find("SETTING", "9f86d081884c7d659a2feaa0c55ad0") is None
    assert Detector().find("SETTING", "9f86d081884c7d659a2feaa0c55ad0") is not None


@pytest.mark.parametrize(
    "value",
    [
        "dd0caa23-dda9-4966-abe1-4e0af3809fd5",
        "dd0caa23dda94966abe14e0af3809fd5",
        "01234567890123456789012345678901",
        "abcdefabcdefabcdefabcdefabcdefab",
        "payments-00042-deployment-7d9f8b6c5d-x2x4z-abcdef",
        "AbstractSingletonProxyFactoryBean2ConfigurationSupport",
        "usr/local/share/applications2/org/example/desktop3",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa1A",
        "aB3" * 14,
        "eu1-k8s2-n4x-db3-v2b-r5d-a7c-h2o-z9y",
        "GetIdByUserIdFromDbOrS3InEuWest1X",
        "V1PodFailurePolicyOnExitCodesRequirement",
        "VGhlc2UgYXJlbid0IHRoZSBkcm9pZHMgeW91J3JlIGxvb2tpbmcgZm9y",
        "sha512-" + "Ab3" * 28,
        "md5:9f86d081884c7d659a2feaa0c55ad015",
    ],
)
def test_a_value_that_is_not_random_enough_is_not_detected(value: str) -> None:
    assert not looks_random(value)


def test_entropy_is_shannon_entropy() -> None:
    assert shannon_entropy("aaaa") == 0
    assert shannon_entropy("abab") == 1
    assert shannon_entropy("abcdefgh") == 3
