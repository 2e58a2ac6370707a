"""A node that pods are run on: its devices, its images, and the kubelet's process for each pod."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from demo import interrupts
from demo.container import Ended
from demo.image import Image
from demo.namespace import Namespace
from demo.process import ROOT
from demo.tokens import Issuer
from demo.transcript import UnexpectedError

_SECONDS = 120


@dataclass(frozen=True)
class Ran:
    """What became of a pod: the containers that ran, in order, and what of the pod could not be applied."""

    containers: tuple[Ended, ...]
    not_applied: tuple[str, ...]


@dataclass(frozen=True)
class Node:
    """`devices`: path in a guest → path here; a node without SNP has none. `images` by name."""

    folder: Path
    namespace: Namespace
    issuer: Issuer
    images: dict[str, Image]
    devices: dict[str, Path] = field(default_factory=dict)

    def run(self, pod: dict[str, Any], account: str | None = None) -> Ran:
        """Run the pod until it exits. `account`: whose tokens it gets instead of its own. Raises UnexpectedError."""
        pod = {**pod, "metadata": {**pod["metadata"]}}
        # The API server adds these to a pod that it stores.
        pod["metadata"].setdefault("name", pod["metadata"].get("generateName", "pod-") + uuid4().hex[:5])
        pod["metadata"].setdefault("uid", str(uuid4()))
        folder = self.folder / pod["metadata"]["uid"]
        folder.mkdir(parents=True)
        answer = self._kubelet(
            {
                "pod": pod,
                "folder": str(folder),
                "maps_users": self.namespace.maps_users,
                "tokens": self._tokens(pod, account),
                "devices": {path: str(source) for path, source in self.devices.items()},
                "images": {name: image.as_dict() for name, image in self.images.items()},
            }
        )
        if "problem" in answer:
            raise UnexpectedError(f"the pod could not be run: {answer['problem']}")
        return Ran(tuple(Ended(**each) for each in answer["containers"]), tuple(answer["not_applied"]))

    def _tokens(self, pod: dict[str, Any], account: str | None) -> dict[str, str]:
        """A token per projection in the pod, as a kubelet requests them from the API server."""
        found = {}
        for volume in pod["spec"].get("volumes") or ():
            for source in volume.get("projected", {}).get("sources", ()):
                if projection := source.get("serviceAccountToken"):
                    found[f"{volume['name']}/{projection['path']}"] = self.issuer.token(pod, projection, account)
        return found

    def _kubelet(self, job: dict[str, Any]) -> dict[str, Any]:
        # A signal when the demo itself is killed: nothing of a pod may outlive it.
        command = [*self.namespace.prefix, "setpriv", "--pdeathsig=TERM", sys.executable, "-m", "demo.kubelet"]
        process = None
        try:
            with interrupts.held():
                process = subprocess.Popen(  # noqa: S603 - our own command
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    cwd=ROOT,
                    text=True,
                    start_new_session=True,
                )
            output, errors = process.communicate(json.dumps(job), timeout=_SECONDS)
        except BaseException:
            if process is not None:
                process.send_signal(signal.SIGTERM)
                process.communicate()
            raise
        if process.returncode != 0:
            raise UnexpectedError(f"the kubelet exited with {process.returncode}: {errors.strip()[-500:]}")
        answer: dict[str, Any] = json.loads(output)
        return answer
