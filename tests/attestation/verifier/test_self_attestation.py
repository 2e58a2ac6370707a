"""Which nonces share a call of firmware, and what happens to those that wait."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import pytest

from attestation.verifier.reasons import Reason, RefusedError
from attestation.verifier.self_attestation import Proof, Report, SelfAttestation
from kbs.attested import climb, statement_digest

POLICIES, CONFIGURATION = b"p" * 32, b"c" * 32
OLD, NEW = b"o" * 32, b"n" * 32


class Firmware:
    """Answers a call when told to; `digests` are those that it was asked to bind."""

    def __init__(self) -> None:
        self.digests: list[bytes] = []
        self.running = 0
        self._turns: asyncio.Queue[Exception | None] = asyncio.Queue()

    async def collect(self, digest: bytes) -> Report:
        self.running += 1
        assert self.running == 1, "two calls at once"
        self.digests.append(digest)
        try:
            if (error := await self._turns.get()) is not None:
                raise error
        finally:
            self.running -= 1
        return Report(digest.hex().encode(), "simulated", True)

    def answer(self, *outcomes: Exception | None) -> None:
        """Let as many calls end."""
        for each in outcomes or (None,):
            self._turns.put_nowait(each)


def attesting(
    firmware: Firmware, policies: Callable[[], bytes] = lambda: POLICIES, **limits: int
) -> tuple[SelfAttestation, list[int]]:
    """And the numbers of nonces of its calls."""
    counts: list[int] = []
    attestation = SelfAttestation(
        firmware.collect, policies, lambda: CONFIGURATION, lambda _, nonces, __: counts.append(nonces), **limits
    )
    return attestation, counts


def nonce(number: int) -> bytes:
    return number.to_bytes(32)


def binds(proof: Proof, own: bytes, spki: bytes, policies: bytes = POLICIES) -> bool:
    """The report behind the proof binds this nonce and this key."""
    digest = statement_digest(nonce=climb(own, proof.path), spki=spki, policies=policies, configuration=CONFIGURATION)
    return proof.report.evidence == digest.hex().encode()


async def ask(attestation: SelfAttestation, *keys: bytes) -> list[asyncio.Task[Proof]]:
    """One question for each key, all of them waiting."""
    tasks = [asyncio.create_task(attestation.prove(nonce(number), key)) for number, key in enumerate(keys)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_a_lone_pod_does_not_wait_for_others() -> None:
    firmware = Firmware()
    attestation, counts = attesting(firmware)
    firmware.answer()
    proof = await attestation.prove(nonce(7), OLD)
    assert counts == [1]
    assert proof.path == ()
    assert binds(proof, nonce(7), OLD)


async def test_nonces_that_arrive_during_a_call_share_the_next_one() -> None:
    firmware = Firmware()
    attestation, counts = attesting(firmware)
    tasks = await ask(attestation, *[OLD] * 3)
    late = await ask(attestation, *[OLD] * 20)
    firmware.answer(None, None)
    proofs = await asyncio.gather(*tasks, *late)
    assert counts == [3, 20]
    for number, proof in enumerate(proofs):
        assert binds(proof, nonce(number if number < 3 else number - 3), OLD)
        assert not binds(proof, nonce(99), OLD)


async def test_connections_of_different_certificates_never_share_a_call() -> None:
    firmware = Firmware()
    attestation, counts = attesting(firmware)
    keys = [OLD, NEW, OLD, NEW, NEW]
    tasks = await ask(attestation, *keys)
    firmware.answer(None, None)
    for number, (key, task) in enumerate(zip(keys, tasks, strict=True)):
        proof = await task
        assert binds(proof, nonce(number), key)
        assert not binds(proof, nonce(number), NEW if key is OLD else OLD)
    assert sorted(counts) == [2, 3]


async def test_policies_that_change_between_calls_are_those_of_the_call() -> None:
    firmware, policies = Firmware(), [b"1" * 32]
    attestation, _ = attesting(firmware, lambda: policies[0])
    (first,) = await ask(attestation, OLD)
    policies[0] = b"2" * 32
    (second,) = await ask(attestation, OLD)
    firmware.answer(None, None)
    assert (await first).policies == b"1" * 32
    assert binds(await first, nonce(0), OLD, b"1" * 32)
    assert (await second).policies == b"2" * 32
    assert binds(await second, nonce(0), OLD, b"2" * 32)


async def test_what_does_not_fit_into_one_tree_waits_behind_other_certificates() -> None:
    firmware = Firmware()
    attestation, counts = attesting(firmware, most_nonces=4)
    flood = await ask(attestation, *[OLD] * 10)
    (other,) = await ask(attestation, NEW)
    # Of the ten, four are in the call that runs and six came before the other one; it goes before the last two.
    firmware.answer(None, None, None)
    async with asyncio.timeout(30):
        assert binds(await other, nonce(0), NEW)
        assert counts == [4, 4, 1]
        firmware.answer()
        await asyncio.gather(*flood)
    assert counts == [4, 4, 1, 2]


async def test_a_flood_is_refused_before_it_fills_the_server() -> None:
    firmware = Firmware()
    attestation, _ = attesting(firmware, most_waiting=8)
    flood = await ask(attestation, *[OLD] * 8)
    # One call has begun with the first eight, so as many may wait.
    waiting = await ask(attestation, *[OLD] * 9)
    async with asyncio.timeout(30):
        with pytest.raises(RefusedError) as refused:
            await waiting[-1]
    assert refused.value.reason is Reason.OVERLOADED
    firmware.answer(None, None)
    assert len(await asyncio.gather(*flood, *waiting[:-1])) == 16


async def test_a_pod_that_left_takes_nothing_from_the_others() -> None:
    firmware = Firmware()
    attestation, _ = attesting(firmware)
    tasks = await ask(attestation, *[OLD] * 3)
    tasks[1].cancel()
    firmware.answer()
    assert binds(await tasks[0], nonce(0), OLD)
    assert binds(await tasks[2], nonce(2), OLD)
    with contextlib.suppress(asyncio.CancelledError):
        await tasks[1]


@pytest.mark.parametrize("error", [RefusedError(Reason.NO_EVIDENCE, "device gone"), RuntimeError("a fault of ours")])
async def test_a_failed_call_answers_all_that_wait_and_the_next_one_is_made(error: Exception) -> None:
    firmware = Firmware()
    attestation, counts = attesting(firmware)
    tasks = await ask(attestation, *[OLD] * 3)
    firmware.answer(error)
    for task in tasks:
        with pytest.raises(RefusedError) as refused:
            await task
        assert refused.value.reason is Reason.NO_EVIDENCE
        assert "a fault of ours" not in refused.value.detail
    firmware.answer()
    assert binds(await attestation.prove(nonce(1), OLD), nonce(1), OLD)
    assert counts == [3, 1]


async def test_without_policies_in_force_nothing_is_attested() -> None:
    def unavailable() -> bytes:
        raise RefusedError(Reason.POLICIES_UNAVAILABLE)

    firmware = Firmware()
    attestation, _ = attesting(firmware, unavailable)
    with pytest.raises(RefusedError) as refused:
        await attestation.prove(nonce(0), OLD)
    assert refused.value.reason is Reason.POLICIES_UNAVAILABLE
    assert firmware.digests == []
