"""A verifier that attests itself, from the outside: its site, calls to `/attested`, and what a pod demands of it."""

from __future__ import annotations

import http.client
import ssl
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from joserfc.jwk import ECKey

from attestation.simulator.hierarchy import Hierarchy
from attestation.verifier.configuration import load_configuration
from attestation.verifier.digests import configuration_digest
from kbs.attested import ATTESTED_PATH
from kbs.attested_guest import AttestedAnswer, read_attested_answer, write_attested
from kbs.references import References
from kbs.references_signing import signer_of, write_references
from kbs.spki import spki_digest
from kbs.verifier_attest import KmsGuest, SignedReferences, VerifierAttest
from tests.attestation.kms import kms_guest
from tests.attestation.verifier.guest import Answer
from tests.attestation.verifier.process import Site, Verifier, make_site, policy
from tests.attestation.verifier.tokens import Issuer


def make_attesting_site(
    folder: Path, hierarchy: Hierarchy, issuer: Issuer, machine: str, vault_url: str = "http://127.0.0.1:1"
) -> Site:
    """A verifier's folder with one policy, whose own evidence comes from the simulated machine at this address."""
    site = make_site(folder, hierarchy, issuer, vault_url)
    site.write_policy("payments", policy())
    site.settings["attest"] = {"sources": [{"source": "simulated", "address": machine}]}
    return site


def digest_of(site: Site) -> bytes:
    """The digest of the site's configuration, computed from its files as a command does."""
    return configuration_digest(load_configuration(site.write()), Path.read_bytes)


@dataclass
class Signer:
    """Signs the KMS's reference values."""

    hierarchy: Hierarchy
    key: ECKey = field(default_factory=lambda: ECKey.generate_key("P-256"))
    guest: KmsGuest = field(default_factory=kms_guest)

    def sign(self, site: Site, serial: int = 1) -> str:
        """Write the references that list the site's configuration, for `attest.references: references.jws`."""
        site.settings["attest"]["references"] = "references.jws"
        compact = write_references(References(serial, (self.guest,), frozenset({digest_of(site)})), self.key)
        new = site.folder / "references.new"
        new.write_text(f"{compact}\n")
        new.replace(site.folder / "references.jws")
        return compact

    def demand(self, serial: int = 1) -> VerifierAttest:
        """What a plan demands by this signer."""
        root = self.hierarchy.root_path.read_text()
        return VerifierAttest(SignedReferences(signer_of(self.key), serial), simulated_root=root)


class Caller:
    """One TLS connection to a verifier, opened at once. `spki`: of the certificate that its handshake showed."""

    def __init__(self, running: Verifier, ca: str | None = None) -> None:
        context = ssl.create_default_context(cafile=None if ca else str(running.site.folder / "ca.crt"), cadata=ca)
        self._connection = http.client.HTTPSConnection("127.0.0.1", running.port, timeout=300, context=context)
        self._connection.connect()
        self._connection.auto_open = False
        der = self._connection.sock.getpeercert(binary_form=True)
        self.spki = spki_digest(der)

    def call(self, method: str = "POST", body: bytes | None = None, path: str = ATTESTED_PATH) -> Answer:
        """One request on this very connection."""
        self._connection.request(method, path, body)
        answer = self._connection.getresponse()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())

    def prove(self, nonce: bytes) -> AttestedAnswer:
        """The verifier's answer to this nonce."""
        answer = self.call(body=write_attested(nonce))
        assert answer.status == 200, (answer.status, answer.error)
        return read_attested_answer(answer.body)

    def close(self) -> None:
        self._connection.close()


def metrics(running: Verifier) -> dict[str, float]:
    """The verifier's samples, each by its line without the value."""
    with urllib.request.urlopen(f"http://127.0.0.1:{running.metrics_port}/metrics", timeout=300) as answer:
        lines = answer.read().decode().splitlines()
    samples: dict[str, Any] = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in samples.items()}
