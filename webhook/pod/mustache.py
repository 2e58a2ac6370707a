"""Checks the tags of a `template-NAME` annotation, so that its author learns of an error before a pod fails on it.

The sidecar renders with a library that admission does not need; tests compare the two.
"""

from __future__ import annotations


def template_problem(template: str) -> str | None:
    """What is wrong with a mustache template, whatever its secret holds; None for nothing. Repeats no text of it.

    A template that sets its own delimiters is left to the renderer.
    """
    if "{{=" in template:
        return None
    sections: list[str] = []
    position = 0
    while (start := template.find("{{", position)) >= 0:
        end = template.find("}}", start + 2)
        if end < 0:
            return "has a tag that is never closed"
        tag, position = template[start + 2 : end], end + 2
        kind, name = tag[:1], tag[1:].strip()
        if not tag:
            return "has a tag without a name"
        if kind == "{":
            if not template.startswith("}", position):
                return "has a tag of three braces that is closed by two"
            position += 1
        elif kind == ">":
            return "uses a partial, which is not supported"
        elif kind in "#^":
            sections.append(name)
        elif kind == "/" and (not sections or sections.pop() != name):
            return "closes a section that is not the last one opened"
    return "has a section that is never closed" if sections else None
