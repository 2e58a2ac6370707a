"""What `pip install` of this project brings: the packages that the commands and the images run, and nothing else."""

from __future__ import annotations

import tomllib

from setuptools.discovery import PEP420PackageFinder

from tests.support.paths import ROOT

SHIPPED = {"webhook", "sidecar", "attestation", "plan", "kbs", "logline", "measured", "certs", "server", "cli"}


def test_the_demo_the_tools_and_the_tests_are_not_in_it() -> None:
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    found = PEP420PackageFinder.find(str(ROOT), include=configuration["setuptools"]["packages"]["find"]["include"])
    assert {name.partition(".")[0] for name in found} == SHIPPED
    assert {"webhook.rules.secrets", "attestation.verifier", "cli.commands"} <= set(found)


def test_every_package_of_it_is_type_checked_and_layered() -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert SHIPPED | {"demo", "tools"} == set(tools["mypy"]["packages"]) == set(tools["importlinter"]["root_packages"])
