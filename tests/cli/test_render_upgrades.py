"""What an older release rendered still runs: after upgrades of Morphisms, of the sidecar's image and of the verifier's.

The older releases are trees of this repository's history, which render in processes of their own.
"""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from attestation.verifier.policies.model import AppraisalPolicy
from cli.main import main
from cli.proof.guest_requests import Host, guest_requests
from measured.measured_document import differences, document_of_annotation, document_of_text
from measured.pod import INITDATA_ANNOTATION, TEMPLATE_ANNOTATION
from plan.codec import read_plan
from plan.layout import CONTAINER, PLAN_VARIABLE
from tests.cli import rendering
from tests.cli.test_render_measured import applied
from tests.support.policy_engine import Engine
from tests.support.trees import tree

# Each stands for a release: the first that renders, and one between it and this tree.
RELEASES: Final = ("60a3b21", "946d0c8")
_RENDER: Final = """
import sys
from pathlib import Path
from cli.main import main
from tests.cli import rendering
folder = Path(sys.argv[1])
sys.exit(main([*rendering.write_inputs(folder), "-o", str(folder / "out")]))
"""


@pytest.fixture(scope="module", params=RELEASES)
def older(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that an older release has rendered into, with its inputs."""
    folder = tmp_path_factory.mktemp("older")
    command = [sys.executable, "-c", _RENDER, str(folder)]
    done = subprocess.run(command, cwd=tree(request.param), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def _record(folder: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((folder / "out" / "appraisal.yaml").read_text()))


def test_the_webhook_injects_its_pod_by_the_template_that_it_names(older: Path) -> None:
    """Sidecar's and verifier's images and addresses are others by now."""
    captured = yaml.safe_load((older / "cluster.yaml").read_text())
    pod = applied(older / "out", captured=captured)
    document = document_of_annotation(pod["metadata"]["annotations"][INITDATA_ANNOTATION])
    assert document is not None
    assert differences(pod, document) == []
    assert document.data["template"] == pod["metadata"]["annotations"][TEMPLATE_ANNOTATION]
    (init,) = [one for one in pod["spec"]["initContainers"] if one["name"] == CONTAINER]
    assert init["image"] == captured["template"]["sidecar"]["image"]
    with Engine((older / "out" / "policy.rego").read_text()) as guest:
        for ask in guest_requests(pod, rendering.CONFIGURATIONS, Host(random.Random(2))):
            assert guest.ask(ask["kind"], ask["request"]), ask["kind"]


def test_the_verifier_loads_its_record_as_written(older: Path) -> None:
    record = _record(older)
    assert AppraisalPolicy.model_validate(record).host_data == {bytes.fromhex(record["hostData"][0])}


def test_the_sidecar_of_today_reads_its_plan(older: Path) -> None:
    measured = document_of_text(_record(older)["document"].encode())
    assert measured is not None
    (init,) = [one for one in measured.data["containers"] if one["name"] == CONTAINER]
    assert read_plan(init["env"][PLAN_VARIABLE]).workload.service == "payments"


def test_a_rendering_of_today_keeps_it_trusted_and_says_in_words_what_changed(
    older: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = _record(older)["hostData"][0]
    arguments = rendering.write_inputs(tmp_path)
    for name in ("cluster.yaml", "trust.yaml"):
        (tmp_path / name).write_bytes((older / name).read_bytes())
    service = (tmp_path / "service.yaml").read_text().replace("it's blue", "it's green")
    (tmp_path / "service.yaml").write_text(service)
    out = tmp_path / "out"
    out.mkdir()
    for file in (older / "out").iterdir():
        (out / file.name).write_bytes(file.read_bytes())
    assert main([*arguments, "-o", str(out), "--previous", old]) == 0
    record = yaml.safe_load((out / "appraisal.yaml").read_text())
    assert record["hostData"][1:] == [old]
    AppraisalPolicy.model_validate(record)
    said = capsys.readouterr().err
    assert "changed         container user-container: variable COLOUR has another value" in said
    assert "green" not in said
