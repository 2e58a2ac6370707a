"""Where copies of a moved value remain: in the file itself, and in the cluster and around it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

from cli.migration.moves import Move
from server.text import printable
from webhook.pod.container import display_name
from webhook.pod.workloads import knative_kind, workload_of

# A shorter text, such as `test`, stands in many places by chance.
_SHORTEST: Final = 6
_EVERYWHERE: Final = (
    "the history of the file, such as Git's, and what CI keeps of it",
    "backups of etcd, and the API server's audit log where it records requests",
    "Helm's release Secrets (sh.helm.release.v1.*), where Helm applied the manifest",
)


def in_text(text: str, moves: Sequence[Move]) -> Iterator[tuple[int, str]]:
    """(line, variable) of each line of the new manifest that still holds a moved value, plain or in base64."""
    lines = text.splitlines()
    seen = set()
    for move in moves:
        forms = [form for value in {move.value, move.written} for form in _forms(value)]
        for number, line in enumerate(lines, 1):
            if any(form in line for form in forms) and (number, move.variable) not in seen:
                seen.add((number, move.variable))
                yield number, display_name(move.variable)


def _forms(value: str) -> list[str]:
    """How a line may spell the value; a text of several lines is looked for by its longest one."""
    longest = max(value.splitlines() or [""], key=len).strip()
    if len(longest) < _SHORTEST:
        return []
    return [longest, json.dumps(longest)[1:-1], base64.b64encode(value.encode()).decode()]


def in_cluster(objects: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What a cluster that ran these objects before keeps, and what removes it."""
    for item in objects:
        metadata = item.get("metadata") or {}
        name, namespace = printable(str(metadata.get("name") or "")), printable(str(metadata.get("namespace") or ""))
        at = f" -n {namespace}" if namespace else ""
        kind = str(item.get("kind"))
        if knative_kind(item) is not None:
            yield (
                f"{kind} {name}: its former Revisions, with their Deployments and ReplicaSets: once no traffic goes to"
                f" them, `kubectl delete revision{at} REVISION` (`kubectl get revisions{at} -l"
                f" serving.knative.dev/service={name}` lists them)"
            )
        elif workload_of(item) is not None:
            yield f"{kind} {name}: {_KEEPS.get(kind, 'pods that run until they are replaced')}"
    yield from _EVERYWHERE


_REVISIONS: Final = "ControllerRevisions of former templates: `kubectl get controllerrevisions` lists them"
_KEEPS: Final = {
    "Deployment": "ReplicaSets of former templates: `kubectl get replicasets` lists them; delete those without pods",
    "StatefulSet": _REVISIONS,
    "DaemonSet": _REVISIONS,
    "CronJob": "former Jobs and their pods: `kubectl get jobs` lists them",
    "Job": "the former Job and its pods: delete it",
}
