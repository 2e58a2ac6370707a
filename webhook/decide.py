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
from webhook.modes import Mode
from webhook.pod.schema import validate_metadata_shape, validate_pod_shape
from webhook.request import Request
from webhook.rules import BY_ID
from webhook.snapshot import Lookup, Snapshot
from webhook.wellknown import KNATIVE_GROUP
from webhook.workload_name import workload_name


@dataclass(frozen=True, slots=True)
class Path:
    """One path: the kinds it accepts, how an object's shape is validated, the handler, and the look-up it needs."""

    kinds: frozenset[tuple[str, str, str]]
    validate: Callable[[dict[str, Any]], None]
    decide: Callable[[Request, Configuration, Snapshot | None, Mode], Decision]
    needs: Callable[[Request, Configuration, Snapshot, Mode], Lookup | None] | None = None


def _validate_metadata(item: dict[str, Any]) -> None:
    validate_metadata_shape(item, "object")


_PODS: Final = frozenset({("", "v1", "Pod")})

PATHS: Final[dict[str, Path]] = {
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

_CLUSTER_DEPENDENT: Final = ",".join(rule.id for rule in BY_ID.values() if rule.needs_cluster)


def decide(
    request: Request, configuration: Configuration, snapshot: Snapshot | None, *, offline_mode: Mode = Mode.INJECT
) -> Decision:
    """The decision on one request. Without a snapshot the namespace's mode is `offline_mode`.

    A request of the wrong kind or shape is refused with a message. Raises nothing.
    """
    path = PATHS.get(request.path)
    if path is None:
        return refuse(
            f"unknown path {printable(request.path[:100])}; known paths: {', '.join(sorted(PATHS))}", 404, "NotFound"
        )
    if request.kind not in path.kinds:
        return refuse(f"{request.path} accepts {_names(path.kinds)}; got {_name(request.kind)}", 400, "BadRequest")
    mode = mode_of_request(request, snapshot, offline_mode)
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
    more = {} if snapshot is not None else {"not-evaluated": _CLUSTER_DEPENDENT}
    if workload := str(workload_name(request)):
        more["workload"] = workload
    return replace(decision, audit={**decision.audit, **more}) if more else decision


def lookup(request: Request, configuration: Configuration, snapshot: Snapshot) -> Lookup | None:
    """What the decision on this request needs besides the snapshot; None for nothing, which is the rule.

    The caller looks it up and hands `decide` the snapshot `with_fetched` of it.
    """
    path = PATHS.get(request.path)
    if path is None or path.needs is None or request.kind not in path.kinds:
        return None
    try:
        path.validate(request.object or {})
        return path.needs(request, configuration, snapshot, snapshot.mode_of(request.namespace))
    except (MalformedError, RecursionError):  # `decide` refuses it and says why
        return None


def mode_of_request(request: Request, snapshot: Snapshot | None, offline_mode: Mode = Mode.INJECT) -> Mode:
    """The mode of the request's namespace."""
    return offline_mode if snapshot is None else snapshot.mode_of(request.namespace)


def _names(kinds: frozenset[tuple[str, str, str]]) -> str:
    return " or ".join(_name(kind) for kind in sorted(kinds))


def _name(kind: tuple[str, str, str]) -> str:
    group, version, name = (part[:63] for part in kind)
    return f"{group}/{version} {name}" if group else f"{version} {name}"
