"""An AdmissionReview request, as far as decisions read it (admission.k8s.io/v1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class User:
    """The user whom the API server authenticated."""

    name: str
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `kind` and `resource` are (group, version, name); `name` is empty for generated names."""

    uid: str
    path: str
    kind: tuple[str, str, str]
    resource: tuple[str, str, str]
    subresource: str
    operation: str
    name: str
    namespace: str
    user: User
    object: dict[str, Any] | None
    old_object: dict[str, Any] | None = None
    dry_run: bool = False
