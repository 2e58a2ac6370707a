"""`morphisms report` as people call it."""

from __future__ import annotations

import argparse
import json
import os
import ssl
import subprocess
import sys

import pytest
import yaml

import cli.commands.report
from attestation.report.abi import parse_report
from attestation.report.certificate_table import TableEntry, encode_certificate_table
from attestation.report.report_data import ascii_encoded
from attestation.verifier.policies.load import load_policies
from server.yaml.strict import ConfigurationError

AT = ("--at", "2025-12-01T00:00:00Z")
VLEK_GUEST = {"signingKeys": ["VLEK"], "cspIds": ["CN=test"]}
# What a caller has to say who wants neither a policy nor revocation lists.
WAIVED = ("--authenticity-only", "--no-revocation")


@pytest.fixture
def morphisms(capsys):
    """Run with these words; exit code, stdout, stderr."""

    def run(*words):
        parser = argparse.ArgumentParser()
        cli.commands.report.configure(parser)
        code = cli.commands.report.run(parser.parse_args([str(word) for word in words]))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def real(vectors):
    """The words for one vector: report and leaf by id, AMD's chains."""

    def words(identifier):
        folder = vectors.path(f"reports/{identifier}")
        roots = vectors.path("roots")
        return ["verify", folder / "report.bin", "--vek", folder / "vek.der", "--certs", roots, "--roots", roots, *AT]

    return words


@pytest.fixture
def own(milan, tmp_path):
    """A report and its certificates in files, under a root that is not AMD's."""
    leaf, key = milan.leaf()
    (tmp_path / "certs").mkdir()
    (tmp_path / "crls").mkdir()
    (tmp_path / "report.bin").write_bytes(milan.report(key))
    (tmp_path / "vek.pem").write_text(ssl.DER_cert_to_PEM_cert(leaf.der))
    (tmp_path / "certs" / "ask.der").write_bytes(milan.ask().der)
    (tmp_path / "certs" / "ark.der").write_bytes(milan.ark.der)
    (tmp_path / "crls" / "crl.der").write_bytes(milan.crl().der)
    return tmp_path


POSITIVE = [
    "genoa-v2-vmpl1-sevattesttool", "genoa-v3-coco-aa-json-trustee", "genoa-v3-configfs-tsm-veraison",
    "genoa-v3-routex", "genoa-v5-routex",
    "milan-v2-aci-hostdata-skr", "milan-v2-azure-trustee", "milan-v2-idblock-authorkey-steward", "milan-v2-virtee",
    "milan-v3-routex", "milan-v3-vlek-aws-trustee", "turin-v5-routex",
]  # fmt: skip


@pytest.mark.parametrize("identifier", POSITIVE)
def test_authentic_reports(morphisms, real, identifier):
    code, out, err = morphisms(*real(identifier), *WAIVED)
    assert code == 0
    assert out.splitlines()[-1] == "believed · authenticity only, no policy was applied · revocation unchecked"
    assert "no --policy" in err
    assert "revocation was not checked" in err
    assert "\x1b" not in out


def test_refused_report(morphisms, real):
    code, out, _ = morphisms(*real("milan-v2-debug-gosevguest"))
    assert code == 1
    assert "FAILED policy/debug" in out
    assert out.splitlines()[-1].endswith("failed: policy/debug")


@pytest.mark.parametrize("leaf", ["legacy.der", "new.der"])
def test_synthetic_leaf_is_refused(morphisms, real, vectors, leaf):
    words = real(vectors.first("milan-v2-azure-trustee", "milan-v2-virtee"))
    words[words.index("--vek") + 1] = vectors.path(f"reports/synthetic-leaves/{leaf}")
    code, out, _ = morphisms(*words)
    assert code == 1
    assert "FAILED chain/leaf" in out


def test_expired_crl_of_the_vectors(morphisms, real, vectors):
    code, out, _ = morphisms(*real("genoa-v3-routex"), "--crls", vectors.path("crl"))
    assert code == 1
    assert "FAILED crl/fresh" in out


@pytest.mark.parametrize(
    ("identifier", "product"), [("turin-v5-routex", "Turin"), ("genoa-v2-vmpl1-sevattesttool", "Genoa")]
)
def test_json_is_the_verdict(morphisms, real, identifier, product):
    code, out, _ = morphisms(*real(identifier), *WAIVED, "--json")
    result = json.loads(out)
    assert code == 0
    assert (result["believed"], result["scope"], result["product"], result["simulated"]) == (
        True,
        "authenticity",
        product,
        False,
    )
    assert result["revocation"] == "unchecked"
    assert {check["id"]: check["ok"] for check in result["checks"]}["leaf/type"] is True


