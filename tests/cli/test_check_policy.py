"""`morphisms check --policy`: what the policy of a coming release would deny, played with a rule of that release."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.recorded import Command, pod, write
from webhook import policy_version
from webhook.rules.rule import Rule, Severity

_NEW = Rule("isolation/new", Severity.HIGH, "a rule of 0.2", lambda _: [("spec", "change it")], since="0.2")


def test_check_shows_what_the_next_policy_would_deny(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy_version, "RELEASES", ("0.1", "0.2"))
    monkeypatch.setattr("cli.support.findings.POD", (_NEW,))
    path = write(tmp_path / "pod.yaml", pod())
    configuration = tmp_path / "configuration.yaml"
    for written, option, denied in (("0.1", (), 0), ("0.1", ("--policy", "0.2"), 1), ("0.2", ("--policy", "0.1"), 0)):
        configuration.write_text(f"policy: '{written}'")
        result = command("check", "-f", path, "--config", str(configuration), *option)
        assert f"1 violations ({denied} of them denied)" in result.err
