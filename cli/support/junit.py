"""Parts of JUnit's XML, which CI servers show."""

from __future__ import annotations

from xml.etree import ElementTree


def xml_document(root: ElementTree.Element) -> str:
    """The document as text."""
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def xml_text(value: str) -> str:
    """The text without the characters that XML 1.0 has no form for."""
    return "".join(each if each in "\n\t" or each.isprintable() else "?" for each in value)
