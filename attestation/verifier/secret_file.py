"""Files that hold a secret: only their owner may read them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from server.files import UnusableInputError, read_stream
from server.yaml.strict import ConfigurationError

_MAX_SIZE = 8192


def read_secret_file(path: Path, limit: int = _MAX_SIZE) -> bytes:
    """A file that only its owner may read. Raises ConfigurationError that says what to do."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            _check_mode(path, status)
            return read_stream(file, str(path), limit)
    except OSError as error:
        raise ConfigurationError([f"{path}: cannot be read: {error.strerror}"]) from None
    except UnusableInputError as error:
        raise ConfigurationError([str(error)]) from None


def _check_mode(path: Path, status: os.stat_result) -> None:
    mode = stat.S_IMODE(status.st_mode)
    # With fsGroup the kubelet makes a Secret's 0400 file of root's into 0440 for the pod's own group.
    is_kubelets = mode == 0o440 and status.st_uid == 0 and os.getuid() != 0
    if mode != 0o400 and not is_kubelets:
        raise ConfigurationError([f"{path}: has mode {mode:04o}, required 0400; chmod 400 it"])
