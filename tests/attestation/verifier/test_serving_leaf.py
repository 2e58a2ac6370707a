"""The certificate whose key the verifier makes itself: what clients see of it, and that it is replaced in time."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from datetime import UTC, datetime, timedelta

from cryptography import x509

from attestation.verifier.provisioning.serving_leaf import ServingLeaf
from certs.authority import make_authority
from certs.periods import Periods
from kbs.trust import trusting

NAMES = ["kms.example", "127.0.0.1"]


async def shown(leaf: ServingLeaf, context: ssl.SSLContext | None = None) -> x509.Certificate:
    """The certificate that a new connection shows; `context` has to accept it."""
    if context is None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=leaf.certificate.front)
    async with server:
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return x509.load_der_x509_certificate(der)


async def test_it_is_replaced_at_half_its_life_with_a_new_key() -> None:
    leaf = ServingLeaf(NAMES, Periods(leaf=timedelta(seconds=1)))
    first = await shown(leaf)
    keeping = asyncio.create_task(leaf.keep())
    try:
        async with asyncio.timeout(60):
            while (await shown(leaf)).public_key() == first.public_key():  # noqa: ASYNC110  (another handshake tells)
                await asyncio.sleep(0.05)
    finally:
        keeping.cancel()


async def test_below_the_ca_clients_accept_it_and_the_self_signed_one_is_gone() -> None:
    now = datetime.now(UTC)
    authority = make_authority(now, Periods(authority=timedelta(days=2)))
    leaf = ServingLeaf(NAMES)
    alone = await shown(leaf)
    alone.verify_directly_issued_by(alone)
    assert leaf.problem(authority) == ""
    leaf.use(authority)
    certificate = await shown(leaf, trusting(authority.certificate_pem.decode()))
    assert certificate.public_key() != alone.public_key()
    assert certificate.not_valid_after_utc == authority.certificate.not_valid_after_utc, "never longer than its CA"


def test_a_ca_that_may_not_sign_for_each_name_is_told() -> None:
    leaf = ServingLeaf(NAMES)
    limited = make_authority(datetime.now(UTC), Periods(), ["kms.example"])
    assert leaf.problem(limited).startswith("the CA does not vouch for kms.example"), "it excludes all addresses"
    assert ServingLeaf(["kms.example"]).problem(limited) == ""
