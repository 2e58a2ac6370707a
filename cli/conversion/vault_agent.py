"""The Vault Agent Injector's annotations (and OpenBao's, the same words under another prefix) as ours.

Where nothing says otherwise, Vault Agent stays beside the application and keeps renewing, while ours fetches once. So
a pod without `agent-pre-populate-only: "true"` becomes `agent: sidecar`: a translation that quietly stopped renewing
would fail when the first lease expires, hours after the rollout. An author without that need deletes one line.

The tables say what has no counterpart. `_OBSOLETE` shapes Vault Agent's own container or login, which are gone, so
those go too; `_REFUSED` decides what the application gets or whom it trusts, so those stay until a person has decided.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from cli.conversion.go_template import NotLogicLessError, Template, parse
from cli.conversion.paths import Logical, NotLogicalError, logical
from cli.conversion.step import Context, Note, Step, dropped, left, left_for
from plan.layout import SECRETS_PATH
from webhook.pod.other_injectors import parse_bool

SWITCH: Final = "agent-inject"
_SECRET: Final = "agent-inject-secret-"
_TEMPLATE: Final = "agent-inject-template-"
_FILE: Final = "agent-inject-file-"
_MODE: Final = "agent-inject-perms-"
_VOLUME: Final = "secret-volume-path"
_ONCE: Final = "agent-pre-populate-only"
_CONTAINERS: Final = "agent-inject-containers"
_FIRST: Final = "agent-init-first"
_DEFAULT_PATH: Final = "/vault/secrets"

_SAME_NAME: Final = {"role": "vault-role", "namespace": "vault-namespace"}

_ATTESTED = "the login follows attestation; the appraisal policy chooses the auth mount and method"
_RESOURCES = "the operator sizes morphisms-init in the configuration (sidecar.resources)"
_USER = "morphisms-init runs as the user that may write the secrets; the configuration says which"
_OWN_CLIENT = "morphisms-init has its own limits and its own log"
_OBSOLETE: Final = {
    "auth-path": _ATTESTED,
    "auth-type": _ATTESTED,
    "auth-config-": _ATTESTED,
    "auth-min-backoff": _OWN_CLIENT,
    "auth-max-backoff": _OWN_CLIENT,
    "agent-auto-auth-exit-on-err": "a refused login fails immediately, an unreachable Vault at the deadline",
    "agent-service-account-token-volume-name": "morphisms-init has a projected token of its own",
    "agent-image": "the operator chooses the image in the configuration (sidecar.image)",
    "agent-limits-": _RESOURCES,
    "agent-requests-": _RESOURCES,
    "go-max-procs": _RESOURCES,
    "agent-run-as-": _USER,
    "agent-set-security-context": _USER,
    "agent-telemetry-": _OWN_CLIENT,
    "log-level": _OWN_CLIENT,
    "log-format": _OWN_CLIENT,
    "client-timeout": _OWN_CLIENT,
    "client-max-retries": _OWN_CLIENT,
    "agent-disable-": _OWN_CLIENT,
    "template-": _OWN_CLIENT,
    "agent-revoke-grace": _OWN_CLIENT,
    "agent-cache-use-auto-auth-token": "only shapes the cache",
    "agent-cache-listener-port": "only shapes the cache",
    "agent-cache-exit-on-err": "only shapes the cache",
}

_OPERATOR = (
    "only the operator says which Vault is trusted and how; compare it with the configuration (vault), then remove"
)
_OWN_CONFIG = "Vault Agent's own configuration is not read; name the secrets by secret-NAME"
_REFUSED: Final = {
    "service": _OPERATOR,
    "proxy-address": _OPERATOR,
    "tls-secret": _OPERATOR,
    "tls-server-name": _OPERATOR,
    "ca-cert": _OPERATOR,
    "ca-key": _OPERATOR,
    "client-cert": _OPERATOR,
    "client-key": _OPERATOR,
    "tls-skip-verify": "Vault's certificate is always checked; give the operator its CA, then remove",
    "agent-inject-token": "the application gets no Vault token; name the secrets that it reads by secret-NAME",
    "agent-cache-enable": "there is no local Vault proxy; name the secrets that the application reads by secret-NAME",
    "agent-configmap": _OWN_CONFIG,
    "agent-extra-secret": _OWN_CONFIG,
    "agent-copy-volume-mounts": _OWN_CONFIG,
    "agent-json-patch": "morphisms-init cannot be patched: it is part of what is attested",
    "agent-init-json-patch": "morphisms-init cannot be patched: it is part of what is attested",
    "agent-share-process-namespace": "set shareProcessNamespace on the pod, and on-change for the signal",
    "agent-enable-quit": "a native sidecar stops with the application, without a quit endpoint; remove the call to it",
    "agent-inject-status": "an injector has worked on this pod; convert the manifest that it came from",
}
# Of these "false" is what ours does anyway.
_OFF_IS_OURS: Final = frozenset(
    {
        "tls-skip-verify",
        "agent-inject-token",
        "agent-cache-enable",
        "agent-share-process-namespace",
        "agent-enable-quit",
    }
)
# The secret's file depends on these and no annotation of ours matches; with one of them the whole secret stays.
_FILE_REFUSED: Final = {
    "agent-inject-command-": "runs a command after each change; use on-change: signal:SIGNAL:PROCESS",
    "agent-inject-template-file-": "is a template in a file; write it as template-NAME",
    "agent-template-left-delim-": "changes the template's delimiters; write the template as template-NAME",
    "agent-template-right-delim-": "changes the template's delimiters; write the template as template-NAME",
}
_FILE_OBSOLETE: Final = ("preserve-secret-case-", "error-on-missing-key-")


def translate(context: Context) -> Iterator[Step]:
    """The steps that translate Vault Agent's annotations; each key is in exactly one step."""
    foreign = context.foreign
    if not foreign:
        return
    switch = foreign.get(SWITCH)
    on = None if switch is None else parse_bool(switch)
    if on is None:
        if switch is not None:
            yield left(SWITCH, "is neither true nor false")
        for key in foreign:
            if key != SWITCH:
                yield left(key, 'Vault Agent does nothing without agent-inject: "true"; set that, or remove it')
        return
    yield from _switch(context, on)
    for step in _rest(context):
        yield step if on or not step.left else replace(step, harmless=True)


