"""From YAML text to nodes, within bounds: what both readers, `strict` and `kubernetes`, do first.

The two differ in what an unquoted word means (their resolvers) and in what they make of the nodes; neither may be
brought down by a thousand brackets or by aliases that expand to gigabytes, and neither may repeat a value.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import yaml

TAG: Final = "tag:yaml.org,2002:"

# libyaml's parser where the wheel has it: ten times faster, same events. types-PyYAML knows both as plain classes.
SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class UnusableYamlError(Exception):
    """Text that cannot be read as YAML. `where` is `:LINE` or `:LINE:COLUMN`, or empty; no part repeats a value."""

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}")
        self.where = where
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Bounds:
    """`depth` of collections in collections; `nodes` in all, where an alias counts each time that it is used."""

    depth: int
    nodes: int
    aliases: bool = True


class Budget:
    """Counts the nodes of one text while they become values."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._nodes = 0

    def spend(self, node: yaml.Node, depth: int) -> None:
        """Count the node. An alias may hold itself, so depth is bounded here too. Raises UnusableYamlError."""
        self._nodes += 1
        if self._nodes > self._bounds.nodes or depth > self._bounds.depth:
            raise UnusableYamlError(f":{line_of(node)}", "too many values, or aliases that expand to too much")


def documents(content: bytes, loader: Any, bounds: Bounds) -> Iterator[tuple[yaml.Node, Any]]:
    """The root node of each document, and the loader that composed it. Raises UnusableYamlError."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UnusableYamlError("", "not UTF-8") from None
    try:
        _check_events(text, loader, bounds)
        reader = loader(text)
        try:
            while reader.check_node():
                yield reader.get_node(), reader
        finally:
            reader.dispose()
    except yaml.YAMLError as error:
        raise _not_yaml(error) from None


def line_of(node: yaml.Node) -> int:
    """The line on which the node starts, from 1."""
    return int(node.start_mark.line) + 1


def _check_events(text: str, loader: Any, bounds: Bounds) -> None:
    # Events come one by one; composing recurses, and must not be reached by a thousand brackets.
    depth = 0
    for event in yaml.parse(text, Loader=loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > bounds.depth:
                raise UnusableYamlError(_place(event.start_mark), f"nested deeper than {bounds.depth}")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.AliasEvent) and not bounds.aliases:
            raise UnusableYamlError(_place(event.start_mark), "aliases are not supported")


def _place(mark: Any) -> str:
    return f":{mark.line + 1}:{mark.column + 1}" if mark else ""


def _not_yaml(error: yaml.YAMLError) -> UnusableYamlError:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    # What follows in quotes is a piece of the file: `*name` is what an unquoted secret can look like.
    problem = str(getattr(error, "problem", None) or "").partition(" '")[0]
    return UnusableYamlError(_place(mark), "not valid YAML" + (f": {problem}" if problem else ""))
