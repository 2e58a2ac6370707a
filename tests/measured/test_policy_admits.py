"""What an honest host asks for the measured pod is allowed, in whatever order and with whatever it may choose."""

from __future__ import annotations

import copy
import hashlib
import json
import random
from typing import Any, Final

import pytest

from cli.proof.guest_requests import Host, Request, end, run, start, stop
from measured.image import Image, digest_of, read_image
from measured.pod import Choices, measure
from measured.policy import read_policy, rules_digest, rules_text, write_policy
from tests.measured import pods
from tests.support.paths import SHARED
from tests.support.policy_engine import Engine

RECORDED: Final = SHARED / "fixtures" / "kata-requests" / "recorded"
# An exec is what the policy refuses on purpose.
EXECS: Final = {"knlike-update": 1, "shapes": 1}


@pytest.mark.parametrize("seed", range(5))
def test_an_honest_sequence_is_allowed(seed: int) -> None:
    with Engine(pods.policy()) as guest:
        refused = [
            ask for ask in pods.honest(seed=seed, kata_deploy=seed != 1, metadata=seed != 2) if not allowed(guest, ask)
        ]
    assert not refused


def test_a_container_that_ended_starts_again_with_another_id() -> None:
    host, pod = Host(random.Random(7)), pods.pod()
    with Engine(pods.policy()) as guest:
        sequence = start(pod, pods.CONFIGURATIONS, host)
        assert all(allowed(guest, ask) for ask in sequence)
        again = [
            *stop("app", host),
            *run(pod, pod["spec"]["containers"][0], pods.CONFIGURATIONS, host),
            *end(pod, host),
        ]
        assert all(allowed(guest, ask) for ask in again)


def test_a_creation_that_failed_is_tried_again() -> None:
    # The guest pulls an image after its policy was asked: of a failure the policy does not learn.
    with Engine(pods.policy()) as guest:
        first = start(pods.pod(), pods.CONFIGURATIONS, Host(random.Random(3)))
        index = next(n for n, ask in enumerate(first) if container_of(ask) == "app")
        assert all(allowed(guest, ask) for ask in first[: index + 1])
        create = copy.deepcopy(first[index])
        text = json.dumps(create).replace(create["request"]["container_id"], "9" * 64)
        assert allowed(guest, json.loads(text))


def test_output_is_read_only_where_the_author_allows_it() -> None:
    pod = pods.pod()
    for choices, expected in ((Choices(), False), (Choices(reads_logs=frozenset({"app"})), True)):
        with Engine(pods.policy(pod, choices)) as guest:
            for ask in pods.honest(pod):
                assert allowed(guest, ask)
                if ask["kind"] == "StartContainerRequest":
                    last = ask["request"]["container_id"]
                if container_of(ask) == "app":
                    app = ask["request"]["container_id"]
                    break
            read = {"kind": "ReadStreamRequest", "request": {"container_id": app, "exec_id": app, "len": 32768}}
            assert allowed(guest, read) is expected
            assert not allowed(guest, {**read, "request": {**read["request"], "container_id": last}})


@pytest.mark.parametrize("name", sorted(path.stem for path in RECORDED.glob("*.jsonl")) or ["kn-init-1"])
def test_what_real_guests_were_asked_is_allowed(name: str) -> None:
    if not (RECORDED / f"{name}.jsonl").exists():
        pytest.skip(f"{RECORDED} is not there: recordings of real guests lie beside the checkout")
    pod, images, requests = recording(name)
    everything = frozenset(
        one["name"] for kind in ("initContainers", "containers") for one in pod["spec"].get(kind) or []
    )
    choices = Choices(reads_logs=everything, reads_termination=everything)
    text = write_policy(measure(pod, images, choices=choices))
    assert read_policy(text).data["namespace"] == pod["metadata"]["namespace"]
    with Engine(text) as guest:
        refused = [ask["kind"] for ask in requests if not allowed(guest, ask)]
    assert refused == ["ExecProcessRequest"] * EXECS.get(name, 0)


def test_the_rules_can_be_read_by_every_agent() -> None:
    text = rules_text(1)
    assert text.isascii()
    assert "'''" not in text
    assert "print(" not in text
    assert max(map(len, pods.policy().splitlines())) < 1000


def test_the_rules_of_a_version_never_change() -> None:
    """Webhook and verifier know a rendering by its rules' text: a changed one is version 2, beside this."""
    assert rules_digest(1) == "f022f3ebdd6faf62563c34dd226392dfe325b9f60133df7e159413c9613ad2fb"


def allowed(guest: Engine, ask: Request) -> bool:
    return guest.ask(ask["kind"], ask["request"])


def container_of(ask: Request) -> str | None:
    if ask["kind"] != "CreateContainerRequest":
        return None
    return ask["request"]["OCI"]["Annotations"].get("io.kubernetes.cri.container-name")


def recording(name: str) -> tuple[dict[str, Any], dict[str, Image], list[Request]]:
    """The pod, its images and the requests, with a digest in each image reference that was recorded by its tag.

    morphisms-init ran with its image's group, because the node had the image's layers; guest pull has none, so that
    the group has to stand in the pod. Exec probes are left out of the pod: a policy refuses them.
    """
    configurations = json.loads((RECORDED / "images.json").read_text())
    pinned = {
        one: one if "@" in one else f"{one}@sha256:{hashlib.sha256(one.encode()).hexdigest()}" for one in configurations
    }
    pod = _pinned(json.loads((RECORDED / f"{name}-pod.json").read_text()), pinned)
    for container in [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]:
        container.pop("startupProbe", None)
        if container["name"] == "morphisms-init":
            container["securityContext"]["runAsGroup"] = 65532
    lines = (RECORDED / f"{name}.jsonl").read_text().splitlines()
    images = {digest_of(pinned[one]) or "": read_image(config) for one, config in configurations.items()}
    return pod, images, [_pinned(json.loads(line), pinned) for line in lines]


def _pinned(value: Any, pinned: dict[str, str]) -> Any:
    if isinstance(value, str):
        prefix, equals, metadata = value.partition("=")
        if equals and prefix == "image_guest_pull":
            return f"{prefix}={json.dumps(_pinned(json.loads(metadata), pinned))}"
        return pinned.get(value, value)
    if isinstance(value, dict):
        return {key: _pinned(item, pinned) for key, item in value.items()}
    return [_pinned(item, pinned) for item in value] if isinstance(value, list) else value
