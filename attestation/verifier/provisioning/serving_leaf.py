"""The serving certificate of a verifier in a guest: its key is made in this process and never leaves it.

Self-signed until the CA's key is provisioned: those who connect attest the key, not the name. Then it is below that CA,
and renewed at half its life.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime

from certs.authority import issue_leaf, self_signed_leaf
from certs.chain import vouches
from certs.pem import Pair
from certs.periods import Periods
from kbs.trust import trusting
from server import logs
from server.tls import HeldCertificate

_PERIODS = Periods()


class ServingLeaf:
    """Keeps `certificate` current while `keep` runs. `names`: DNS names and IP addresses."""

    def __init__(self, names: Sequence[str], periods: Periods = _PERIODS) -> None:
        self.certificate = HeldCertificate()
        self._names = tuple(names)
        self._periods = periods
        self._authority: Pair | None = None
        self._renew()

    def use(self, authority: Pair) -> None:
        """Serve a leaf below this CA from the next handshake on."""
        self._authority = authority
        self._renew()

    async def keep(self) -> None:
        """Replace the leaf at half its life, until cancelled. The clock is the machine's monotonic one."""
        while True:
            await asyncio.sleep(self._periods.leaf.total_seconds() / 2)
            self._renew()

    def problem(self, authority: Pair) -> str:
        """Why clients would not accept a leaf below this CA, such as its own limits of names; empty when they do."""
        held = HeldCertificate()
        leaf = issue_leaf(authority, self._names, datetime.now(UTC), self._periods)
        held.replace(leaf.certificate_pem, leaf.key_pem)
        client = trusting(authority.certificate_pem.decode())
        try:
            for name in self._names:
                _handshake(client, held.front, name)
        except ssl.SSLCertVerificationError as error:
            return f"the CA does not vouch for {name}: {error.verify_message}"
        return ""

    def _renew(self) -> None:
        authority, now = self._authority, datetime.now(UTC)
        if authority is None:
            leaf, chain = self_signed_leaf(self._names, now, self._periods), b""
        else:
            leaf = issue_leaf(authority, self._names, now, self._periods)
            # Clients have the root; one below it they may not have.
            is_root = vouches(authority.certificate, authority.certificate)
            chain = b"" if is_root else authority.certificate_pem
        self.certificate.replace(leaf.certificate_pem + chain, leaf.key_pem)
        logs.info(
            "serving_leaf",
            serial=f"{leaf.certificate.serial_number:x}",
            self_signed=authority is None,
            ends=leaf.certificate.not_valid_after_utc.isoformat(),
        )


def _handshake(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> None:
    """Between two ends in memory. Raises SSLCertVerificationError where the client refuses the server."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(back, there, server_hostname=name),
        server.wrap_bio(there, back, server_side=True),
    ]
    # TLS 1.3: hello, the server's flight, the client's.
    for end in (*ends, *ends):
        with contextlib.suppress(ssl.SSLWantReadError):
            end.do_handshake()
