"""The state that the verifier's logins need in Vault, and the changes towards it: pure, without a call to Vault.

Four objects a jwt auth mount: the mount, its config, one templated policy and its roles. The policy carries the mount's
accessor, so each mount has a policy of its own: setting up one mount never takes another's paths away.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from attestation.appraisal.result import Assurance
from attestation.verifier.vault.signing import ALGORITHM

CLOCK_SKEW_SECONDS = 5
TOKEN_SECONDS = 600
TOKEN_MAX_SECONDS = 3600
_METADATA = ("cluster", "namespace", "service")
# Beside these, so that Vault's own audit log says of each login and each read on what evidence it rests.
_AUDITED = (*_METADATA, "assurance", "guest", "k8s_pod_uid", "correlation_id")
# Settings of a role that this command leaves as they are; None for those that only narrow it.
_LEFT: Mapping[str, str | None] = MappingProxyType(
    {
        "groups_claim": "a login also gets the policies of the identity groups that this claim names",
        "expiration_leeway": "a JWT counts for this long after it has expired",
        "not_before_leeway": "a JWT counts this long before it is valid",
        "bound_subject": None,
        "token_bound_cidrs": None,
        "token_max_ttl": None,
        "token_no_default_policy": None,
        "token_num_uses": None,
    }
)
_ACCESSOR = re.compile(r"[A-Za-z0-9_-]{1,128}")
_NO_ACCESSOR = "<accessor of the new mount>"


class SetupError(Exception):
    """Vault cannot be set up in its current state; the text is one line for people."""


class Capability(StrEnum):
    """Vault's own words, as in its ACL policies."""

    CREATE = "create"
    READ = "read"
    UPDATE = "update"
    SUDO = "sudo"


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys by which Vault checks the verifier's JWTs: themselves (PEM), or the URL that serves them."""

    pems: tuple[str, ...] = ()
    url: str = ""
    ca_pem: str = ""


@dataclass(frozen=True, slots=True)
class Desired:
    """One jwt auth mount. `is_production`: its roles also refuse logins labelled simulated.

    `kv_mount`, `kv_prefix`: where the workloads' secrets lie, KV version 2.
    """

    mount: str
    roles: tuple[str, ...]
    issuer: str
    audience: str
    keys: Keys
    namespace: str = ""
    kv_mount: str = "secret"
    kv_prefix: str = "knative"
    is_production: bool = True

    @property
    def policy(self) -> str:
        """The policy's name; Vault writes these in lower case."""
        return f"{self.kv_prefix}-{self.mount}".replace("/", "-").lower()


@dataclass(frozen=True, slots=True)
class Mount:
    """An existing auth mount."""

    type: str
    accessor: str


@dataclass(frozen=True, slots=True)
class Current:
    """The current state in Vault, as it answers; None for parts that do not exist."""

    mount: Mount | None = None
    config: Mapping[str, Any] | None = None
    policy: str | None = None
    roles: Mapping[str, Mapping[str, Any] | None] | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """One write. `before`, `after`: lines for people, about differences alone and without secrets.

    `needs`: the capabilities on `path` that Vault requires.
    """

    path: str
    body: Mapping[str, Any]
    before: tuple[str, ...]
    after: tuple[str, ...]
    needs: frozenset[Capability]
    is_new: bool

    def lines(self) -> list[str]:
        """A diff from the current to the wanted state."""
        head = f"+ {self.path} (new)" if self.is_new else f"~ {self.path}"
        return [head, *(f"-     {line}" for line in self.before), *(f"+     {line}" for line in self.after)]


def plan(desired: Desired, current: Current) -> tuple[Change, ...]:
    """The writes in their order; empty when nothing is missing. A role comes last: until then no guest can log in.

    While the mount is missing its accessor is too, and the policy holds a placeholder: enable the mount, plan again.
    Raises SetupError when the mount has another owner.
    """
    changes = [_mount(desired, current.mount), _config(desired, current.config), _policy(desired, current)]
    changes += [_role(desired, role, (current.roles or {}).get(role)) for role in desired.roles]
    return tuple(change for change in changes if change is not None)


