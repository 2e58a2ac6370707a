"""`morphisms guest`: the reference values of a guest, computed from what it is started with."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Final

from cli.guests.measure import MOST_VCPUS, Launch, file_digest, library, measure, vcpu_types
from kbs.guest_values import is_guest_name
from kbs.reference_values import TCB_COMPONENTS
from plan.layout import VERSION
from server.files import UnusableInputError

HELP = "compute a guest's reference values from its firmware, kernel, initrd and command line"
EXAMPLE = (
    "morphisms guest measure --firmware AMDSEV.fd --kernel vmlinuz-confidential.container"
    ' --append "$(cat cmdline)" --vcpus 1,2,4 --vcpu-type EPYC-v4'
)
_DESCRIPTION: Final = """\
Prints a guest entry with one measurement per number of vCPUs: every vCPU is measured, and a pod's CPU limits choose
how many its guest has. The files have to be those of the machines, and the command line has to be theirs to the byte:
the host's process list shows it, after -append. What no file says stays a comment until you write it: the processor's
product line, the TCB floors, and whether the image enforces its initdata (docs/guests.md)."""
_COUNT: Final = re.compile(r"[1-9][0-9]{0,3}")
_FEATURES: Final = re.compile(r"0x[0-9a-f]{1,16}")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare `measure`."""
    commands = parser.add_subparsers(dest="guest_command", metavar="measure", required=True)
    command = commands.add_parser(
        "measure",
        help="the launch digests of a guest, one per number of vCPUs, as a guest entry",
        description=_DESCRIPTION,
        epilog=f"example:\n  {EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--firmware", type=Path, required=True, metavar="F", help="OVMF, such as Kata's AMDSEV.fd")
    command.add_argument("--kernel", type=Path, required=True, metavar="F", help="the guest's kernel")
    command.add_argument("--initrd", type=Path, metavar="F", help="the initrd; none where the guest boots an image")
    command.add_argument("--append", default="", metavar="TEXT", help="the kernel's command line, to the byte")
    command.add_argument(
        "--vcpus",
        type=_counts,
        required=True,
        metavar="N,…",
        help=f"numbers of vCPUs, such as 1,2,4; {MOST_VCPUS} each",
    )
    command.add_argument("--vcpu-type", required=True, choices=vcpu_types(), metavar="T", help=", ".join(vcpu_types()))
    command.add_argument(
        "--guest-features",
        type=_features,
        default=0x1,
        metavar="HEX",
        help="SEV features of the vCPUs; 0x1 (the default) is SEV-SNP alone, 0x21 has debug swap",
    )
    command.add_argument("--name", default="kata-snp", metavar="NAME", help="of the entry; default: kata-snp")
    command.add_argument(
        "--product", choices=[*TCB_COMPONENTS], metavar="LINE", help=f"of the processors: {', '.join(TCB_COMPONENTS)}"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the entry. Raises UnusableInputError."""
    if not is_guest_name(arguments.name):
        raise UnusableInputError("--name: required 1 to 63 letters, digits, . _ -, such as kata-4.1-snp")
    if not arguments.append.isprintable():
        raise UnusableInputError("--append: holds a line end or another character that no command line has")
    launch = Launch(
        firmware=arguments.firmware,
        kernel=arguments.kernel,
        initrd=arguments.initrd,
        append=arguments.append,
        vcpu_type=arguments.vcpu_type,
        guest_features=arguments.guest_features,
    )
    # The files are read twice, so both readings have to be of the same content.
    digests = _digests(launch)
    measurements = measure(launch, arguments.vcpus)
    if _digests(launch) != digests:
        raise UnusableInputError("a file changed while it was measured; start again")
    lines = [
        f"# By morphisms guest measure {VERSION} with {library()}, as QEMU starts a guest with kernel-hashes=on.",
        *(f"# {name:9} sha256 {digest}" for name, digest in digests.items()),
        f"# append    {launch.append}",
        f"# vCPU type {launch.vcpu_type}, guest features {launch.guest_features:#x}",
        f"{arguments.name}:",
        _product(arguments.product),
        "  measurements:  # by number of vCPUs",
        *(f'    "{count}": "{digest.hex()}"' for count, digest in measurements.items()),
        _floor(arguments.product),
        "  policy: {debug: false, migrateMa: false, smt: true}",
        "  vmpl: 0",
        "  # initdata: enforced  # only if you know it of the image and the command line: docs/guests.md",
    ]
    print("\n".join(lines))
    return 0


def _digests(launch: Launch) -> dict[str, str]:
    files = {"firmware": launch.firmware, "kernel": launch.kernel, "initrd": launch.initrd}
    return {name: file_digest(path) for name, path in files.items() if path is not None}


def _product(product: str | None) -> str:
    return f"  # product: {', '.join(TCB_COMPONENTS)}: write one" if product is None else f"  product: {product}"


def _floor(product: str | None) -> str:
    parts = ", ".join(f"{part}: …" for part in TCB_COMPONENTS["Genoa" if product is None else product])
    return f"  # minTcb: {{{parts}}}  # of your machines: morphisms-init --report, or morphisms report show"


def _counts(text: str) -> list[int]:
    parts = text.split(",")
    counts = [int(part) for part in parts if _COUNT.fullmatch(part)]
    if len(counts) != len(parts) or len(set(counts)) != len(counts) or max(counts) > MOST_VCPUS:
        raise argparse.ArgumentTypeError(f"required numbers from 1 to {MOST_VCPUS}, each once, such as 1,2,4")
    return sorted(counts)


def _features(text: str) -> int:
    if not _FEATURES.fullmatch(text):
        raise argparse.ArgumentTypeError("required 0x and hexadecimal digits, such as 0x1")
    return int(text, 16)
