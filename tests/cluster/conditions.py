"""An object's conditions, in the form that Kubernetes and Knative share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def holds(item: Mapping[str, Any], condition: str = "Ready") -> bool:
    """Whether the object's status says that the condition is true. A new object has no status, or null conditions."""
    conditions = (item.get("status") or {}).get("conditions") or ()
    return any(each["type"] == condition and each["status"] == "True" for each in conditions)
