"""Hot reload of files: a valid change takes effect whole; an invalid one is reported, and the last valid value stays.

Files are polled: the kubelet updates a ConfigMap or Secret mount by renaming a `..data` link, which inotify on the file
misses.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Gauge
from pydantic import BaseModel

from server import logs
from server.files import MAX_FILE_BYTES
from server.yaml.strict import ConfigurationError, Loaded, load

T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)

_SETTLED_NS = 2_000_000_000


class FileMetrics:
    """Per watched file: what is loaded, and whether the last reload worked. A registry takes one instance."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.digest = Gauge(
            "morphisms_file_info", "1; digest of the loaded file.", ["file", "digest"], registry=registry
        )
        self.success = Gauge(
            "morphisms_file_last_reload_success", "1 when the last reload worked.", ["file"], registry=registry
        )
        self.timestamp = Gauge(
            "morphisms_file_last_reload_timestamp_seconds", "When the value was loaded.", ["file"], registry=registry
        )


class Watched(Generic[T]):
    """The newest valid value of one or more files.

    The constructor loads in the caller's thread, and raises what `read` raises. Then `watch` runs until cancelled:
    every `interval` seconds it compares the files of `paths()`, and calls `read` in a thread when they changed.
    `changed` is called on the event loop with each new value. `read` raises ConfigurationError for a mistake that a
    person has to correct, or returns a value without the parts that have one, with their problems.
    """

    def __init__(
        self,
        name: str,
        *,
        read: Callable[[], Loaded[T]],
        paths: Callable[[], Sequence[Path]],
        metrics: FileMetrics,
        interval: float = 2.0,
        changed: Callable[[T], None] | None = None,
    ) -> None:
        self.name = name
        self._read = read
        self._paths = paths
        self._metrics = metrics
        self._interval = interval
        self._changed = changed
        self._signature: object = _signature(paths())
        self._loaded = read()
        self._problem: object = None
        self._record()
        self._report()

    @property
    def value(self) -> T:
        return self._loaded.value

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the canonical content of `value`."""
        return self._loaded.digest

    async def watch(self) -> None:
        """Poll until cancelled."""
        while True:
            await asyncio.sleep(self._interval)
            await self.poll()

    async def poll(self) -> bool:
        """Compare the files once. Returns whether a new value took effect."""
        signature = await asyncio.to_thread(_signature, self._paths())
        if signature == self._signature:
            return False
        try:
            loaded = await asyncio.to_thread(self._read)
        except Exception as error:  # for any reason the last valid value stays in force
            self._signature = signature
            self._fail(error)
            return False
        self._signature = signature
        before, self._loaded = self._loaded, loaded
        self._report()
        if loaded.digest == before.digest:
            return False
        self._metrics.digest.remove(self.name, before.digest)
        self._record()
        logs.info("file_reloaded", file=self.name, digest=loaded.digest)
        if self._changed:
            self._changed(loaded.value)
        return True

    def _record(self) -> None:
        self._metrics.digest.labels(self.name, self._loaded.digest).set(1)
        self._metrics.timestamp.labels(self.name).set(time.time())

    def _report(self) -> None:
        """Say which parts of the newest value could not be used."""
        problems = self._loaded.problems
        self._metrics.success.labels(self.name).set(0 if problems else 1)
        if problems and problems != self._problem:
            logs.error("file_partly_loaded", file=self.name, problems=problems, digest=self.digest)
        self._problem = problems or None

    def _fail(self, error: Exception) -> None:
        self._metrics.success.labels(self.name).set(0)
        problem = error.problems if isinstance(error, ConfigurationError) else type(error)
        if problem != self._problem:  # one line per fault, not per poll
            self._problem = problem
            if isinstance(error, ConfigurationError):
                logs.error("file_not_reloaded", file=self.name, problems=error.problems, kept=self.digest)
            else:
                logs.error("file_not_reloaded", exception=error, file=self.name, kept=self.digest)


def watch_yaml(
    path: Path,
    model: type[Model],
    *,
    metrics: FileMetrics,
    name: str = "configuration",
    interval: float = 2.0,
    max_bytes: int = MAX_FILE_BYTES,
    changed: Callable[[Model], None] | None = None,
) -> Watched[Model]:
    """`path` as a `model`, loaded now and kept up to date while `watch` runs. Raises ConfigurationError only now."""
    return Watched(
        name,
        read=lambda: load(path, model, max_bytes=max_bytes),
        paths=lambda: [path],
        metrics=metrics,
        interval=interval,
        changed=changed,
    )


def _signature(paths: Sequence[Path]) -> object:
    """Equal for the same files while they are unchanged.

    A file that changed less than 2 s ago equals nothing. It may change again at the same size within the resolution of
    its time stamp; git calls such an entry of its index "racily clean".
    """
    parts: list[object] = []
    for path in paths:
        try:
            stat = path.stat()
        except OSError:
            parts.append((path, None))
            continue
        parts.append((path, stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns))
        if time.time_ns() - stat.st_mtime_ns < _SETTLED_NS:
            parts.append(object())
    return parts
