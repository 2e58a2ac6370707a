"""The three images: the locked packages, the modules to start from, and the launcher of each."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
# Isolated from PYTHON* variables and the working directory, and without `site`, which only a person's Python needs.
SHEBANG = f"#!/usr/bin/{PYTHON} -IS"
# The standard library comes first: nothing installed can stand in for it.
PACKAGES = "/usr/lib/morphisms"

_START = f"""\
{SHEBANG}
import sys

sys.path.append("{PACKAGES}")
"""

_INIT = (
    _START
    + """\
import gc

gc.disable()  # while modules are loaded: none of what they make is garbage; `run` enables it again

from sidecar.main import main

main()
"""
)


def _command(*names: str) -> str:
    """`morphisms` with the commands that this image has the modules of."""
    return (
        _START
        + f"""\
from cli import main

main.COMMANDS = { ({name: f"cli.commands.{name}" for name in names})!r}
sys.exit(main.main())
"""
    )


@dataclass(frozen=True, slots=True)
class Target:
    """One image: packages locked by hash in `requirements`; of ours, `modules`, what they import, and nothing else."""

    name: str
    requirements: str
    modules: tuple[str, ...]
    entrypoint: str
    launcher: str
    exec_helper: bool = False


TARGETS: Mapping[str, Target] = {
    target.name: target
    for target in (
        Target(
            "webhook",
            "requirements/webhook.txt",
            ("cli.main", "cli.commands.webhook", "cli.commands.scanner"),
            "usr/bin/morphisms",
            _command("webhook", "scanner"),
        ),
        Target(
            "verifier",
            "requirements/verifier.txt",
            # The records are in the verifier's own folder, so its operator reads them there.
            ("cli.main", "cli.commands.verifier", "cli.commands.explain"),
            "usr/bin/morphisms",
            _command("verifier", "explain"),
        ),
        Target(
            "sidecar",
            "requirements/sidecar.txt",
            ("sidecar.main",),
            "usr/bin/morphisms-init",
            _INIT,
            exec_helper=True,
        ),
    )
}
