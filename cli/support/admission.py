"""Admission of one object, offline, in the steps of the API server."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final

from webhook.configuration.model import Configuration
from webhook.decide import decide
from webhook.decision import Decision, as_warnings
from webhook.errors import MalformedError
from webhook.request import Request, User
from webhook.snapshot import Snapshot
from webhook.wellknown import KNATIVE_GROUP

# A user who may apply manifests and has no further rights.
AUTHOR: Final = User("author", ("system:authenticated",))


@dataclass(frozen=True, slots=True)
class Admitted:
    """The object as stored, or why it is refused. `warnings`: what `kubectl` would show; `reason`: a short word."""

    object: dict[str, Any]
    reason: str
    changed: bool
    warnings: tuple[str, ...] = ()
    denial: str | None = None


@dataclass(frozen=True, slots=True)
class Admission:
    """The admission of a cluster with this configuration; without a snapshot every namespace is of mode inject."""

    configuration: Configuration
    snapshot: Snapshot | None = None

    def pod(self, pod: dict[str, Any], namespace: str, user: User = AUTHOR) -> Admitted:
        """Create a pod, or one from a pod template. Raises MalformedError."""
        return self._create(pod, namespace, user, ("", "Pod", "pods"), ("/mutate/pod", "/validate/pod"))

    def service(self, service: dict[str, Any], namespace: str) -> Admitted:
        """Create a Knative Service. Raises MalformedError."""
        names = (KNATIVE_GROUP, "Service", "services")
        return self._create(service, namespace, AUTHOR, names, ("/mutate/service", "/validate/service"))

    def copied_down(self, service: dict[str, Any], namespace: str) -> dict[str, Any]:
        """The Service with its metadata's annotations in its template too, not validated. Raises MalformedError."""
        names = (KNATIVE_GROUP, "Service", "services")
        return _result(service, self._decide(service, namespace, AUTHOR, names, "/mutate/service"))

    def written_by_people(self, item: dict[str, Any], namespace: str, kind: str) -> Admitted:
        """Create a Configuration or Revision by hand: validated, never changed. Raises MalformedError."""
        names = (KNATIVE_GROUP, kind, f"{kind.lower()}s")
        return self._create(item, namespace, AUTHOR, names, ("/validate/service",))

    def _create(
        self,
        item: dict[str, Any],
        namespace: str,
        user: User,
        names: tuple[str, str, str],
        paths: Sequence[str],
    ) -> Admitted:
        reason, changed, lines = "", False, list[str]()
        for path in paths:
            decision = self._decide(item, namespace, user, names, path)
            if decision.denial is not None:
                return Admitted(item, decision.reason, changed, as_warnings(lines), decision.denial.message)
            if decision.result is not None:
                item, changed = _result(item, decision), True
            reason = reason or decision.reason
            # A pod that cannot be injected is admitted as it is, and the reason is only in the violations.
            lines += decision.warnings or [str(violation) for violation in decision.violations]
        return Admitted(item, reason, changed, as_warnings(lines))

    def _decide(
        self, item: dict[str, Any], namespace: str, user: User, names: tuple[str, str, str], path: str
    ) -> Decision:
        group, kind, resource = names
        request = Request(
            uid="offline",
            path=path,
            kind=(group, "v1", kind),
            resource=(group, "v1", resource),
            subresource="",
            operation="CREATE",
            name="",
            namespace=namespace,
            user=user,
            object=item,
        )
        decision = decide(request, self.configuration, self.snapshot)
        if decision.reason == "unusable" and decision.denial is not None:
            raise MalformedError(decision.denial.message)
        return decision


def _result(item: dict[str, Any], decision: Decision) -> dict[str, Any]:
    """The object after the decision's operations, as a copy: callers change it, and the decision's shares parts."""
    return deepcopy(item if decision.result is None else decision.result)
