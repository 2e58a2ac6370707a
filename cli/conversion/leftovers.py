"""Foreign annotations and references outside the pods that convert translates: found by shape, in any kind.

An operator's custom resource becomes a pod too, under a key that no other program knows. So every mapping and every
text of a document is looked at: what reads as another injector's is named, and stays for a person.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from cli.conversion.bank_vaults import is_bank_vaults_reference
from cli.conversion.step import Note, mappings
from cli.conversion.templates import PodTemplate
from server.text import printable
from webhook.pod.other_injectors import BANK_VAULTS_PREFIXES, VAULT_AGENT_PREFIXES
from webhook.pod.references import mentions
from webhook.wellknown import LAST_APPLIED, PREFIX

# A reference in the middle of a text, such as Helm's values or a kustomize patch inside another object.
_IN_TEXT: Final = re.compile(r"""(?:^|[\s"'=:,>[{])vault:[^\s#"']{1,512}/[^\s#"']{0,512}#""", re.MULTILINE)
FOREIGN: Final = VAULT_AGENT_PREFIXES + BANK_VAULTS_PREFIXES
# Their prefixes in a text, also as Helm's `--set` escapes the dots, JSON the slash, and a JSON patch's path the slash.
_PREFIX_IN_TEXT: Final = re.compile(
    "|".join(re.escape(prefix.removesuffix("/")).replace(r"\.", r"\\*\.") + r"(?:\\*/|~1)" for prefix in FOREIGN)
)
_MAX_KEY: Final = 100
# The kinds whose values Bank-Vaults looks up when a pod takes its environment from them.
_STORED: Final = ("ConfigMap", "Secret")
_STORED_FIELDS: Final = (("data", False), ("stringData", False), ("binaryData", True))

_MISPLACED = "has no effect here; move it to the pod template, then convert again"
_UNKNOWN_KIND = "convert does not know which pod this kind makes; translate it by hand, or in the pod's own manifest"
_FILLED = "Bank-Vaults fills this object with secrets, which are then in etcd; use secret-NAME"
_STORED_REFERENCE = "holds a Vault reference, which only a container's env may; move it there"
_OUTSIDE_ENV = "holds a Vault reference outside a container's env, where nothing resolves it; move it there"
_TEXT = "holds another injector's annotation in its text; translate it by hand"
_REFERENCE_IN_TEXT = "holds a Vault reference in its text; translate it by hand"


def leftovers(object_: Mapping[str, Any], template: PodTemplate | None, *, native: bool) -> Iterator[Note]:
    """The notes about one object; `template` is the pod in it that is translated already, None where it has none.

    In a `native` document the references are ours.
    """
    yield from _Walk(object_, template, native).notes()


class _Walk:
    def __init__(self, object_: Mapping[str, Any], template: PodTemplate | None, native: bool) -> None:
        self._object = object_
        self._translated = template is not None
        self._stored = is_stored(object_)
        self._done = set() if template is None else _translated_variables(template)
        self._annotations = set() if template is None else {id(each) for each in template.annotations}
        self._native = native

    def notes(self) -> Iterator[Note]:
        yield from self._item(self._object, ())

    def _item(self, item: Any, at: tuple[str, ...]) -> Iterator[Note]:
        if id(item) in self._done:
            return
        if isinstance(item, dict):
            translated = (*FOREIGN, PREFIX) if id(item) in self._annotations else ()
            for key, value in item.items():
                if not str(key).startswith(translated):
                    yield from self._member(key, value, at)
        elif isinstance(item, list):
            for index, value in enumerate(item):
                if isinstance(value, str):
                    yield from self._text(value, (*at, f"[{index}]"))
                else:
                    yield from self._item(value, (*at, f"[{index}]"))

    def _member(self, key: Any, value: Any, at: tuple[str, ...]) -> Iterator[Note]:
        name = str(key)
        if name == LAST_APPLIED:
            return
        here = (*at, printable(name[:_MAX_KEY]))
        if name.startswith(FOREIGN):
            own = at == ("metadata", "annotations")
            yield Note(here[-1] if own else _path(here), self._annotation(name, own=own))
        elif _PREFIX_IN_TEXT.search(name):
            yield Note(_path(here), _TEXT)
        elif isinstance(value, str):
            yield from self._text(value, here)
        else:
            yield from self._item(value, here)

    def _annotation(self, name: str, *, own: bool) -> str:
        if self._stored and own and name.startswith(BANK_VAULTS_PREFIXES):
            return _FILLED
        return _MISPLACED if self._translated or own else _UNKNOWN_KIND

    def _text(self, value: str, at: tuple[str, ...]) -> Iterator[Note]:
        if self._stored and len(at) == 2 and at[0] in dict(_STORED_FIELDS):
            if refers(value, _is_encoded(self._object, at[0])):
                yield Note(_path(at), _STORED_REFERENCE)
                return
        elif not self._native and is_bank_vaults_reference(value):
            yield Note(_path(at), _OUTSIDE_ENV if self._translated else _UNKNOWN_KIND)
            return
        if _PREFIX_IN_TEXT.search(value):
            yield Note(_path(at), _TEXT)
        elif not self._native and _IN_TEXT.search(value):
            yield Note(_path(at), _REFERENCE_IN_TEXT)


def is_stored(object_: Mapping[str, Any]) -> bool:
    """Whether it is a ConfigMap or a Secret."""
    return object_.get("apiVersion") == "v1" and object_.get("kind") in _STORED


def stored_references(object_: Mapping[str, Any]) -> dict[str, bool]:
    """For each key of a ConfigMap or Secret whether its value is or holds a reference."""
    result = {}
    for field, _ in _STORED_FIELDS:
        values = object_.get(field)
        for key, value in values.items() if isinstance(values, dict) else ():
            result[str(key)] = isinstance(value, str) and refers(value, _is_encoded(object_, field))
    return result


def refers(value: str, encoded: bool) -> bool:
    """Whether a stored value, base64 where it is `encoded`, is or holds a reference."""
    if encoded:
        try:
            value = base64.b64decode(value, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return False
    return mentions(value) or is_bank_vaults_reference(value)


def _is_encoded(object_: Mapping[str, Any], field: str) -> bool:
    return field == "binaryData" or (field == "data" and object_.get("kind") == "Secret")


def _translated_variables(template: PodTemplate) -> set[int]:
    """The variables that the translation has looked at already, by identity."""
    return {
        id(each)
        for group in ("initContainers", "containers")
        for container in mappings(template.spec.get(group))
        for each in mappings(container.get("env"))
    }


def speaks_ours(item: Any) -> bool:
    """Whether a document carries our annotations and none of Bank-Vaults, whose references look the same."""
    keys = set(_keys(item))
    return any(key.startswith(PREFIX) for key in keys) and not any(key.startswith(BANK_VAULTS_PREFIXES) for key in keys)


def _keys(item: Any) -> Iterator[str]:
    if isinstance(item, dict):
        for key, value in item.items():
            yield str(key)
            yield from _keys(value)
    elif isinstance(item, list):
        for value in item:
            yield from _keys(value)


def _path(parts: Collection[str]) -> str:
    return ".".join(parts).replace(".[", "[")
