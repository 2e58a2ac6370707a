"""`POST /cluster`: whether the verifier knows a cluster as it is, before any of its pods attests.

The question holds public values alone: the cluster's name, the issuer of its service-account tokens, the audience of
its pods' tokens, and the ids of its token keys, of which an API server makes each from the key. The answer says for
each whether the verifier has the same, and never which values it has instead.

Question: {"cluster": NAME, "issuer": URL, "audience": NAME, "keys": [ID, …]}
Answer: {"cluster": true, "issuer": true, "audience": true, "keys": [ID, …]}, where `keys` are those of the question
that the verifier has, and null while it cannot get the cluster's keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from kbs.messages import WireError, read_json, require_object, write_json

CLUSTER_PATH: Final = "/cluster"
MAX_CLUSTER_SIZE: Final = 16 * 1024
MAX_KEYS: Final = 64
_MAX_TEXT: Final = 512
_MAX_KEY: Final = 128


@dataclass(frozen=True, slots=True)
class ClusterQuestion:
    """What the cluster itself says."""

    cluster: str
    issuer: str
    audience: str
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClusterAnswer:
    """What the verifier has. `issuer`, `audience` and `keys` say nothing where it does not know the cluster."""

    cluster: bool
    issuer: bool
    audience: bool
    keys: tuple[str, ...] | None


def write_cluster_question(question: ClusterQuestion) -> dict[str, Any]:
    """The body, as an object."""
    return {
        "cluster": question.cluster,
        "issuer": question.issuer,
        "audience": question.audience,
        "keys": list(question.keys),
    }


def read_cluster_question(body: bytes) -> ClusterQuestion:
    """The question. Raises WireError."""
    document = read_json(body, MAX_CLUSTER_SIZE, "question")
    return ClusterQuestion(
        _text(document, "cluster"), _text(document, "issuer"), _text(document, "audience"), _keys(document.get("keys"))
    )


def write_cluster_answer(answer: ClusterAnswer) -> bytes:
    """The body."""
    keys = None if answer.keys is None else list(answer.keys)
    return write_json({"cluster": answer.cluster, "issuer": answer.issuer, "audience": answer.audience, "keys": keys})


def read_cluster_answer(value: Any) -> ClusterAnswer:
    """The answer, of a decoded object. Raises WireError."""
    document = require_object(value, "answer")
    keys = document.get("keys", "")
    return ClusterAnswer(
        _flag(document, "cluster"),
        _flag(document, "issuer"),
        _flag(document, "audience"),
        None if keys is None else _keys(keys),
    )


def _keys(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > MAX_KEYS:
        raise WireError(f"keys is not a list of at most {MAX_KEYS} texts")
    if not all(isinstance(each, str) and 0 < len(each) <= _MAX_KEY for each in value):
        raise WireError("keys holds what is no key id")
    return tuple(value)


def _text(document: dict[str, Any], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_TEXT:
        raise WireError(f"{name} is not a text of at most {_MAX_TEXT} characters")
    return value


def _flag(document: dict[str, Any], name: str) -> bool:
    value = document.get(name)
    if not isinstance(value, bool):
        raise WireError(f"{name} is neither true nor false")
    return value
