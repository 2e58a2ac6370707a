"""`morphisms guest measure`: the digests are the published ones, and what nobody computed is not written as if known.

The vectors are those of sev-snp-measure's own tests, for the firmware in tests/fixtures/ovmf with an empty kernel and
initrd. They come from that project, not from hardware.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cli.main import main
from server.guest_entries import GuestFile
from server.yaml.strict import ConfigurationError, parse
from tests.support.paths import ROOT

FIRMWARE = ROOT / "tests" / "fixtures" / "ovmf" / "amdsev-suffix.bin"
CONSOLE = "console=ttyS0 loglevel=7"
# (command line, guest features, vCPUs) -> MEASUREMENT
PUBLISHED = {
    (CONSOLE, "0x1", 1): "6d287813eb5222d770f75005c664e34c204f385ce832cc2ce7d0d6f354454362"
    "f390ef83a92046c042e706363b4b08fa",
    (CONSOLE, "0x21", 1): "803f691094946e42068aaa3a8f9e26a5c89f36f7b73ecfb28c653360fe4b3aba"
    "7e534442e7e1e17895dfe778d0228977",
    ("", "0x1", 1): "ddc5224521617a536ee7ce9dd6224d1b58a8d4fda1c741f3ac99fc4bfa04ba6e9fc98646d4a07a9079397fa3852819b5",
    ("", "0x21", 1): "329c8ce0972ae52343b64d34a434a86f245dfd74f5ed7aae15d22efc78fb9683632b9b50e4e1d7fa41179ef98a7ef198",
    ("", "0x1", 4): "5061fffb019493a903613d56d54b94912a1a2f9e4502385f5c194616753720a92441310ba6c4933de877c36e23046ad5",
    ("", "0x21", 4): "4953b1fb416fa874980e8442b3706d345926d5f38879134e00813c5d7abcbe78eafe7b422907be0b4698e2414a631942",
}


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    for name in ("kernel", "initrd"):
        (tmp_path / name).write_bytes(b"")
    files = ["--kernel", str(tmp_path / "kernel"), "--initrd", str(tmp_path / "initrd")]
    return ["guest", "measure", "--firmware", str(FIRMWARE), *files, "--vcpu-type", "EPYC-v4"]


def measurements(printed: str) -> dict[str, str]:
    (entry,) = yaml.safe_load(printed).values()
    found: dict[str, str] = entry["measurements"]
    return found


@pytest.mark.parametrize(("append", "features", "vcpus"), PUBLISHED)
def test_the_digest_is_the_published_one(
    words: list[str], capsys: pytest.CaptureFixture[str], append: str, features: str, vcpus: int
) -> None:
    options = ["--append", append, "--guest-features", features, "--vcpus", str(vcpus)]
    assert main([*words, *options]) == 0
    assert measurements(capsys.readouterr().out) == {str(vcpus): PUBLISHED[append, features, vcpus]}


def test_each_number_of_vcpus_has_a_digest_of_its_own(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--vcpus", "4,1,2"]) == 0
    found = measurements(capsys.readouterr().out)
    assert list(found) == ["1", "2", "4"]
    assert (found["1"], found["4"]) == (PUBLISHED["", "0x1", 1], PUBLISHED["", "0x1", 4])
    assert len(set(found.values())) == 3


@pytest.mark.parametrize("change", ["kernel", "initrd", "append", "firmware", "vcpu-type"])
def test_whatever_the_guest_starts_with_is_in_the_digest(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    assert main([*words, "--vcpus", "1"]) == 0
    before = measurements(capsys.readouterr().out)
    if change == "append":
        words += ["--append", "agent.debug_console"]
    elif change == "vcpu-type":
        words[-1] = "EPYC-Milan"
    elif change == "firmware":
        content = bytearray(FIRMWARE.read_bytes())
        content[0] ^= 1
        (tmp_path / "firmware").write_bytes(content)
        words[words.index(str(FIRMWARE))] = str(tmp_path / "firmware")
    else:
        (tmp_path / change).write_bytes(b"x")
    assert main([*words, "--vcpus", "1"]) == 0
    assert measurements(capsys.readouterr().out) != before


def test_the_entry_loads_only_once_a_person_has_written_what_no_file_says(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--vcpus", "1,2", "--name", "kata-4.1-snp"]) == 0
    printed = capsys.readouterr().out
    with pytest.raises(ConfigurationError) as caught:
        parse(printed.encode(), GuestFile, name="guest.yaml")
    assert {problem.split(": ")[1] for problem in caught.value.problems} == {
        "kata-4.1-snp.product",
        "kata-4.1-snp.minTcb",
    }
    completed = printed.replace("  # product: Milan", "  product: Milan  # Milan").replace("  # minTcb", "  minTcb")
    completed = completed.replace("…", "1")
    guest = parse(completed.encode(), GuestFile, name="guest.yaml").value.root["kata-4.1-snp"]
    digests = {bytes.fromhex(each) for each in measurements(printed).values()}
    assert guest.reference("kata-4.1-snp").measurements == digests
    assert guest.initdata is None  # a person has to state it


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--vcpus", "1", "--firmware", "/none"], "/none: cannot be read: No such file"),
        (["--vcpus", "1", "--kernel", "/none"], "/none: cannot be read: No such file"),
        (["--vcpus", "1", "--append", "a\nb"], "--append: holds a line end"),
        (["--vcpus", "1", "--name", "a: b"], "--name: required"),
    ],
)
def test_unusable_input_is_said_in_one_line(
    words: list[str], capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main([*words, *options]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.out == ""
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("content", [b"", b"x", b"\0" * 4096, FIRMWARE.read_bytes()[:-1], FIRMWARE.read_bytes()[8:]])
def test_a_file_that_is_not_the_firmware_is_refused(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    (tmp_path / "firmware").write_bytes(content)
    assert main([*words, "--firmware", str(tmp_path / "firmware"), "--vcpus", "1"]) == 2
    said = capsys.readouterr()
    assert f"{tmp_path}/firmware: " in said.err
    assert said.out == ""


@pytest.mark.parametrize("vcpus", ["", "0", "1,1", "1,", "-1", "01", "513", "1 2", "x"])
def test_numbers_of_vcpus_that_mean_nothing_are_refused(
    words: list[str], capsys: pytest.CaptureFixture[str], vcpus: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*words, f"--vcpus={vcpus}"])
    assert ended.value.code == 2
    assert "such as 1,2,4" in capsys.readouterr().err
