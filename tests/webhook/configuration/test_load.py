"""The loader checks ids in the configuration file as well as keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.yaml.strict import ConfigurationError
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
