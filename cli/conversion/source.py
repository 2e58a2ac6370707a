"""A YAML or JSON text with some of its objects changed, and everything else as its author wrote it.

Comments, order, quotes, indentation, anchors, line endings: only the places whose values differ are written anew, at
the marks of their nodes. The result is read again and compared. A document whose text cannot carry the change, such as
an anchor whose uses would have to differ, is written from its data.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import yaml

from server.files import UnusableInputError
from server.yaml.kubernetes import Document, is_merge_key, parse_documents, write_documents

# A text that YAML's flow style leaves unquoted.
_PLAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")
_PROPERTIES: Final = re.compile(r"(?:[&!]\S*\s+)*")
# Start and end in the text, and what takes its place.
_Edit = tuple[int, int, str]


class _CannotEditError(Exception):
    """The text has no place for the change."""


def rewritten(
    text: str, documents: Sequence[Document], objects: Sequence[dict[str, Any]]
) -> tuple[str, list[Document]]:
    """The text, which holds the documents, so that it holds the objects; and the documents whose layout was lost."""
    editor = _Editor(text)
    edits: list[list[_Edit]] = []
    anew: list[int] = []
    for index, (document, new) in enumerate(zip(documents, objects, strict=True)):
        try:
            edits.append(_consistent(editor.document(document, new)))
        except _CannotEditError:
            edits.append(editor.whole(document, new))
            anew.append(index)
    found = _read_back(editor.applied(edits))
    if found != list(objects):
        # An anchor perhaps. Where the number of documents is as it was, those that differ are known.
        known = found is not None and len(found) == len(objects)
        for index, (document, new) in enumerate(zip(documents, objects, strict=True)):
            if index not in anew and document.object != new and not (known and found and found[index] == new):
                edits[index] = editor.whole(document, new)
                anew.append(index)
    result = editor.applied(edits)
    if _read_back(result) != list(objects):
        return write_documents(objects), list(documents)
    return result, [documents[index] for index in sorted(anew) if documents[index].node is not None]


def _read_back(text: str) -> list[dict[str, Any]] | None:
    try:
        return [document.object for document in parse_documents(text.encode(), "")]
    except UnusableInputError:
        return None


def _consistent(edits: Iterator[_Edit]) -> list[_Edit]:
    # The same edit twice is one: a node that an alias uses is visited with each use.
    result = sorted(_joined(dict.fromkeys(edits)))
    for before, after in itertools.pairwise(result):
        if after[0] < before[1] or after[:2] == before[:2]:
            raise _CannotEditError
    return result


def _joined(edits: Iterable[_Edit]) -> Iterator[_Edit]:
    """Insertions at one place as one, in their order: what is added to a mapping comes before what follows it."""
    insertions: dict[int, str] = {}
    for start, end, text in edits:
        if start == end and text.endswith("\n"):
            insertions[start] = insertions.get(start, "") + text
        else:
            yield start, end, text
    for start, text in insertions.items():
        yield start, start, text


class _Editor:
    """The edits of one text; indices count characters."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._newline = "\r\n" if "\r\n" in text else "\n"

    def document(self, document: Document, new: dict[str, Any]) -> Iterator[_Edit]:
        """The edits of one document. Raises _CannotEditError."""
        if document.object == new:
            return
        if document.node is None:
            yield from self.whole(document, new)
        else:
            yield from self.edits(document.node, document.object, new)

    def whole(self, document: Document, new: dict[str, Any]) -> list[_Edit]:
        """The edit that writes the document from its data; what stands before it stays."""
        if document.node is None:
            start, end = document.span
            return [(start, end, _json_like(self._text[start:end], new))]
        start, end = int(document.node.start_mark.index), self._end_of(document.node)
        if isinstance(document.node, yaml.MappingNode) and not document.node.flow_style:
            start, end = self._text.rfind("\n", 0, start) + 1, self._line_end(end)
        text = write_documents([new]).replace("\n", self._newline)
        return [(start, end, text if self._text[end - 1 : end] == "\n" else text.removesuffix(self._newline))]

    def applied(self, edits: Sequence[Sequence[_Edit]]) -> str:
        """The text with the edits of all documents."""
        parts, at = [], 0
        for start, end, replacement in sorted({edit for some in edits for edit in some}):
            parts += [self._text[at:start], replacement]
            at = max(at, end)
        return "".join((*parts, self._text[at:]))

    def edits(self, node: yaml.Node, old: Any, new: Any) -> Iterator[_Edit]:
        """What has to change in the node, whose value is `old`, so that it is `new`."""
        if old == new:
            return
        if isinstance(node, yaml.MappingNode) and isinstance(old, dict) and isinstance(new, dict):
            yield from self._mapping(node, old, new)
        elif isinstance(node, yaml.SequenceNode) and isinstance(new, list) and len(node.value) == len(new):
            for item, before, after in zip(node.value, old, new, strict=True):
                yield from self.edits(item, before, after)
        elif isinstance(node, yaml.ScalarNode) and isinstance(new, str):
            yield self._scalar(node, str(old), new)
        else:
            raise _CannotEditError

    def _mapping(self, node: yaml.MappingNode, old: dict[str, Any], new: dict[str, Any]) -> Iterator[_Edit]:
        pairs = [(key, value) for key, value in node.value if not is_merge_key(key)]
        names = [self._name(key) for key, _ in pairs]
        if len(pairs) < len(node.value) and (not pairs or any(key not in new and key not in names for key in old)):
            raise _CannotEditError  # a merged key can be written over, never taken away
        for name, (key, value) in zip(names, pairs, strict=True):
            if name in new and name in old:
                if isinstance(value, yaml.MappingNode) and not value.flow_style and old[name] and new[name] == {}:
                    # Nothing would stay below the key, which then has no value; `{}` is an empty mapping.
                    colon = self._text.index(":", key.end_mark.index) + 1
                    yield colon, colon, " {}"
                yield from self.edits(value, old[name], new[name])
        removed = [index for index, name in enumerate(names) if name not in new]
        added = {key: value for key, value in new.items() if key not in old}
        added |= {key: new[key] for key in old if key in new and key not in names and old[key] != new[key]}
        if not removed and not added:
            return
        if node.flow_style:
            yield from self._flow(node, pairs, removed, added)
        else:
            yield from self._block(pairs, removed, added)

    def _name(self, key: yaml.Node) -> str:
        if not isinstance(key, yaml.ScalarNode):
            raise _CannotEditError
        return str(key.value)

    # --- flow style, and so JSON ---

    def _flow(
        self,
        node: yaml.MappingNode,
        pairs: list[tuple[yaml.Node, yaml.Node]],
        removed: list[int],
        added: dict[str, Any],
    ) -> Iterator[_Edit]:
        spans = [(key.start_mark.index, self._end(key, value)) for key, value in pairs]
        entries = [self._flow_entry(key, value) for key, value in added.items()]
        if not pairs:
            yield node.start_mark.index + 1, node.end_mark.index - 1, ", ".join(entries)
            return
        between = self._text[spans[0][1] : spans[1][0]] if len(spans) > 1 else ""
        opening = self._text[node.start_mark.index + 1 : spans[0][0]]
        separator = between if between.strip() == "," else "," + (opening if "\n" in opening else " ")
        joined = separator.join(entries)
        if len(removed) == len(pairs):
            yield spans[0][0], spans[-1][1], joined
            return
        if not removed:
            yield spans[-1][1], spans[-1][1], separator + joined
            return
        for first, last in _runs(removed):
            if last + 1 < len(pairs):
                yield spans[first][0], spans[last + 1][0], joined + separator if joined else ""
            else:
                yield spans[first - 1][1], spans[last][1], separator + joined if joined else ""
            joined = ""

    def _flow_entry(self, key: str, value: Any) -> str:
        name = key if _PLAIN.fullmatch(key) else json.dumps(key, ensure_ascii=False)
        return f"{name}: {json.dumps(value, ensure_ascii=False)}"

    # --- block style ---

    def _block(
        self, pairs: list[tuple[yaml.Node, yaml.Node]], removed: list[int], added: dict[str, Any]
    ) -> Iterator[_Edit]:
        first_key = pairs[0][0]
        column = first_key.start_mark.column
        lines = "".join(self._block_entry(key, value, column) for key, value in added.items())
        for first, last in _runs(removed):
            start = self._line_start(pairs[first][0].start_mark.index)
            end = self._line_end(self._end(*pairs[last]))
            if "#" in self._text[start:end]:
                yield from self._between_comments(pairs, first, last, lines)
            else:
                yield start, end, lines
            lines = ""
        if lines:
            end = self._line_end(self._end(*pairs[-1]))
            yield end, end, lines if self._text[:end].endswith("\n") else self._newline + lines

    def _between_comments(
        self, pairs: list[tuple[yaml.Node, yaml.Node]], first: int, last: int, lines: str
    ) -> Iterator[_Edit]:
        """Take the pairs away one by one, so that the comment lines between them stay."""
        for index in range(first, last + 1):
            start = self._line_start(pairs[index][0].start_mark.index)
            yield start, self._line_end(self._end(*pairs[index])), lines
            lines = ""

    def _block_entry(self, key: str, value: Any, column: int) -> str:
        dumped = write_documents([{key: value}])
        return "".join(
            (" " * column + line if line else "") + self._newline for line in dumped.removesuffix("\n").split("\n")
        )

    def _line_start(self, index: int) -> int:
        start = self._text.rfind("\n", 0, index) + 1
        if self._text[start:index].strip(" "):
            raise _CannotEditError  # `- key: value`, or `? key`
        return start

    def _line_end(self, index: int) -> int:
        if index and self._text[index - 1] == "\n":
            return index
        end = self._text.find("\n", index)
        end = len(self._text) if end < 0 else end + 1
        rest = self._text[index:end].strip()
        if rest and not rest.startswith("#"):
            raise _CannotEditError
        return end

    def _end(self, key: yaml.Node, value: yaml.Node) -> int:
        """Where a pair ends. A block collection's own mark is behind the blank lines and comments that follow it."""
        if value.start_mark.index < key.start_mark.index:
            # An alias: its node is the anchor's, earlier in the text. The name runs to the next space or bracket.
            at = self._text.index("*", key.end_mark.index)
            while at < len(self._text) and self._text[at] not in " \t\r\n,]}":
                at += 1
            return at
        return self._end_of(value)

    def _end_of(self, node: yaml.Node) -> int:
        if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
            last = node.value[-1]
            if isinstance(node, yaml.MappingNode):
                return self._end(*last)
            if last.start_mark.index < node.start_mark.index:
                raise _CannotEditError  # an alias as the last item, whose own place no node knows
            return self._end_of(last)
        end = int(node.end_mark.index)
        if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">"):
            # Its mark is behind the blank lines that follow, which set the next pair apart.
            end = int(node.start_mark.index) + len(self._text[node.start_mark.index : end].rstrip()) + 1
            end += self._text[end - 1 : end + 1] == "\r\n"
        return end

    # --- scalars ---

    def _scalar(self, node: yaml.ScalarNode, old: str, new: str) -> _Edit:
        start, end = int(node.start_mark.index), int(node.end_mark.index)
        properties = _PROPERTIES.match(self._text, start, end)
        start = start if properties is None else properties.end()
        raw = self._text[start:end]
        if node.style in ("|", ">"):
            return start, end, self._within(raw, old, new)
        if node.style == '"':
            return start, end, json.dumps(new, ensure_ascii=False)
        if node.style == "'" and "\n" not in new:
            return start, end, "'" + new.replace("'", "''") + "'"
        if set(",[]{}\n") & set(new):  # which mean something in flow style, or take several lines
            return start, end, json.dumps(new, ensure_ascii=False)
        return start, end, write_documents([{"": new}]).partition(": ")[2].removesuffix("\n")

    def _within(self, raw: str, old: str, new: str) -> str:
        """A block scalar with the lines replaced that differ; line for line, so that its layout stays."""
        before, after = old.split("\n"), new.split("\n")
        lines = raw.split("\n")
        if len(before) != len(after):
            raise _CannotEditError
        at = 1  # behind the indicator
        for was, becomes in zip(before, after, strict=True):
            if not was:
                continue
            while at < len(lines) and not lines[at].rstrip("\r").endswith(was):
                at += 1
            if at == len(lines):
                raise _CannotEditError
            body = lines[at].rstrip("\r")
            lines[at] = body[: len(body) - len(was)] + becomes + lines[at][len(body) :]
            at += 1
        return "\n".join(lines)


def _runs(indices: list[int]) -> Iterator[tuple[int, int]]:
    """(first, last) of each run of neighbours."""
    first = last = indices[0] if indices else 0
    for index in indices[1:]:
        if index != last + 1:
            yield first, last
            first = index
        last = index
    if indices:
        yield first, last


def _json_like(text: str, value: dict[str, Any]) -> str:
    """The value as JSON, indented as the text is."""
    indent = re.match(r"\{\r?\n([ \t]+)", text)
    if indent is None:
        compact = '":"' in text or '":{' in text
        return json.dumps(value, ensure_ascii=False, separators=(",", ":") if compact else None)
    newline = "\r\n" if "\r\n" in text else "\n"
    return json.dumps(value, ensure_ascii=False, indent=indent[1]).replace("\n", newline)
