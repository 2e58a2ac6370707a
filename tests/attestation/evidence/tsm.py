"""The kernel's side of configfs-tsm, as drivers/virt/coco/guest/report.c and sev-guest.c write it, errno by errno."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

TEXT = ("generation", "provider", "privlevel_floor")
WRITABLE = ("privlevel", "inblob")
BLOBS = ("outblob", "auxblob")
ATTRIBUTES = (*TEXT, *WRITABLE, *BLOBS)


def fail(number: int) -> OSError:
    return OSError(number, "")


@dataclass
class Item:
    """struct tsm_report_state."""

    write_generation: int = 0
    read_generation: int = 0
    inblob: bytes = b""
    privlevel: int = 0
    blobs: dict[str, bytes] = field(default_factory=dict)


# Runs instead of the next step of that name; returning None lets the step itself run afterwards.
Fault = Callable[["Tsm", str], bytes | None]


class Tsm:
    """Items below report/, and what the firmware behind them answers: (REPORT_DATA, VMPL) -> (report, certificates)."""

    def __init__(self, firmware: Callable[[bytes, int], tuple[bytes, bytes]]) -> None:
        self.firmware = firmware
        self.provider: str | None = "sev_guest"
        self.floor = 0
        self.items: dict[str, Item] = {}
        self.made: list[str] = []
        self.steps: list[str] = []
        self.faults: dict[str, deque[Fault]] = {}

    def fault(self, step: str, *faults: Fault) -> None:
        """Before the next steps of this name ("read outblob", "mkdir"), one fault each."""
        self.faults.setdefault(step, deque()).extend(faults)

    def _step(self, step: str, name: str) -> bytes | None:
        self.steps.append(step)
        waiting = self.faults.get(step)
        return waiting.popleft()(self, name) if waiting else None

    def item(self, name: str) -> Item:
        if name not in self.items:
            raise fail(errno.ENOENT)
        return self.items[name]

    def mkdir(self, name: str) -> None:
        self._step("mkdir", name)
        if self.provider is None:
            raise fail(errno.ENXIO)
        if name in self.items:
            raise fail(errno.EEXIST)
        self.items[name] = Item()
        self.made.append(name)

    def rmdir(self, name: str) -> None:
        self._step("rmdir", name)
        self.item(name)
        del self.items[name]

    def read(self, name: str, attribute: str) -> bytes:
        forced = self._step(f"read {attribute}", name)
        item = self.item(name)
        if forced is not None:
            return forced
        if attribute == "generation":
            return b"%d\n" % item.write_generation
        if attribute == "provider":
            if self.provider is None:
                raise fail(errno.ENXIO)
            return f"{self.provider}\n".encode()
        if attribute == "privlevel_floor":
            return b"%d\n" % self.floor
        if attribute not in BLOBS:
            raise fail(errno.EACCES)
        self._generate(item)
        return item.blobs.get(attribute, b"")

    def _generate(self, item: Item) -> None:
        if not item.inblob:
            raise fail(errno.EINVAL)
        if item.blobs and item.read_generation == item.write_generation:
            return
        if len(item.inblob) != 64 or item.privlevel < self.floor:
            raise fail(errno.EINVAL)
        report, certificates = self.firmware(item.inblob, item.privlevel)
        item.blobs = {"outblob": report, "auxblob": certificates}
        item.read_generation = item.write_generation

    def store_text(self, name: str, attribute: str, data: bytes) -> None:
        """One write(2) to a text attribute: takes effect, or fails, at once."""
        self._step(f"write {attribute}", name)
        item = self.item(name)
        try:
            level = int(data.decode("ascii").strip(), 0)
        except ValueError:
            raise fail(errno.EINVAL) from None
        if not self.floor <= level <= 3:
            raise fail(errno.EINVAL)
        item.write_generation += 1
        item.privlevel = level

    def store_blob(self, name: str, data: bytes) -> None:
        """Of a binary attribute, on close(2); fs/configfs/file.c ignores what it returns."""
        self._step("write inblob", name)
        item = self.item(name)
        item.write_generation += 1
        item.inblob = data
