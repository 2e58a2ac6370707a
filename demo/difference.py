"""The pod before and after, reduced to the fields that the demo is about. `morphisms inject` prints it whole."""

from __future__ import annotations

import difflib
import json
from typing import Any

from cli.support.terminal import CYAN, GREEN, RED, coloured
from plan.layout import PLAN_VARIABLE
from server.yaml.kubernetes import write_documents

_COLOURS = {"+": GREEN, "-": RED, "@": CYAN}
_OURS = "morphisms"


def difference(before: dict[str, Any], after: dict[str, Any], *, colour: bool) -> str:
    """A unified diff. Nothing is masked: the reviews of the demo hold references, no secrets."""
    old, new = (write_documents([_essence(pod)]).splitlines() for pod in (before, after))
    lines = list(difflib.unified_diff(old, new, n=1, lineterm=""))[2:]
    return "\n".join(
        "   " + coloured(line, _COLOURS.get(line[:1], ""), wanted=colour and line[:1] in _COLOURS)
        for line in lines
        if not line.startswith("@@")
    )


def _essence(pod: dict[str, Any]) -> dict[str, Any]:
    spec = pod["spec"]
    essence = {
        "annotations": _annotations(pod["metadata"].get("annotations") or {}),
        "runtimeClassName": spec.get("runtimeClassName"),
        "nodeAffinity": _requirements(spec),
        "fsGroup": (spec.get("securityContext") or {}).get("fsGroup"),
        "volumes": [_volume(each) for each in spec.get("volumes") or () if each["name"].startswith(_OURS)],
        "initContainers": [_container(each) for each in spec.get("initContainers") or ()],
        "containers": [_container(each) for each in spec["containers"]],
    }
    return {name: value for name, value in essence.items() if value}


def _annotations(annotations: dict[str, str]) -> dict[str, str]:
    ours = {name: value for name, value in annotations.items() if name.startswith(_OURS)}
    if status := ours.get(f"{_OURS}.dev/status"):
        ours[f"{_OURS}.dev/status"] = f"profile {json.loads(status)['profile']}, …"
    return ours


def _requirements(spec: dict[str, Any]) -> list[str]:
    node = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    terms = node.get("requiredDuringSchedulingIgnoredDuringExecution", {}).get("nodeSelectorTerms") or ()
    return [
        f"{each['key']} {each['operator']} {each.get('values')}" for term in terms for each in term["matchExpressions"]
    ]


def _volume(volume: dict[str, Any]) -> str:
    if "emptyDir" in volume:
        return f"{volume['name']}: emptyDir in memory, {volume['emptyDir']['sizeLimit']}"
    token = volume["projected"]["sources"][0]["serviceAccountToken"]
    return f"{volume['name']}: token for {token['audience']}, {token['expirationSeconds']} s"


def _container(container: dict[str, Any]) -> dict[str, Any]:
    """The pod without the fields that admission leaves alone and the demo is not about."""
    essence = {
        "name": container["name"],
        "command": " ".join(container.get("command") or ()),
        "env": _environment(container),
        "mounts": [_mount(each) for each in container.get("volumeMounts") or () if each["name"].startswith(_OURS)],
    }
    if container["name"].startswith(_OURS):
        essence["image"] = container["image"]
        essence["user"] = container["securityContext"]["runAsUser"]
    return {name: value for name, value in essence.items() if value}


def _mount(mount: dict[str, Any]) -> str:
    return f"{mount['name']} at {mount['mountPath']}" + (", read only" if mount.get("readOnly") else "")


def _environment(container: dict[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for variable in container.get("env") or ():
        value = variable.get("value", "")
        if variable["name"] == PLAN_VARIABLE:
            shown[PLAN_VARIABLE] = _plan(json.loads(value))
        elif "vault:" in value:
            shown[variable["name"]] = value
    return shown


def _plan(plan: dict[str, Any]) -> dict[str, Any]:
    variables = [f"{each['name']} = {each.get('value') or each['path'] + '#' + each['key']}" for each in plan["env"]]
    return {
        "evidence": [f"{each['name']} at {each['address']}" for each in plan["evidence"]],
        "verifier": plan["verifier"]["url"],
        "vault": plan["vault"]["url"],
        "files": [f"{each['file']} = {each['path']}#{each['key']}" for each in plan["secrets"]],
        "variables": variables,
    }
