"""Vault for `vault setup`: reads the current state and writes changes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from cli.vault_setup.api import FORBIDDEN, MISSING, VaultApi
from cli.vault_setup.own_access import HeldAccess, OwnAccess
from cli.vault_setup.plan import Capability, Change, Current, Desired, Mount, SetupError

_READ = frozenset({Capability.READ})


class Operator(VaultApi):
    """Vault, seen with an operator's token. Each method raises SetupError with a line for people."""

    def read(self, desired: Desired) -> Current:
        """The current state of one mount."""
        namespace, mount = desired.namespace, desired.mount
        answer = self.ask("GET", "sys/auth", namespace)
        if answer.status == MISSING:
            raise SetupError(f"namespace {namespace} does not exist")
        entry = self.good(answer, "sys/auth", namespace, {Capability.READ}).data.get(f"{mount}/")
        found = Mount(str(entry.get("type")), str(entry.get("accessor"))) if isinstance(entry, dict) else None
        policy = self._object(f"sys/policies/acl/{desired.policy}", namespace)
        if found is None or found.type != "jwt":
            return Current(mount=found, policy=None if policy is None else str(policy.get("policy")))
        return Current(
            mount=found,
            config=self._object(f"auth/{mount}/config", namespace),
            policy=None if policy is None else str(policy.get("policy")),
            roles={role: self._object(f"auth/{mount}/role/{role}", namespace) for role in desired.roles},
        )

    def read_access(self, access: OwnAccess) -> HeldAccess:
        """The current state of what the verifier itself needs."""
        namespace = access.namespace
        engines = auths = {}
        if access.transit is not None:
            engines = self.good(self.ask("GET", "sys/mounts", namespace), "sys/mounts", namespace, _READ).data
        if access.app_role is not None:
            auths = self.good(self.ask("GET", "sys/auth", namespace), "sys/auth", namespace, _READ).data
        transit_type = _type(engines, access.transit)
        approle_type = _type(auths, access.app_role)
        policy = self._object(f"sys/policies/acl/{access.policy}", namespace)
        key = role = None
        if access.transit is not None and transit_type == "transit":
            key = self._object("{}/keys/{}".format(*access.transit), namespace)
        if access.app_role is not None and approle_type == "approle":
            role = self._object("auth/{}/role/{}".format(*access.app_role), namespace)
        text = None if policy is None else str(policy.get("policy"))
        return HeldAccess(transit_type, key, text, approle_type, role)

    def check_capabilities(self, changes: Sequence[Change], namespace: str) -> None:
        """Check before the first write, so that a token with half of the capabilities changes nothing."""
        missing = self.missing({change.path: change.needs for change in changes}, namespace)
        if missing:
            raise SetupError(f"permission denied, nothing was changed: the token lacks {'; '.join(missing)}")

    def write(self, change: Change, namespace: str) -> None:
        """Make one change."""
        self.good(self.ask("POST", change.path, namespace, change.body), change.path, namespace, change.needs)

    def advice(self, all_desired: Iterable[Desired]) -> list[str]:
        """Advice on parts that this command does not change: audit devices and the KV engine."""
        lines = [self._audit()]
        kv = dict.fromkeys((desired.namespace, desired.kv_mount) for desired in all_desired)
        return [line for line in (*lines, *(self._kv(*each) for each in kv)) if line]

    def _audit(self) -> str:
        # Audit devices are the root namespace's in every edition.
        answer = self.ask("GET", "sys/audit", "")
        if answer.status == FORBIDDEN:
            return (
                "audit: the token may not look (it needs read and sudo on sys/audit), "
                "so whether logins are recorded is not known"
            )
        self.good(answer, "sys/audit", "", {Capability.READ, Capability.SUDO})
        if answer.data:
            return ""
        return (
            "audit: no audit device is on, so no login and no read is recorded. Vault: `vault audit enable file "
            "file_path=/var/log/vault/audit.log`. OpenBao: in the server's configuration, then SIGHUP: "
            'audit "file" "to-file" { options { file_path = "/var/log/openbao/audit.log" } }'
        )

    def _kv(self, namespace: str, mount: str) -> str:
        answer = self.ask("GET", "sys/mounts", namespace)
        if answer.status == FORBIDDEN:
            return f"{mount}/: the token may not look (it needs read on sys/mounts): it has to be KV version 2"
        entry = self.good(answer, "sys/mounts", namespace, {Capability.READ}).data.get(f"{mount}/")
        if not isinstance(entry, dict):
            return (
                f"{mount}/: this secrets engine does not exist yet: `vault secrets enable -path={mount} -version=2 kv`"
            )
        if entry.get("type") != "kv" or (entry.get("options") or {}).get("version") != "2":
            return f"{mount}/: is not KV version 2, and the policy's paths are made for that (--kv-mount)"
        return ""

    def _object(self, path: str, namespace: str) -> dict[str, Any] | None:
        answer = self.ask("GET", path, namespace)
        return None if answer.status == MISSING else self.good(answer, path, namespace, {Capability.READ}).data


def _type(mounts: dict[str, Any], place: tuple[str, str] | None) -> str | None:
    entry = None if place is None else mounts.get(f"{place[0]}/")
    return str(entry.get("type")) if isinstance(entry, dict) else None
