"""Whether a guest policy lets its pod run, and refuses what is not its pod."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cli.proof.attacks import attacks, refused_requests
from cli.proof.engine import Engine
from cli.proof.guest_requests import Host, Request, guest_requests

_MOST: Final = 3
"""Attacks in one request's place that are shown; more say no more about what is wrong."""

Images = Mapping[str, Mapping[str, Any]]


@dataclass(slots=True)
class Proof:
    """What was tried. `refused`: honest requests that were; `passed`: attacks that did."""

    sequences: int = 0
    attacks: int = 0
    refused: list[str] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether all went as it has to."""
        return not self.refused and not self.passed


def prove(pods: Iterable[Mapping[str, Any]], images: Images, policy: str, engine: Engine) -> Proof:
    """Try the policy. `pods`: one pod by each of several names; `images`: configurations by reference.

    Every pod comes in several orders of the host's choice, and the first one under attack, each honest request after
    all attacks in its place. Raises UnusableInputError where the engine fails.
    """
    proof = Proof()
    # With and without what kata-deploy configures, and what later shims leave out.
    hosts = ((True, True), (False, True), (True, False))
    for number, pod in enumerate(pods):
        for seed, (kata_deploy, metadata) in enumerate(hosts):
            engine.load(policy)
            proof.sequences += 1
            for ask in _sequence(pod, images, seed, kata_deploy, metadata):
                if not engine.ask(ask["kind"], ask["request"]):
                    proof.refused.append(f"{_title(ask)} of {pod['metadata']['name']}")
                    break
        if number == 0:
            _attack(pod, images, policy, engine, proof)
    return proof


def _attack(pod: Mapping[str, Any], images: Images, policy: str, engine: Engine, proof: Proof) -> None:
    engine.load(policy)
    sequence = _sequence(pod, images, 0)
    first = {str(container["name"]) for container in pod["spec"].get("initContainers") or ()}
    for number, ask in enumerate(sequence):
        shown = 0
        for name, attack in _attacks(sequence, number, first):
            proof.attacks += 1
            if not engine.ask(attack["kind"], attack["request"]):
                continue
            proof.passed.append(f"{_title(ask)}: {name}")
            shown += 1
            # Its state is the attacker's now.
            engine.load(policy)
            for before in sequence[:number]:
                engine.ask(before["kind"], before["request"])
            if shown == _MOST:
                break
        engine.ask(ask["kind"], ask["request"])


def _sequence(
    pod: Mapping[str, Any], images: Images, seed: int, kata_deploy: bool = True, metadata: bool = True
) -> list[Request]:
    """An order and values of the host's choice, the same for the same seed."""
    host = Host(random.Random(seed), kata_deploy=kata_deploy, metadata=metadata)  # noqa: S311 - no secret depends on it
    return guest_requests(pod, images, host)


def _attacks(sequence: list[Request], number: int, first: set[str]) -> Iterator[tuple[str, Request]]:
    """In the place of one request, and after the one before it. `first`: the names of init containers."""
    ask = sequence[number]
    yield from attacks(ask)
    if _container(ask) in first:
        for later in sequence[number + 1 :]:
            if (name := _container(later)) is not None:
                yield f"state: {name} before its init containers", later
    before = sequence[number - 1]
    if number and before["kind"] == "StartContainerRequest":
        id_ = before["request"]["container_id"]
        yield "state: started twice", before
        yield from refused_requests(id_)
        created = next(one for one in sequence if one["request"].get("container_id") == id_)
        yield "state: the same id twice", created
        yield "state: a second instance", json.loads(json.dumps(created).replace(id_, "4" * 64))


def _container(ask: Request) -> str | None:
    """Which container a request creates; None for others, and for pause."""
    name = ask["request"].get("OCI", {}).get("Annotations", {}).get("io.kubernetes.cri.container-name")
    return None if name is None else str(name)


def _title(ask: Request) -> str:
    name = _container(ask)
    return f"{ask['kind'].removesuffix('Request')}{f' {name}' if name else ''}"
