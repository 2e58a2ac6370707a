"""A pod's `morphisms.dev/` annotations: parsed into options, and the unusable ones named."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from plan.document import AGENTS, NO_REACTION, SecretFile, is_file_mode, is_relative_file, parse_reaction
from server.text import did_you_mean
from webhook.errors import BadReferenceError
from webhook.pod.mustache import template_problem
from webhook.pod.references import Reference, SecretPrefix, parse
from webhook.wellknown import DIGEST_PREFIX, PREFIX

_SINGLE = (
    "inject",
    "profile",
    "vault-role",
    "vault-namespace",
    "env-from",
    "containers",
    "agent",
    "on-change",
    "literal-env",
    "readable-logs",
    "readable-termination",
    "status",
    "template",
)
HOST_READS = ("readable-logs", "readable-termination")
"""Containers whose output the host of a measured pod may read; `render` puts them into its document."""
_FAMILIES = ("secret-", "file-", "mode-", "template-")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
# A plan with more would exceed its 64 KiB.
_MAX_SECRETS = 256
_VAULT_NAME = re.compile(r"[A-Za-z0-9._/-]{1,128}")
_CONTAINER = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
# Kubernetes accepts every printable ASCII character but `=` in a variable's name; a comma ends one here.
_VARIABLE = re.compile(r"[!-+.-<>-~-]{1,253}")
# Beside a reference these do not make a pod opt in: two are written by programs, the third makes references text.
_TEMPLATE = re.compile(rf"{DIGEST_PREFIX}[0-9a-f]{{64}}")
_SILENT = frozenset(("status", "template", "literal-env"))


@dataclass(frozen=True, slots=True)
class UnusableAnnotation:
    """An annotation that cannot be used: its key without the prefix, and what is wrong. Holds no value."""

    key: str
    message: str


@dataclass(frozen=True, slots=True)
class InjectionOptions:
    """What the annotations request. `inject` is None where it is absent or unusable; paths have their `~/` replaced.

    `for_references`: whether an annotation makes a pod opt in that holds a reference of any path.
    """

    inject: bool | None = None
    inject_is_unusable: bool = False
    profile: str | None = None
    vault_role: str | None = None
    vault_namespace: str | None = None
    secrets: tuple[SecretFile, ...] = ()
    env_from: tuple[Reference, ...] = ()
    containers: tuple[str, ...] | None = None
    agent: str = "init"
    on_change: str = NO_REACTION
    literal_env: frozenset[str] = frozenset()
    names_secrets: bool = False
    for_references: bool = False
    problems: tuple[UnusableAnnotation, ...] = field(default=())

    @property
    def for_all_consumers(self) -> bool:
        """Whether secrets are requested that every consumer gets: files, or whole secrets as variables."""
        return bool(self.secrets or self.env_from)


NO_OPTIONS = InjectionOptions()
_ONLY_STATUS = {"status"}


def own_annotations(annotations: Any) -> dict[str, str]:
    """The annotations under our prefix, keys without it; anything that is not text is left out (the API refuses it)."""
    if not isinstance(annotations, Mapping):
        return {}
    return {
        key[len(PREFIX) :]: value
        for key, value in annotations.items()
        if isinstance(key, str) and isinstance(value, str) and key.startswith(PREFIX)
    }


def parse_annotations(own: Mapping[str, str], secret_prefix: SecretPrefix) -> InjectionOptions:
    """The options in annotations, keys without the prefix (`own_annotations`); an unusable one becomes a problem."""
    if not own or own.keys() == _ONLY_STATUS:
        return NO_OPTIONS
    reader = _Reader(own, secret_prefix)
    inject = reader.inject()
    return InjectionOptions(
        inject=inject,
        inject_is_unusable=inject is None and "inject" in own,
        profile=own.get("profile"),
        vault_role=reader.vault_name("vault-role"),
        vault_namespace=reader.vault_name("vault-namespace"),
        secrets=reader.secrets(),
        env_from=reader.env_from(),
        containers=reader.containers(),
        agent=reader.agent(),
        on_change=reader.on_change(),
        literal_env=reader.literal_env(),
        names_secrets=any(key == "env-from" or key.startswith("secret-") for key in own),
        for_references=not own.keys() <= _SILENT,
        problems=reader.all_problems(),
    )


def container_names(value: str) -> tuple[str, ...] | None:
    """The names in a comma list of containers; None for a value that is not one."""
    names = tuple(name.strip() for name in value.split(","))
    return names if all(_CONTAINER.fullmatch(name) for name in names) else None


def is_template_digest(value: str) -> bool:
    """Whether the value is one that the annotation `template` may have."""
    return _TEMPLATE.fullmatch(value) is not None


class _Reader:
    def __init__(self, own: Mapping[str, str], secret_prefix: SecretPrefix) -> None:
        self._own = own
        self._home = secret_prefix
        self._problems: list[UnusableAnnotation] = []

    def _problem(self, key: str, message: str) -> None:
        self._problems.append(UnusableAnnotation(key, message))

    def inject(self) -> bool | None:
        value = self._own.get("inject")
        if value in ("true", "false"):
            return value == "true"
        if value is not None:
            self._problem("inject", 'is neither "true" nor "false"; write inject: "true" or remove it')
        return None

    def vault_name(self, key: str) -> str | None:
        value = self._own.get(key)
        if value is not None and not _VAULT_NAME.fullmatch(value):
            self._problem(key, "is not a name (letters, digits, . _ / -)")
            return None
        return value

    def agent(self) -> str:
        value = self._own.get("agent", "init")
        if value not in AGENTS:
            self._problem("agent", f"is not one of {', '.join(AGENTS)}")
            return "init"
        return value

    def on_change(self) -> str:
        value = self._own.get("on-change", NO_REACTION)
        try:
            reaction = parse_reaction(value)
        except ValueError as error:
            self._problem("on-change", str(error))
            return NO_REACTION
        if reaction is not None and self._own.get("agent") != "sidecar":
            self._problem("on-change", 'needs agent: "sidecar"; with "init" no process is left to send the signal')
        return value

    def containers(self) -> tuple[str, ...] | None:
        for key in HOST_READS:
            self._container_names(key)
        return self._container_names("containers")

    def _container_names(self, key: str) -> tuple[str, ...] | None:
        value = self._own.get(key)
        names = None if value is None else container_names(value)
        if value is not None and names is None:
            self._problem(key, "is not a comma list of container names, such as app,worker")
        return names

    def literal_env(self) -> frozenset[str]:
        value = self._own.get("literal-env")
        if value is None:
            return frozenset()
        names = [name.strip() for name in value.split(",")]
        if not all(_VARIABLE.fullmatch(name) for name in names):
            self._problem("literal-env", "is not a comma list of variable names, such as VAULT_IMAGE,VAULT_ADDR")
        return frozenset(names)

    def env_from(self) -> tuple[Reference, ...]:
        value = self._own.get("env-from")
        if value is None:
            return ()
        references: list[Reference] = []
        for part in value.split(",", _MAX_SECRETS + 1):
            if len(references) >= _MAX_SECRETS:
                self._problem("env-from", f"names more than {_MAX_SECRETS} secrets")
                break
            try:
                references.append(parse(part, self._home, key=False))
            except BadReferenceError as error:
                self._problem("env-from", str(error))
        return tuple(references)

    def secrets(self) -> tuple[SecretFile, ...]:
        secrets: list[SecretFile] = []
        for key in sorted(self._own):
            if len(secrets) > _MAX_SECRETS:
                self._problem("secret-", f"is given more than {_MAX_SECRETS} times; put keys together in one secret")
                break
            if key.startswith("secret-"):
                name = key.removeprefix("secret-")
                secret = self._secret(key, name)
                if secret is not None:
                    secrets.append(secret)
        if not secrets:
            return ()
        written = Counter(secret.file for secret in secrets)
        folders = {str(folder) for secret in secrets for folder in PurePosixPath(secret.file).parents}
        for secret in secrets:
            if written[secret.file] > 1 or secret.file in folders:
                self._problem(f"secret-{secret.name}", "writes a file that another secret writes too; set file-NAME")
        return tuple(secrets)

    def _secret(self, key: str, name: str) -> SecretFile | None:
        if not _NAME.fullmatch(name):
            self._problem(key, "has a name with characters other than letters, digits, . _ -")
            return None
        try:
            reference = parse(self._own[key], self._home)
        except BadReferenceError as error:
            self._problem(key, str(error))
            return None
        file, mode = self._own.get(f"file-{name}", name), self._own.get(f"mode-{name}")
        if not is_relative_file(file):
            self._problem(f"file-{name}", "is not a relative path inside the secrets folder, such as conf.d/db")
            return None
        if mode is not None and not is_file_mode(mode):
            self._problem(
                f"mode-{name}", "is not an octal mode that the owner can read and others cannot, such as 0440"
            )
            return None
        template = self._own.get(f"template-{name}")
        if template is not None and (trouble := template_problem(template)):
            self._problem(f"template-{name}", trouble)
        return SecretFile(
            name=name,
            path=reference.path,
            file=file,
            key=reference.key,
            version=reference.version,
            mode=mode,
            template=template,
        )

    def all_problems(self) -> tuple[UnusableAnnotation, ...]:
        for key in self._own:
            if key in _SINGLE:
                continue
            family = next((prefix for prefix in _FAMILIES if key.startswith(prefix)), None)
            if family is None:
                near = did_you_mean(key, (*_SINGLE, *_FAMILIES), before="; ")
                self._problem(key, f"is not an annotation of Morphisms{near}")
            elif family != "secret-" and f"secret-{key.removeprefix(family)}" not in self._own:
                self._problem(key, f"needs annotation secret-{key.removeprefix(family)} beside it")
        return tuple(self._problems)
