"""What a parent and its workers say to each other, and its form on the socket: a length, then MessagePack."""

from __future__ import annotations

import asyncio
import struct
from typing import Final

import msgspec

_LENGTH: Final = struct.Struct("!I")
# The templates of a cluster are 1 MiB at most, and a process's metrics some hundred KiB.
_MAX_BYTES: Final = 16 << 20


class Topic(msgspec.Struct, frozen=True, tag="topic", array_like=True):
    """To a worker: the newest content of something that all workers have to know."""

    name: str
    version: int
    content: bytes


class Drain(msgspec.Struct, frozen=True, tag="drain", array_like=True):
    """To a worker: be unready, and close each connection after its next answer."""


class Collect(msgspec.Struct, frozen=True, tag="collect", array_like=True):
    """To a worker: report your metrics."""


class Answer(msgspec.Struct, frozen=True, tag="answer", array_like=True):
    """To a worker: the answer to a question of the same number."""

    number: int
    status: int
    body: bytes
    content_type: str


class Status(msgspec.Struct, frozen=True, tag="status", array_like=True):
    """From a worker, as a sign of life: its closed gates, with their reasons."""

    failing: dict[str, str]


class Known(msgspec.Struct, frozen=True, tag="known", array_like=True):
    """From a worker: it has taken this version of a topic into use."""

    name: str
    version: int


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One line of the metrics."""

    name: str
    labels: dict[str, str]
    value: float


class Family(msgspec.Struct, frozen=True, array_like=True):
    """A metric with its samples."""

    name: str
    help: str
    type: str
    samples: list[Sample]


class Report(msgspec.Struct, frozen=True, tag="report", array_like=True):
    """From a worker: its metrics."""

    families: list[Family]


class Question(msgspec.Struct, frozen=True, tag="question", array_like=True):
    """From a worker: what the replica as a whole answers to GET `path`."""

    number: int
    path: str


ToWorker = Topic | Drain | Collect | Answer
FromWorker = Status | Known | Report | Question

_encode: Final = msgspec.msgpack.Encoder().encode
decode_to_worker: Final = msgspec.msgpack.Decoder(ToWorker).decode
decode_from_worker: Final = msgspec.msgpack.Decoder(FromWorker).decode


def framed(message: ToWorker | FromWorker) -> bytes:
    """The bytes of one message."""
    content = _encode(message)
    return _LENGTH.pack(len(content)) + content


async def read_frame(reader: asyncio.StreamReader) -> bytes | None:
    """The content of the next message; None when the other side has gone."""
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        if length > _MAX_BYTES:
            return None
        return await reader.readexactly(length)
    except (asyncio.IncompleteReadError, OSError):
        return None