def policy_text(desired: Desired, accessor: str) -> str:
    """The ACL policy: a workload reads below its own prefix, nothing else (identity templates, KV version 2)."""
    parts = "/".join(f"{{{{identity.entity.aliases.{accessor}.metadata.{name}}}}}" for name in _METADATA)
    return f'path "{desired.kv_mount}/data/{desired.kv_prefix}/{parts}/*" {{\n  capabilities = ["read"]\n}}\n'


def check_distinct(all_desired: Iterable[Desired]) -> None:
    """Raises SetupError when two mounts of one namespace would share a policy's name."""
    seen: dict[tuple[str, str], str] = {}
    for desired in all_desired:
        other = seen.setdefault((desired.namespace, desired.policy), desired.mount)
        if other != desired.mount:
            raise SetupError(f"mounts {other} and {desired.mount} would share policy {desired.policy}; rename one")


def _mount(desired: Desired, mount: Mount | None) -> Change | None:
    path = f"sys/auth/{desired.mount}"
    if mount is None:
        body = {"type": "jwt", "description": "workloads, logged in by the Morphisms verifier"}
        return Change(path, body, (), ("type: jwt",), frozenset({Capability.UPDATE, Capability.SUDO}), is_new=True)
    if mount.type != "jwt":
        raise SetupError(f"auth/{desired.mount} is of type {mount.type}, required jwt; name another mount")
    if not _ACCESSOR.fullmatch(mount.accessor):
        raise SetupError(f"auth/{desired.mount} has an accessor that no policy could name")
    return None


def _config(desired: Desired, current: Mapping[str, Any] | None) -> Change | None:
    is_new, held = current is None, current or {}
    if held.get("oidc_discovery_url") or held.get("oidc_client_id"):
        raise SetupError(f"auth/{desired.mount} takes logins of an OIDC provider; name a mount of the verifier's own")
    keys = desired.keys
    body = {
        "bound_issuer": desired.issuer,
        "jwt_supported_algs": [ALGORITHM],
        "jwt_validation_pubkeys": list(keys.pems),
        "jwks_url": keys.url,
        "jwks_ca_pem": keys.ca_pem,
    }
    # Vault replaces the whole config at each write; an empty one has no default role.
    kept = {name: held[name] for name in ("default_role",) if held.get(name)}
    return _change(f"auth/{desired.mount}/config", body, held, kept, {Capability.UPDATE}, is_new=is_new)


def _policy(desired: Desired, current: Current) -> Change | None:
    text = policy_text(desired, current.mount.accessor if current.mount else _NO_ACCESSOR)
    held = (current.policy or "").strip()
    if held == text.strip():
        return None
    needs = frozenset({Capability.UPDATE})
    lines = tuple(held.splitlines()), tuple(text.splitlines())
    return Change(f"sys/policies/acl/{desired.policy}", {"policy": text}, *lines, needs, current.policy is None)


def _role(desired: Desired, role: str, current: Mapping[str, Any] | None) -> Change | None:
    held = current or {}
    body = {
        "role_type": "jwt",
        "user_claim": "sub",
        "bound_audiences": [desired.audience],
        # To a glob our own values are the same texts; an operator's further conditions may be patterns.
        "bound_claims_type": "glob" if held.get("bound_claims_type") == "glob" else "string",
        "bound_claims": _bound_claims(desired, held),
        "claim_mappings": {name: name for name in _AUDITED},
        "clock_skew_leeway": _clock_skew(held),
        "token_policies": [desired.policy],
        "token_ttl": _shorter(held.get("token_ttl"), TOKEN_SECONDS),
        "token_explicit_max_ttl": _shorter(held.get("token_explicit_max_ttl"), TOKEN_MAX_SECONDS),
        # A periodic token can be renewed without end, and a batch token cannot be revoked.
        "token_period": 0,
        "token_type": "service",
    }
    # Vault requires create where the role does not exist yet, and only then.
    needs = {Capability.CREATE if current is None else Capability.UPDATE}
    return _change(f"auth/{desired.mount}/role/{role}", body, held, {}, needs, is_new=current is None)


