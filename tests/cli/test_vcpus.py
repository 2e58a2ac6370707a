"""How many vCPUs a pod's guest has: as Kata sized the guests that were recorded, and as the kubelet sums limits."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from cli.main import main
from cli.rendering.vcpus import cpu_limit, vcpus
from tests.cli import rendering
from tests.support.paths import SHARED

RECORDED: Final = SHARED / "fixtures" / "kata-requests" / "recorded"
QUOTA, PERIOD = (f"io.kubernetes.cri.sandbox-cpu-{name}" for name in ("quota", "period"))


def container(cpu: object = None, **more: Any) -> dict[str, Any]:
    return {"name": "c", "resources": {"limits": {"cpu": cpu}} if cpu is not None else {}, **more}


def pod(*containers: dict[str, Any], init: tuple[dict[str, Any], ...] = (), **more: Any) -> dict[str, Any]:
    return {"spec": {"containers": list(containers), "initContainers": list(init), **more}}


@pytest.mark.parametrize(
    ("asked", "limit", "count"),
    [
        (pod(container()), "0", 1),
        (pod(container("500m")), "0.5", 2),
        (pod(container("1")), "1", 2),
        (pod(container(1)), "1", 2),
        (pod(container("1"), container("1m")), "1.001", 3),
        (pod(container("1"), container()), "1", 2),
        (pod(container("1"), init=(container("3"),)), "3", 4),
        (pod(container("1"), init=(container("500m"),)), "1", 2),
        (pod(container("1"), init=(container("500m", restartPolicy="Always"),)), "1.5", 3),
        (pod(container("1"), init=(container("1", restartPolicy="Always"), container("2"))), "3", 4),
        (pod(container("1"), init=(container("2"), container("1", restartPolicy="Always"))), "2", 3),
        (pod(container("8"), resources={"limits": {"cpu": "2"}}), "2", 3),
        (pod(container("words")), "0", 1),
    ],
)
def test_limits_are_summed_as_the_kubelet_does(asked: dict[str, Any], limit: str, count: int) -> None:
    assert cpu_limit(asked) == Decimal(limit)
    assert vcpus(asked, 1) == count


@pytest.mark.parametrize("name", ["kn-init-1", "kn-sidecar-1", "knlike-1", "shapes"])
def test_recorded_guests_were_sized_so(name: str) -> None:
    if not RECORDED.is_dir():
        pytest.skip("the recorded requests of real guests are not beside this checkout")
    asked = json.loads((RECORDED / f"{name}-pod.json").read_text())
    lines = map(json.loads, (RECORDED / f"{name}.jsonl").read_text().splitlines())
    found = [line["request"]["OCI"]["Annotations"] for line in lines if line["kind"] == "CreateContainerRequest"]
    (sizes,) = [each for each in found if QUOTA in each]
    assert cpu_limit(asked) == Decimal(sizes[QUOTA]) / Decimal(sizes[PERIOD])


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    return [*rendering.write_inputs(tmp_path), "-o", str(tmp_path / "out")]


def trust(folder: Path, guests: object) -> None:
    (folder / "trust.yaml").write_text(yaml.safe_dump(rendering.trust() | {"guests": guests}))


def test_the_summary_names_the_measurement_that_the_pods_guest_will_have(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guest = {"measurements": {"1": "aa" * 48, "2": "bb" * 48}}
    trust(tmp_path, {"kata-snp": guest, "other": guest | {"baseVcpus": 4}, "unmeasured": {}})
    assert main(words) == 0
    said = capsys.readouterr().err
    # The limits are those of morphisms-init, 500m.
    assert "vCPUs           2: the runtime's default_vcpus 1, and CPU limits of 500m, rounded up" in said
    assert "vCPUs           5: the runtime's default_vcpus 4" in said
    assert f"measurement     kata-snp: {'bb' * 48}" in said
    assert "measurement     other: none for 5 vCPUs: the verifier will refuse the pod" in said
    assert "measurement     unmeasured" not in said
    record = yaml.safe_load((tmp_path / "out" / "appraisal.yaml").read_text())
    assert record["guests"] == ["kata-snp", "other", "unmeasured"]


def test_a_names_alone_entry_says_the_number_and_no_measurement(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 0
    said = capsys.readouterr().err
    assert "vCPUs           2: " in said
    assert "measurement     " not in said


@pytest.mark.parametrize(
    ("guests", "problem"),
    [
        ([], "guests"),
        ({}, "guests"),
        ([1], "guests"),
        ({"kata-snp": {"measurements": {"0": "aa" * 48}}}, "not a number of vCPUs"),
        ({"kata-snp": {"measurement": {}}}, "unknown key measurement, did you mean measurements?"),
    ],
)
def test_guests_that_mean_nothing_are_refused(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], guests: object, problem: str
) -> None:
    trust(tmp_path, guests)
    assert main(words) == 2
    assert problem in capsys.readouterr().err
