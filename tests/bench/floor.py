"""The floor under an attestation: the cryptography that no verifier can leave out, in a bare loop on one core."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from attestation.pki.certificates import Certificate, is_signed_by
from attestation.pki.crl import parse_crl
from attestation.report.abi import parse_report
from attestation.report.report_data import REPORT_DATA_SIZE
from attestation.simulator.device import Device

_SECONDS = 2.0


def attestations_together(device: Device, body_size: int, processes: int) -> float:
    """The same by so many processes at once, each on a core of its own where there is one, in all."""
    cores = sorted(os.sched_getaffinity(0))
    forking = multiprocessing.get_context("fork")
    rates = forking.SimpleQueue()

    def measure(core: int) -> None:
        rates.put(attestations_per_second(device, body_size, core))

    started = [forking.Process(target=measure, args=(cores[index % len(cores)],)) for index in range(processes)]
    for process in started:
        process.start()
    total = sum(rates.get() for _ in started)
    for process in started:
        process.join()
    return total


def attestations_per_second(device: Device, body_size: int, core: int = 0) -> float:
    """How often a second one core makes an attestation's signature checks, and decrypts a body of this size."""
    steps = [*_chain(device), _report(device), _pod_token(), _body(body_size)]
    kept = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        began, count = time.process_time(), 0
        while (used := time.process_time() - began) < _SECONDS:
            for step in steps:
                step()
            count += 1
    finally:
        os.sched_setaffinity(0, kept)
    return count / used


def _chain(device: Device) -> list[Callable[[], object]]:
    """Leaf, intermediate, root and revocation list: four RSA-4096 signatures, which cost once: they are remembered."""
    made = device.hierarchy
    crl = parse_crl(made.crl_path.read_bytes())

    def signed(by: Certificate, certificate: Certificate) -> Callable[[], object]:
        return lambda: _require(is_signed_by(certificate.tbs, certificate.signature, by))

    return [
        signed(made.ask, made.vcek),
        signed(made.root, made.ask),
        signed(made.root, made.root),
        lambda: _require(is_signed_by(crl.tbs, crl.signature, made.root)),
    ]


def _report(device: Device) -> Callable[[], object]:
    report = parse_report(device.report(bytes(REPORT_DATA_SIZE)))
    r, s = (int.from_bytes(part, "little") for part in (report.signature_r, report.signature_s))
    signature, key = encode_dss_signature(r, s), device.hierarchy.vcek_key.public_key()
    return lambda: key.verify(signature, report.signed, ec.ECDSA(hashes.SHA384()))


def _pod_token() -> Callable[[], object]:
    """RS256 with 2,048 bits, as Kubernetes signs by default."""
    private = rsa.generate_private_key(65537, 2048)
    token = os.urandom(1024)
    signature = private.sign(token, padding.PKCS1v15(), hashes.SHA256())
    public = private.public_key()
    return lambda: public.verify(signature, token, padding.PKCS1v15(), hashes.SHA256())


def _body(size: int) -> Callable[[], object]:
    cipher, nonce = AESGCM(AESGCM.generate_key(256)), bytes(12)
    sealed = cipher.encrypt(nonce, os.urandom(size), None)
    return lambda: cipher.decrypt(nonce, sealed, None)


def _require(holds: bool) -> None:
    if not holds:
        raise RuntimeError("a signature of the floor does not hold")
