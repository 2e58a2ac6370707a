"""`morphisms explain`: every check of one decision, from a store that stays small."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from attestation.simulator.device import Device, Tamper
from attestation.simulator.hierarchy import Hierarchy
from attestation.verifier.records import SEGMENTS, Kept, RecordStore, find_records
from cli.main import main
from kbs.guest import read_attest_answer, read_correlation_id
from server.guest_entries import load_guests
from tests.attestation.verifier.process import Verifier, make_site, policy, verifier
from tests.attestation.verifier.test_refusals import Guest
from tests.attestation.verifier.tokens import Issuer
from tests.support.paths import ROOT
from tests.support.processes import morphisms
from tests.support.until import until


def explain(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(morphisms("explain", *arguments), capture_output=True, text=True, cwd=ROOT, timeout=300)


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
    store = RecordStore(folder, 80_000)
    for number in range(1000):
        store.add({"id": f"{number:016x}", "filler": "x" * 200}, vouched=number % 2 == 0)
    store.close()
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert 50_000 < size <= 80_000
    assert len(list(folder.iterdir())) == 2 * SEGMENTS
    for number in (998, 999):
        assert [each["id"] for each in find_records(folder, f"{number:016x}").records] == [f"{number:016x}"]
    assert find_records(folder, f"{0:016x}") == Kept((), ())
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_strangers_displace_strangers_alone(tmp_path: Path) -> None:
    store = RecordStore(tmp_path, 80_000)
    store.add({"id": "ours"}, vouched=True)
    for number in range(5000):
        store.add({"id": f"{number}", "filler": "x" * 200}, vouched=False)
    assert [each["id"] for each in find_records(tmp_path, "ours").records] == ["ours"]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 80_000


def test_a_believed_verdict_outlives_a_strangers_flood(
    tmp_path: Path, hierarchy: Hierarchy, device: Device, issuer: Issuer
) -> None:
    site = make_site(tmp_path, hierarchy, issuer, "http://127.0.0.1:1")
    site.write_policy("payments", policy())
    site.settings["explain"]["megabytes"] = 1
    with verifier(site) as running:
        client = running.client()
        identifier = read_correlation_id(Guest(client, device, issuer.token()).attest().body)
        stranger = Guest(client, device, Issuer("stranger").token())
        first = None
        for number in range(5000):
            stranger.nonce = client.nonce()
            said = read_correlation_id(stranger.attest().body)
            first = first or said
            if number % 50 == 49 and not find_records(site.folder / "verdicts", first).records:
                break
        else:
            pytest.fail("the flood has pushed nothing out")
        done = explain(identifier, "--config", site.folder / "verifier.yaml")
        assert (done.returncode, "believed" in done.stdout) == (0, True)


@pytest.mark.parametrize("replica", [0, 2])
@pytest.mark.parametrize("edit", ["change", "remove", "insert", "cut", "lose a segment"])
def test_an_edited_line_in_any_replicas_folder_breaks_the_chain(
    tmp_path: Path, edit: str, replica: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The id is of a record in another replica's folder: `explain` looks at all of them."""
    for number in range(3):
        store = RecordStore(tmp_path / str(number), 20_000)
        for count in range(60):
            store.add({"id": f"{number}-{count}", "reason": "verdict", "call": "attest", "at": "0"}, vouched=True)
        store.close()
    command = ["explain", "1-59"]
    for number in range(3):
        command += ["--folder", str(tmp_path / str(number))]
    assert main(command) == 0
    path = tmp_path / str(replica) / "vouched.1.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    edited = {
        "change": [*lines[:2], lines[2].replace(b"verdict", b"believed"), *lines[3:]],
        "remove": [*lines[:2], *lines[3:]],
        "insert": [*lines[:3], lines[2], *lines[3:]],
        "cut": [*lines[:2], lines[2][:40] + b"\n", *lines[3:]],
    }
    path.unlink()
    if edit in edited:
        path.write_bytes(b"".join(edited[edit]))
    assert main(command) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"morphisms explain: {tmp_path / str(replica)}: vouched.")


def test_a_cut_end_shows_beside_the_log(tmp_path: Path, running: Verifier, device: Device, issuer: Issuer) -> None:
    """Nothing in the folder says that its newest record is gone; the log, kept elsewhere, does."""
    client = running.client()
    body = Guest(client, device, issuer.token(uid="cut")).attest().body
    client.token(read_attest_answer(body))
    identifier = read_correlation_id(body)
    until(lambda: running.events("login", identifier))
    copy = tmp_path / "copy"
    shutil.copytree(running.site.folder / "verdicts", copy)
    arguments = (identifier, "--folder", copy, "--log", running.log_path)
    assert explain(*arguments).returncode == 0
    path = copy / "vouched.0.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    assert explain(identifier, "--folder", copy).returncode == 0
    done = explain(*arguments)
    assert (done.returncode, "records that no folder has: 1" in done.stderr) == (3, True)
    assert explain(*arguments[:-1], tmp_path / "none").returncode == 2


def test_a_stranger_does_not_write_the_log(running: Verifier, device: Device) -> None:
    tampered = replace(device, tamper=Tamper.DEBUG)
    guest = Guest(running.client(), tampered, Issuer("stranger").token())
    guest.nonce = guest.client.nonce()  # so that REPORT_DATA is another request's
    answer = guest.attest()
    (line,) = running.events("attestation", answer.error.correlation_id)
    assert "policy/debug" in line["failed"]
    assert all(len(each) < 40 for each in line["failed"])


