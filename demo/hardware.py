"""The simulated machine: `morphisms simulated-hardware`, the one part of the demo that is not real."""

from __future__ import annotations

from pathlib import Path

from demo.process import Process, morphisms

# Where the guest finds it, as a real one finds /dev/sev-guest. The webhook's profile names it.
DEVICE = "/dev/simulated-sev-guest"
EVIDENCE = f"unix:{DEVICE}"


class Hardware(Process):
    """One chip in `folder` (shared by all that use it), and a guest on it that answers at `socket`.

    `options` are the command's own, such as --tamper.
    """

    def __init__(self, folder: Path, name: str, *options: str) -> None:
        self.root = folder / "root.pem"
        self.crls = folder / "crls"
        self.socket = folder / f"{name}.sock"
        self.address = f"unix:{self.socket}"
        # From inside its folder: a socket's path has a hundred characters, and a temporary folder may take them all.
        command = morphisms("simulated-hardware", "--dir", ".", "--listen", f"./{name}.sock", *options)
        super().__init__("the simulated machine", command, folder.parent / f"{name}.log", folder=folder)

    def ready(self) -> None:
        self.measurement = self.await_line(r"measurement +([0-9a-f]{96})\n")[1]
        # The guest's processes run as other users; the demo's folder keeps everyone else out.
        self.socket.chmod(0o666)
