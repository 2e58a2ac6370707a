"""A small kubelet: runs one pod's containers as processes, once, in a kubelet's order. `python -m demo.kubelet`

Runs inside the pod's mount namespace, so that its mounts and memory volumes end with it: init containers one by one,
each to its end; native sidecars among them up to the end of their hook and their startup probe; then the containers;
then the sidecars are stopped in reverse order. The pod and what the node has come as JSON on stdin, what happened goes
as JSON to stdout. What it has not got is named, never passed over: see `not_applied`.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from demo import mounts
from demo.container import Container, Ended, Surroundings
from demo.image import Image
from demo.volumes import UnsupportedError, make_volumes

_POD_SECONDS = 90


def main() -> int:
    """One pod."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.umask(0o022)  # the containers' users read the files made here
    job = json.load(sys.stdin)
    try:
        result = {"containers": [asdict(each) for each in run_pod(job)], "not_applied": not_applied(job)}
    except UnsupportedError as error:
        result = {"problem": str(error)}
    except subprocess.TimeoutExpired:
        result = {"problem": f"the pod did not finish within {_POD_SECONDS} s"}
    except subprocess.CalledProcessError as error:
        result = {"problem": f"{' '.join(error.cmd)}: {error.stderr.strip()}"}
    json.dump(result, sys.stdout)
    return 0


def run_pod(job: dict[str, Any]) -> list[Ended]:
    """How each container exited, in order; none after an init container that failed."""
    pod, folder = job["pod"], Path(job["folder"])
    mounts.tmpfs(folder, 0o755)
    fs_group = (pod["spec"].get("securityContext") or {}).get("fsGroup") if job["maps_users"] else None
    volumes = make_volumes(pod, folder / "volumes", job["tokens"], fs_group)
    around = Surroundings(pod, volumes, job["devices"], job["maps_users"])
    deadline = time.monotonic() + _POD_SECONDS
    ended: list[Ended] = []
    with _stopped_in_the_end(pod, ended) as running:
        for spec in pod["spec"].get("initContainers") or ():
            container = _start(spec, job, around)
            running.append(container)
            if spec.get("restartPolicy") == "Always":
                _run_hook(spec, container, deadline)
                _await_startup(spec, container, deadline)
                continue
            ended.append(container.wait(deadline - time.monotonic()))
            running.remove(container)
            if ended[-1].exit_code != 0:
                return ended
        sidecars = len(running)
        running += [_start(spec, job, around) for spec in pod["spec"]["containers"] if spec["image"] in job["images"]]
        for container in running[sidecars:]:
            ended.append(container.wait(deadline - time.monotonic()))
            running.remove(container)
    return ended


def not_applied(job: dict[str, Any]) -> list[str]:
    """Fields of the pod that mean nothing here."""
    spec = job["pod"]["spec"]
    containers = [*(spec.get("initContainers") or ()), *spec["containers"]]
    security = [spec.get("securityContext") or {}, *(each.get("securityContext") or {} for each in containers)]
    found = ["runtimeClassName"] if spec.get("runtimeClassName") else []
    if any(each.get("resources") for each in containers):
        found.append("resources")
    names = ["seccompProfile"] if job["maps_users"] else ["seccompProfile", "runAsUser", "fsGroup"]
    found += [name for name in names if any(each.get(name) is not None for each in security)]
    found += [f"container {each['name']} (no image here)" for each in containers if each["image"] not in job["images"]]
    return found


@contextlib.contextmanager
def _stopped_in_the_end(pod: dict[str, Any], ended: list[Ended]) -> Iterator[list[Container]]:
    """What still runs is stopped, the last first: native sidecars, and everything when something went wrong."""
    running: list[Container] = []
    try:
        yield running
    finally:
        grace = pod["spec"].get("terminationGracePeriodSeconds", 30)
        ended += [container.stop(grace) for container in reversed(running)]


def _start(spec: dict[str, Any], job: dict[str, Any], around: Surroundings) -> Container:
    if spec["image"] not in job["images"]:
        raise UnsupportedError(f"no image {spec['image']} on this machine")
    image = Image.from_dict(job["images"][spec["image"]])
    return Container(spec, image, Path(job["folder"]) / "containers" / spec["name"], around)


def _run_hook(spec: dict[str, Any], container: Container, deadline: float) -> None:
    """Nothing starts before the hook after a native sidecar's start has ended."""
    hook = ((spec.get("lifecycle") or {}).get("postStart") or {}).get("exec")
    if hook is not None and container.run(hook["command"], deadline - time.monotonic()) != 0:
        raise UnsupportedError(f"the hook after the start of {container.name} failed, and nothing is retried here")


def _await_startup(spec: dict[str, Any], container: Container, deadline: float) -> None:
    """A native sidecar counts as started when its startup probe has succeeded; without one, at once."""
    probe = spec.get("startupProbe")
    if probe is None:
        return
    for _ in range(probe.get("failureThreshold", 3)):
        if _answers(probe["httpGet"], probe.get("timeoutSeconds", 1)):
            return
        if container.process.poll() is not None or time.monotonic() > deadline:
            break
        time.sleep(probe.get("periodSeconds", 10))
    raise UnsupportedError(f"native sidecar {container.name} did not start, and is not started again here")


def _answers(probe: dict[str, Any], seconds: float) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", probe["port"], timeout=seconds)
    try:
        connection.request("GET", probe.get("path", "/"))
        return 200 <= connection.getresponse().status < 400
    except OSError:
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
