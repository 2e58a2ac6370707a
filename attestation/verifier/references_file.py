"""The signed reference values of the KMS, as the verifier hands them to guests: exactly the file's text.

The verifier does not know the signer's key, so it checks the form alone; each guest checks the rest.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Final

from kbs.attested import MAX_REFERENCES_SIZE
from server.files import UnusableInputError, read_bounded
from server.yaml.strict import ConfigurationError, Loaded

_COMPACT: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{86}")


def load_references_file(path: Path) -> Loaded[str]:
    """The compact JWS, without the line's end. Raises ConfigurationError."""
    try:
        text = read_bounded(path, MAX_REFERENCES_SIZE + 2).decode("ascii").strip()
    except UnusableInputError as error:
        raise ConfigurationError([str(error)]) from None
    except UnicodeDecodeError:
        text = ""
    if not _COMPACT.fullmatch(text) or len(text) > MAX_REFERENCES_SIZE:
        raise ConfigurationError([f"{path}: is not a compact JWS by ES256, as `morphisms kms references` writes it"])
    return Loaded(text, hashlib.sha256(text.encode()).hexdigest())
