"""Where the verifier's processor time goes during attestations, by operation: a sampler sits in its process."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from attestation.simulator.device import Device
from attestation.simulator.hierarchy import open_hierarchy
from tests.attestation.verifier import process
from tests.attestation.verifier.process import HOST_DATA, Site, Verifier, make_site, policy
from tests.attestation.verifier.tokens import Issuer
from tests.bench.operations import Operation, print_operations
from tests.bench.verifier import attest_round, pin
from tests.support.openbao import openbao
from tests.support.processes import listening_ports, running

_ROUNDS, _PER_ROUND = 10, 100
_OPERATIONS = (
    Operation("the report's signature", ("attestation.appraisal.checks.signature",)),
    Operation("certificates and lists", ("attestation.pki", "attestation.appraisal.checks.chain")),
    Operation("the pod token", ("attestation.verifier.cluster",)),
    Operation("parsing: JSON, evidence, report", ("kbs.", "attestation.report", "attestation.verifier.untrusted_json")),
    Operation("checks and claims", ("attestation.appraisal", "attestation.verifier.policies")),
    Operation("nonces, bearers, token signing", ("attestation.verifier.session", "attestation.verifier.vault")),
    Operation("records", ("attestation.verifier.records",)),
    Operation("log lines and metrics", ("server.logs", "logline", "attestation.verifier.metrics", "server.metrics")),
    Operation(
        "pace and intake", ("attestation.verifier.source_pace", "attestation.verifier.rate_limit", "server.intake")
    ),
    Operation("the calls themselves", ("attestation.verifier", "attestation")),
    Operation("HTTP: our part", ("server",)),
    Operation("TLS", (" ssl", " asyncio.sslproto")),
    Operation("HTTP: the library", (" aiohttp", " yarl", " multidict")),
    Operation("the event loop", (" asyncio", " selectors", " uvloop")),
)


def main() -> None:
    """The table, without the login to Vault."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        hierarchy, issuer = open_hierarchy(folder / "simulated"), Issuer()
        with openbao(folder) as bao:
            (folder / "site").mkdir()
            site = make_site(folder / "site", hierarchy, issuer, bao.url)
            site.settings["perSource"] = {"burst": 100_000, "perSecond": 10_000}
            site.write_policy("payments", policy())
            bao.trust(site.public_keys)
            out = folder / "samples.json"
            with _sampled(site, out) as verifier:
                pin(verifier.process.pid, 0)
                device = Device(hierarchy, host_data=HOST_DATA)
                attest_round(verifier, device, issuer, 50, with_login=False)
                os.kill(verifier.process.pid, signal.SIGUSR2)
                rates = [attest_round(verifier, device, issuer, _PER_ROUND, with_login=False) for _ in range(_ROUNDS)]
            _print(json.loads(out.read_text()), 1e6 / statistics.median(rates))


@contextlib.contextmanager
def _sampled(site: Site, out: Path) -> Iterator[Verifier]:
    words = process.start_command(site)
    words = [sys.executable, str(Path(__file__).parent / "sampled.py"), str(out), *words[words.index("verifier") :]]
    log = site.folder / "sampled.log"
    with running(words, log) as started:
        verifier = Verifier(started, site, log, *listening_ports(started, log))
        yield verifier
        process.terminate(verifier)


def _print(samples: dict[str, int], microseconds: float) -> None:
    """`microseconds`: processor time of an attestation."""
    whole = sum(samples.values())
    print(f"processor time of an attestation: {microseconds:,.0f} µs, by operation ({whole} samples)")
    print_operations(samples, _OPERATIONS, microseconds)


if __name__ == "__main__":
    main()