def _bound_claims(desired: Desired, held: Mapping[str, Any]) -> dict[str, list[str]]:
    """Our claims, and those by which an operator narrowed the role: each bound claim is a further condition.

    Of our claims' values only those stay that the role allowed before, so no login is allowed that was not. A role that
    allowed none of them stays as it is.
    """
    wanted: dict[str, list[str]] = {"assurance": [each.value for each in Assurance]}
    if desired.is_production:
        wanted["simulated"] = ["false"]
    is_glob = held.get("bound_claims_type") == "glob"
    for name, value in (held.get("bound_claims") or {}).items():
        values = _list(value)
        if name in wanted and values:
            allowed = [each for each in wanted[name] if any(_matches(each, text, is_glob=is_glob) for text in values)]
            wanted[name] = allowed or values
        elif name not in wanted:
            wanted[name] = values
    return wanted


def _matches(value: str, text: str, *, is_glob: bool) -> bool:
    """As Vault compares: in a glob a star stands for any text, and nothing else is special."""
    return re.fullmatch(".*".join(map(re.escape, text.split("*"))), value) is not None if is_glob else value == text


def _shorter(held: Any, longest: int) -> int:
    return held if isinstance(held, int) and 0 < held < longest else longest


def _clock_skew(held: Mapping[str, Any]) -> int:
    """To Vault a negative number is none, and zero a minute."""
    seconds = held.get("clock_skew_leeway")
    return (
        seconds
        if isinstance(seconds, int) and (seconds < 0 or 0 < seconds < CLOCK_SKEW_SECONDS)
        else CLOCK_SKEW_SECONDS
    )


def left(desired: Desired, current: Current) -> tuple[str, ...]:
    """A line for each setting of an existing role that `plan` leaves as it is, with its effect."""
    lines: list[str] = []
    for role, held in (current.roles or {}).items():
        if held is None:
            continue
        place = f"auth/{desired.mount}/role/{role}"
        for name, effect in _LEFT.items():
            value = held.get(name)
            if _shown(name, value) is not None and value is not False:
                lines.append(f"{place}: {name} stays as it is: {effect or 'it narrows the role'}")
        ours = _bound_claims(desired, {})
        for name, values in _bound_claims(desired, held).items():
            if name not in ours:
                lines.append(f"{place}: bound_claims.{name} stays as it is: it narrows the role")
            elif not set(values) & set(ours[name]):
                lines.append(f"{place}: bound_claims.{name} stays as it is: no login of the verifier meets it")
            elif set(values) != set(ours[name]):
                lines.append(f"{place}: bound_claims.{name} stays narrower than {', '.join(ours[name])}")
    return tuple(lines)


def _change(
    path: str,
    body: Mapping[str, Any],
    held: Mapping[str, Any],
    kept: Mapping[str, Any],
    needs: Iterable[Capability],
    *,
    is_new: bool,
) -> Change | None:
    before: list[str] = []
    after: list[str] = []
    for name, value in body.items():
        old, new = _shown(name, held.get(name)), _shown(name, value)
        if old != new:
            before += [] if old is None else [f"{name}: {old}"]
            after += [] if new is None else [f"{name}: {new}"]
    if not (before or after):
        return None
    return Change(path, {**body, **kept}, tuple(before), tuple(after), frozenset(needs), is_new)


def _shown(name: str, value: Any) -> str | None:
    """A canonical text to show and to compare; None for an unset value, which Vault expresses in several ways."""
    if value in (None, "", 0) or value == [] or value == {}:
        return None
    if name == "jwt_validation_pubkeys":
        return ", ".join(sorted(map(key_id, _list(value))))
    if name == "jwks_ca_pem":
        return f"{str(value).count('BEGIN CERTIFICATE')} certificate(s), {_digest(str(value))}"
    if name == "bound_claims" and isinstance(value, Mapping):
        value = {claim: sorted(_list(allowed)) for claim, allowed in value.items()}
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def key_id(pem: str) -> str:
    """A public key as the verifier's jwks.json names it: its thumbprint (RFC 7638); a placeholder as it is."""
    if pem.startswith("<"):
        return f"key {pem}"
    try:
        return "key " + ECKey.import_key(pem).thumbprint()
    except (JoseError, ValueError, TypeError):
        return "a key that is not EC, " + _digest(pem)


def _digest(text: str) -> str:
    return "SHA-256 " + hashlib.sha256("".join(text.split()).encode()).hexdigest()[:16]


def _list(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else [str(value)]
