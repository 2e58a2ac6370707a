"""The initdata document of a pod that was measured by our rules: written by `render`, read by webhook and verifier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from measured.image import read_image
from measured.initdata import Initdata, InitdataError, parse_initdata, read_initdata
from measured.pod import Choices, measure
from measured.pod_name import PodName
from measured.policy import Policy, PolicyError, read_policy, write_policy
from measured.refusal import Refusal, UnmeasurableError

POLICY_FILE: Final = "policy.rego"
_ALGORITHM: Final = "sha256"


@dataclass(frozen=True, slots=True)
class MeasuredDocument:
    """A document of ours, and what it measured."""

    initdata: Initdata
    policy: Policy

    @property
    def data(self) -> dict[str, Any]:
        """See `measured.pod.measure`."""
        return self.policy.data


def write_document(data: Mapping[str, Any], files: Mapping[str, str]) -> bytes:
    """The document's TOML, equal bytes for equal input. `files`: texts beside the policy. Raises PolicyError."""
    texts = {**files, POLICY_FILE: write_policy(data)}
    lines = ['version = "0.1.0"', f'algorithm = "{_ALGORITHM}"', "", "[data]"]
    for name in sorted(texts):
        if "'''" in texts[name]:
            raise PolicyError(f"cannot be written beside a {name} with three apostrophes in a row")
        lines.append(f"\"{name}\" = '''\n{texts[name]}'''")
    return ("\n".join(lines) + "\n").encode()


def document_of_annotation(encoded: str | None) -> MeasuredDocument | None:
    """The document in an annotation; None for one that is not ours or cannot be read. Cached."""
    return None if encoded is None else _of_annotation(encoded)


@lru_cache(maxsize=64)
def _of_annotation(encoded: str) -> MeasuredDocument | None:
    try:
        return document_of(read_initdata(encoded))
    except InitdataError:
        return None


def document_of_text(toml: bytes) -> MeasuredDocument | None:
    """The document in its TOML; None for one that is not ours. Raises InitdataError for one that is malformed."""
    return document_of(parse_initdata(toml))


def document_of(initdata: Initdata) -> MeasuredDocument | None:
    """The same of a document that was read."""
    try:
        return MeasuredDocument(initdata, read_policy(initdata.files.get(POLICY_FILE, "")))
    except PolicyError:
        return None


def differences(pod: Mapping[str, Any], document: MeasuredDocument) -> list[Refusal]:
    """The fields in which a pod is not the measured one: what its guest would refuse. Values are never shown."""
    data = document.data
    try:
        images = {digest: read_image(config) for digest, config in data["images"].items()}
        containers = data["containers"]
        choices = Choices(
            frozenset(one["name"] for one in containers if one["readLogs"]),
            frozenset(one["name"] for one in containers if one["readTermination"]),
            data["automountsToken"],
            copies_claims=any(
                mount["from"] == "copied" and mount["access"] == "rw"
                for one in containers
                for mount in one["mounts"].values()
            ),
        )
        measured = measure(pod, images, _name(pod, data["pod"]), choices)
    except UnmeasurableError as error:
        return list(error.refusals)
    except (KeyError, TypeError, ValueError, AttributeError):
        return [Refusal("metadata.annotations", "the document's policy holds data that no pod can have")]
    return [Refusal(field, "is not what was measured") for field in differing_fields("", measured, data)]


def _name(pod: Mapping[str, Any], measured: Mapping[str, Any]) -> PodName | None:
    """A generated name is not known yet at admission: the guest compares it."""
    metadata = pod.get("metadata") or {}
    if "pattern" in measured and not metadata.get("name"):
        return PodName(measured["pattern"], is_pattern=True)
    if "pattern" in measured and PodName(measured["pattern"], is_pattern=True).matches(str(metadata.get("name"))):
        return PodName(measured["pattern"], is_pattern=True)
    return None


def differing_fields(field: str, one: Any, other: Any) -> list[str]:
    """The paths below `field` at which two JSON values differ; containers are compared by name."""
    if one == other:
        return []
    if isinstance(one, dict) and isinstance(other, dict):
        return [
            found
            for key in sorted(one.keys() | other.keys())
            for found in differing_fields(f"{field}.{key}" if field else key, one.get(key), other.get(key))
        ]
    if field == "containers" and isinstance(one, list) and isinstance(other, list):
        return differing_fields("containers", _by_name(one), _by_name(other))
    return [field]


def _by_name(containers: list[Any]) -> dict[str, Any]:
    return {str(container["name"]): container for container in containers}
