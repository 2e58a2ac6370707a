"""The names that a pod of a controller can have.

In a guest the name is in HOSTNAME, in variables and in annotations.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from measured.refusal import Refusals

# k8s.io/apimachinery: a generated name is cut to 58 characters and gets 5 of this alphabet.
_RANDOM: Final = "[bcdfghjklmnpqrstvwxz2456789]{5}"
_GENERATED_BASE: Final = 58
# A pod template's hash is a number of up to 10 digits in the same alphabet.
_HASH: Final = "[4-9bcdf]"
_HASH_LENGTH: Final = 10
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class PodName:
    """A name, or a pattern that the whole name matches."""

    text: str
    is_pattern: bool = False

    def matches(self, name: str) -> bool:
        """Whether the name is one of these."""
        return re.fullmatch(self.text, name) is not None if self.is_pattern else name == self.text


def own_name(metadata: Mapping[str, Any], refusals: Refusals) -> PodName:
    """The name of a pod that its author names, or whose name the API server generates."""
    name, base = metadata.get("name"), metadata.get("generateName")
    if isinstance(name, str) and _NAME.fullmatch(name):
        return PodName(name)
    if isinstance(base, str) and _NAME.fullmatch(base.rstrip("-") or "-"):
        return PodName(re.escape(base[:_GENERATED_BASE]) + _RANDOM, is_pattern=True)
    refusals.add("metadata.name", "is missing, or longer than a host name of 63 characters")
    return PodName("")


def name_of_deployment(deployment: str) -> PodName:
    """The pods of a Deployment: its name, the template's hash, and five random characters."""
    room = _GENERATED_BASE - len(deployment) - 1
    if room <= 0:
        return PodName(re.escape(f"{deployment}-"[:_GENERATED_BASE]) + _RANDOM, is_pattern=True)
    longest = min(_HASH_LENGTH, room - 1)
    whole = f"{_HASH}{{1,{longest}}}-" if longest else ""
    cut = f"{_HASH}{{{room}}}" if room <= _HASH_LENGTH else ""
    middle = "|".join(filter(None, (whole, cut)))
    return PodName(f"{re.escape(deployment)}-({middle}){_RANDOM}", is_pattern=True)


def name_of_stateful_set(name: str) -> PodName:
    """The pods of a StatefulSet: its name and an ordinal of at most five digits."""
    return PodName(f"{re.escape(name)}-(0|[1-9][0-9]{{0,4}})", is_pattern=True)
