"""Running the tools that build an image; none of their arguments comes from outside the checkout."""

from __future__ import annotations

import subprocess


def run(*command: str) -> None:
    """Its output is the reader's; raises CalledProcessError."""
    subprocess.run(command, check=True)  # noqa: S603


def output(*command: str) -> str:
    """Standard output without the last newline; raises CalledProcessError."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()  # noqa: S603


def succeeds(*command: str) -> bool:
    """Whether it is installed and exits with 0; silently."""
    try:
        return subprocess.run(command, check=False, capture_output=True).returncode == 0  # noqa: S603
    except FileNotFoundError:
        return False
