"""Bank-Vaults' annotations and environment references as ours.

Its references stay in the environment, as ours do, but their path is the API's. `bao-` names and `bao:` references of
its successor mean the same for OpenBao, which our configuration does not distinguish from Vault. Bank-Vaults fetches
once, as we do by default, unless `vault-env-daemon` keeps it running.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from cli.conversion.paths import Logical, NotLogicalError, logical
from cli.conversion.step import Context, Note, Step, dropped, left, left_for, mappings
from plan.expansion import expanded_names
from webhook.errors import BadReferenceError
from webhook.pod.container import display_name
from webhook.pod.env_references import PROBES, missing_command
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
    references, problems = [], []
    for part in value.split(","):
        path, _, version = part.strip().partition("#")
        try:
            found = logical(path, context.configuration.vault.mounts)
        except NotLogicalError as error:
            problems.append(f"{error}")
            continue
        if _needs_agent(context, found):
            problems.append(_LEASE)
        references.append(found.reference() + (f"@{version}" if version else ""))
    if problems:
        return left_for([Note(key, text) for text in dict.fromkeys(problems)])
    own = {"env-from": ",".join(references)}
    everyone = context.names("initContainers", "containers")
    if len(everyone) > 1:
        # Bank-Vaults gives them to every container, ours to the serving one alone.
        own["containers"] = ",".join(everyone)
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
    for container in _containers(context):
        values = [each.get("value") for each in mappings(container.get("env"))]
        takes = env_from or any(isinstance(value, str) and mentions(value) for value in values)
        if takes and not container.get("command"):
            yield missing_command(display_name(str(container.get("name") or USER_CONTAINER)))


def names_references(context: Context) -> bool:
    """Whether a variable of the pod holds a reference in words that Bank-Vaults acts on."""
    return any(
        isinstance(variable.get("value"), str) and is_bank_vaults_reference(variable["value"])
        for container in _containers(context)
        for variable in mappings(container.get("env"))
    )


def _containers(context: Context) -> list[dict[str, Any]]:
    return mappings(context.spec.get("initContainers")) + mappings(context.spec.get("containers"))


# `~/` is ours alone.
_REFERENCE = re.compile(
    r"(?:>>)?(?:vault|bao):(?!~/)[^\s]*/|(?:vault|bao):(?:login$|v[0-9]+:)|.*\$\{(?:>>)?(?:vault|bao):(?!~/)", re.DOTALL
)


def is_bank_vaults_reference(value: str) -> bool:
    """Whether Bank-Vaults would replace the text: by a secret, a token, or the answer to a write."""
    return _REFERENCE.match(value) is not None


def translate_environment(
    context: Context, *, native: bool
) -> Iterator[tuple[dict[str, Any], str, str | None, str | None]]:
    """(variable, its name in messages, new value, None) or (variable, its name in messages, None, the person's task).

    In a `native` pod the references are ours already: their paths are logical, and only other values get a message.
    """
    for variable in (each for container in _containers(context) for each in mappings(container.get("env"))):
        value = variable.get("value")
        if not isinstance(value, str):
            continue
        place = f"env {display_name(str(variable.get('name')))}"
        new, problems = _value(context, value)
        if problems:
            for problem in problems:
                if not (native and isinstance(problem, NotLogicalError)):
                    yield variable, place, None, str(problem)
        elif new != value and not native:
            yield variable, place, new, None


def expanded_references(context: Context) -> Iterator[tuple[str, str]]:
    """(place, message) for each `$(NAME)` whose variable holds a reference.

    Kubernetes puts the reference's text there before Bank-Vaults resolves it; ours moves the variable into the guest.
    """
    for container in _containers(context):
        variables = mappings(container.get("env"))
        named = {
            each["name"]
            for each in variables
            if isinstance(each.get("name"), str)
            and isinstance(each.get("value"), str)
            and is_bank_vaults_reference(each["value"])
        }
        texts = [(f"env {display_name(str(each.get('name')))}", each.get("value")) for each in variables]
        label = display_name(str(container.get("name") or USER_CONTAINER))
        for member in ("command", "args"):
            words = container.get(member)
            texts += [(f"container {label}, {member}", word) for word in words] if isinstance(words, list) else []
        for mount in mappings(container.get("volumeMounts")):
            texts.append((f"container {label}, subPathExpr", mount.get("subPathExpr")))
        for probe in PROBES:
            found = container.get(probe)
            command = found.get("exec") if isinstance(found, dict) else None
            line = command.get("command") if isinstance(command, dict) else None
            texts += [(f"container {label}, {probe}", word) for word in line] if isinstance(line, list) else []
        for place, text in texts:
            for name in expanded_names(text) if isinstance(text, str) else ():
                if name in named:
                    words = f"$({display_name(name)}) expands a Vault reference"
                    yield place, f"{words}; write ${{vault:PATH#KEY}} in env in its place"


def behind(context: Context, holds: Callable[[str, str, str | None], bool | None]) -> Iterator[tuple[str, str]]:
    """(place, message) for each ConfigMap and Secret from which the environment comes, and where a reference may hide.

    Bank-Vaults looks into them, ours never does. `holds` answers for kind, name and key (None: the whole object)
    whether that is a reference; None where the input does not hold the object.
    """
    for container in _containers(context):
        label = display_name(str(container.get("name") or USER_CONTAINER))
        for place, kind, source, key in _sources(container):
            name = source.get("name")
            found = holds(kind, name, key) if isinstance(name, str) else None
            if found is False:
                continue
            where = f"{kind} {display_name(str(name))}"
            task = (
                "holds Vault references, which are resolved in a container's own env alone; move them there"
                if found
                else "is not in the input; Vault references in it are resolved in a container's own env alone: look"
                " into it, and move them there"
            )
            yield f"container {label}, {place}", f"{where} {task}"


def _sources(container: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any], str | None]]:
    """(place, kind, the reference to the object, the key in it) for each source of the environment."""
    for source in mappings(container.get("envFrom")):
        for member, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
            if isinstance(source.get(member), dict):
                yield "envFrom", kind, source[member], None
    for variable in mappings(container.get("env")):
        value_from = variable.get("valueFrom")
        for member, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
            if isinstance(value_from, dict) and isinstance(value_from.get(member), dict):
                key = value_from[member].get("key")
                place = f"env {display_name(str(variable.get('name')))}"
                yield place, kind, value_from[member], key if isinstance(key, str) else None


def _value(context: Context, value: str) -> tuple[str, list[ValueError]]:
    """The variable's value in our words, or every problem with it."""
    problems: list[ValueError] = []
    if value.startswith((">>vault:", ">>bao:")) or "${>>vault:" in value or "${>>bao:" in value:
        problems.append(
            BadReferenceError("writes to Vault, which references here never do; write the secret by other means")
        )
    if context.foreign and value.startswith(_OTHER_STORES):
        problems.append(BadReferenceError("names another store; secrets come from Vault or OpenBao alone"))
    if value in ("vault:login", "bao:login"):
        problems.append(
            BadReferenceError("requests a Vault token, which the application never gets; name the secret that it reads")
        )
    if problems:
        return value, problems
    if _INLINE.search(value) or "${vault:" in value or "${bao:" in value:
        return _inline(context, value)
    known = value.replace("bao:", "vault:", 1) if value.startswith("bao:") else value
    if known.startswith("vault:") and (mentions(known) or is_incomplete(known)):
        path, hash_, rest = value.partition(":")[2].partition("#")
        try:
            parse_variable(known, _ANY_HOME)
        except BadReferenceError as error:
            problems.append(error)
        if "/" not in path:  # no path, such as a transit ciphertext
            return value, problems
        try:
            value = f"vault:{_path(context, path)}{hash_}{rest}"
        except NotLogicalError as error:
            problems.append(error)
    return value, problems


def _inline(context: Context, value: str) -> tuple[str, list[ValueError]]:
    problems: dict[str, ValueError] = {}

    def translated(match: re.Match[str]) -> str:
        try:
            return f"${{vault:{_path(context, match[1])}{match[2]}}}"
        except NotLogicalError as error:
            problems.setdefault(str(error), error)
            return match[0].replace("${bao:", "${vault:")

    new = _INLINE.sub(translated, value)
    try:
        expand_inline(new, _ANY_HOME)
    except BadReferenceError as error:
        problems.setdefault(str(error), error)
    return new, list(problems.values())


def _path(context: Context, path: str) -> str:
    if path.startswith("~/"):
        return path
    found = logical(path, context.configuration.vault.mounts)
    if _needs_agent(context, found):
        raise NotLogicalError(_LEASE)
    if found.version is not None:
        raise NotLogicalError("has a query; write PATH#KEY@N for a version")
    return found.path
