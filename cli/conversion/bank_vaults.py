"""Bank-Vaults' annotations and environment references as ours.

Its references stay in the environment, as ours do, but their path is the API's. `bao-` names and `bao:` references of
its successor mean the same for OpenBao, which our configuration does not distinguish from Vault. Bank-Vaults fetches
once, as we do by default, unless `vault-env-daemon` keeps it running.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from cli.conversion.paths import Logical, NotLogicalError, logical
from cli.conversion.step import Context, Step, dropped, left, mappings
from webhook.errors import BadReferenceError
from webhook.pod.container import display_name
from webhook.pod.env_references import missing_command
from webhook.pod.other_injectors import parse_bool
from webhook.pod.references import SecretPrefix, expand_inline, is_incomplete, mentions, parse_variable
from webhook.wellknown import USER_CONTAINER

OPT_OUT_LABEL: Final = "security.banzaicloud.io/mutate"
_MUTATE: Final = "mutate"
_ENV_FROM: Final = "vault-env-from-path"
_DAEMONS: Final = frozenset({"vault-env-daemon", "secret-init-daemon"})

_SAME_NAME: Final = {"vault-role": "vault-role", "vault-namespace": "vault-namespace"}
_ATTESTED = "the login follows attestation; the appraisal policy chooses the auth mount and method"
_CONTAINER = "morphisms-init and the exec helper are the operator's, in the configuration"
_OBSOLETE: Final = {
    "vault-path": _ATTESTED,
    "vault-auth-method": _ATTESTED,
    "vault-serviceaccount": "the pod's own service account is what the verifier checks",
    "token-auth-mount": _ATTESTED,
    "service-account-token-volume-name": _ATTESTED,
    "vault-client-timeout": _CONTAINER,
    "vault-env-delay": "the application waits for its secrets, not for a time",
    "secret-init-delay": "the application waits for its secrets, not for a time",
    "vault-env-image": _CONTAINER,
    "vault-env-image-pull-policy": _CONTAINER,
    "vault-image": _CONTAINER,
    "vault-image-pull-policy": _CONTAINER,
    "secret-init-image": _CONTAINER,
    "secret-init-image-pull-policy": _CONTAINER,
    "run-as-user": _CONTAINER,
    "run-as-group": _CONTAINER,
    "run-as-non-root": _CONTAINER,
    "readonly-root-fs": _CONTAINER,
    "psp-allow-privilege-escalation": _CONTAINER,
    "log-level": _CONTAINER,
    "enable-json-log": _CONTAINER,
    "secret-init-json-log": _CONTAINER,
}
_OPERATOR = (
    "only the operator says which Vault is trusted and how; compare it with the configuration (vault), then remove"
)
_TRANSIT = "transit ciphertexts are not decrypted; store the value in a KV secret"
_REFUSED: Final = {
    "vault-addr": _OPERATOR,
    "vault-tls-secret": _OPERATOR,
    "vault-skip-verify": "Vault's certificate is always checked; give the operator its CA, then remove",
    "registry-skip-verify": "admission asks no registry; set the container's command, then remove this",
    "vault-ignore-missing-secrets": "a secret that is missing stops the pod; see that all of them exist, then remove",
    "mutate-probes": "probes get no secrets; let them run without, then remove",
    "transit-key-id": _TRANSIT,
    "transit-path": _TRANSIT,
    "transit-batch-size": _TRANSIT,
    "vault-agent": "this mode's own configuration is not read; name the secrets by secret-NAME",
    "vault-ct-": "this mode's own configuration is not read; name the secrets by secret-NAME",
    "vault-configfile-path": "this mode's own configuration is not read; name the secrets by secret-NAME",
    "aws-": "secrets come from Vault or OpenBao alone; store them there",
}
_OFF_IS_OURS: Final = frozenset(
    {"vault-skip-verify", "registry-skip-verify", "vault-ignore-missing-secrets", "mutate-probes"}
)
# Inline references always work with ours, and no variable is ever taken away.
_NOTHING_LOST: Final = frozenset({"inline-mutation", "vault-env-passthrough"})
_OTHER_STORES = ("arn:aws:secretsmanager:", "arn:aws:ssm:", "gcp:secretmanager:", "azure:keyvault:")

_INLINE = re.compile(r"\$\{(?:vault|bao):([^{}#]*)([^{}]*)\}")
_ANY_HOME: Final = SecretPrefix("home/")


def opted_out(context: Context, labels: Mapping[str, Any]) -> bool:
    """Whether an annotation makes Bank-Vaults skip the pod."""
    return context.foreign.get(_MUTATE) == "skip" or labels.get(OPT_OUT_LABEL) == "skip"


def translate(context: Context) -> Iterator[Step]:
    """The steps that translate Bank-Vaults' annotations; each key is in exactly one step."""
    skipped = context.foreign.get(_MUTATE) == "skip"
    for key, value in context.foreign.items():
        step = _step(context, key, value, key.replace("bao-", "vault-", 1) if key.startswith("bao-") else key)
        # Without `mutate: skip` beside it, what stays would wake Bank-Vaults up.
        yield dropped(key, "removed: it had no effect beside mutate: skip") if skipped and step.left else step