def _rest(context: Context) -> Iterator[Step]:
    foreign = context.foreign
    names = sorted({key.removeprefix(family) for family in (_SECRET, _TEMPLATE) for key in _family(context, family)})
    taken = {SWITCH, _ONCE}
    for step in _secrets(context, names):
        taken.update(step.keys)
        yield step
    for key, value in foreign.items():
        if key not in taken:
            yield _single(context, key, value)


def _family(context: Context, family: str) -> list[str]:
    # `agent-inject-template-file-NAME` is not the template of a secret `file-NAME`.
    other = [each for each in _FILE_REFUSED if each != family and each.startswith(family)]
    return [key for key in context.foreign if key.startswith(family) and not any(map(key.startswith, other))]


def _switch(context: Context, on: bool) -> Iterator[Step]:
    own, notes = {"inject": "true" if on else "false"}, []
    if _ONCE not in context.foreign and on:
        own["agent"] = "sidecar"
    consumers = _consumers(context)
    if on and _CONTAINERS not in context.foreign and consumers:
        own["containers"] = consumers
    if on and _VOLUME not in context.foreign and any(key.startswith((_SECRET, _TEMPLATE)) for key in context.foreign):
        notes.append(Note(SWITCH, _moved(_DEFAULT_PATH)))
    yield Step((SWITCH,), own, tuple(notes))
    if _ONCE in context.foreign:
        once = parse_bool(context.foreign[_ONCE])
        if once is None:
            yield left(_ONCE, "is neither true nor false")
        else:
            yield Step((_ONCE,), {"agent": "init" if once else "sidecar"})


def _consumers(context: Context) -> str:
    """The value of `containers`; empty where the one container gets the secrets anyway.

    Vault Agent gives its files to every container that `agent-inject-containers` does not leave out, ours to the
    serving one alone; with `agent-init-first` to every init container besides, whatever that annotation says.
    """
    first = parse_bool(context.foreign.get(_FIRST, "")) is True and parse_bool(
        context.foreign.get("agent-pre-populate", "true")
    )
    early = context.names("initContainers") if first else []
    if _CONTAINERS in context.foreign:
        return ",".join(dict.fromkeys((*early, *context.foreign[_CONTAINERS].split(","))))
    regular = context.names("containers")
    return ",".join(early + regular) if early or len(regular) > 1 else ""


def _moved(old: str) -> str:
    place = old if old == _DEFAULT_PATH else "the folder named here"
    return f"files are in {SECRETS_PATH}, not in {place}; change the paths that the application reads"


def _secrets(context: Context, names: list[str]) -> Iterator[Step]:
    for name in names:
        keys = _keys_of(context, name)
        new_name = name if _keeps_case(context, name) else name.lower()
        if not name or [each for each in names if each.lower() == name.lower()] != [name]:
            yield left(
                keys[0], "has no name of its own, because Vault Agent takes upper case for lower; rename it", keys
            )
            continue
        yield _secret(context, name, new_name, keys)


def _keeps_case(context: Context, name: str) -> bool:
    value = context.foreign.get(f"preserve-secret-case-{name}", context.foreign.get("preserve-secret-case", ""))
    return parse_bool(value) is True