def test_certificates_out_of_the_evidence(morphisms, vectors):
    evidence = vectors.path("reports/genoa-v3-coco-aa-json-trustee/evidence.json")
    assert morphisms("verify", evidence, "--roots", vectors.path("roots"), *WAIVED, *AT)[0] == 0


def test_configfs_folder_and_table_as_vek(morphisms, vectors, tmp_path):
    name = vectors.first("genoa-v3-configfs-tsm-veraison", "milan-v2-virtee")
    folder = vectors.path(f"reports/{name}")
    (tmp_path / "outblob").write_bytes((folder / "report.bin").read_bytes())
    (tmp_path / "auxblob").write_bytes((folder / "auxblob.bin").read_bytes())
    roots = ("--roots", vectors.path("roots"), *WAIVED, *AT)
    assert morphisms("verify", tmp_path, *roots)[0] == 0
    assert morphisms("verify", folder / "report.bin", "--vek", folder / "auxblob.bin", *roots)[0] == 0


# A version 2 report does not name its product: without a leaf no root can be looked for.
@pytest.mark.parametrize(
    ("identifier", "also"), [("milan-v3-routex", "certificates/root"), ("milan-v2-virtee", "product/line")]
)
def test_missing_certificates_are_a_refusal(morphisms, vectors, identifier, also):
    report = vectors.path(f"reports/{identifier}/report.bin")
    code, out, _ = morphisms("verify", report, *AT)
    assert code == 1
    assert "FAILED certificates/leaf" in out
    assert f"FAILED {also}" in out


@pytest.mark.parametrize("identifier", ["milan-v3-routex", "milan-v2-virtee"])
def test_report_data(morphisms, real, vectors, identifier):
    words = [*real(identifier), *WAIVED]
    actual = parse_report(vectors.report(identifier)).report_data
    assert morphisms(*words, "--report-data", actual.hex())[0] == 0
    assert morphisms(*words, "--report-data", "00" * 48)[0] == 1
    assert morphisms(*words, "--report-data", "00" * 47)[0] == 2
    assert morphisms(*words, "--report-data", "xyz")[0] == 2


def test_report_data_digest_in_both_encodings(morphisms, milan, own):
    leaf, key = milan.leaf()
    (own / "vek.der").write_bytes(leaf.der)
    digest = bytes(range(48))
    for encoded in (digest + bytes(16), ascii_encoded(digest)):
        (own / "report.bin").write_bytes(milan.report(key, report_data=encoded))
        out = morphisms("verify", own / "report.bin", "--vek", own / "vek.der", "--report-data", digest.hex())[1]
        assert "ok     guest/report-data" in out


POLICIES = {
    "genoa-v5-routex": {"minTcb": {"bootloader": 10, "tee": 0, "snp": 27, "microcode": 88}, "vmpl": 0},
    "genoa-v2-vmpl1-sevattesttool": {
        "minTcb": {"bootloader": 7, "tee": 0, "snp": 11, "microcode": 62},
        "vmpl": 1,
        "versions": {"min": 2},
    },
}


def policy_file(vectors, path, identifier, **changes):
    report = parse_report(vectors.report(identifier))
    entry = {
        "product": "Genoa",
        "measurements": [report.measurement.hex()],
        "policy": {"debug": False, "smt": True},
        **POLICIES[identifier],
    }
    path.write_text(yaml.safe_dump({"my-guest": entry | changes}))
    return path


@pytest.mark.parametrize("identifier", POLICIES)
def test_policy(morphisms, real, vectors, tmp_path, identifier):
    words = [*real(identifier), "--no-revocation"]
    code, out, err = morphisms(*words, "--policy", policy_file(vectors, tmp_path / "guest.yaml", identifier))
    assert (code, err) == (0, "revocation was not checked: --crls DIR (--vlek-crls DIR) has the lists\n")
    assert out.splitlines()[-1] == "believed · guest my-guest · revocation unchecked"
    demanding = policy_file(vectors, tmp_path / "guest.yaml", identifier, crl="require")
    code, out, _ = morphisms(*words, "--policy", demanding)
    assert code == 1
    assert out.splitlines()[-1].endswith("failed: crl/present")
    code, out, _ = morphisms(
        *words, "--policy", policy_file(vectors, tmp_path / "guest.yaml", identifier, measurements=["00" * 48])
    )
    assert code == 1
    assert "FAILED guest/measurement" in out