def _step(context: Context, key: str, value: str, name: str) -> Step:
    if key != name and name in context.foreign:
        return dropped(key, "removed: its vault- twin says it")
    if name == _MUTATE:
        return Step((key,), {"inject": "false"}) if value == "skip" else dropped(key)
    if name in _SAME_NAME:
        return Step((key,), {_SAME_NAME[name]: value})
    if name == _ENV_FROM:
        return _env_from(context, key, value)
    if name in _DAEMONS:
        return Step((key,), {"agent": "sidecar"}) if parse_bool(value) else dropped(key)
    if name == "provider" and value in ("vault", "bao"):
        return dropped(key)
    if name in _NOTHING_LOST or (name in _OFF_IS_OURS and parse_bool(value) is False):
        return dropped(key)
    if name in _OBSOLETE:
        return dropped(key, f"removed: {_OBSOLETE[name]}")
    for refused, reason in _REFUSED.items():
        if name == refused or (refused in ("vault-agent", "vault-ct-", "aws-") and name.startswith(refused)):
            return left(key, reason)
    return left(key, "is unknown; look up its effect, then remove it")


def _env_from(context: Context, key: str, value: str) -> Step:
    references = []
    for part in value.split(","):
        path, _, version = part.strip().partition("#")
        try:
            found = logical(path, context.configuration.vault.mounts)
        except NotLogicalError as error:
            return left(key, f"{error}")
        if _needs_agent(context, found):
            return left(key, _LEASE)
        references.append(found.reference() + (f"@{version}" if version else ""))
    own = {"env-from": ",".join(references)}
    everyone = context.every_container()
    if everyone:
        # Bank-Vaults gives them to every container, ours to the serving one alone.
        own["containers"] = everyone
    return Step((key,), own)


_LEASE = (
    "is in no KV mount of the configuration, and a lease needs an agent that stays; add the mount to vault.mounts,"
    " or set agent: sidecar"
)


def _needs_agent(context: Context, found: Logical) -> bool:
    if found.kv is not None:
        return False
    told = any(parse_bool(context.foreign.get(key, "")) for key in _DAEMONS)
    return context.native.get("agent", "sidecar" if told else "init") == "init"


def missing_commands(context: Context, env_from: bool) -> Iterator[str]:
    """Messages about containers that get variables and name no command, which Bank-Vaults looks up in the registry."""
    for container in mappings(context.spec.get("containers")):
        values = [each.get("value") for each in mappings(container.get("env"))]
        takes = env_from or any(isinstance(value, str) and mentions(value) for value in values)
        if takes and not container.get("command"):
            yield missing_command(display_name(str(container.get("name") or USER_CONTAINER)))


def translate_environment(
    context: Context, *, native: bool
) -> Iterator[tuple[dict[str, Any], str, str | None, str | None]]:
    """(variable, its name in messages, new value, None) or (variable, its name in messages, None, the person's task).

    In a `native` pod the references are ours already: their paths are logical, and only other values get a message.
    """
    containers = mappings(context.spec.get("initContainers")) + mappings(context.spec.get("containers"))
    for variable in (each for container in containers for each in mappings(container.get("env"))):
        value = variable.get("value")
        if not isinstance(value, str):
            continue
        place = f"env {display_name(str(variable.get('name')))}"
        try:
            new = _value(context, value)
        except (NotLogicalError, BadReferenceError) as error:
            if not (native and isinstance(error, NotLogicalError)):
                yield variable, place, None, str(error)
            continue
        if new != value and not native:
            yield variable, place, new, None


def _value(context: Context, value: str) -> str:
    if value.startswith((">>vault:", ">>bao:")):
        raise BadReferenceError("writes to Vault, which references here never do; write the secret by other means")
    if context.foreign and value.startswith(_OTHER_STORES):
        raise BadReferenceError("names another store; secrets come from Vault or OpenBao alone")
    if value in ("vault:login", "bao:login"):
        raise BadReferenceError(
            "requests a Vault token, which the application never gets; name the secret that it reads"
        )
    if _INLINE.search(value) or "${vault:" in value or "${bao:" in value:
        new = _INLINE.sub(lambda match: f"${{vault:{_path(context, match[1])}{match[2]}}}", value)
        expand_inline(new, _ANY_HOME)
        return new
    known = value.replace("bao:", "vault:", 1) if value.startswith("bao:") else value
    if mentions(known) or is_incomplete(known):
        path, hash_, rest = value.partition(":")[2].partition("#")
        parse_variable(known, _ANY_HOME)
        return f"vault:{_path(context, path)}{hash_}{rest}"
    return value


def _path(context: Context, path: str) -> str:
    if path.startswith("~/"):
        return path
    found = logical(path, context.configuration.vault.mounts)
    if _needs_agent(context, found):
        raise NotLogicalError(_LEASE)
    if found.version is not None:
        raise NotLogicalError("has a query; write PATH#KEY@N for a version")
    return found.path
