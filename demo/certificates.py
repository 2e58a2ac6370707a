"""The demo's own CA and one serving certificate for loopback; gone with the demo's folder."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from certs.authority import issue_leaf, make_authority
from certs.periods import Periods

_LIFETIME = timedelta(hours=1)


class Certificates:
    """`ca`, `certificate` and `key`: PEM files in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.ca, self.certificate, self.key = folder / "ca.crt", folder / "tls.crt", folder / "tls.key"
        now, periods = datetime.now(UTC), Periods(leaf=_LIFETIME, authority=_LIFETIME)
        authority = make_authority(now, periods, title="morphisms demo")
        leaf = issue_leaf(authority, ["127.0.0.1"], now, periods)
        self.ca.write_bytes(authority.certificate_pem)
        self.certificate.write_bytes(leaf.certificate_pem)
        self.key.write_bytes(leaf.key_pem)
