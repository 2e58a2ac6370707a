"""What the pages show is accepted by what they describe."""

from __future__ import annotations

import re
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from attestation.verifier.configuration import VerifierConfiguration
from attestation.verifier.policies.load import load_policies
from certs.authority import make_authority
from certs.periods import Periods
from cli.kms.issue import KmsGuestFile
from cli.main import COMMANDS, build_parser
from tests.support.pages import PAGES
from tests.support.paths import ROOT
from webhook.configuration.model import Configuration
from webhook.decide import decide
from webhook.modes import Mode
from webhook.pod import annotations
from webhook.request import Request, User
from webhook.snapshot import Snapshot

_VERIFIER = (ROOT / "docs" / "verifier.md").read_text()
_INSTALL = (ROOT / "docs" / "install.md").read_text()
_DOCTOR = (ROOT / "docs" / "doctor.md").read_text()
_GUESTS = (ROOT / "docs" / "guests.md").read_text()
_KMS = (ROOT / "docs" / "kms.md").read_text()
_README = (ROOT / "README.md").read_text()
_REFERENCE = (ROOT / "docs" / "reference.md").read_text()


def _yaml(page: str, marker: str) -> Any:
    """The fenced YAML that holds `marker`, its placeholders filled in."""
    block = next(block for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if marker in block)
    return yaml.safe_load(block.replace("<hex of 48 bytes>", "ab" * 48).replace("<hex of 32 bytes>", "cd" * 32))


def test_the_verifiers_configuration_is_one() -> None:
    VerifierConfiguration.model_validate(_yaml(_VERIFIER, "clusters:"))


def test_the_key_servers_reference_values_are_accepted() -> None:
    guest = next(block for block in re.findall(r"```yaml\n(.*?)```", _KMS, re.DOTALL) if "measurements" in block)
    for key, size in (("measurements", 48), ("hostData", 32), ("chipIds", 64)):
        assert f'{key}: ["…"]' in guest
        guest = guest.replace(f'{key}: ["…"]', f"{key}: [{'ab' * size}]")
    assert KmsGuestFile.model_validate(yaml.safe_load(guest)).root["kms-1"].kms_guest("kms-1")


def test_the_commands_of_the_guests_page_are_taken() -> None:
    lines = re.findall(r"^morphisms .*$", _GUESTS.replace("\\\n", " "), re.MULTILINE)
    assert len(lines) == 2
    for line in lines:
        words = shlex.split(line.partition(">")[0])
        assert build_parser(words[1]).parse_args(words[1:])


def test_the_commands_of_the_key_servers_page_are_taken() -> None:
    lines = re.findall(r"^morphisms kms .*$", _KMS.replace("\\\n", " "), re.MULTILINE)
    assert len(lines) == 5
    for line in lines:
        words = shlex.split(line.partition("#")[0].partition(">")[0])
        assert build_parser("kms").parse_args(words[1:])


def test_the_webhooks_configuration_is_one() -> None:
    data = _yaml(_INSTALL, "cluster: prod")
    # The page leaves the certificate's text to the operator.
    assert data["verifier"]["ca"].startswith("-----BEGIN CERTIFICATE-----\n…")
    data["verifier"]["ca"] = make_authority(datetime.now(UTC), Periods()).certificate_pem.decode()
    configuration = Configuration.model_validate(data)
    assert configuration.cluster == "prod"


def test_the_policy_and_its_guest_are_believable_together(tmp_path: Path) -> None:
    guests = _yaml(_VERIFIER, "measurements")
    assert guests
    for path, document in (("guests/page", guests), ("policies/prod/shop/payments", _yaml(_VERIFIER, "workload:"))):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / f"{path}.yaml").write_text(yaml.safe_dump(document))
    assert load_policies(tmp_path / "policies", tmp_path / "guests", {"prod": True}).value.policies


def test_the_readmes_service_is_admitted_in_enforce() -> None:
    service = _yaml(_README, "kind: Service")
    service["spec"]["template"]["spec"]["containers"][0]["image"] = "registry.example/payments@sha256:" + "0" * 64
    kind = ("serving.knative.dev", "v1", "Service")
    user = User("dev")
    request = Request("1", "/validate/service", kind, kind, "", "CREATE", "payments", "shop", user, service)
    decision = decide(request, Configuration(), None)
    assert decision.denial is None, decision.denial
    assert decision.warnings == ()


@pytest.mark.parametrize("path", ["/mutate/pod", "/validate/pod"])
def test_the_doctors_pod_stays_as_written_where_injection_is_optional(path: str) -> None:
    template = _yaml(_DOCTOR, "morphisms-doctor")["spec"]["template"]
    template["metadata"]["namespace"] = "shop"
    kind = ("", "v1", "Pod")
    request = Request("1", path, kind, kind, "", "CREATE", "doctor", "shop", User("dev"), template)
    decision = decide(request, Configuration(), Snapshot({"shop": Mode.INJECT}))
    assert (decision.denial, list(decision.operations)) == (None, [])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_the_reference(name: str) -> None:
    assert f"| `morphisms {name}` |" in _REFERENCE


@pytest.mark.parametrize("page", PAGES)
def test_commands_that_are_named_exist(page: str) -> None:
    shown = re.findall(r"(?:`|^|\$ |\| )(?:kubectl )?morphisms ([a-z][a-z-]*)", PAGES[page], re.MULTILINE)
    assert set(shown) <= set(COMMANDS)


@pytest.mark.parametrize("annotation", [*annotations._SINGLE, *(f"{family}NAME" for family in annotations._FAMILIES)])
def test_every_annotation_is_in_the_reference(annotation: str) -> None:
    (table,) = re.findall(r"^\| annotation \|.*?\n\n", _REFERENCE, re.MULTILINE | re.DOTALL)
    names = {
        name for cell in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall("`([^`]+)`", cell)
    }
    assert annotation in names


@pytest.mark.parametrize("profile", Configuration().profile_by_name)
def test_every_preset_profile_is_in_the_reference(profile: str) -> None:
    assert re.search(rf"^\| `{profile}`( \(default\))? \|", _REFERENCE, re.MULTILINE)


@pytest.mark.parametrize("mode", Mode)
def test_every_mode_is_in_the_reference(mode: Mode) -> None:
    assert re.search(rf"^\| (none \()?`{mode}`", _REFERENCE, re.MULTILINE)
