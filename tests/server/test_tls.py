import asyncio
import hashlib
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from prometheus_client import CollectorRegistry

from server.messages import Response
from server.tls import CertificateFiles, ServingCertificateError
from tests.support.until import SECONDS, until_awaited

BODY = b"x" * 12_600
SUCCESS = "morphisms_file_last_reload_success"


async def echo(body, info):
    return Response(200, body)


@pytest.mark.parametrize(("before", "after"), [("ec", "ec"), ("ec", "rsa"), ("rsa", "ec")])
async def test_a_swap_under_load_drops_nothing(serve, connect, new_pair, tmp_path, before, after):
    old, new = new_pair(before), new_pair(after)
    service = await serve({("POST", "/echo"): echo}, certificate=old.write(tmp_path))
    swapped = asyncio.Event()
    loaded = asyncio.Barrier(5)

    async def keep_alive():
        client = await connect(service.address)
        assert client.certificate == old.der
        assert (await client.request("POST", "/echo", BODY)).status == 200
        await loaded.wait()
        while not swapped.is_set():
            assert (await client.request("POST", "/echo", BODY)).status == 200
        assert (await client.request("POST", "/echo", BODY)).status == 200

    workers = [asyncio.create_task(keep_alive()) for _ in range(4)]
    await asyncio.wait_for(loaded.wait(), SECONDS)  # each of them has the old certificate
    new.write(tmp_path)

    async def served():
        client = await connect(service.address)
        assert (await client.request("POST", "/echo", BODY)).status == 200
        return client.certificate == new.der

    try:
        await until_awaited(served)
    finally:
        swapped.set()
    await asyncio.gather(*workers)


@pytest.mark.parametrize("damage", ["half", "mismatch", "missing", "empty"])
async def test_a_pair_that_cannot_be_served_keeps_the_old_one(serve, connect, new_pair, tmp_path, damage):
    old, new = new_pair(), new_pair()
    registry = CollectorRegistry()
    files = old.write(tmp_path)
    service = await serve({}, certificate=files, registry=registry)
    if damage == "half":
        files.chain.write_bytes(new.chain[:200])
    elif damage == "mismatch":
        files.chain.write_bytes(new.chain)
    elif damage == "missing":
        files.key.unlink()
    else:
        files.key.write_bytes(b"")

    async def refused():
        return registry.get_sample_value(SUCCESS, {"file": "certificate"}) == 0

    async def served():
        return (await connect(service.address)).certificate == new.der

    await until_awaited(refused)
    assert (await connect(service.address)).certificate == old.der
    new.write(tmp_path)
    await until_awaited(served)
    assert registry.get_sample_value(SUCCESS, {"file": "certificate"}) == 1


async def test_follows_a_mounts_link(serve, connect, new_pair, tmp_path):
    old, new = new_pair(), new_pair()
    old.write(tmp_path / "one")
    new.write(tmp_path / "two")
    link = tmp_path / "..data"
    link.symlink_to("one")
    files = CertificateFiles(link / "tls.crt", link / "tls.key", interval=0.05)
    service = await serve({}, certificate=files)
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").rename(link)

    async def served():
        return (await connect(service.address)).certificate == new.der

    await until_awaited(served)


async def test_needs_a_good_pair_to_start(serve, new_pair, tmp_path):
    files = new_pair().write(tmp_path)
    files.key.write_bytes(new_pair().key)
    with pytest.raises(ServingCertificateError, match="not a usable pair"):
        await serve({}, certificate=files)


async def test_resumption_does_not_bring_the_old_certificate_back(serve, new_pair, tmp_path):
    old, new = new_pair(), new_pair()
    service = await serve({("POST", "/echo"): echo}, certificate=old.write(tmp_path))
    trusting_new = ssl.create_default_context(cadata=new.chain.decode())
    new.write(tmp_path)

    async def verified():
        try:
            _, writer = await asyncio.open_connection(*service.address, ssl=trusting_new)
        except ssl.SSLCertVerificationError:
            return False
        writer.close()
        return True

    await until_awaited(verified)


async def test_a_client_is_handed_no_session_to_resume(serve, connect, new_pair, tmp_path):
    """It would pay for a ticket in each handshake. A client reads tickets before the answer, so none comes later."""
    service = await serve({("POST", "/echo"): echo}, certificate=new_pair().write(tmp_path))
    client = await connect(service.address)
    assert (await client.request("POST", "/echo", BODY)).status == 200
    session = client.writer.get_extra_info("ssl_object").session
    assert session is None or not session.has_ticket


async def test_a_handler_is_told_the_key_that_its_own_connection_showed(serve, connect, new_pair, tmp_path):
    """Also on a connection that is older than the pair served now, which is another key."""
    old, new = new_pair("ec"), new_pair("ec")

    async def shown(_body, info):
        return Response(200, info.spki)

    def digest(der):
        key = x509.load_der_x509_certificate(der).public_key()
        return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()

    service = await serve({("GET", "/shown"): shown}, certificate=old.write(tmp_path))
    before = await connect(service.address)
    assert (await before.request("GET", "/shown")).body == digest(old.der)
    new.write(tmp_path)

    async def served():
        client = await connect(service.address)
        return client.certificate == new.der and (await client.request("GET", "/shown")).body == digest(new.der)

    await until_awaited(served)
    assert (await before.request("GET", "/shown")).body == digest(old.der)
