"""Moved values in Vault: read, merged, written with check-and-set, and read back.

A key that is there with another value is never written over, and a secret that changes meanwhile is not written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from cli.migration.moves import Move
from cli.vault_setup.api import FORBIDDEN, MISSING, VaultApi
from cli.vault_setup.plan import Capability, SetupError
from webhook.pod.container import display_name

_READ: Final = frozenset({Capability.READ})
_WRITE: Final = frozenset({Capability.CREATE, Capability.UPDATE})


@dataclass(frozen=True, slots=True)
class Stored:
    """A secret's newest version: its number, 0 where there is none, and its keys; none where it was deleted."""

    version: int
    data: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Write:
    """A secret with the keys that it lacks, and the version that it must still have."""

    path: str
    keys: tuple[str, ...]
    version: int
    data: Mapping[str, Any] = field(repr=False)


class SecretStore:
    """KV secrets by their logical path. Each method raises SetupError with a line that holds no value."""

    def __init__(self, api: VaultApi, mounts: Sequence[str], namespace: str) -> None:
        self._api = api
        self._mounts = mounts
        self._namespace = namespace

    def plan(self, moves: Sequence[Move]) -> list[Write]:
        """The writes that the moves need; none for values that are there already."""
        wanted: dict[str, dict[str, str]] = {}
        for move in moves:
            wanted.setdefault(move.path, {})[move.key] = move.value
        for mount in dict.fromkeys(self._split(path)[0] for path in wanted):
            self._check_version(mount)
        writes = []
        for path, values in wanted.items():
            stored = self.read(path)
            for key, value in values.items():
                if stored.data.get(key, value) != value:
                    raise SetupError(
                        f"{path} has a key {display_name(key)} with another value, which is not written over; choose"
                        " another --vault-path, or remove the key"
                    )
            lacking = {key: value for key, value in values.items() if key not in stored.data}
            if lacking:
                writes.append(Write(path, tuple(lacking), stored.version, {**stored.data, **lacking}))
        return writes

    def write(self, write: Write) -> None:
        """Write one secret, unless it has changed since it was read, and read it back."""
        path = self._api_path(write.path)
        body = {"options": {"cas": write.version}, "data": write.data}
        answer = self._api.ask("POST", path, self._namespace, body)
        if answer.status == 400 and "check-and-set" in answer.error:
            raise SetupError(f"{write.path} was changed by another client meanwhile; run the command again")
        if answer.status not in (200, FORBIDDEN):
            raise SetupError(f"Vault answered {answer.status} on {path}, and the value may not be stored")
        self._api.good(answer, path, self._namespace, _WRITE)
        stored = self.read(write.path)
        if any(stored.data.get(key) != write.data[key] for key in write.keys):
            raise SetupError(f"Vault took {write.path} but does not hold what was written; look at the secret")

    def read(self, path: str) -> Stored:
        """The newest version of the secret."""
        where = self._api_path(path)
        answer = self._api.ask("GET", where, self._namespace)
        if answer.status != MISSING:
            self._api.good(answer, where, self._namespace, _READ)
        data, metadata = answer.data.get("data"), answer.data.get("metadata")
        version = metadata.get("version") if isinstance(metadata, dict) else 0
        if not isinstance(version, int):
            raise SetupError(f"{path}: Vault's answer has no version; the mount is not KV version 2")
        return Stored(version, data if isinstance(data, dict) else {})

    def _check_version(self, mount: str) -> None:
        # A write in the form of version 2 would be a secret of that form in version 1.
        path = f"sys/internal/ui/mounts/{mount}"
        answer = self._api.good(self._api.ask("GET", path, self._namespace), path, self._namespace, _READ)
        options = answer.data.get("options")
        version = options.get("version") if isinstance(options, dict) else None
        if answer.data.get("type") != "kv" or version != "2":
            raise SetupError(f"{mount}/ is not KV version 2, which alone has check-and-set")

    def _split(self, path: str) -> tuple[str, str]:
        mount = max((each for each in self._mounts if path.startswith(f"{each}/")), key=len)
        return mount, path.removeprefix(f"{mount}/")

    def _api_path(self, path: str) -> str:
        mount, rest = self._split(path)
        return f"{mount}/data/{rest}"
