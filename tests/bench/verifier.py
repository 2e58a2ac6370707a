"""The verifier: attestations a second on one core with warm certificates, without and with the Vault login.

An attestation is what a guest does: a nonce, evidence, a bearer; with the login also the token. Evidence is made
beforehand by simulated hardware, so the load is the verifier's own; the clients share the other core with Vault.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from attestation.simulator.device import Device
from attestation.simulator.hierarchy import open_hierarchy
from kbs.ephemeral_key import EphemeralKey
from kbs.guest import read_attest_answer, write_additional_evidence, write_attest
from kbs.messages import binding
from tests.attestation.verifier.guest import Client, document
from tests.attestation.verifier.process import HOST_DATA, Verifier, make_site, policy, verifier
from tests.attestation.verifier.tokens import Issuer
from tests.bench.figures import spread
from tests.bench.floor import attestations_per_second, attestations_together
from tests.bench.served import resident_mb
from tests.support.openbao import openbao

_ROUNDS = 3
_PER_ROUND = 900
_CLIENTS = 4
_LIFETIME = 50.0  # seconds that a nonce is surely good for; evidence is made first


def main() -> None:
    """Both rates; budget without the login 0.6 times the floor of its own cryptography."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        hierarchy = open_hierarchy(folder / "simulated")
        issuer = Issuer()
        with openbao(folder) as bao:
            (folder / "site").mkdir()
            site = make_site(folder / "site", hierarchy, issuer, bao.url)
            # All clients of the bench share one address.
            site.settings["perSource"] = {"burst": 100_000, "perSecond": 10_000}
            site.write_policy("payments", policy())
            bao.trust(site.public_keys)
            with verifier(site) as running:
                pin(running.process.pid, 0)
                pin(bao.process.pid, 1)
                device = Device(hierarchy, host_data=HOST_DATA)
                attest_round(running, device, issuer, 50, with_login=False)
                without = [attest_round(running, device, issuer, _PER_ROUND, with_login=False) for _ in range(_ROUNDS)]
                with_login = [
                    attest_round(running, device, issuer, _PER_ROUND // 3, with_login=True) for _ in range(_ROUNDS)
                ]
                resident = resident_mb(running.process.pid)
                body_size = len(_prepare(running, device, issuer, 1)[0])
                floor = attestations_per_second(device, body_size)
                with verifier(site, "second") as second:
                    pin(second.process.pid, 1)
                    beside_second(running, second, device, issuer, body_size)
    print(f"attestations, one core, warm certificates, without login: {spread(without, '/s')}")
    ratio = statistics.median(without) / floor
    print(f"  floor of its signature checks and decryption:          {floor:,.1f}/s: {ratio:.2f} times it; budget 0.60")
    print(f"  with the login to OpenBao and the encrypted token:     {spread(with_login, '/s')}")
    print(f"  resident after them: {resident:.0f} MB")


def beside_second(first: Verifier, second: Verifier, device: Device, issuer: Issuer, body_size: int) -> None:
    """One and two replicas behind one client, in turn, each beside as many processes of bare cryptography."""
    attest_round(second, device, issuer, 50, with_login=False)
    rates: dict[int, list[float]] = {1: [], 2: []}
    floors: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(_ROUNDS):
        for replicas in ((first,), (first, second)):
            count = len(replicas)
            used = attest_replicas(replicas, device, issuer, _PER_ROUND // 2, with_login=False)
            rates[count].append(sum(used))
            floors[count].append(attestations_together(device, body_size, count))
    for count, label in ((1, "one replica, 1 client: "), (2, "two replicas, 1 client:")):
        ratios = [rate / floor for rate, floor in zip(rates[count], floors[count], strict=True)]
        print(
            f"{label} {spread(rates[count], '/s')} of processor time, {spread(ratios, 'x')} of as many bare processes"
        )
    gains = [statistics.median(each[2]) / statistics.median(each[1]) for each in (rates, floors)]
    print(f"  two carry {gains[0]:.2f} times what one carries; of the bare processes {gains[1]:.2f} times")


def attest_round(running: Verifier, device: Device, issuer: Issuer, count: int, *, with_login: bool) -> float:
    """Attestations a second of processor time the verifier used, so that clients' own work does not count."""
    return attest_replicas((running,), device, issuer, count, with_login=with_login)[0]


def attest_replicas(
    replicas: Sequence[Verifier], device: Device, issuer: Issuer, count: int, *, with_login: bool
) -> list[float]:
    """The same for each of several replicas that one client calls in turn, `count` times in all.

    A conversation stays with one replica: another one does not know its nonce.
    """
    share = count // len(replicas)
    prepared = [_prepare(replica, device, issuer, share) for replica in replicas]
    failed: list[int] = []

    def work(replica: Verifier, mine: list[bytes]) -> None:
        client = Client(replica.port, replica.site.folder / "ca.crt")
        for body in mine:
            client.nonce()  # its evidence was made with an earlier one
            answer = client.attest(body)
            if answer.status == 200 and with_login:
                answer = client.token(read_attest_answer(answer.body))
            if answer.status != 200:
                failed.append(answer.status)
        client.close()

    each = _CLIENTS // len(replicas)
    threads = [
        threading.Thread(target=work, args=(replica, bodies[index::each]))
        for replica, bodies in zip(replicas, prepared, strict=True)
        for index in range(each)
    ]
    before, began = [_processor_seconds(replica.process.pid) for replica in replicas], time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall = time.perf_counter() - began
    used = [_processor_seconds(replica.process.pid) - start for replica, start in zip(replicas, before, strict=True)]
    if failed:
        raise RuntimeError(f"{len(failed)} of {count} failed, the first with {failed[0]}")
    if count >= _PER_ROUND // 3:
        print(f"  {count} in {wall:.1f} s ({count / wall:,.0f}/s as the clients saw it), processor {sum(used):.1f} s")
    return [share / seconds for seconds in used]


def _prepare(running: Verifier, device: Device, issuer: Issuer, count: int) -> list[bytes]:
    began = time.perf_counter()
    client = Client(running.port, running.site.folder / "ca.crt")
    bodies = []
    for index in range(count):
        key = EphemeralKey()
        nonce = client.nonce()
        additional = write_additional_evidence(issuer.token(uid=f"{began}-{index // 8}"))
        primary = document(device, binding(nonce, key.public, additional))
        bodies.append(write_attest(nonce, key.public, primary, additional))
    client.close()
    if time.perf_counter() - began > _LIFETIME / 2:
        raise RuntimeError("making the evidence took too long: its nonces would expire")
    return bodies


def pin(pid: int, core: int) -> None:
    """Keep all threads of a process on one core."""
    subprocess.run(["taskset", "-a", "-p", "-c", str(core), str(pid)], check=True, capture_output=True)


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