@pytest.mark.parametrize(
    "text", ["", "a: 1", "a: {}\nb: {}", "[", "{a: {product: Milan, minTCB: 1}}", "!!python/object:x {}"]
)
def test_unusable_policy(morphisms, real, tmp_path, text):
    (tmp_path / "guest.yaml").write_text(text)
    code, out, err = morphisms(*real("milan-v2-debug-gosevguest"), "--policy", tmp_path / "guest.yaml")
    assert (code, out) == (2, "")
    assert "guest.yaml:" in err


def test_the_policy_is_read_as_the_verifier_reads_it(morphisms, real, vectors, tmp_path):
    """A key given twice would be the first value to one reader and the last to another."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "guests").mkdir()
    name = vectors.first(*POLICIES)
    guest = policy_file(vectors, tmp_path / "guests" / "guest.yaml", name)
    guest.write_text(guest.read_text() + "  vmpl: 3\n")
    code, out, err = morphisms(*real(name), "--policy", guest)
    with pytest.raises(ConfigurationError) as caught:
        load_policies(tmp_path / "policies", tmp_path / "guests", {})
    assert (code, out) == (2, "")
    assert "my-guest.vmpl: key given twice, first on line" in err
    assert err == f"morphisms report: {caught.value}\n"


def test_foreign_root_and_revocation_lists(morphisms, own):
    words = ["verify", own / "report.bin", "--vek", own / "vek.pem", "--certs", own / "certs", "--crls", own / "crls",
             "--at", "2026-06-01T00:00:00Z"]  # fmt: skip
    code, out, _ = morphisms(*words)
    assert code == 1
    assert out.splitlines()[-1].endswith("failed: chain/anchor")


def test_simulated_root(morphisms, platform_of, tmp_path):
    simulated = platform_of("Simulated")
    leaf, key = simulated.leaf()
    table = encode_certificate_table([TableEntry("VCEK", leaf.der), TableEntry("ASK", simulated.ask().der)])
    (tmp_path / "outblob").write_bytes(simulated.report(key))
    (tmp_path / "auxblob").write_bytes(table)
    (tmp_path / "root.pem").write_bytes(simulated.ark.der)
    at = ("--at", "2026-06-01T00:00:00Z")
    assert morphisms("verify", tmp_path, *at)[0] == 1
    code, out, err = morphisms("verify", tmp_path, "--simulated-root", tmp_path / "root.pem", *WAIVED, *at)
    assert code == 0
    assert "SIMULATED" in out
    assert "says nothing about real hardware" in err


@pytest.mark.parametrize("vlek", [False, True])
@pytest.mark.parametrize("policy", ["--policy", "--authenticity-only", None])
@pytest.mark.parametrize("lists", ["own", "other", "soft", "--no-revocation", None])
def test_the_exit_code_says_that_something_was_not_checked(morphisms, platform_of, tmp_path, vlek, policy, lists):
    """0 only if policy and revocation were checked, or the command line says that they need not be."""
    simulated = platform_of("Simulated")
    leaf, key = simulated.leaf(vlek=vlek)
    kind, intermediate = ("VLEK", simulated.asvk()) if vlek else ("VCEK", simulated.ask())
    table = encode_certificate_table([TableEntry(kind, leaf.der), TableEntry("ASK", intermediate.der)])
    (tmp_path / "outblob").write_bytes(simulated.report(key, vlek=vlek))
    (tmp_path / "auxblob").write_bytes(table)
    (tmp_path / "root.pem").write_bytes(simulated.ark.der)
    (tmp_path / "crls").mkdir()
    (tmp_path / "crls" / "list").write_bytes(simulated.crl().der)
    words = ["verify", tmp_path, "--simulated-root", tmp_path / "root.pem", "--at", "2026-06-01T00:00:00Z", "--json"]
    entry = {"product": "Simulated", "measurements": [(b"m" * 48).hex()], "minTcb": simulated.tcb.as_dict()}
    if vlek:
        entry |= VLEK_GUEST
    if lists == "soft":
        entry["crl"] = "soft"
    (tmp_path / "guest.yaml").write_text(yaml.safe_dump({"guest": entry}))
    words += [] if policy is None else [policy, tmp_path / "guest.yaml"] if policy == "--policy" else [policy]
    own, other = ("--vlek-crls", "--crls") if vlek else ("--crls", "--vlek-crls")
    words += {"own": [own, tmp_path / "crls"], "other": [other, tmp_path / "crls"]}.get(lists, [])
    words += ["--no-revocation"] if lists == "--no-revocation" else []
    code, out, _ = morphisms(*words)
    assert json.loads(out)["revocation"] == ("checked" if lists == "own" else "unchecked")
    if lists == "other":
        assert code == 1
    else:
        assert code == (0 if policy is not None and lists in ("own", "--no-revocation") else 3)


@pytest.mark.parametrize(
    "words",
    [
        ["verify", "{here}/missing"],
        ["verify", "{here}/short.bin"],
        ["show", "{here}/short.bin"],
        ["show", "{here}/empty-folder"],
        ["verify", "{here}/report.bin", "--vek", "{here}/short.bin"],
        ["verify", "{here}/report.bin", "--vek", "{here}/missing"],
        ["verify", "{here}/report.bin", "--certs", "{here}/missing"],
        ["verify", "{here}/report.bin", "--roots", "{here}/report.bin"],
        ["verify", "{here}/report.bin", "--crls", "{here}/bad-crls"],
        ["verify", "{here}/report.bin", "--at", "yesterday"],
        ["verify", "{here}/report.bin", "--at", "2025-12-01T00:00:00"],
        ["verify", "{here}/report.bin", "--simulated-root", "{here}/vek.pem"],
        ["verify", "{here}/report.bin", "--policy", "{here}/missing"],
    ],
)
def test_unusable_input(morphisms, own, words):
    (own / "short.bin").write_bytes(bytes(100))
    (own / "empty-folder").mkdir()
    (own / "bad-crls").mkdir()
    (own / "bad-crls" / "crl.der").write_bytes(b"garbage")
    code, out, err = morphisms(*(word.format(here=own) for word in words))
    assert (code, out) == (2, "")
    assert err.startswith("morphisms report: ")
    assert err.count("\n") == 1


def test_show(morphisms, vectors):
    code, out, err = morphisms("show", vectors.path("reports/turin-v5-routex/report.bin"))
    assert (code, err) == (0, "")
    fields = dict(line.split(None, 1) for line in out.splitlines())
    assert fields["PRODUCT"] == "Turin"
    assert fields["REPORTED_TCB"] == "fmc=0 bootloader=1 tee=0 snp=2 microcode=71"


def test_show_of_an_agents_document(morphisms, vectors):
    evidence = vectors.path("reports/genoa-v3-coco-aa-json-trustee/evidence.json")
    shown = json.loads(morphisms("show", evidence, "--json")[1])
    assert (shown["ENVELOPE"], shown["CERTIFICATES"], shown["VERSION"]) == ("CoCo attestation agent", ["VCEK"], 3)
    assert shown["POLICY_BITS"] == ["ABI>=0.0", "SMT"]


@pytest.mark.parametrize(
    ("identifier", "tcb"),
    [("genoa-v2-novcek-routex", "0700000000000e44"), ("milan-v2-debug-gosevguest", "0200000000000544")],
)
def test_show_without_a_known_line_leaves_tcbs_raw(morphisms, vectors, identifier, tcb):
    report = vectors.path(f"reports/{identifier}/report.bin")
    shown = json.loads(morphisms("show", report, "--json")[1])
    assert shown["REPORTED_TCB"] == tcb
    assert shown["PRODUCT"].startswith("unknown")


def test_color_on_a_terminal_only(vectors):
    """A real process on a real pseudo-terminal, and the same into a pipe."""
    folder = vectors.path("reports/milan-v2-debug-gosevguest")
    program = (
        "import argparse, sys, cli.commands.report as r; p = argparse.ArgumentParser(); r.configure(p);"
        "sys.exit(r.run(p.parse_args(sys.argv[1:])))"
    )
    words = [sys.executable, "-c", program, "verify", folder / "report.bin", "--vek", folder / "vek.der", *AT]
    leader, follower = os.openpty()
    on_terminal = subprocess.run(words, stdout=follower, stderr=subprocess.DEVNULL, timeout=60)
    os.close(follower)
    text = b""
    while chunk := _read(leader):
        text += chunk
    os.close(leader)
    piped = subprocess.run(words, capture_output=True, timeout=60)
    assert on_terminal.returncode == piped.returncode == 1
    assert b"\x1b[31mFAILED" in text
    assert b"\x1b" not in piped.stdout


def _read(terminal):
    try:
        return os.read(terminal, 65536)
    except OSError:  # the other side is closed
        return b""