def _keys_of(context: Context, name: str) -> tuple[str, ...]:
    families = (_SECRET, _TEMPLATE, _FILE, _MODE, f"{_VOLUME}-", *_FILE_REFUSED, *_FILE_OBSOLETE)
    return tuple(family + name for family in families if family + name in context.foreign)


def _secret(context: Context, name: str, new_name: str, keys: tuple[str, ...]) -> Step:
    problems = [
        Note(family + name, reason)
        for family, reason in _FILE_REFUSED.items()
        if family + name in keys and context.foreign[family + name]
    ]
    path_key, template_key = _SECRET + name, _TEMPLATE + name
    text = context.foreign.get(template_key)
    source, template = context.foreign.get(path_key, ""), None
    if text:
        try:
            template = parse(text)
            source = template.path
        except NotLogicLessError as error:
            problems.append(Note(template_key, f"{error}; write secret-NAME and template-NAME by hand"))
    found, own = None, {}
    at = template_key if template else path_key
    if source or not problems:
        try:
            found = logical(source, context.configuration.vault.mounts)
            own = _written(new_name, found, template)
        except (NotLogicalError, NotLogicLessError) as error:
            problems.append(Note(at, str(error)))
    if found is not None and found.kv is None and _agent(context) == "init":
        text = (
            "is in no KV mount of the configuration, and a lease needs an agent that stays; add the mount to"
            " vault.mounts, or set agent: sidecar"
        )
        problems.append(Note(at, text))
    if found is None or problems:
        return left_for(problems, keys)
    own |= {
        ours + new_name: context.foreign[theirs + name]
        for theirs, ours in ((_FILE, "file-"), (_MODE, "mode-"))
        if theirs + name in keys
    }
    notes = []
    if template is None and not (context.foreign.get("agent-inject-default-template") == "json" and found.kv != 2):
        content = "lines of the form key: value" if found.kv != 2 else "its data and its metadata, a Go map a line"
        if context.foreign.get("agent-inject-default-template") == "json":
            content = "JSON of its data and its metadata"
        notes.append(
            Note(path_key, f"the file is now the secret as JSON, Vault Agent writes {content}; #KEY takes one value")
        )
    volume = f"{_VOLUME}-{name}"
    if volume in keys and context.foreign[volume].rstrip("/") != SECRETS_PATH:
        notes.append(Note(volume, _moved(context.foreign[volume])))
    return Step(keys, own, tuple(notes))


def _written(name: str, found: Logical, template: Template | None) -> dict[str, str]:
    if template is None:
        return {f"secret-{name}": found.reference()}
    if any(key.under_data != (found.kv == 2) for key in template.keys):
        raise NotLogicLessError(
            "reads keys where this mount's KV version, as the configuration has it, has none (.Data.data is version 2)"
        )
    if template.single is not None:
        if set("#@") & set(template.single):
            raise NotLogicLessError("has a key with # or @ in it, which our references cannot write")
        return {f"secret-{name}": found.reference(template.single)}
    return {f"secret-{name}": found.reference(), f"template-{name}": template.mustache()}


def _agent(context: Context) -> str:
    if "agent" in context.native:
        return context.native["agent"]
    return "init" if parse_bool(context.foreign.get(_ONCE, "")) else "sidecar"


def _single(context: Context, key: str, value: str) -> Step:
    if key == _CONTAINERS:
        return Step((key,), {"containers": _consumers(context)})
    if key in _SAME_NAME:
        return Step((key,), {_SAME_NAME[key]: value})
    if key == _VOLUME or key.startswith(f"{_VOLUME}-"):
        return dropped(key, "" if value.rstrip("/") == SECRETS_PATH else _moved(value))
    if key == _FIRST:
        # It comes before each container that gets secrets, but not before every one: a mesh's proxy precedes it.
        return dropped(key, "morphisms-init comes before each container that gets secrets" if parse_bool(value) else "")
    if key == "agent-pre-populate":
        text = "the application always waits for its secrets" if parse_bool(value) is False else ""
        return dropped(key, text)
    if key in ("agent-revoke-on-shutdown", "agent-request-namespace", "agent-inject-default-template"):
        return dropped(key)
    if key.startswith("preserve-secret-case"):
        return dropped(key)
    if key in _OFF_IS_OURS and parse_bool(value) is False:
        return dropped(key)
    if reason := _REFUSED.get(key):
        return left(key, reason)
    for name, reason in _OBSOLETE.items():
        if key == name or (name.endswith("-") and key.startswith(name)):
            return dropped(key, f"removed: {reason}")
    if key.startswith((_FILE, _MODE, *_FILE_REFUSED, *_FILE_OBSOLETE)):
        return left(key, f"belongs to a secret that no {_SECRET}NAME names; name it, or remove this")
    return left(key, "is unknown; look up its effect, then remove it")
