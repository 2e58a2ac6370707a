"""What goes wrong with a registry; each message is one line and holds no credentials."""

from __future__ import annotations


class RegistryError(Exception):
    """A registry's answer, a reference or the caller's own settings cannot be used."""


class UnreachableError(RegistryError):
    """No answer, or none in time: another attempt may succeed."""
