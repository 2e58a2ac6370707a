"""The plan as text: a canonical writer and a strict reader, which accepts only what the writer writes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from plan.document import (
    AGENTS,
    ATTEST_VERSION,
    DATA_HUB,
    EVIDENCE_SOURCES,
    FILE_MODES,
    SIMULATED,
    VERSION,
    EnvFrom,
    EnvVariable,
    EvidenceSource,
    Plan,
    PlanError,
    SecretFile,
    Vault,
    Verifier,
    Workload,
    is_file_mode,
    is_relative_file,
    is_variable_name,
    parse_reaction,
)

if TYPE_CHECKING:
    from kbs.verifier_attest import VerifierAttest

# The kernel bounds one environment string at 128 KiB (MAX_ARG_STRLEN); half of it leaves room for escapes.
MAX_BYTES: Final = 64 * 1024
_CONTAINER_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def write_plan(plan: Plan) -> str:
    """The canonical text (RFC 8785) of a plan, every `$` as `\\u0024` because the kubelet expands `$(NAME)` in values.

    The member names are ASCII and the numbers small integers, so sorting by code point and the standard library's
    escapes give the canonical form. Raises PlanError beyond MAX_BYTES, and for text that UTF-8 cannot encode.
    """
    text = json.dumps(_document(plan), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    text = text.replace("$", "\\u0024")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise PlanError("plan: holds text that is not valid Unicode") from None
    if size > MAX_BYTES:
        raise PlanError(f"plan: {size} bytes, at most {MAX_BYTES} are allowed; name fewer or shorter secrets")
    return text


def read_plan(text: str) -> Plan:
    """The plan in `text`, or PlanError. Strict: unknown, missing, duplicate or mistyped members are refused."""
    # A character takes a byte at least, so this bounds the work before anything is encoded.
    if len(text) > MAX_BYTES or len(text.encode(errors="replace")) > MAX_BYTES:
        raise PlanError(f"plan: longer than {MAX_BYTES} bytes")
    try:
        document = json.loads(text, object_pairs_hook=_members, parse_float=_no_float, parse_constant=_no_float)
    except (ValueError, RecursionError) as error:
        raise error if isinstance(error, PlanError) else PlanError("plan: not JSON") from None
    if not isinstance(document, dict):
        raise PlanError("plan: not a JSON object")
    version = document.get("version")
    if type(version) is not int or version not in (VERSION, ATTEST_VERSION):
        raise PlanError(
            f"plan.version: this sidecar reads versions {VERSION} and {ATTEST_VERSION}; use the sidecar image that the"
            " webhook names"
        )
    plan = _plan(document)
    if write_plan(plan) != text:
        raise PlanError("plan: not in canonical form (RFC 8785)")
    return plan


def _document(plan: Plan) -> dict[str, Any]:
    return {
        "version": plan.version,
        "workload": {
            "cluster": plan.workload.cluster,
            "namespace": plan.workload.namespace,
            "service": plan.workload.service,
            "serviceAccount": plan.workload.service_account,
        },
        "evidence": [{"name": source.name, "address": source.address} for source in plan.evidence],
        "verifier": _written_verifier(plan.verifier),
        "vault": {
            "url": plan.vault.url,
            "ca": plan.vault.ca,
            "namespace": plan.vault.namespace,
            "mounts": dict(plan.vault.mounts),
        },
        "secrets": [
            _present(
                name=secret.name,
                path=secret.path,
                file=secret.file,
                key=secret.key,
                version=secret.version,
                mode=secret.mode,
                template=secret.template,
            )
            for secret in plan.secrets
        ],
        "env": [
            _present(
                container=variable.container,
                name=variable.name,
                value=variable.value,
                path=variable.path,
                key=variable.key,
                version=variable.version,
                expand=list(variable.expand) or None,
            )
            for variable in plan.env
        ],
        "envFrom": [
            _present(container=source.container, path=source.path, version=source.version) for source in plan.env_from
        ],
        "agent": plan.agent,
        "onChange": plan.on_change,
        "deadlineSeconds": plan.deadline_seconds,
        "fileMode": plan.file_mode,
        **_present(rereadSeconds=plan.reread_seconds),
    }


def _written_verifier(verifier: Verifier) -> dict[str, Any]:
    written: dict[str, Any] = {
        "url": verifier.url,
        "ca": verifier.ca,
        "audience": verifier.audience,
        "role": verifier.role,
    }
    if verifier.attest is not None:
        from kbs.verifier_attest import write_verifier_attest  # here, because most plans have none

        written["attest"] = write_verifier_attest(verifier.attest)
    return written


def _present(**members: str | int | list[str] | None) -> dict[str, str | int | list[str]]:
    return {name: value for name, value in members.items() if value is not None}


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise PlanError("plan: a member appears twice")
    return members


def _no_float(_: str) -> float:
    raise PlanError("plan: holds a number that is not an integer")


def _plan(document: dict[str, Any]) -> Plan:
    top = _Reader(document, "plan")
    version = top.integer("version", VERSION, ATTEST_VERSION)
    plan = Plan(
        workload=_workload(top.object("workload")),
        evidence=top.each("evidence", _evidence),
        verifier=_verifier(top.object("verifier")),
        vault=_vault(top.object("vault")),
        secrets=top.each("secrets", _secret),
        env=top.each("env", _env),
        env_from=top.each("envFrom", _env_from),
        agent=top.choice("agent", AGENTS),
        on_change=top.text("onChange"),
        deadline_seconds=top.integer("deadlineSeconds", 1, 3600),
        file_mode=top.choice("fileMode", FILE_MODES),
        reread_seconds=top.integer("rereadSeconds", 1, 86400) if "rereadSeconds" in top.members else None,
    )
    top.finish()
    if not plan.evidence:
        raise PlanError("plan.evidence: empty; name a source, such as coco-aa")
    _check_attest(plan, version)
    _check_data_hub(plan)
    try:
        parse_reaction(plan.on_change)
    except ValueError as error:
        raise PlanError(f"plan.onChange: {error}") from None
    return plan


def _check_attest(plan: Plan, version: int) -> None:
    attest = plan.verifier.attest
    if plan.version != version:
        problem = "missing in" if attest is None else "not a member of"
        raise PlanError(f"plan.verifier.attest: {problem} a plan of version {version}")
    if attest is not None and attest.simulated_root and {source.name for source in plan.evidence} != {SIMULATED}:
        raise PlanError(f"plan.verifier.attest.simulatedRoot: only where every source of evidence is {SIMULATED}")


def _check_data_hub(plan: Plan) -> None:
    """It knows one way to one verifier, and no pod token: what cannot hold with it is refused."""
    if DATA_HUB not in {source.name for source in plan.evidence}:
        return
    if len(plan.evidence) > 1:
        raise PlanError(f"plan.evidence: {DATA_HUB} stands alone")
    if plan.agent != "init":
        raise PlanError(f"plan.agent: {DATA_HUB} needs init")
    if plan.verifier.attest is not None:
        raise PlanError(f"plan.verifier.attest: not with {DATA_HUB}, which attests no verifier")


def _workload(reader: _Reader) -> Workload:
    workload = Workload(
        reader.text("cluster"), reader.text("namespace"), reader.text("service"), reader.text("serviceAccount")
    )
    reader.finish()
    return workload


def _evidence(reader: _Reader) -> EvidenceSource:
    source = EvidenceSource(reader.choice("name", EVIDENCE_SOURCES), reader.text("address"))
    reader.finish()
    return source


def _verifier(reader: _Reader) -> Verifier:
    verifier = Verifier(
        reader.text("url"), reader.text("ca"), reader.text("audience"), reader.text("role"), _attest(reader)
    )
    reader.finish()
    return verifier


def _attest(reader: _Reader) -> VerifierAttest | None:
    if "attest" not in reader.members:
        return None
    from kbs.guest_values import GuestValuesError  # here, because most plans have none
    from kbs.verifier_attest import read_verifier_attest

    try:
        return read_verifier_attest(reader.members.pop("attest"))
    except GuestValuesError as error:
        raise PlanError(f"plan.{error}") from None


def _vault(reader: _Reader) -> Vault:
    mounts = reader.object("mounts")
    versions = tuple((name, mounts.integer(name, 1, 2)) for name in sorted(mounts.members))
    vault = Vault(reader.text("url"), reader.text("ca"), reader.text("namespace"), versions)
    reader.finish()
    return vault


def _secret(reader: _Reader) -> SecretFile:
    secret = SecretFile(
        name=reader.text("name"),
        path=reader.text("path"),
        file=reader.text("file"),
        key=reader.optional_text("key"),
        version=reader.optional_integer("version"),
        mode=reader.optional_text("mode"),
        template=reader.optional_text("template"),
    )
    reader.finish()
    if not is_relative_file(secret.file):
        raise PlanError(f"{reader.where}.file: not a relative path inside the secrets folder, such as conf.d/db")
    if secret.mode is not None and not is_file_mode(secret.mode):
        raise PlanError(
            f"{reader.where}.mode: not an octal mode that the owner can read and others cannot, such as 0440"
        )
    return secret


def _env(reader: _Reader) -> EnvVariable:
    variable = EnvVariable(
        container=_container(reader),
        name=reader.text("name"),
        value=reader.optional_text("value"),
        path=reader.optional_text("path"),
        key=reader.optional_text("key"),
        version=reader.optional_integer("version"),
        expand=reader.optional_names("expand"),
    )
    reader.finish()
    by_path = variable.path is not None and variable.key is not None
    if by_path == (variable.value is not None) or (variable.value is not None and variable.version is not None):
        raise PlanError(f"{reader.where}: needs either value, or path and key")
    if variable.expand and variable.value is None:
        raise PlanError(f"{reader.where}.expand: only a value expands other variables")
    return variable


def _env_from(reader: _Reader) -> EnvFrom:
    source = EnvFrom(_container(reader), reader.text("path"), reader.optional_integer("version"))
    reader.finish()
    return source


def _container(reader: _Reader) -> str:
    """A container's name: an RFC 1123 label. The exec helper accepts no other, and it becomes a file's name."""
    name = reader.text("container")
    if _CONTAINER_NAME.fullmatch(name) is None:
        raise PlanError(f"{reader.where}.container: not a container's name (RFC 1123 label), such as user-container")
    return name


_Item = TypeVar("_Item")
_KINDS: Final[dict[type, str]] = {str: "text", int: "an integer", dict: "an object", list: "a list"}


class _Reader:
    """Takes members out of one JSON object; `finish` refuses the members that are left."""

    def __init__(self, members: Any, where: str) -> None:
        if not isinstance(members, dict):
            raise PlanError(f"{where}: not an object")
        self.members: dict[str, Any] = members
        self.where = where

    def _take(self, name: str, kind: type) -> Any:
        if name not in self.members:
            raise PlanError(f"{self.where}.{name}: missing")
        value = self.members.pop(name)
        if type(value) is not kind:
            raise PlanError(f"{self.where}.{name}: not {_KINDS[kind]}")
        return value

    def text(self, name: str) -> str:
        return str(self._take(name, str))

    def optional_text(self, name: str) -> str | None:
        return self.text(name) if name in self.members else None

    def integer(self, name: str, low: int, high: int) -> int:
        value = int(self._take(name, int))
        if not low <= value <= high:
            raise PlanError(f"{self.where}.{name}: not between {low} and {high}")
        return value

    def optional_integer(self, name: str) -> int | None:
        return self.integer(name, 1, 2**31 - 1) if name in self.members else None

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        value = self.text(name)
        if value not in choices:
            raise PlanError(f"{self.where}.{name}: not one of {', '.join(choices)}")
        return value

    def optional_names(self, name: str) -> tuple[str, ...]:
        """A list of variables' names, not empty, each once; () where there is none."""
        if name not in self.members:
            return ()
        names = self._take(name, list)
        if not names or not all(type(each) is str and is_variable_name(each) for each in names):
            raise PlanError(f"{self.where}.{name}: not a list of variables' names, such as DB_HOST")
        if len(set(names)) != len(names):
            raise PlanError(f"{self.where}.{name}: names a variable twice")
        return tuple(names)

    def object(self, name: str) -> _Reader:
        return _Reader(self._take(name, dict), f"{self.where}.{name}")

    def each(self, name: str, build: Callable[[_Reader], _Item]) -> tuple[_Item, ...]:
        items = self._take(name, list)
        return tuple(build(_Reader(item, f"{self.where}.{name}[{index}]")) for index, item in enumerate(items))

    def finish(self) -> None:
        if self.members:
            raise PlanError(f"{self.where}: holds {len(self.members)} unknown member(s)")
