"""The loader checks ids in the configuration file as well as keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.yaml.strict import ConfigurationError
from webhook.configuration.model import Configuration
from webhook.configuration_file import load_configuration


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("rules: {secrets/plaintext-evn: {audit: deny}}", "unknown rule secrets/plaintext-evn, did you mean"),
        ("plaintext: {detectors: [stripe-keys]}", "unknown detector stripe-keys, did you mean stripe-key?"),
        ("defaultProfile: kata", "unknown profile kata; known are kata-snp, peer-pod, system"),
        ("clutser: prod", "unknown key clutser, did you mean cluster?"),
        ("sidecar: {imge: x}", "unknown key imge, did you mean image?"),
        ("version: 2", "version"),
    ],
)
def test_an_unknown_id_is_reported_with_the_nearest_known_one(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as raised:
        load_configuration(path)
    assert problem in str(raised.value)


def test_the_digest_covers_the_parsed_configuration(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("version: 1\n")
    before = load_configuration(path).digest
    path.write_text("# a comment\ncluster: cluster\n")
    assert load_configuration(path).digest == before
    path.write_text("cluster: prod\n")
    assert load_configuration(path).digest != before


@pytest.mark.parametrize(
    ("namespaces", "default", "allowed"),
    [
        ({}, "kata-snp", {"kata-snp"}),
        ({"other": {"profiles": ["peer-pod"]}}, "kata-snp", {"kata-snp"}),
        ({"shop": {}}, "kata-snp", {"kata-snp"}),
        ({"shop": {"profiles": ["peer-pod"]}}, "kata-snp", {"kata-snp", "peer-pod"}),
        ({"shop": {"profile": "peer-pod"}}, "peer-pod", {"peer-pod"}),
        ({"shop": {"profile": "system", "profiles": ["kata-snp"]}}, "system", {"kata-snp", "system"}),
    ],
)
def test_a_namespace_may_use_its_default_profile_and_those_listed(
    namespaces: dict[str, dict[str, object]], default: str, allowed: set[str]
) -> None:
    """However the other profiles attest: an author's annotation chooses none that the operator did not list."""
    lab = {
        "name": "lab",
        "isolation": "pod-vm",
        "runtimeClasses": ["kata-lab"],
        "evidence": [{"source": "coco-aa", "address": "http://127.0.0.1:8006"}],
    }
    configuration = Configuration.model_validate({"profiles": [lab], "namespaces": namespaces})
    assert configuration.default_profile_of("shop") == default
    assert configuration.profiles_allowed_in("shop") == allowed
