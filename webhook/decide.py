"""`decide(request, configuration, snapshot) -> decision`: pure, and the same for the server and the commands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from server.text import printable
from webhook.admission import (
    mutate_pod,
    mutate_service,
    validate_binding,
    validate_connect,
    validate_namespace,
    validate_pod,
    validate_service,
)
from webhook.admission.knative_template import validate_template_owner_shape
from webhook.configuration.model import Configuration
from webhook.decision import Decision, refuse
from webhook.errors import MalformedError
from webhook.modes import Mode, stricter
from webhook.pod.schema import validate_metadata_shape, validate_pod_shape
from webhook.request import Request
from webhook.rules import BY_ID
from webhook.snapshot import Lookup, Snapshot
from webhook.wellknown import KNATIVE_GROUP
from webhook.workload_name import workload_text


@dataclass(frozen=True, slots=True)
class Path:
    """One path: the kinds it accepts, how an object's shape is validated, the handler, and the look-up it needs.

    `mode` is the mode that the path says the namespace has; None for a path that says none. `family` is the path
    without the mode.
    """

    kinds: frozenset[tuple[str, str, str]]
    validate: Callable[[dict[str, Any]], None]
    decide: Callable[[Request, Configuration, Snapshot | None, Mode], Decision]
    needs: Callable[[Request, Configuration, Snapshot, Mode], Lookup | None] | None = None
    family: str = ""
    mode: Mode | None = None


def _validate_metadata(item: dict[str, Any]) -> None:
    validate_metadata_shape(item, "object")


_PODS: Final = frozenset({("", "v1", "Pod")})

_FAMILIES: Final[dict[str, Path]] = {
    "/mutate/service": Path(
        frozenset({(KNATIVE_GROUP, "v1", "Service")}), validate_template_owner_shape, mutate_service.decide
    ),
    "/validate/service": Path(
        frozenset((KNATIVE_GROUP, "v1", kind) for kind in ("Service", "Configuration", "Revision")),
        validate_template_owner_shape,
        validate_service.decide,
    ),
    "/mutate/pod": Path(_PODS, validate_pod_shape, mutate_pod.decide),
    "/validate/pod": Path(_PODS, validate_pod_shape, validate_pod.decide),
    "/validate/binding": Path(
        frozenset({("", "v1", "Binding")}), _validate_metadata, validate_binding.decide, needs=validate_binding.needs
    ),
    "/validate/connect": Path(
        frozenset(("", "v1", f"Pod{name}Options") for name in ("Exec", "Attach", "PortForward")),
        _validate_metadata,
        validate_connect.decide,
    ),
    "/validate/namespace": Path(
        frozenset({("", "v1", "Namespace")}),
        _validate_metadata,
        validate_namespace.decide,
        needs=validate_namespace.needs,
    ),
}


def _paths() -> dict[str, Path]:
    """Each family by itself, and with each mode as a last segment.

    The registration of this release calls the paths with a mode, that of the release before the ones without, and both
    are answered: an upgrade changes the servers first, and the registration afterwards. What is asked about a namespace
    itself has no mode in its path, because the request is about the mode.
    """
    paths = {}
    for family, path in _FAMILIES.items():
        paths[family] = replace(path, family=family)
        for mode in Mode if family != "/validate/namespace" else ():
            paths[f"{family}/{mode.path_segment}"] = replace(path, family=family, mode=mode)
    return paths


PATHS: Final = _paths()
"""Every path that the server answers. Any other one, also with an unknown mode, is an unknown path (404)."""

_CLUSTER_DEPENDENT: Final = ",".join(rule.id for rule in BY_ID.values() if rule.needs_cluster)


def decide(
    request: Request, configuration: Configuration, snapshot: Snapshot | None, *, offline_mode: Mode = Mode.INJECT
) -> Decision:
    """The decision on one request. Without a snapshot the namespace's mode is that of the path, or `offline_mode`.

    A request of the wrong kind or shape is refused with a message. Raises nothing.
    """
    path = PATHS.get(request.path)
    if path is None:
        return refuse(
            f"unknown path {printable(request.path[:100])}; known paths: {', '.join(sorted(_FAMILIES))}; all but"
            " /validate/namespace also with a mode at the end: none, audit, inject, enforce",
            404,
            "NotFound",
        )
    if request.kind not in path.kinds:
        return refuse(f"{request.path} accepts {_names(path.kinds)}; got {_name(request.kind)}", 400, "BadRequest")
    mode = _mode(path, request, snapshot, offline_mode)
    try:
        if request.object is not None:
            if request.object.get("kind", request.kind[2]) != request.kind[2]:
                raise MalformedError("object.kind: differs from the request's kind")
            path.validate(request.object)
        decision = path.decide(request, configuration, snapshot, mode)
    except MalformedError as error:
        return refuse(str(error), 400, "BadRequest")
    except RecursionError:
        # The one place for all paths: what walks an object by recursion ends here, and the request is not admitted.
        return refuse("object: nested too deeply to be evaluated; remove the nested field", 400, "BadRequest")
    audit = decision.audit  # the decision was made for this request, and nothing else has it yet
    if snapshot is None:
        audit["not-evaluated"] = _CLUSTER_DEPENDENT
    if workload := workload_text(request):
        audit["workload"] = workload
    return decision


def lookup(request: Request, configuration: Configuration, snapshot: Snapshot) -> Lookup | None:
    """What the decision on this request needs besides the snapshot; None for nothing, which is the rule.

    The caller looks it up and hands `decide` the snapshot `with_fetched` of it.
    """
    path = PATHS.get(request.path)
    if path is None or path.needs is None or request.kind not in path.kinds:
        return None
    try:
        path.validate(request.object or {})
        return path.needs(request, configuration, snapshot, _mode(path, request, snapshot, Mode.INJECT))
    except (MalformedError, RecursionError):  # `decide` refuses it and says why
        return None


def _mode(path: Path, request: Request, snapshot: Snapshot | None, offline_mode: Mode) -> Mode:
    """The mode of the request's namespace: the stricter of what the path says and what the snapshot says.

    The API server chose the path by the label of the moment. The snapshot may lag behind, or be cut off, so it can
    tighten what the path says and never loosen it. A namespace that is not in it counts by the path alone.
    """
    if path.mode is None:
        return offline_mode if snapshot is None else snapshot.mode_of(request.namespace)
    seen = None if snapshot is None else snapshot.namespaces.get(request.namespace)
    return path.mode if seen is None else stricter(path.mode, seen)


def _names(kinds: frozenset[tuple[str, str, str]]) -> str:
    return " or ".join(_name(kind) for kind in sorted(kinds))


def _name(kind: tuple[str, str, str]) -> str:
    group, version, name = (part[:63] for part in kind)
    return f"{group}/{version} {name}" if group else f"{version} {name}"
