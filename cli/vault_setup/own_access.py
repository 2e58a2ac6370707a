"""What the verifier itself needs in Vault, and the changes towards it: pure, without a call to Vault.

A transit key that signs its logins, one policy for its own requests, and an AppRole with that policy. It makes no
secret id: that is one command, whose output goes to the verifier and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from attestation.verifier.configuration import VerifierConfiguration
from attestation.verifier.vault.transit import KEY_TYPE
from cli.vault_setup.plan import Capability, Change, SetupError

NEW_KEY = "<the new transit key's>"
_TOKEN_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class OwnAccess:
    """`transit`: (mount, key), None where no transit key signs. `app_role`: (mount, role), None for a token's file.

    `policy_secret`: (mount, path) of `policyVault`. `namespace`: of all of them.
    """

    policy: str
    transit: tuple[str, str] | None
    app_role: tuple[str, str] | None
    policy_secret: tuple[str, str] | None
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class HeldAccess:
    """The current state in Vault; None for parts that do not exist, or are not needed."""

    transit_type: str | None = None
    key: Mapping[str, Any] | None = None
    policy: str | None = None
    approle_type: str | None = None
    role: Mapping[str, Any] | None = None


def own_access(configuration: VerifierConfiguration, role: str) -> OwnAccess | None:
    """By the configuration; None where the verifier makes no requests of its own. `role`: its AppRole and policy."""
    login = configuration.vault.login
    if login is None:
        return None
    transit, secret = configuration.signing.transit, configuration.policyVault
    app = login.appRole or login.provisioned
    return OwnAccess(
        role.lower(),
        None if transit is None else (transit.mount, transit.key),
        None if app is None else (app.mount, role),
        None if secret is None else (secret.mount, secret.path),
        login.namespace,
    )


def access_policy(access: OwnAccess) -> str:
    """The ACL policy: each request that the verifier makes on its own account, and nothing else."""
    rules = []
    if access.transit is not None:
        mount, key = access.transit
        rules += [(f"{mount}/keys/{key}", "read"), (f"{mount}/sign/{key}/*", "update")]
    if access.policy_secret is not None:
        mount, path = access.policy_secret
        rules.append((f"{mount}/data/{path}", "read"))
    rules.append(("auth/token/revoke-accessor", "update"))
    return "".join(f'path "{path}" {{\n  capabilities = ["{word}"]\n}}\n' for path, word in rules)


def plan_access(access: OwnAccess, held: HeldAccess) -> tuple[Change, ...]:
    """The writes in their order; empty when nothing is missing. Raises SetupError for what belongs to others."""
    changes = [*_transit(access, held), _policy(access, held), *_app_role(access, held)]
    return tuple(change for change in changes if change is not None)


def left_access(access: OwnAccess, held: HeldAccess) -> tuple[str, ...]:
    """A line for each setting that `plan_access` leaves as it is, with its effect."""
    lines = []
    if access.transit is not None and held.key is not None:
        place = "{}/keys/{}".format(*access.transit)
        for name in ("exportable", "allow_plaintext_backup"):
            if held.key.get(name):
                lines.append(f"{place}: {name} is on, so the key can leave Vault; a new key is needed to change that")
    if access.app_role is not None and held.role is not None:
        others = [str(name) for name in held.role.get("token_policies") or () if name != access.policy]
        if others:
            lines.append(f"{_role_path(access)}: token_policies also has {', '.join(others)}")
    return tuple(lines)


def public_keys(held: HeldAccess) -> tuple[str, ...]:
    """The transit key's versions as PEM, newest first; a placeholder while there is no key."""
    if held.key is None:
        return (NEW_KEY,)
    versions = held.key.get("keys")
    if not isinstance(versions, dict) or not all(isinstance(each, dict) for each in versions.values()):
        raise SetupError("Vault shows no versions of the transit key")
    newest = sorted(versions, key=int, reverse=True)
    return tuple(str(versions[number].get("public_key")) for number in newest)


def _transit(access: OwnAccess, held: HeldAccess) -> list[Change]:
    if access.transit is None:
        return []
    mount, name = access.transit
    changes = []
    if held.transit_type is None:
        changes.append(_new(f"sys/mounts/{mount}", {"type": "transit"}, ("type: transit",)))
    elif held.transit_type != "transit":
        raise SetupError(
            f"{mount}/ is of type {held.transit_type}, required transit; name another signing.transit.mount"
        )
    if held.key is None:
        changes.append(_new(f"{mount}/keys/{name}", {"type": KEY_TYPE}, (f"type: {KEY_TYPE}",)))
    elif held.key.get("type") != KEY_TYPE:
        kind = held.key.get("type")
        raise SetupError(f"{mount}/keys/{name} is of type {kind}, required {KEY_TYPE}; change signing.transit.key")
    return changes


def _policy(access: OwnAccess, held: HeldAccess) -> Change | None:
    text = access_policy(access)
    before = (held.policy or "").strip()
    if before == text.strip():
        return None
    lines = tuple(before.splitlines()), tuple(text.splitlines())
    needs = frozenset({Capability.UPDATE})
    return Change(f"sys/policies/acl/{access.policy}", {"policy": text}, *lines, needs, held.policy is None)


def _app_role(access: OwnAccess, held: HeldAccess) -> list[Change]:
    if access.app_role is None:
        return []
    mount, _ = access.app_role
    changes = []
    if held.approle_type is None:
        body = {"type": "approle"}
        needs = frozenset({Capability.UPDATE, Capability.SUDO})
        changes.append(Change(f"sys/auth/{mount}", body, (), ("type: approle",), needs, is_new=True))
    elif held.approle_type != "approle":
        raise SetupError(f"auth/{mount} is of type {held.approle_type}, required approle")
    policies = [str(name) for name in (held.role or {}).get("token_policies") or ()]
    if access.policy not in policies:
        wanted = [*policies, access.policy]
        body_of_role: dict[str, Any] = {"token_policies": wanted}
        if held.role is None:
            body_of_role |= {"token_ttl": _TOKEN_SECONDS, "token_type": "service"}
        before = () if held.role is None else (f"token_policies: {', '.join(policies) or 'none'}",)
        needs = frozenset({Capability.CREATE if held.role is None else Capability.UPDATE})
        after = (f"token_policies: {', '.join(wanted)}",)
        changes.append(Change(_role_path(access), body_of_role, before, after, needs, held.role is None))
    return changes


def _new(path: str, body: Mapping[str, Any], after: tuple[str, ...]) -> Change:
    # Transit looks whether a key is there only when it makes it, so to Vault this is an update.
    return Change(path, body, (), after, frozenset({Capability.UPDATE}), is_new=True)


def _role_path(access: OwnAccess) -> str:
    mount, role = access.app_role or ("", "")
    return f"auth/{mount}/role/{role}"
