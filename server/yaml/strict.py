"""Typed YAML: turns a file into a validated pydantic model, or into a list of problems that a person can act on.

No message repeats a value, because a configuration may hold secrets; keys and lines are named. For the same reason the
text of a ValueError from a model's own validator is not shown. A validator with a message raises
`pydantic_core.PydanticCustomError(code, text)`, and thereby promises that the text holds no value.
"""

import hashlib
import json
import types
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, RootModel, ValidationError

from server.files import MAX_FILE_BYTES, UnusableInputError, read_bounded
from server.text import did_you_mean
from server.yaml.nodes import TAG, Bounds, Budget, SafeLoader, UnusableYamlError, documents, line_of

BOUNDS = Bounds(depth=32, nodes=200_000)

Model = TypeVar("Model", bound=BaseModel)
T = TypeVar("T", covariant=True)
Location = tuple[int | str, ...]

_SCALARS = {TAG + name for name in ("str", "int", "float", "bool", "null")}
# pydantic's messages that repeat the input, or an exception text of unknown content.
_ECHOING = {"value_error", "assertion_error", "uuid_parsing", "json_invalid", "get_attribute_error", "iteration_error"}


@dataclass(frozen=True, slots=True)
class Loaded(Generic[T]):
    """A value and the SHA-256 (hex) of the canonical content it came from.

    `problems`: of parts that could not be used, where the others can be; the value is without the new text of these.
    """

    value: T
    digest: str
    problems: tuple[str, ...] = ()


class ConfigurationError(Exception):
    """A file that cannot be used. `problems`: one line each, with file, line and key, never a value."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


def load(path: Path, model: type[Model], *, max_bytes: int = MAX_FILE_BYTES) -> Loaded[Model]:
    """Read `path` as one `model`. The digest is of the content, so comments and layout do not change it.

    Raises ConfigurationError: unreadable, larger than `max_bytes`, not YAML, a duplicate or unknown key, a wrong value.
    """
    try:
        content = read_bounded(path, max_bytes)
    except UnusableInputError as error:
        raise ConfigurationError([str(error)]) from None
    return parse(content, model, name=str(path))


def parse(content: bytes, model: type[Model], *, name: str) -> Loaded[Model]:
    """As `load`, of bytes; `name` stands for the file in problems."""
    reader = _Reader(name)
    data = reader.read(content)
    value = _validated(data, model, reader)
    canonical = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return Loaded(value, hashlib.sha256(canonical.encode()).hexdigest())


def validate(data: Any, model: type[Model], *, name: str) -> Model:
    """As `parse`, of plain data that is decoded already; `name` stands for the file in problems."""
    return _validated(data, model, _Reader(name))


def _validated(data: Any, model: type[Model], reader: "_Reader") -> Model:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        raise ConfigurationError([_explain(reader, model, data, problem) for problem in problems]) from None


def schema(model: type[BaseModel]) -> str:
    """The model's JSON Schema (draft 2020-12) as text, the same bytes each time: fit to be committed and compared."""
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | model.model_json_schema()
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


