"""`morphisms render --evidence coco-cdh`: a record that HOST_DATA alone finds, and only for what was rendered so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from attestation.verifier.policies.model import AppraisalPolicy, Policy, PolicySet
from attestation.verifier.reasons import Reason, RefusedError
from cli.main import main
from measured.measured_document import differences, document_of_annotation
from measured.pod import INITDATA_ANNOTATION
from plan.codec import read_plan
from plan.document import EvidenceSource
from tests.cli import rendering
from tests.cli.test_render_measured import applied

Record = dict[str, Any]
HUB = EvidenceSource("coco-cdh", "http://127.0.0.1:8006")


def rendered(folder: Path, *options: str) -> Path:
    folder.mkdir()
    assert main([*rendering.write_inputs(folder), "-o", str(folder / "out"), *options]) == 0
    return folder / "out"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rendered(tmp_path_factory.mktemp("evidence") / "hub", "--evidence", "coco-cdh")


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rendered(tmp_path_factory.mktemp("evidence") / "ordinary")


def record_of(out: Path) -> Record:
    return dict(yaml.safe_load((out / "appraisal.yaml").read_text()))


def test_the_webhook_injects_the_pod_with_the_plan_that_was_rendered(hub: Path) -> None:
    """The configuration in force knows nothing of the source: the document names it."""
    pod = applied(hub)
    document = document_of_annotation(pod["metadata"]["annotations"][INITDATA_ANNOTATION])
    assert document is not None
    assert differences(pod, document) == []
    (init,) = pod["spec"]["initContainers"]
    assert read_plan(init["env"][0]["value"]).evidence == (HUB,)


def test_the_record_says_so_and_the_revision_is_another_one(hub: Path, ordinary: Path) -> None:
    assert (record_of(hub)["podToken"], record_of(ordinary)["podToken"]) == ("absent", "required")
    names = [
        yaml.safe_load((out / "service.yaml").read_text())["spec"]["template"]["metadata"]["name"]
        for out in (hub, ordinary)
    ]
    assert names[0] != names[1]


def test_the_summary_says_who_is_the_identity(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rendered(tmp_path / "hub", "--evidence", "coco-cdh")
    assert "identity        every container of the pod" in capsys.readouterr().err


def test_an_agent_that_renews_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = rendering.write_inputs(tmp_path)
    service = (tmp_path / "service.yaml").read_text()
    service = service.replace("  annotations:\n", "  annotations:\n    morphisms.dev/agent: sidecar\n")
    (tmp_path / "service.yaml").write_text(service)
    assert main([*arguments, "-o", str(tmp_path / "out"), "--evidence", "coco-cdh"]) == 1
    assert "--evidence: cannot be coco-cdh: plan.agent: coco-cdh needs init" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_verifier_that_has_to_prove_itself_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = rendering.write_inputs(tmp_path)
    signer = {"kty": "EC", "crv": "P-256", **_point()}
    for name in ("cluster.yaml", "trust.yaml"):
        document = yaml.safe_load((tmp_path / name).read_text())
        document["template"]["verifier"]["attest"] = {"signer": signer, "minSerial": 1}
        (tmp_path / name).write_text(yaml.safe_dump(document))
    assert main([*arguments, "-o", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    assert main([*arguments, "-o", str(tmp_path / "hub"), "--evidence", "coco-cdh"]) == 1
    assert "plan.verifier.attest: not with coco-cdh" in capsys.readouterr().err


def _point() -> dict[str, str]:
    from joserfc.jwk import ECKey

    key = ECKey.generate_key("P-256").as_dict(private=False)
    return {"x": str(key["x"]), "y": str(key["y"])}


@pytest.mark.parametrize(
    ("start", "changes", "problem"),
    [
        ("hub", {"podToken": "required"}, "podToken does not agree with document"),
        ("ordinary", {"podToken": "absent"}, "podToken does not agree with document"),
        ("hub", {"document": None}, "podToken: absent needs document"),
        ("hub", {"document": None, "assurance": "vm"}, "podToken: absent needs document"),
        ("hub", {"assurance": "vm"}, "document needs assurance: workload"),
        ("hub", {"podToken": "no"}, "Input should be 'required' or 'absent'"),
    ],
)
def test_a_record_goes_without_a_token_only_where_it_was_rendered_so(
    request: pytest.FixtureRequest, start: str, changes: Record, problem: str
) -> None:
    record = record_of(request.getfixturevalue(start)) | changes
    record = {name: value for name, value in record.items() if value is not None}
    with pytest.raises(ValidationError, match=problem):
        AppraisalPolicy.model_validate(record)


def policies(*records: Record) -> PolicySet:
    read = [AppraisalPolicy.model_validate(each) for each in records]
    return PolicySet.of([Policy(each.workload.subject, each, (), str(number)) for number, each in enumerate(read)])


@pytest.fixture(scope="module")
def another(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another namespace's Service."""
    folder = tmp_path_factory.mktemp("another")
    arguments = rendering.write_inputs(folder)
    service = (folder / "service.yaml").read_text().replace("namespace: shop", "namespace: other")
    (folder / "service.yaml").write_text(service)
    assert main([*arguments, "-o", str(folder / "out"), "--evidence", "coco-cdh"]) == 0
    return folder / "out"


def test_host_data_alone_finds_the_record(hub: Path, ordinary: Path) -> None:
    found = policies(record_of(hub), record_of(ordinary))
    assert found.find_without_token(_host_data(hub)).record.podToken == "absent"
    with pytest.raises(RefusedError) as caught:
        found.find_without_token(_host_data(ordinary))
    assert caught.value.reason is Reason.NO_POLICY


def test_another_namespace_that_lists_a_guests_host_data_as_its_former_one_takes_nothing(
    hub: Path, another: Path
) -> None:
    """The digest is public. It belongs to the record whose document has it."""
    record = record_of(another)
    listing = {**record, "hostData": [*record["hostData"], _host_data(hub).hex()]}
    for found in (policies(record_of(hub), listing), policies(listing, record_of(hub))):
        assert found.find_without_token(_host_data(hub)).name == "cluster/shop/payments"


def test_a_former_host_data_that_two_records_list_finds_neither(hub: Path, another: Path) -> None:
    former = "ab" * 32
    both = [{**each, "hostData": [*each["hostData"], former]} for each in (record_of(hub), record_of(another))]
    assert policies(both[0]).find_without_token(bytes.fromhex(former)).name == "cluster/shop/payments"
    with pytest.raises(RefusedError, match="more than one lists this HOST_DATA"):
        policies(*both).find_without_token(bytes.fromhex(former))


def _host_data(out: Path) -> bytes:
    return bytes.fromhex(record_of(out)["hostData"][0])


def test_check_proves_such_a_rendering_and_takes_none_for_the_other(tmp_path: Path, hub: Path) -> None:
    arguments = rendering.write_inputs(tmp_path)
    assert main([*arguments, "--check", str(hub), "--evidence", "coco-cdh"]) == 0
    assert main([*arguments, "--check", str(hub)]) == 1
