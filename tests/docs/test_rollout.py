"""What docs/rollout.md shows is what the commands print."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from cli.audit.formats import text
from cli.main import main
from tests.cli.audit.found import deployment, found
from tests.cli.live.reported import REPORT, report, reported
from tests.cli.live.stand_in import ready, serving
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "rollout.md").read_text()


def block(title: str) -> str:
    """The fenced block behind the line that names it."""
    match = re.search(rf"^{re.escape(title)}\n\n```[a-z]*\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert match is not None, title
    return match[1]


def test_the_page_shows_what_audit_prints() -> None:
    plaintext: dict[str, Any] = {"env": [{"name": "DB_PASSWORD", "value": "tr0ub4dor&3-Xx9"}]}
    shown = found(
        deployment("bank", "ledger"),
        deployment("shop", "web", plaintext),
        deployment("shop", "agent", hostNetwork=True),
    )
    shown.modes.pop("lab")
    assert block("It prints, for instance:") == text(shown, colour=False)


def test_the_page_shows_what_migrate_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("service.yaml").write_text(block("With this `service.yaml`"))
    Path("configuration.yaml").write_text('{version: 1, policy: "0.1", cluster: prod}')
    where = ("--vault-path", "~/env", "--config", "configuration.yaml")
    code = main(["migrate", "-f", "service.yaml", *where, "--dry-run"])
    assert code == 1
    assert block("the dry run prints:") == capsys.readouterr().out


def test_the_page_shows_what_preflight_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cluster = ready()
    plaintext: dict[str, Any] = {"env": [{"name": "DB_PASSWORD", "value": "tr0ub4dor&3-Xx9"}]}
    large = deployment("shop", "index", {"resources": {"requests": {"memory": "16Gi"}}})
    cluster.add("shop", "audit", deployment("shop", "cart"), deployment("shop", "web", plaintext), large)
    with serving(cluster, tmp_path) as kubeconfig:
        assert main(["preflight", "shop", "--kubeconfig", str(kubeconfig)]) == 1
    assert block("It prints a line per question, for instance:") == capsys.readouterr().out


def test_the_page_shows_what_graduate_prints_when_it_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plaintext: dict[str, Any] = {"env": [{"name": "DB_PASSWORD", "value": "tr0ub4dor&3-Xx9"}]}
    cluster = reported(deployment("shop", "web", plaintext), mode="inject")
    cluster.objects[REPORT] = report("inject", 0, "fail")
    with serving(cluster, tmp_path) as kubeconfig:
        assert main(["graduate", "shop", "--kubeconfig", str(kubeconfig)]) == 1
    printed = capsys.readouterr().out.splitlines(keepends=True)
    left = [line for line in printed if line.startswith("failed ")] + printed[-2:]
    assert block("Otherwise nothing is written, and the output ends with what is left, for instance:") == "".join(left)
