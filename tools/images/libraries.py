"""The shared libraries that programs and extension modules need, and the Debian packages those came from."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from tools.images.commands import output, succeeds

_LINE = re.compile(r"^\t(?:(?P<name>\S+) => )?(?P<path>/\S+) \(0x[0-9a-f]+\)$")


def needed(files: Iterable[Path]) -> dict[str, Path]:
    """Name that the loader looks for -> file on this machine; the loader itself is named by its whole path."""
    libraries: dict[str, Path] = {}
    for line in output("ldd", *map(str, sorted(files))).splitlines():
        if "not found" in line:
            raise FileNotFoundError(f"a library is missing here: {line.strip()}")
        if match := _LINE.match(line):
            libraries[match["name"] or match["path"]] = Path(match["path"])
    # glibc loads it by name when a thread is cancelled: no program lists it.
    unwinder = libraries["libc.so.6"].with_name("libgcc_s.so.1")
    return {**libraries, unwinder.name: unwinder}


def package_records(files: Iterable[Path]) -> dict[str, str]:
    """Debian package -> its record as scanners read it; files that no package owns have none."""
    packages = {package for file in files if (package := _owner(file)) is not None}
    return {name: output("dpkg-query", "--status", name) + "\n" for name in sorted(packages)}


def _owner(file: Path) -> str | None:
    # /lib is a link into /usr since the merge, and dpkg knows a file by one of the two names.
    names = {str(file), str(file).removeprefix("/usr"), f"/usr{file}"}
    for name in sorted(names):
        if succeeds("dpkg-query", "--search", name):
            return output("dpkg-query", "--search", name).split(":")[0]
    return None
