"""How single values of a guest entry are written: numbers, digests, versions, lists of names.

Each is read by a function that says what is required, with an example that is right, and has the same form in the JSON
Schema. `server.guest_entries` puts them together.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from kbs.reference_values import PLATFORM_INFO_BITS

_HEXADECIMAL = re.compile(r"0[xX][0-9a-fA-F]+")
_COUNT = re.compile(r"[1-9][0-9]{0,3}")


def wrong(text: str) -> PydanticCustomError:
    """What is required instead, and an example; it must hold no value, see `server.yaml.strict`."""
    return PydanticCustomError("guest_entry", "{text}", {"text": text})


class _Number:
    """A whole number of at most `bits` bits, or the same in hexadecimal digits after 0x, as text."""

    def __init__(self, bits: int) -> None:
        self._limit = 1 << bits
        self._bits = bits
        self.schema = {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": self._limit - 1},
                {"type": "string", "pattern": f"^{_HEXADECIMAL.pattern}$"},
            ]
        }

    def __call__(self, value: object) -> int:
        # `int` would also take underscores between digits, and blanks around them.
        if isinstance(value, str) and _HEXADECIMAL.fullmatch(value):
            value = int(value, 16)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < self._limit:
            raise wrong(f'required a whole number of at most {self._bits} bits, such as 3 or "0x3"')
        return value


class _Digest:
    """`size` bytes as hexadecimal digits."""

    def __init__(self, size: int) -> None:
        self._digits = 2 * size
        self.schema = {"type": "string", "pattern": f"^[0-9a-fA-F]{{{self._digits}}}$"}

    def __call__(self, value: object) -> bytes:
        if isinstance(value, str) and len(value) == self._digits:
            try:
                found = bytes.fromhex(value)
            except ValueError:
                found = b""
            # `fromhex` passes over spaces, which would leave a shorter digest.
            if 2 * len(found) == self._digits:
                return found
        raise wrong(f'required {self._digits} hexadecimal digits in quotes, such as "0a1b…"')


class _Version:
    """Numbers from 0 to 255 with dots between them, as text: unquoted, 1.10 would be the number 1.1."""

    def __init__(self, form: str, example: str) -> None:
        self._form, self._example = form, example
        self._count = form.count(".") + 1
        part = r"[0-9]{1,3}"
        self.schema = {"type": "string", "pattern": f"^{part}{rf'[.]{part}' * (self._count - 1)}$"}

    def __call__(self, value: object) -> tuple[int, ...]:
        parts = value.split(".") if isinstance(value, str) else []
        is_numeric = all(part.isascii() and part.isdigit() and len(part) <= 3 for part in parts)
        if len(parts) != self._count or not is_numeric or max(map(int, parts)) > 0xFF:
            raise wrong(f'required {self._form} in quotes, each from 0 to 255, such as "{self._example}"')
        return tuple(map(int, parts))


def require_list(value: object) -> object:
    """The value, if it is a list. Raises PydanticCustomError."""
    if not isinstance(value, list):
        raise wrong('required a list, such as ["0a1b…"]')
    return value


def _filled_list(value: object) -> object:
    if require_list(value) == []:
        raise wrong("the list is empty, so no guest would match; leave the key out to not compare it")
    return value


def _vcpus(value: object) -> int:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not _COUNT.fullmatch(text):
        raise wrong('a key is not a number of vCPUs in quotes, such as "2"')
    return int(text)


def _distinct(measurements: dict[int, bytes]) -> dict[int, bytes]:
    if len(set(measurements.values())) != len(measurements):
        raise wrong("two numbers of vCPUs have one digest, but every vCPU is measured; `morphisms guest measure` helps")
    return measurements


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise wrong("required true or false")
    return value


def _vmpls(value: object) -> tuple[int, ...]:
    values = value if isinstance(value, list) else [value]
    if not values or any(not isinstance(each, int) or isinstance(each, bool) or not 0 <= each <= 3 for each in values):
        raise wrong("required a number from 0 to 3, or a list of them, such as [0, 1]")
    return tuple(values)


def _signing_keys(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or any(each not in ("VCEK", "VLEK") for each in value):
        raise wrong("required a list of VCEK and VLEK, such as [VCEK]")
    return tuple(value)


def _platform_bits(value: object) -> int:
    if not isinstance(value, list):
        return UNSIGNED_64(value)
    if any(not isinstance(name, str) or name not in PLATFORM_INFO_BITS for name in value):
        raise wrong(f"required a mask, or a list of {', '.join(PLATFORM_INFO_BITS)}")
    return sum(1 << PLATFORM_INFO_BITS[name] for name in set(value))


UNSIGNED_8, _UNSIGNED_32, UNSIGNED_64 = _Number(8), _Number(32), _Number(64)
_DIGEST_16, _DIGEST_32, _DIGEST_48, _DIGEST_64 = map(_Digest, (16, 32, 48, 64))
_FIRMWARE, _ABI = _Version("MAJOR.MINOR.BUILD", "1.55.40"), _Version("MAJOR.MINOR", "1.51")

Boolean = Annotated[bool, BeforeValidator(_boolean)]
Unsigned8 = Annotated[int, PlainValidator(UNSIGNED_8), WithJsonSchema(UNSIGNED_8.schema)]
Unsigned32 = Annotated[int, PlainValidator(_UNSIGNED_32), WithJsonSchema(_UNSIGNED_32.schema)]
Unsigned64 = Annotated[int, PlainValidator(UNSIGNED_64), WithJsonSchema(UNSIGNED_64.schema)]
Digest16 = Annotated[bytes, PlainValidator(_DIGEST_16), WithJsonSchema(_DIGEST_16.schema)]
Digest32 = Annotated[bytes, PlainValidator(_DIGEST_32), WithJsonSchema(_DIGEST_32.schema)]
Digest48 = Annotated[bytes, PlainValidator(_DIGEST_48), WithJsonSchema(_DIGEST_48.schema)]
Digest64 = Annotated[bytes, PlainValidator(_DIGEST_64), WithJsonSchema(_DIGEST_64.schema)]
CspIds = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=256, pattern="^[ -~]+$")], ...],
    BeforeValidator(_filled_list),
    Field(min_length=1),
]
Digests32 = Annotated[tuple[Digest32, ...], BeforeValidator(_filled_list), Field(min_length=1)]
Digests48 = Annotated[tuple[Digest48, ...], BeforeValidator(_filled_list), Field(min_length=1)]
Digests64 = Annotated[tuple[Digest64, ...], BeforeValidator(_filled_list), Field(min_length=1)]
MeasurementsByVcpus = Annotated[
    dict[Annotated[int, PlainValidator(_vcpus)], Digest48],
    AfterValidator(_distinct),
    WithJsonSchema(
        {
            "type": "object",
            "patternProperties": {f"^{_COUNT.pattern}$": _DIGEST_48.schema},
            "additionalProperties": False,
        }
    ),
]
Firmware = Annotated[tuple[int, int, int], PlainValidator(_FIRMWARE), WithJsonSchema(_FIRMWARE.schema)]
Abi = Annotated[tuple[int, int], PlainValidator(_ABI), WithJsonSchema(_ABI.schema)]
Vmpls = Annotated[
    tuple[int, ...],
    PlainValidator(_vmpls),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": 3},
                {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 3}, "minItems": 1},
            ]
        }
    ),
]
SigningKeys = Annotated[
    tuple[str, ...],
    PlainValidator(_signing_keys),
    WithJsonSchema({"type": "array", "items": {"enum": ["VCEK", "VLEK"]}, "minItems": 1}),
]
PlatformBits = Annotated[
    int,
    PlainValidator(_platform_bits),
    WithJsonSchema(
        {"anyOf": [*UNSIGNED_64.schema["anyOf"], {"type": "array", "items": {"enum": list(PLATFORM_INFO_BITS)}}]}
    ),
]
