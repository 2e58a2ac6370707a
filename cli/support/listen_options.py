"""The options that both servers' commands share: where to listen, with which certificate, and how to stop."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Final

from server.limits import LAME_DUCK_SECONDS
from server.service import Address
from server.tls import CertificateFiles

_LONGEST_LAME_DUCK_SECONDS: Final = 3600.0


def add_listening_options(parser: argparse.ArgumentParser, *, own_ca: bool = False) -> None:
    """Declare the options. With `own_ca` the certificate's files are optional, and the command has to check them."""
    parser.add_argument("--listen", type=address, required=True, metavar="HOST:PORT", help="where to serve (TLS 1.3)")
    parser.add_argument(
        "--tls-cert", type=Path, required=not own_ca, metavar="FILE", help="serving certificate, reloaded"
    )
    parser.add_argument("--tls-key", type=Path, required=not own_ca, metavar="FILE", help="its key")
    parser.add_argument(
        "--metrics-listen", type=address, metavar="HOST:PORT", help="serve health and metrics here too, without TLS"
    )
    parser.add_argument(
        "--lame-duck-seconds",
        type=lame_duck,
        default=LAME_DUCK_SECONDS,
        metavar="SECONDS",
        help="how long a stopping server still serves, unready, while its endpoint is withdrawn; default %(default)g",
    )


def certificate_files(arguments: argparse.Namespace) -> CertificateFiles:
    """The certificate and key that the options name."""
    return CertificateFiles(arguments.tls_cert, arguments.tls_key)


def address(text: str) -> Address:
    """HOST:PORT; an IPv6 host in brackets."""
    host, separator, port = text.rpartition(":")
    if not separator or not host or not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError("expected HOST:PORT, such as 127.0.0.1:8443")
    return host.removeprefix("[").removesuffix("]"), int(port)


def lame_duck(text: str) -> float:
    """Seconds, from 0 to an hour."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= _LONGEST_LAME_DUCK_SECONDS:
        raise argparse.ArgumentTypeError("expected seconds from 0 to 3600, such as 15")
    return seconds
