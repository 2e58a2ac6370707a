"""The launch digest of a guest before it starts: firmware, kernel, initrd, command line and each vCPU.

The library `sev-snp-measure` computes it as QEMU makes it with `kernel-hashes=on`, which is how Kata starts its guests.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from server.files import UnusableInputError

MOST_VCPUS: Final = 512
_LIBRARY: Final = "sev-snp-measure"


@dataclass(frozen=True, slots=True)
class Launch:
    """The files that QEMU starts a guest with. `append`: the kernel's command line, to the byte."""

    firmware: Path
    kernel: Path
    initrd: Path | None
    append: str
    vcpu_type: str
    guest_features: int


def vcpu_types() -> tuple[str, ...]:
    """QEMU's names of AMD's processors, such as EPYC-v4."""
    from sevsnpmeasure.vcpu_types import CPU_SIGS

    return tuple(CPU_SIGS)


def library() -> str:
    """The library's name and version."""
    return f"{_LIBRARY} {importlib.metadata.version(_LIBRARY)}"


def measure(launch: Launch, counts: Sequence[int]) -> dict[int, bytes]:
    """MEASUREMENT by number of vCPUs, 48 bytes each. Raises UnusableInputError."""
    from sevsnpmeasure.guest import calc_launch_digest
    from sevsnpmeasure.sev_mode import SevMode
    from sevsnpmeasure.vcpu_types import CPU_SIGS

    initrd = None if launch.initrd is None else str(launch.initrd)
    signature = CPU_SIGS[launch.vcpu_type]
    try:
        return {
            count: calc_launch_digest(
                SevMode.SEV_SNP,
                count,
                signature,
                str(launch.firmware),
                str(launch.kernel),
                initrd,
                launch.append,
                launch.guest_features,
            )
            for count in counts
        }
    except OSError as error:
        raise UnusableInputError(f"{error.filename}: cannot be read: {error.strerror}") from None
    except RuntimeError as error:
        raise UnusableInputError(f"{launch.firmware}: {error}; Kata's is AMDSEV.fd") from None
    except (AssertionError, ValueError, LookupError):
        # What the library makes of a file that is cut, or of another kind: it reads lengths out of it.
        raise UnusableInputError(
            f"{launch.firmware}: not an OVMF image for SEV-SNP, whose size is a multiple of 4096; Kata's is AMDSEV.fd"
        ) from None


def file_digest(path: Path) -> str:
    """The file's SHA-256 in hex. Raises UnusableInputError."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UnusableInputError(f"{path}: cannot be read: {error.strerror}") from None
