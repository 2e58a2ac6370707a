"""A verifier under attack: what a legitimate attestation takes beside 200 hostile calls a second, as a ratio.

Attacker and victim share one address, as behind NAT. The attacker has valid pod tokens of a few pods and fresh nonces,
and its evidence is valid, so that no cheap check refuses its calls but the limit of each pod; or it sends JSON that is
as slow to read as can be. The verifier has one core, both clients have the other.
Budget: the victim's p99 grows by less than a factor of 2.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
import threading
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

from attestation.simulator.device import Device
from attestation.simulator.hierarchy import open_hierarchy
from kbs.ephemeral_key import EphemeralKey
from kbs.guest import write_additional_evidence, write_attest
from kbs.messages import ATTEST_PATH, MAX_ATTEST_SIZE, NONCE_HEADER, binding
from tests.attestation.verifier.guest import Client, document
from tests.attestation.verifier.process import HOST_DATA, Verifier, make_site, policy, verifier
from tests.attestation.verifier.tokens import Issuer
from tests.bench.verifier import pin

_HOSTILE_PER_SECOND = 200
_ATTACKERS = 8  # connections
_PODS = 8  # whose tokens the attacker has
_VICTIMS_PER_SECOND = 20
_SECONDS = 15.0
_VERIFIER_CORE, _CLIENT_CORE = 0, 1

Prepared = list[tuple[str, bytes]]  # (nonce, body)


def main() -> None:
    """The victim's p50 and p99 without and with each attack."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        hierarchy = open_hierarchy(folder / "simulated")
        issuer = Issuer()
        (folder / "site").mkdir()
        site = make_site(folder / "site", hierarchy, issuer, "http://127.0.0.1:1")
        site.write_policy("payments", policy())
        # The limit of an address would stop attacker and victim alike: this measures what an attacker may do below it.
        site.settings["perSource"] = {"burst": 100_000, "perSecond": 10_000}
        device = Device(hierarchy, host_data=HOST_DATA)
        os.sched_setaffinity(0, {_CLIENT_CORE})
        with verifier(site) as running:
            pin(running.process.pid, _VERIFIER_CORE)
            _attest(running, device, issuer, 50)
            for attack in ("evidence", "json"):
                quiet = _attest(running, device, issuer)
                print(f"legitimate attestation, nothing else: {_figures(quiet)}")
                took, statuses = _beside(running, device, issuer, attack)
                ratio = _percentile(took, 99) / _percentile(quiet, 99)
                print(f"  beside {_HOSTILE_PER_SECOND} hostile {attack} a second: {_figures(took)}")
                print(f"    p99 grows by a factor of {ratio:.2f}; budget 2")
                print(f"    the attacker got {dict(sorted(statuses.items()))}")


def _beside(running: Verifier, device: Device, issuer: Issuer, attack: str) -> tuple[list[float], Counter[int]]:
    """The victim's seconds while the attacker calls, and the attacker's answers by status."""
    count = int(_HOSTILE_PER_SECOND * (_SECONDS + 2))
    hostile = _hostile(running, device, issuer, count) if attack == "evidence" else []
    here, there = multiprocessing.Pipe()
    ca = running.site.folder / "ca.crt"
    process = multiprocessing.get_context("spawn").Process(
        target=_attack, args=(there, running.port, ca, hostile, count), daemon=True
    )
    process.start()
    here.recv()  # it is connected
    here.send("go")
    time.sleep(1.0)  # the attack is under way
    took = _attest(running, device, issuer)
    statuses, rate = here.recv()
    process.join(60)
    print(f"  the attacker made {rate:.0f} calls a second")
    return took, statuses


def _attack(pipe: Connection, port: int, ca: Path, hostile: Prepared, count: int) -> None:
    """Runs in a process of its own: `count` calls at the rate, spread over the connections."""
    # The core that both clients share must not be what the victim waits for.
    os.nice(10)
    body = b'{"a":[' + b"{}," * ((MAX_ATTEST_SIZE - 20) // 3) + b"0]}"
    calls: Prepared = hostile or [("", body)] * count
    statuses: Counter[int] = Counter()
    lock = threading.Lock()
    clients = [Client(port, ca) for _ in range(_ATTACKERS)]
    for client in clients:
        client.call("GET", "/healthz")
    pipe.send("ready")
    pipe.recv()
    began = time.perf_counter()

    def work(index: int) -> None:
        for number in range(index, len(calls), _ATTACKERS):
            time.sleep(max(0.0, began + number / _HOSTILE_PER_SECOND - time.perf_counter()))
            nonce, content = calls[number]
            answer = clients[index].call("POST", ATTEST_PATH, content, {NONCE_HEADER: nonce} if nonce else None)
            with lock:
                statuses[answer.status] += 1

    threads = [threading.Thread(target=work, args=(index,)) for index in range(_ATTACKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pipe.send((statuses, len(calls) / (time.perf_counter() - began)))


def _hostile(running: Verifier, device: Device, issuer: Issuer, count: int) -> Prepared:
    """Valid attestations of a few pods, made beforehand; where that takes too long, their nonces expire (401)."""
    client = Client(running.port, running.site.folder / "ca.crt")
    key = EphemeralKey()
    calls = [_prepared(client, device, key, issuer.token(uid=f"attacker-{each % _PODS}")) for each in range(count)]
    client.close()
    return calls


def _prepared(client: Client, device: Device, key: EphemeralKey, token: str) -> tuple[str, bytes]:
    nonce = client.nonce()
    additional = write_additional_evidence(token)
    primary = document(device, binding(nonce, key.public, additional))
    return nonce, write_attest(nonce, key.public, primary, additional)


def _attest(
    running: Verifier, device: Device, issuer: Issuer, count: int = int(_VICTIMS_PER_SECOND * _SECONDS)
) -> list[float]:
    """Seconds of each attestation of a pod of its own, at the victims' rate; nonce and evidence are not in them."""
    client = Client(running.port, running.site.folder / "ca.crt")
    key = EphemeralKey()
    took = []
    began = time.perf_counter()
    for number in range(count):
        nonce, body = _prepared(client, device, key, issuer.token(uid=f"victim-{began}-{number}"))
        time.sleep(max(0.0, began + number / _VICTIMS_PER_SECOND - time.perf_counter()))
        start = time.perf_counter()
        answer = client.call("POST", ATTEST_PATH, body, {NONCE_HEADER: nonce})
        took.append(time.perf_counter() - start)
        if answer.status != 200:
            raise RuntimeError(f"a legitimate attestation got {answer.status}: {json.loads(answer.body)['type']}")
    client.close()
    return took


def _percentile(values: list[float], percent: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def _figures(values: list[float]) -> str:
    p50, p99 = (1000 * _percentile(values, percent) for percent in (50, 99))
    return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms (n {len(values)})"


if __name__ == "__main__":
    main()
