"""The options that both servers' commands share: where to listen, and with which certificate."""

from __future__ import annotations

import argparse
from pathlib import Path

from server.service import Address
from server.tls import CertificateFiles


def add_listening_options(parser: argparse.ArgumentParser, *, own_ca: bool = False) -> None:
    """Declare them. With `own_ca` the certificate's files may be left out, which the command then has to check."""
    parser.add_argument("--listen", type=address, required=True, metavar="HOST:PORT", help="where to serve (TLS 1.3)")
    parser.add_argument(
        "--tls-cert", type=Path, required=not own_ca, metavar="FILE", help="serving certificate, reloaded"
    )
    parser.add_argument("--tls-key", type=Path, required=not own_ca, metavar="FILE", help="its key")
    parser.add_argument(
        "--metrics-listen", type=address, metavar="HOST:PORT", help="health and metrics once more, without TLS"
    )


def certificate_files(arguments: argparse.Namespace) -> CertificateFiles:
    """The pair that the options name."""
    return CertificateFiles(arguments.tls_cert, arguments.tls_key)


def address(text: str) -> Address:
    """HOST:PORT; an IPv6 host in brackets."""
    host, separator, port = text.rpartition(":")
    if not separator or not host or not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError("expected HOST:PORT, such as 127.0.0.1:8443")
    return host.removeprefix("[").removesuffix("]"), int(port)
