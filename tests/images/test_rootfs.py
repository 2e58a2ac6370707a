"""What the images hold, measured and run without a container engine."""

from __future__ import annotations

import hashlib
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from measured.policy import rules_text
from tests.images import foundations
from tests.images.conftest import Image
from tools.images.archive import pack
from tools.images.rootfs import SOURCE
from tools.images.targets import PYTHON

pytestmark = pytest.mark.slow

_OURS = {"attestation", "certs", "cli", "kbs", "logline", "measured", "plan", "server", "sidecar", "webhook"}
_BUDGET_MB = 30


def _files(image: Image) -> list[Path]:
    return [path for path in sorted(image.root.rglob("*")) if path.is_file() and not path.is_symlink()]


def _locked(image: Image) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (SOURCE / image.target.requirements).read_text(), re.MULTILINE))


def test_its_command_runs_read_only_and_not_as_root(image: Image) -> None:
    done = image.run(f"/{image.target.entrypoint}", "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")
    if "cli.main" in image.target.modules:
        assert image.run(f"/{image.target.entrypoint}", image.target.name, "--help").returncode == 0


def test_the_verifiers_image_has_the_explain_command(images: dict[str, Image]) -> None:
    done = images["verifier"].run("/usr/bin/morphisms", "explain", "--help")
    assert done.returncode == 0, done.stderr
    assert "correlation id" in done.stdout


def test_the_verifiers_image_knows_when_it_was_built(images: dict[str, Image]) -> None:
    image = images["verifier"]
    said = image.python("from attestation.verifier.clock import build_time; print(int(build_time()))")
    assert int(said) == int((image.packages / "attestation/verifier/clock.py").stat().st_mtime)
    assert (image.packages / "attestation/verifier/built").exists()


def test_tests_run_the_image_read_only_and_not_as_root(image: Image) -> None:
    said = image.python(
        "import os\n"
        "try: open('/tmp/x', 'w')\n"
        "except OSError as error: print(error.errno == 30, os.getuid())\n"
    )  # fmt: skip
    assert said == f"True {65532 if os.geteuid() == 0 else 0}\n"


def test_every_module_of_ours_can_be_imported(image: Image) -> None:
    modules = [
        ".".join(file.relative_to(image.packages).with_suffix("").parts).removesuffix(".__init__")
        for name in _OURS
        for file in sorted((image.packages / name).rglob("*.py"))
    ]
    assert set(image.target.modules) <= set(modules)
    image.python("\n".join(f"import {module}" for module in modules))


def test_the_only_programs_are_the_interpreter_and_ours(image: Image) -> None:
    programs = {
        path.relative_to(image.root).as_posix()
        for path in _files(image)
        if path.stat().st_mode & 0o111 and ".so" not in path.name
    }
    helper = {"usr/libexec/morphisms/exec"} if image.target.exec_helper else set()
    assert programs == {f"usr/bin/{PYTHON}", image.target.entrypoint} | helper
    assert not any(path.lstat().st_mode & 0o6000 for path in _files(image))


def test_only_root_may_write_any_file(image: Image) -> None:
    writable = [path for path in image.root.rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o022]
    assert writable == [image.root / "tmp"]


def test_the_sidecars_image_has_no_server_admission_or_commands(images: dict[str, Image]) -> None:
    packages = images["sidecar"].packages
    ours = {name for name in _OURS if (packages / name).exists()}
    assert ours == {"attestation", "kbs", "logline", "plan", "sidecar"}
    # It appraises the verifier, so it has the checks; it has neither the verifier nor the key service's client.
    assert not any((packages / "attestation" / name).exists() for name in ("verifier", "simulator", "pki/kds.py"))
    assert {file.name for file in (packages / "kbs").glob("*.py")} == {
        "__init__.py",
        "attested.py",
        "attested_guest.py",
        "base64url.py",
        "bounded_http.py",
        "deadline.py",
        "endpoint.py",
        "ephemeral_key.py",
        "guest.py",
        "guest_values.py",
        "http_date.py",
        "messages.py",
        "reference_values.py",
        "references.py",
        "spki.py",
        "trust.py",
        "verifier_attest.py",
    }
    assert not any((packages / name).exists() for name in ("aiohttp", "hvac", "pydantic"))