class _Reader:
    """YAML to plain data, remembering on which line each key stands."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lines: dict[Location, int] = {}
        self._budget = Budget(BOUNDS)
        self._problems: list[str] = []

    def read(self, content: bytes) -> Any:
        data: Any = None
        try:
            for count, (node, loader) in enumerate(documents(content, SafeLoader, BOUNDS)):
                if count:
                    raise UnusableYamlError(f":{line_of(node)}", "a second document; the file takes one")
                data = self._plain(loader, node, ())
        except UnusableYamlError as error:
            raise ConfigurationError([f"{self._name}{error}"]) from None
        if self._problems:
            raise ConfigurationError(self._problems)
        return {} if data is None else data

    def place(self, location: Location) -> str:
        """`file:line: ` of the closest key that is in the file."""
        for end in range(len(location), 0, -1):
            if line := self._lines.get(location[:end]):
                return f"{self._name}:{line}: "
        return f"{self._name}: "

    def _plain(self, loader: Any, node: yaml.Node, at: Location) -> Any:
        # An alias is the same node again, counted again: a small file cannot become a large value.
        self._budget.spend(node, len(at))
        line = line_of(node)
        if isinstance(node, yaml.ScalarNode):
            if node.tag == TAG + "timestamp":
                return node.value
            if node.tag not in _SCALARS:
                self._problem(line, at, "this YAML tag is not supported, quote the value")
                return None
            try:
                return loader.construct_object(node)
            except ValueError:  # `!!int text`
                self._problem(line, at, "the value does not fit its YAML tag")
                return None
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(loader, item, (*at, index)) for index, item in enumerate(node.value)]
        return self._mapping(loader, node, at)

    def _mapping(self, loader: Any, node: yaml.Node, at: Location) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = line_of(key_node)
            if key_node.tag == TAG + "merge":
                self._problem(line, at, "merge keys (<<) are not supported, write the keys out")
                continue
            if key_node.tag != TAG + "str":
                self._problem(line, at, "a key is not text, quote it")
                continue
            key = key_node.value
            here = (*at, key)
            if key in result:
                self._problem(line, here, f"key given twice, first on line {self._lines.get(here)}")
                continue
            self._lines.setdefault(here, line)
            result[key] = self._plain(loader, value_node, here)
        return result

    def _problem(self, line: int, at: Location, text: str) -> None:
        self._problems.append(f"{self._name}:{line}: {_dotted(at)}: {text}")


def _explain(reader: _Reader, model: type[BaseModel], data: Any, problem: Any) -> str:
    location: Location = problem["loc"]
    kind = problem["type"]
    found = _in_data(data, location, is_missing=kind == "missing")
    path = reader.place(found) + _dotted(found)
    if kind == "extra_forbidden":
        key = str(location[-1])
        return f"{path}: unknown key {key}{did_you_mean(key, _known(model, location[:-1]))}"
    if kind == "union_tag_invalid":
        return f"{path}: {problem['ctx']['discriminator']} must be one of {problem['ctx']['expected_tags']}"
    if kind in _ECHOING:
        return f"{path}: the value is not valid"
    return f"{path}: {problem['msg'][:1].lower()}{problem['msg'][1:]}"


def _in_data(data: Any, location: Location, *, is_missing: bool) -> Location:
    """`location` without what pydantic adds for the members of a union: only keys that are, or should be, there.

    `is_missing`: the last part is a key that should be there.
    """
    path: list[int | str] = []
    for index, part in enumerate(location):
        present = part in data if isinstance(data, dict) else isinstance(data, list) and part in range(len(data))
        if present:
            data = data[part]
        elif not (is_missing and isinstance(data, dict) and index == len(location) - 1):
            continue
        path.append(part)
    return tuple(path)


def _known(annotation: Any, location: Location) -> set[str]:
    """Keys that the type at `location` below `annotation` knows."""
    if isinstance(annotation, type) and issubclass(annotation, RootModel):
        return _known(annotation.model_fields["root"].annotation, location)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = {field.alias or name: field for name, field in annotation.model_fields.items()}
        if not location:
            return set(fields)
        field = fields.get(str(location[0]))
        return _known(field.annotation, location[1:]) if field else set()
    arguments = get_args(annotation)
    origin = get_origin(annotation)
    if origin is Annotated:
        return _known(arguments[0], location)
    if origin in (Union, types.UnionType):
        # For a member of a union of models pydantic's location has one part more, its name.
        found = set().union(*(_known(member, location) for member in arguments))
        return found or set().union(*(_known(member, location[1:]) for member in arguments)) if location else found
    if not location:
        return set()
    return set().union(*(_known(argument, location[1:]) for argument in arguments))


def _dotted(location: Location) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "document"
