"""The subset of Vault Agent's templates (Go text/template with consul-template's functions) that ours can express.

Taken: one secret, opened by `with secret "PATH"`, whose keys are printed between plain texts, or which is printed whole
by `toJSON`. Loops, conditions, functions and a second secret have no logic-less counterpart.
https://pkg.go.dev/text/template, https://github.com/hashicorp/consul-template/blob/main/docs/templating-language.md
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_ACTION = re.compile(r"\{\{(-\s)?(.*?)(\s-)?\}\}", re.DOTALL)
# What text/template's trim markers take away.
_SPACE = " \t\r\n"
_COMMENT = re.compile(r"/\*.*\*/", re.DOTALL)
_WITH = re.compile(r"""with\s+secret\s+(?:"([^"\\]+)"|`([^`]+)`)""")
# Actions that an `end` of their own closes.
_BLOCK = re.compile(r"(?:if|range|with|block|define)\b")
_FIELD = re.compile(r"\.Data\.(data\.)?([A-Za-z_][A-Za-z0-9_]*)")
_INDEX = re.compile(r"""index\s+\.Data(\.data)?\s+(?:"([^"\\]+)"|`([^`]+)`)""")
_WHOLE = re.compile(r"\.Data(\.data)?\s*\|\s*toJSON")
# What survives mustache's trimming; a key with dots is found as a whole (sidecar/publish/render.py).
_TAG_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


class NotLogicLessError(ValueError):
    """Our templates cannot express this one; the message says why and never repeats it."""


@dataclass(frozen=True, slots=True)
class Key:
    """One value of the secret. `under_data` as written: `.Data.data.KEY`, which is where KV version 2 has its keys."""

    name: str
    under_data: bool


@dataclass(frozen=True, slots=True)
class Template:
    """The secret's API path and the printed parts in order: texts, keys, the whole secret (a Key without a name)."""

    path: str
    output: tuple[str | Key, ...]

    @property
    def keys(self) -> tuple[Key, ...]:
        """The keys that are printed."""
        return tuple(each for each in self.output if isinstance(each, Key))

    @property
    def single(self) -> str | None:
        """The key when its value is all that is printed; empty for the whole secret as JSON; else None."""
        if len(self.output) == 1 and isinstance(self.output[0], Key):
            return self.output[0].name
        return None

    def mustache(self) -> str:
        """As our `template-NAME`, unescaped as Go's text/template prints."""
        text = ""
        for index, each in enumerate(self.output):
            if isinstance(each, str):
                text += each
                continue
            following = self.output[index + 1 : index + 2]
            touches = text.endswith("{") or (following and isinstance(following[0], str) and following[0][0] == "}")
            if not _TAG_NAME.fullmatch(each.name) or touches:
                raise NotLogicLessError("has a key, or braces around one, that a logic-less template cannot write")
            text += "{{{" + each.name + "}}}"
        return text


def parse(text: str) -> Template:
    """Read a template. Raises NotLogicLessError with every reason."""
    path: str | None = None
    inside = False
    depth = 0
    output: list[str | Key] = []
    problems: dict[str, None] = {}
    for literal, action in _pieces(text):
        if literal and output and isinstance(output[-1], str):
            output[-1] += literal
        elif literal:
            output.append(literal)
        if action is None or _COMMENT.fullmatch(action):
            continue
        opened = _WITH.fullmatch(action)
        if opened and not inside:
            named = opened[1] or opened[2]
            if path not in (None, named):
                problems["reads more than one secret; write one secret-NAME for each"] = None
            path, inside = named, True
        elif action == "end" and depth:
            depth -= 1
        elif action == "end" and inside:
            inside = False
        elif inside and (key := _key(action)):
            output.append(key)
        else:
            depth += bool(_BLOCK.match(action))
            problems["uses loops, conditions or functions; logic-less templates have none"] = None
    if path is None or inside:
        problems['has no closed {{ with secret "PATH" }} in it'] = None
    if path is None or problems:
        raise NotLogicLessError("; it ".join(problems))
    return Template(path, tuple(output))


def _pieces(text: str) -> list[tuple[str, str | None]]:
    """(text, the action after it) pairs, trim markers applied; the last one has no action."""
    pieces: list[tuple[str, str | None]] = []
    at, trim = 0, False
    for match in _ACTION.finditer(text):
        literal = text[at : match.start()]
        literal = literal.lstrip(_SPACE) if trim else literal
        literal = literal.rstrip(_SPACE) if match[1] else literal
        pieces.append((literal, match[2].strip()))
        at, trim = match.end(), match[3] is not None
    literal = text[at:]
    pieces.append((literal.lstrip(_SPACE) if trim else literal, None))
    return pieces


def _key(action: str) -> Key | None:
    if match := _FIELD.fullmatch(action):
        return Key(match[2], match[1] is not None)
    if match := _INDEX.fullmatch(action):
        return Key(match[2] or match[3], match[1] is not None)
    if match := _WHOLE.fullmatch(action):
        return Key("", match[1] is not None)
    return None