def test_neither_servers_image_has_the_other_server(images: dict[str, Image]) -> None:
    assert not (images["webhook"].packages / "attestation").exists()
    assert not any((images["webhook"].packages / "kbs" / half).exists() for half in ("guest.py", "verifier.py"))
    assert not (images["verifier"].packages / "webhook").exists()
    assert not (images["verifier"].packages / "sidecar").exists()


def test_both_servers_images_carry_the_rules_that_they_know_a_policy_by(images: dict[str, Image]) -> None:
    for name in ("webhook", "verifier"):
        assert (images[name].packages / "measured" / "rules" / "v1.rego").read_text() == rules_text(1)


def test_the_bill_of_materials_lists_every_locked_package(image: Image) -> None:
    bill = json.loads((image.root / f"usr/share/sbom/morphisms-{image.target.name}.cdx.json").read_text())
    listed = {re.sub(r"[._]", "-", part["name"].lower()): part["version"] for part in bill["components"]}
    assert listed == _locked(image)
    assert bill["metadata"]["component"]["name"] == "morphisms"


def test_scanners_find_the_libraries_packages(image: Image) -> None:
    records = image.root / "var/lib/dpkg/status.d"
    assert re.search(r"^Version: \S", (records / "libc6").read_text(), re.MULTILINE)
    assert (records / "libssl3").exists() or (records / "libssl3t64").exists()


def test_every_module_is_compiled_and_its_bytecode_is_used(image: Image) -> None:
    for source in (file for file in _files(image) if file.suffix == ".py"):
        compiled = source.parent / "__pycache__" / f"{source.stem}.{sys.implementation.cache_tag}.pyc"
        # PEP 552: by the source's hash, not to be checked.
        assert compiled.read_bytes()[4:8] == b"\1\0\0\0", source


def test_no_file_holds_the_build_folders_path(image: Image) -> None:
    traces = [str(SOURCE).encode(), str(image.root).encode(), str(foundations.CACHE).encode()]
    assert [file for file in _files(image) if any(trace in file.read_bytes() for trace in traces)] == []


def test_public_authorities_are_trusted(image: Image) -> None:
    assert int(image.python("import ssl; print(ssl.create_default_context().cert_store_stats()['x509_ca'])")) > 50


def test_the_exec_helper_runs(images: dict[str, Image]) -> None:
    done = images["sidecar"].run("/usr/libexec/morphisms/exec")
    assert done.returncode == 80
    assert done.stderr.startswith("morphisms-exec: ")


def test_two_assemblies_are_the_same_bytes(
    images: dict[str, Image], assemble: Callable[[str], Image], tmp_path: Path
) -> None:
    archives = [tmp_path / "first", tmp_path / "second"]
    for one, archive in zip((images["sidecar"], assemble("sidecar")), archives, strict=True):
        pack(one.root, archive)
    first, second = (hashlib.sha256(archive.read_bytes()).hexdigest() for archive in archives)
    assert first == second


def test_the_sidecar_keeps_its_budget(
    images: dict[str, Image], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = pack(images["sidecar"].root, tmp_path / "sidecar") / 1e6
    with capsys.disabled():
        print(f"\nthe sidecar's image, compressed: {size:.1f} MB")
    assert size <= _BUDGET_MB


def test_how_long_it_takes_to_start(images: dict[str, Image], capsys: pytest.CaptureFixture[str]) -> None:
    """Printed and not asserted, because other work shares the machine."""
    image = images["sidecar"]
    checkout = [sys.executable, "-c", "import sys; sys.argv[1:] = ['--help']; from sidecar.main import main; main()"]
    runs: dict[str, Callable[[], int]] = {
        "image": lambda: image.run("/usr/bin/morphisms-init", "--help").returncode,
        "image, true": lambda: image.run("/usr/libexec/morphisms/exec").returncode - 80,
        "checkout": lambda: subprocess.run(checkout, cwd=SOURCE, capture_output=True).returncode,
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(10):
        for name, run in runs.items():
            start = time.perf_counter()
            assert run() == 0
            times[name].append((time.perf_counter() - start) * 1000)
    median = {name: statistics.median(values) for name, values in times.items()}
    with capsys.disabled():
        print(
            f"\nmorphisms-init --help, median of 10: image {median['image'] - median['image, true']:.0f} ms "
            f"(beside {median['image, true']:.0f} ms to enter it), checkout {median['checkout']:.0f} ms"
        )
