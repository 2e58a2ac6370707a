"""`morphisms guards`: the guards agree with the configuration, and the manifests with the default one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.guards import GUARDS, guard
from tests.cli.test_processes import morphisms
from tests.manifests.rendering import MANIFESTS, guard_file, guard_text
from webhook.configuration.model import Configuration


def _policies(text: str) -> dict[str, Any]:
    return {each["metadata"]["name"].removesuffix(".morphisms.dev"): each for each in yaml.safe_load_all(text)}


def _variable(policy: Any, name: str) -> str:
    return next(str(each["expression"]) for each in policy["spec"]["variables"] if each["name"] == name)


@pytest.mark.parametrize("name", GUARDS)
def test_the_manifests_hold_what_the_default_configuration_gives(name: str) -> None:
    assert guard_file(name).read_text() == guard_text(name), "run make manifests"
    policy, binding = yaml.safe_load_all(guard_file(name).read_text())
    assert (policy["kind"], binding["kind"]) == ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")


def test_every_guard_that_names_a_default_of_the_configuration_is_written_by_the_command() -> None:
    """A list that stands in another manifest would not follow the configuration."""
    defaults = Configuration()
    listed = {defaults.verifier.audience, *defaults.identities.knative}
    listed |= {name for profile in defaults.profile_by_name.values() for name in profile.runtimeClasses}
    folders = (MANIFESTS / "base" / "guards", MANIFESTS / "components" / "cluster-guards")
    for file in sorted(file for folder in folders for file in folder.glob("*.yaml")):
        if file not in map(guard_file, GUARDS):
            text = file.read_text()
            assert not [each for each in listed if re.search(rf"{re.escape(each)}(?![-\\w])", text)], file.name


def test_without_a_file_it_writes_the_policies_for_the_defaults_and_no_bindings() -> None:
    done = morphisms("guards")
    assert (done.returncode, done.stderr) == (0, "")
    assert list(_policies(done.stdout)) == list(GUARDS)
    assert "@" not in "".join(line for line in done.stdout.splitlines() if not line.lstrip().startswith("#"))


def test_it_follows_the_file(tmp_path: Path) -> None:
    file = tmp_path / "configuration.yaml"
    file.write_text("""
version: 1
defaultProfile: lab
profiles:
  - {name: lab, isolation: pod-vm, runtimeClasses: [lab-snp, lab-2], handlers: [h1, h2]}
namespaces:
  shop: {profiles: [peer-pod]}
  knative-serving: {profile: system}
verifier: {audience: "it's ours"}
identities: {knative: [me]}
""")
    policies = _policies(morphisms("guards", "--config", str(file)).stdout)
    present = policies["injection-present"]
    assert _variable(present, "profiles") == (
        "{'': ['lab'], 'knative-serving': ['system'], 'morphisms-kms': ['kms'], 'shop': ['lab', 'peer-pod']}"
    )
    assert _variable(present, "runtimeClasses") == (
        "{'kms': ['kata-qemu-snp'], 'lab': ['lab-snp', 'lab-2'], 'peer-pod': ['kata-remote'], 'system': []}"
    )
    assert _variable(present, "injecting") == "['peer-pod']"
    assert "['me']" in present["spec"]["matchConditions"][1]["expression"].split("\n")[-2]
    handlers = _variable(policies["runtime-class-guard"], "handlers")
    assert "'lab-2': ['h1', 'h2']" in handlers
    assert "'kata-remote': ['kata-remote']" in handlers
    audience = policies["verifier-token"]["spec"]["matchConditions"][0]["expression"]
    assert "'it\\U00000027s ours'" in audience


@pytest.mark.parametrize("text", ["a'] || true || ['", "\\'", "a\nb: c", "\x00", "@profiles@", "é\u2028😀", "#x"])
def test_a_name_cannot_leave_its_literal(text: str) -> None:
    configuration = Configuration.model_validate({"identities": {"knative": [text]}})
    for policy in _policies("---\n".join(guard(name, configuration) for name in GUARDS)).values():
        expressions = [str(each["expression"]) for each in policy["spec"]["matchConditions"]]
        for literal in re.findall(r"username in \['(.*?)'\]", "\n".join(expressions)):
            assert re.fullmatch(r"([ -&(-\[\]-~]|\\U[0-9a-f]{8})*", literal), literal


def test_it_writes_one_by_name_and_refuses_another() -> None:
    assert list(_policies(morphisms("guards", "injection-present").stdout)) == ["injection-present"]
    done = morphisms("guards", "mode-ratchet")
    assert (done.returncode, done.stdout) == (2, "")
    assert "mode-ratchet: not one of the guards: injection-present" in done.stderr


def test_it_refuses_a_configuration_that_the_webhook_refuses(tmp_path: Path) -> None:
    file = tmp_path / "configuration.yaml"
    file.write_text("version: 1\ndefaultProfile: nothing\n")
    done = morphisms("guards", "--config", str(file))
    assert (done.returncode, done.stdout) == (2, "")
    assert "unknown profile nothing" in done.stderr