@pytest.mark.parametrize("edit", ["change", "remove", "insert"])
def test_an_edited_line_breaks_the_chain(tmp_path: Path, edit: str) -> None:
    store = RecordStore(tmp_path, 80_000)
    for number in range(5):
        store.add({"id": f"{number}", "reason": "verdict", "call": "attest", "at": f"{number}"}, vouched=True)
    store.close()
    # Another process goes on where the first one ended.
    again = RecordStore(tmp_path, 80_000)
    again.add({"id": "5", "reason": "verdict", "call": "attest", "at": "5"}, vouched=True)
    again.close()
    assert explain("5", "--folder", tmp_path).returncode == 0
    path = tmp_path / "vouched.0.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    if edit == "change":
        lines[2] = lines[2].replace("verdict", "believed")
    elif edit == "remove":
        del lines[2]
    else:
        lines.insert(2, lines[2])
    path.write_text("".join(lines))
    done = explain("5", "--folder", tmp_path)
    place = {"change": 4, "remove": 3, "insert": 4}[edit]
    assert (done.returncode, f"vouched.0.jsonl line {place} was changed" in done.stderr) == (3, True), done.stderr


def test_several_replicas_folders_are_read_together(tmp_path: Path) -> None:
    for number, call in ((2, "token"), (1, "attest")):
        store = RecordStore(tmp_path / str(number), 80_000)
        store.add({"id": "a", "reason": "believed", "call": call, "at": f"2026-01-0{number}"}, vouched=True)
        store.close()
    done = explain("a", "--folder", tmp_path / "2", "--folder", tmp_path / "1")
    assert [line.split()[:2] for line in done.stdout.splitlines() if line[0] != " "] == [
        ["2026-01-01", "attest"],
        ["2026-01-02", "token"],
    ]


@pytest.mark.parametrize("end", ["\n", ""])
def test_a_torn_line_and_a_full_disk_cost_a_record_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    (tmp_path / "verdicts.0.jsonl").write_text('{"id":"a","cut' + end)
    store = RecordStore(tmp_path, 40_000)
    store.add({"id": "a"}, vouched=False)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        assert store.add({"id": "a", "lost": True}, vouched=False) is None
    store.add({"id": "a", "last": True}, vouched=False)
    kept = find_records(tmp_path, "a")
    assert [set(record) for record in kept.records] == [
        {"id", "previous", "sha256"},
        {"id", "last", "previous", "sha256"},
    ]
    assert kept.broken == ()
    with pytest.raises(OSError):
        find_records(tmp_path / "none", "a")


def uncommented(printed: str) -> str:
    """What a person leaves who removes the marks before the entry."""
    lines = printed.splitlines()
    assert all(line.startswith(("# ", "## ")) for line in lines), "something would load unseen"
    return "\n".join(line.removeprefix("# ") for line in lines if line.startswith("# "))


def test_a_refused_guest_becomes_an_entry_to_review_and_loads_only_once_a_person_uncomments_it(
    running: Verifier, device: Device, issuer: Issuer, tmp_path: Path
) -> None:
    wrong = replace(device, measurement=b"\2" * 48)
    answer = Guest(running.client(), wrong, issuer.token(uid="to-review")).attest()
    words = (answer.error.correlation_id, "--config", running.site.folder / "verifier.yaml")
    done = explain("--as-guest", *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert "## SIMULATED: " in done.stdout
    assert f"guest/measurement: FAILED: MEASUREMENT {'02' * 48}, required one of" in done.stdout
    assert "The signature was NOT EVALUATED" in done.stdout
    path = tmp_path / "guest.yaml"
    path.write_text(done.stdout)
    assert load_guests(path) == {}
    path.write_text(uncommented(done.stdout))
    (guest,) = load_guests(path).values()
    assert guest.measurements == {b"\2" * 48}
    assert (guest.product, guest.vmpl) == ("Simulated", {0})
    assert path.read_text().count("initdata") == 0


def test_a_report_that_nobody_signed_is_called_so(running: Verifier, device: Device, issuer: Issuer) -> None:
    forged = replace(device, tamper=Tamper.SIGNATURE)
    answer = Guest(running.client(), forged, issuer.token(uid="forged")).attest()
    done = explain("--as-guest", answer.error.correlation_id, "--config", running.site.folder / "verifier.yaml")
    assert done.returncode == 0
    assert "## NOT AUTHENTIC: the report's signature does not hold." in done.stdout


def test_a_believed_guest_is_not_written_as_refused(running: Verifier, device: Device, issuer: Issuer) -> None:
    body = Guest(running.client(), device, issuer.token(uid="not-refused")).attest().body
    done = explain("--as-guest", read_correlation_id(body), "--config", running.site.folder / "verifier.yaml")
    assert (done.returncode, done.stdout) == (1, "")
    assert "this guest was believed, as simulated" in done.stderr


def test_a_guest_in_a_broken_chain_is_not_written(tmp_path: Path) -> None:
    """A line that was slipped into the records must not become a guest."""
    store = RecordStore(tmp_path, 80_000)
    for number in range(3):
        store.add({"id": f"{number:016x}", "at": "now", "call": "attest", "reason": "verdict"}, vouched=True)
    store.close()
    path = tmp_path / "vouched.0.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0].replace("verdict", "other"), *lines[1:]]) + "\n")
    done = explain("--as-guest", f"{1:016x}", "--folder", tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
