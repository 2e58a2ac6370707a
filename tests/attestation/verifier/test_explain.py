"""`morphisms explain`: every check of one decision, from a store that stays small."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from attestation.simulator.device import Device
from attestation.verifier.records import SEGMENTS, RecordStore, find_records
from kbs.guest import read_attest_answer, read_correlation_id
from tests.attestation.verifier.process import Verifier
from tests.attestation.verifier.test_refusals import Guest
from tests.attestation.verifier.tokens import Issuer
from tests.support.paths import ROOT
from tests.support.processes import morphisms


def explain(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(morphisms("explain", *arguments), capture_output=True, text=True, cwd=ROOT, timeout=60)


def test_a_refused_guests_id_names_each_check(running: Verifier, device: Device, issuer: Issuer) -> None:
    wrong = replace(device, measurement=b"\2" * 48)
    answer = Guest(running.client(), wrong, issuer.token(uid="explained")).attest()
    done = explain(answer.error.correlation_id, "--config", running.site.folder / "verifier.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    assert "attest  REFUSED: verdict" in done.stdout
    assert "k8s_pod_uid explained" in done.stdout
    assert "SIMULATED" in done.stdout
    assert f"guest/measurement: FAILED: MEASUREMENT {'02' * 48}, required one of" in done.stdout
    assert "signature/report: not evaluated" in done.stdout


def test_a_believed_guests_id_leads_from_the_evidence_to_the_login(
    running: Verifier, device: Device, issuer: Issuer
) -> None:
    client = running.client()
    body = Guest(client, device, issuer.token(uid="believed")).attest().body
    assert client.token(read_attest_answer(body)).status == 200
    (line,) = [each for each in running.events("attestation") if (each["pod"] or {}).get("k8s_pod_uid") == "believed"]
    identifier = read_correlation_id(body)
    assert identifier == line["correlation_id"]
    done = explain(identifier, "--config", running.site.folder / "verifier.yaml", "--json")
    decoder, text, calls = json.JSONDecoder(), done.stdout, []
    while text.strip():
        record, end = decoder.raw_decode(text.lstrip())
        calls.append((record["call"], record["reason"]))
        text = text.lstrip()[end:]
    assert calls == [("attest", "believed"), ("token", "believed")]


def test_an_unknown_id_and_an_unusable_configuration(running: Verifier, tmp_path: Path) -> None:
    assert explain("0" * 16, "--config", running.site.folder / "verifier.yaml").returncode == 1
    done = explain("0" * 16, "--config", tmp_path / "none.yaml")
    assert (done.returncode, "cannot be read" in done.stderr) == (2, True)


def test_the_store_keeps_the_newest_within_its_size(tmp_path: Path) -> None:
    folder = tmp_path / "verdicts"
    store = RecordStore(folder, 40_000)
    for number in range(1000):
        store.add({"id": f"{number:016x}", "filler": "x" * 200})
    store.close()
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert 20_000 < size <= 40_000
    assert len(list(folder.iterdir())) == SEGMENTS
    assert [record["id"] for record in find_records(folder, f"{999:016x}")] == [f"{999:016x}"]
    assert find_records(folder, f"{0:016x}") == []
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_a_torn_line_and_a_full_disk_cost_a_record_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RecordStore(tmp_path, 40_000)
    with (tmp_path / "verdicts.0.jsonl").open("a") as file:
        file.write('{"id":"a","cut\n')
    store.add({"id": "a"})

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        store.add({"id": "a", "lost": True})
    assert find_records(tmp_path, "a") == [{"id": "a"}]
    with pytest.raises(OSError):
        find_records(tmp_path / "none", "a")
