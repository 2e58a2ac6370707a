"""Variables with the expected answer of the detection, in two halves; random characters are made at run time."""

from __future__ import annotations

import random
import re
import string
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

_HERE = Path(__file__).parent
_ALPHABETS = {
    "alnum": string.ascii_letters + string.digits,
    "lower": string.ascii_lowercase + string.digits,
    "base64": string.ascii_letters + string.digits + "+/",
    "base64url": string.ascii_letters + string.digits + "-_",
    "base32": string.ascii_uppercase + "234567",
    "hex": "0123456789abcdef",
    "digits": "123456789",
    # A password that a person chose: letters and digits, a sign in it.
    "word": "abcdefghkmnpqrstuvwxyz23456789",
}
_PLACE = re.compile(r"\{(?:(\w+):(\d+)|uuid)\}")


@dataclass(frozen=True)
class Variable:
    """One line: its number, its name and value, and whether the value is a secret."""

    line: int
    name: str
    value: str
    is_secret: bool


def half(name: str) -> list[Variable]:
    """The variables of a half (`first`, `second`), the same in every run."""
    found = []
    for number, line in enumerate((_HERE / f"{name}.txt").read_text().splitlines(), 1):
        if line.startswith(("+ ", "- ")):
            variable, _, value = line[2:].partition("=")
            found.append(Variable(number, variable, _filled(value, random.Random(f"{name}{number}")), line[0] == "+"))
    return found


def _filled(template: str, source: random.Random) -> str:
    def characters(match: re.Match[str]) -> str:
        kind, length = match.groups()
        if kind is None:
            return str(UUID(int=source.getrandbits(128), version=4))
        if kind == "word":
            text = "".join(source.choices(_ALPHABETS[kind], k=int(length) - 1))
            return f"{text[:4]}-{text[4:]}"
        return "".join(source.choices(_ALPHABETS[kind], k=int(length)))

    return _PLACE.sub(characters, template).replace("\\n", "\n")
