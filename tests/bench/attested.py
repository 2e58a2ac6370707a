"""`/attested`: how long a verifier takes to prove itself, to one pod and to 75 at once, with 30 ms per report.

The times are the verifier's own, by its log and metrics; the pods' TLS handshakes are over before they ask. The
verifier has one core, pods and simulated machine have the other.
"""

from __future__ import annotations

import secrets
import statistics
import tempfile
import threading
from pathlib import Path

from attestation.simulator.hierarchy import open_hierarchy
from tests.attestation.kms import KMS_HOST_DATA
from tests.attestation.verifier.attesting import Caller, Signer, make_attesting_site, metrics
from tests.attestation.verifier.process import Verifier, verifier
from tests.attestation.verifier.tokens import Issuer
from tests.bench.verifier import pin
from tests.support.simulated_machine import simulated_machine
from tests.support.until import until

_REPORT_MILLISECONDS = 30.0
_ALONE = 20
_AT_ONCE = 75
_ROUNDS = 10
_BUDGET = 3.0  # report times, p99
_NAME = "morphisms_attested_seconds"


def main() -> None:
    """Both rows, and the ratio to the budget."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        hierarchy = open_hierarchy(folder / "simulated")
        options = ("--report-milliseconds", f"{_REPORT_MILLISECONDS:g}")
        with simulated_machine(hierarchy, KMS_HOST_DATA, *options) as machine:
            (folder / "site").mkdir()
            site = make_attesting_site(folder / "site", hierarchy, Issuer(), machine)
            Signer(hierarchy).sign(site)
            with verifier(site) as running:
                pin(running.process.pid, 0)
                _measure(running)


def _measure(running: Verifier) -> None:
    caller = Caller(running)
    caller.prove(bytes(32))
    for _ in range(_ALONE):
        caller.prove(secrets.token_bytes(32))
    # A call of firmware as the verifier sees it: the machine's time, and that of the way to it.
    alone = statistics.median(call["milliseconds"] for call in running.events("self_attestation")[-_ALONE:])
    before, calls = _buckets(running), len(running.events("self_attestation"))
    for _ in range(_ROUNDS):
        _together(running)
    until(lambda: _buckets(running)["+Inf"] - before["+Inf"] >= _ROUNDS * _AT_ONCE)
    after = _buckets(running)
    added = {bound: after[bound] - before[bound] for bound in after}
    p50, p99 = (_quantile(added, part) * 1000 for part in (0.5, 0.99))
    used = [call["nonces"] for call in running.events("self_attestation")[calls:]]
    print(f"one pod: {alone:.1f} ms, the machine's {_REPORT_MILLISECONDS:g} ms and the way to it and back")
    print(
        f"{_AT_ONCE} at once, {_ROUNDS} times: p50 <= {p50:.0f} ms, p99 <= {p99:.0f} ms,"
        f" {p99 / alone:.1f} such report times (budget {_BUDGET:g});"
        f" {len(used) / _ROUNDS:.1f} calls of firmware a round, for up to {max(used)} pods each"
    )


def _together(running: Verifier) -> None:
    callers = [Caller(running) for _ in range(_AT_ONCE)]
    start = threading.Barrier(_AT_ONCE)

    def ask(caller: Caller) -> None:
        start.wait()
        caller.prove(secrets.token_bytes(32))
        caller.close()

    threads = [threading.Thread(target=ask, args=(caller,)) for caller in callers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _buckets(running: Verifier) -> dict[str, float]:
    """Answers up to each bound in seconds, `+Inf` for all."""
    prefix = f'{_NAME}_bucket{{le="'
    return {
        name.removeprefix(prefix).removesuffix('"}'): value
        for name, value in metrics(running).items()
        if name.startswith(prefix)
    }


def _quantile(buckets: dict[str, float], part: float) -> float:
    """The least bound, in seconds, that this part of all answers is within."""
    wanted = part * buckets["+Inf"]
    return min(float(bound) for bound, count in buckets.items() if count >= wanted)


if __name__ == "__main__":
    main()
