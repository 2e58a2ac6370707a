"""The KMS's reference values, issued: what guests compare a verifier with, signed, with a serial that only grows."""

from __future__ import annotations

from pathlib import Path

from joserfc.jwk import ECKey
from pydantic import RootModel

from kbs.attested import MAX_REFERENCES_SIZE
from kbs.references import References, ReferencesError, read_references
from kbs.references_signing import signer_of, write_references
from kbs.verifier_attest import KmsGuest
from server.files import UnusableInputError, read_bounded
from server.verifier_attest import KmsGuestEntry
from server.yaml.strict import load


class KmsGuestFile(RootModel[dict[str, KmsGuestEntry]]):
    """Guests that run the verifier, by name."""


def read_guests(paths: list[Path]) -> tuple[KmsGuest, ...]:
    """The guests of all files, in the order of their names. Raises ConfigurationError, UnusableInputError."""
    found: dict[str, KmsGuest] = {}
    for path in paths:
        for name, entry in load(path, KmsGuestFile).value.root.items():
            if name in found:
                raise UnusableInputError(f"{path}: {name} is in another file too; name it once")
            found[name] = entry.kms_guest(name)
    return tuple(found[name] for name in sorted(found))


def issue(
    guests: tuple[KmsGuest, ...], configurations: frozenset[bytes], serial: int, key: ECKey, previous: str | None
) -> str:
    """The signed text. `previous`: the issue before, by the same key. Raises UnusableInputError."""
    if previous is not None:
        try:
            before = read_references(previous, signer_of(key))
        except ReferencesError as error:
            raise UnusableInputError(
                f"the previous issue: {error}; if the key is a new one, write to another file without --previous"
            ) from None
        if serial <= before.serial:
            raise UnusableInputError(
                f"--serial {serial} is not above {before.serial}, the previous issue's: guests that saw that one would"
                f" go on to take it; write --serial {before.serial + 1}"
            )
    try:
        return write_references(References(serial, guests, configurations), key)
    except ReferencesError as error:
        raise UnusableInputError(str(error)) from None


def read_issue(path: Path) -> str:
    """The text of an issue. Raises UnusableInputError."""
    return read_bounded(path, MAX_REFERENCES_SIZE + 2).decode("ascii", "replace").strip()
