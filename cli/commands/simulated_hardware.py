"""`morphisms simulated-hardware`: simulates the SNP device on machines without one."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

from attestation.errors import AttestationError
from attestation.simulator.device import DEFAULT_HOST_DATA, DEFAULT_MEASUREMENT, Device, Tamper
from attestation.simulator.hierarchy import open_hierarchy
from attestation.simulator.server import SimulatedMachine

HELP = "simulate an SEV-SNP machine for a trial: its evidence proves nothing, and every result about it says so"
EXAMPLE = "morphisms simulated-hardware --dir simulated/ --listen 127.0.0.1:8007"

UNUSABLE = 2


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "--dir",
        type=Path,
        required=True,
        metavar="DIR",
        help="keys and certificates, made on first use; give DIR/root.pem and DIR/crls to the verifier",
    )
    parser.add_argument(
        "--listen",
        type=listen_address,
        required=True,
        metavar="ADDR",
        help="HOST:PORT on loopback, port 0 for any, or a path for a unix socket",
    )
    parser.add_argument(
        "--host-data", type=_hexadecimal(32), default=DEFAULT_HOST_DATA, metavar="HEX", help="32 bytes, default zero"
    )
    parser.add_argument(
        "--measurement",
        type=_hexadecimal(48),
        default=DEFAULT_MEASUREMENT,
        metavar="HEX",
        help="48 bytes, by default a fixed digest, printed at the start",
    )
    parser.add_argument(
        "--report-milliseconds",
        type=_milliseconds,
        default=0.0,
        metavar="N",
        help="take so long for each report, one after the other, as firmware does; default 0: at once",
    )
    parser.add_argument(
        "--tamper",
        type=Tamper,
        choices=list(Tamper),
        metavar="|".join(Tamper),
        help="make reports that a verifier must refuse",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT, then exit 0; 2 when folder or address cannot be used."""
    # Blocked before any thread exists, so that the signal waits for sigwait and is never lost or fatal.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    try:
        device = Device(open_hierarchy(arguments.dir), arguments.measurement, arguments.host_data, arguments.tamper)
        machine = SimulatedMachine(device, arguments.listen, report_seconds=arguments.report_milliseconds / 1000)
    except (AttestationError, OSError) as error:
        print(f"morphisms simulated-hardware: {error}", file=sys.stderr)
        return UNUSABLE
    machine.start()
    print(f"listening on {machine.address}")
    print(f"root         {device.hierarchy.root_path}")
    print(f"measurement  {device.measurement.hex()}")
    print(f"host data    {device.host_data.hex()}", flush=True)
    note = "" if device.tamper is None else f"; tampered: {device.tamper.value}, verifiers must refuse"
    print(f"simulated: this evidence proves nothing about any machine{note}", file=sys.stderr, flush=True)
    signal.sigwait((signal.SIGTERM, signal.SIGINT))
    machine.stop()
    return 0


def listen_address(text: str) -> tuple[str, int] | Path:
    """HOST:PORT with a loopback host (an IPv6 one in brackets), or a path with a slash in it."""
    if "/" in text:
        return Path(text.removeprefix("unix:"))
    host, _, port = text.rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host.removeprefix("[").removesuffix("]")
    try:
        is_loopback = ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    # It signs every request, so no other machine may reach it.
    if not is_loopback or not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError("expected HOST:PORT on loopback, such as 127.0.0.1:8007, or a path")
    return host, int(port)


def _milliseconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 60_000:
        raise argparse.ArgumentTypeError("expected milliseconds from 0 to 60000, such as 30")
    return value


def _hexadecimal(size: int) -> Callable[[str], bytes]:
    """A converter for argparse: exactly `size` bytes."""

    def convert(text: str) -> bytes:
        try:
            value = bytes.fromhex(text)
        except ValueError:
            raise argparse.ArgumentTypeError("not hexadecimal") from None
        if len(value) != size:
            raise argparse.ArgumentTypeError(f"has {len(value)} bytes, required {size}")
        return value

    return convert
