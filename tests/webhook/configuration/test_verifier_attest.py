"""`verifier.attest` reaches the plan as it was meant, or the configuration does not load."""

from __future__ import annotations

import json
from typing import Any

import pytest
from joserfc.jwk import ECKey

from attestation.simulator.hierarchy import Hierarchy
from kbs.references_signing import signer_of
from kbs.verifier_attest import SignedReferences, write_signer
from server.yaml.strict import ConfigurationError, validate
from webhook.configuration.container_template import ContainerTemplate
from webhook.configuration.model import Configuration

SIGNER = signer_of(ECKey.generate_key("P-256"))
SIGNED: dict[str, Any] = {"signer": write_signer(SIGNER), "minSerial": 3}
VALUES: dict[str, Any] = {
    "product": "Genoa",
    "measurements": ["AB" * 48],
    "minTcb": {"bootloader": 10, "tee": 0, "snp": "0x17", "microcode": 84},
    "policy": {"minAbi": "1.51"},
    "vmpl": 0,
    "hostData": ["01" * 32],
    "initdata": "enforced",
    "minFirmware": "1.55.40",
    "platformInfo": {"require": ["ALIAS_CHECK_COMPLETE"]},
    "chipIds": ["0a" * 64],
}
SIMULATED_PROFILE = {
    "name": "trial",
    "isolation": "pod-vm",
    "runtimeClasses": ["kata-qemu-snp"],
    "evidence": [{"source": "simulated", "address": "http://127.0.0.1:1"}],
}


def configured(attest: dict[str, Any] | None, **sections: Any) -> Configuration:
    document = {**sections, "verifier": {} if attest is None else {"attest": attest}}
    return validate(document, Configuration, name="webhook.yaml")


@pytest.mark.parametrize("attest", [SIGNED, VALUES], ids=["signer", "values"])
def test_the_plan_of_a_pod_demands_what_the_operator_wrote(attest: dict[str, Any]) -> None:
    configuration = configured(attest)
    (profile,) = (each for each in configuration.profile_by_name.values() if each.name == "kata-snp")
    demanded = configuration.container_template.endpoints(profile).verifier.attest
    assert configuration.verifier.attest is not None
    assert demanded == configuration.verifier.attest.plain()
    if attest is SIGNED:
        assert demanded.references == SignedReferences(SIGNER, 3)


@pytest.mark.parametrize("attest", [SIGNED, VALUES], ids=["signer", "values"])
def test_a_container_template_that_is_stored_is_read_back_the_same(attest: dict[str, Any]) -> None:
    """Replicas share it as text, and compare pods with it."""
    template = configured(attest).container_template
    read = ContainerTemplate.model_validate(json.loads(template.text))
    assert read.text == template.text
    assert read.verifier.attest is not None
    assert read.verifier.attest.plain() == configured(attest).verifier.attest.plain()  # type: ignore[union-attr]
    assert template.with_injector(1).with_injector(3).text == template.text


def test_a_container_template_without_it_does_not_name_it() -> None:
    assert "attest" not in configured(None).container_template.text
    assert configured(SIGNED).digest != configured(None).digest


@pytest.mark.parametrize(
    ("sidecar", "loads"),
    [
        ({}, True),
        ({"image": "registry.example/sidecar@sha256:" + "0" * 64}, False),
        ({"image": "registry.example/sidecar@sha256:" + "0" * 64, "injector": 2}, True),
        ({"injector": 1}, False),
        ({"injector": 2}, True),
        ({"injector": 3}, True),
    ],
)
def test_a_demand_that_the_image_may_not_read_does_not_load(sidecar: dict[str, Any], loads: bool) -> None:
    """Such an image refuses the plan, so no pod would start."""
    configured(None, sidecar=sidecar)
    if loads:
        configured(SIGNED, sidecar=sidecar)
        return
    with pytest.raises(ConfigurationError, match="nothing says that"):
        configured(SIGNED, sidecar=sidecar)


def test_a_simulated_verifier_counts_only_where_every_guest_is_simulated(hierarchy: Hierarchy) -> None:
    simulated = SIGNED | {"simulatedRoot": hierarchy.root_path.read_text()}
    trial = {"profiles": [SIMULATED_PROFILE], "defaultProfile": "trial"}
    configured(simulated, **trial)
    for real in ({}, trial | {"namespaces": {"shop": {"profiles": ["kata-snp"]}}}):
        with pytest.raises(ConfigurationError, match="only where all evidence is simulated, not in kata-snp"):
            configured(simulated, **real)


@pytest.mark.parametrize(
    ("attest", "problem"),
    [
        ({"signer": SIGNED["signer"]}, "verifier.attest.minSerial: field required"),
        (VALUES | {"measurements": []}, "verifier.attest: measurements is empty"),
        ({name: value for name, value in VALUES.items() if name != "initdata"}, "hostData and initdata do not agree"),
        ({name: value for name, value in VALUES.items() if name != "policy"}, "verifier.attest.policy: field required"),
        (SIGNED | {"minserial": 4}, "unknown key minserial, did you mean minSerial"),
    ],
)
def test_what_names_less_than_one_verifier_does_not_load(attest: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        configured(attest)
    assert problem in str(error.value)
