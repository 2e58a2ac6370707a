"""`POST /cluster`: a scanner learns whether the verifier knows its cluster, and a stranger learns nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from attestation.simulator.hierarchy import Hierarchy
from kbs.known_cluster import (
    CLUSTER_PATH,
    MAX_KEYS,
    ClusterAnswer,
    ClusterQuestion,
    read_cluster_answer,
    write_cluster_question,
)
from tests.attestation.verifier.guest import Answer
from tests.attestation.verifier.process import Verifier, make_site, verifier
from tests.attestation.verifier.tokens import AUDIENCE, ISSUER, Issuer

_QUESTION: dict[str, Any] = {"cluster": "prod", "issuer": ISSUER, "audience": AUDIENCE, "keys": ["prod-1"]}


def _call(running: Verifier, body: bytes) -> Answer:
    client = running.client()
    try:
        return client.call("POST", CLUSTER_PATH, body)
    finally:
        client.close()


def _answer(running: Verifier, **changes: Any) -> ClusterAnswer:
    question = _QUESTION | changes
    body = write_cluster_question(ClusterQuestion(**{**question, "keys": tuple(question["keys"])}))
    answer = _call(running, json.dumps(body).encode())
    assert answer.status == 200
    return read_cluster_answer(json.loads(answer.body))


def test_the_verifier_says_which_public_values_it_has(running: Verifier) -> None:
    assert _answer(running) == ClusterAnswer(True, True, True, ("prod-1",))
    assert _answer(running, issuer="https://other") == ClusterAnswer(True, False, True, ("prod-1",))
    assert _answer(running, audience="vault") == ClusterAnswer(True, True, False, ("prod-1",))
    assert _answer(running, keys=["new", "prod-1"]) == ClusterAnswer(True, True, True, ("prod-1",))
    # Of a cluster that it does not know it says nothing, so a name alone tells no issuer.
    assert _answer(running, cluster="other") == ClusterAnswer(False, False, False, ())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{" * 10_000,
        json.dumps(_QUESTION | {"keys": [["prod-1"]]}).encode(),
        json.dumps(_QUESTION | {"keys": ["x"] * (MAX_KEYS + 1)}).encode(),
        json.dumps(_QUESTION | {"keys": ["x" * 129]}).encode(),
        json.dumps(_QUESTION | {"issuer": "x" * 513}).encode(),
        json.dumps(_QUESTION | {"cluster": 1}).encode(),
        json.dumps({**_QUESTION, "audience": None}).encode(),
    ],
)
def test_what_is_no_question_is_refused(running: Verifier, body: bytes) -> None:
    assert _call(running, body).status == 400


def test_a_question_larger_than_any_is_not_read(running: Verifier) -> None:
    assert _call(running, json.dumps(_QUESTION | {"more": "x" * (1 << 20)}).encode()).status == 413


def test_a_verifier_without_the_clusters_keys_says_so(tmp_path: Path, hierarchy: Hierarchy, issuer: Issuer) -> None:
    site = make_site(tmp_path, hierarchy, issuer, "http://127.0.0.1:1")
    with verifier(site) as running:
        (site.folder / "prod.jwks").unlink()
        assert _answer(running).keys is None
