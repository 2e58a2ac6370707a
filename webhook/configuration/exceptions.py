"""Exceptions: the rules that one workload of a namespace may violate, until a date."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from webhook.configuration.section import Section
from webhook.wellknown import KMS_NAMESPACE

OWNER_KINDS: Final = (
    "CronJob",
    "DaemonSet",
    "Deployment",
    "Job",
    "ReplicaSet",
    "ReplicationController",
    "StatefulSet",
)
"""The kinds whose pods a built-in controller makes."""

_LABEL: Final = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_SUBDOMAIN: Final = r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?"
_OWNER: Final = rf"({'|'.join(OWNER_KINDS)})/{_SUBDOMAIN}"
_TIME: Final = r"\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d))?"
_MAX_REASON: Final = 200


def _name(text: str) -> str:
    if not re.fullmatch(_LABEL, text):
        raise PydanticCustomError("name", "not the name of one namespace or Service, such as shop; no patterns")
    return text


def _owner(text: str) -> str:
    if not re.fullmatch(_OWNER, text):
        raise PydanticCustomError(
            "owner",
            "not KIND/NAME, such as DaemonSet/node-agent; the kinds are {kinds}",
            {"kinds": ", ".join(OWNER_KINDS)},
        )
    return text


def _reason(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise PydanticCustomError("reason", "not one line that says why and where to read more, such as SEC-123")
    return text


def read_time(value: Any) -> datetime:
    """The moment that a text names: a date, which is midnight UTC, or a time with its zone. Raises ValueError."""
    if isinstance(value, str) and re.fullmatch(_TIME, value, re.ASCII):
        moment = datetime.fromisoformat(value)
        return moment.astimezone(UTC) if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    raise ValueError("neither a date nor a time with its zone")


def _expires(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value
    try:
        return read_time(value)
    except (ValueError, OverflowError):
        raise PydanticCustomError(
            "expires", "not a date such as 2027-01-31 (midnight UTC), or a time such as 2027-01-31T12:00:00Z"
        ) from None


Name = Annotated[str, AfterValidator(_name), Field(json_schema_extra={"pattern": f"^{_LABEL}$"})]
Owner = Annotated[str, AfterValidator(_owner), Field(json_schema_extra={"pattern": f"^{_OWNER}$"})]
Reason = Annotated[str, Field(max_length=_MAX_REASON), AfterValidator(_reason)]
Moment = Annotated[
    datetime, BeforeValidator(_expires), Field(json_schema_extra={"format": "", "pattern": f"^{_TIME}$"})
]


class PolicyException(Section):
    """Rules that the pods of one workload may violate until `expires`; exactly one of `service` and `owner`."""

    namespace: Name = Field(description="of the workload")
    service: Name | None = Field(None, description="a Knative Service's name")
    owner: Owner | None = Field(None, description="another workload, as KIND/NAME, such as DaemonSet/node-agent")
    rules: tuple[str, ...] = Field(
        min_length=1, description="rule ids; not those that injection depends on, nor those about changes of a pod"
    )
    reason: Reason = Field(description="one line for the reader of a report, such as a ticket and why")
    expires: Moment = Field(description="the exception has no effect from then on; a date is its midnight in UTC")

    @model_validator(mode="after")
    def _names_one_workload(self) -> PolicyException:
        if (self.service is None) == (self.owner is None):
            raise PydanticCustomError("workload", "name exactly one of service and owner, such as service: payments")
        if self.namespace == KMS_NAMESPACE:
            raise PydanticCustomError(
                "key_server", f"namespace {KMS_NAMESPACE} holds what all secrets depend on, and has no exceptions"
            )
        if len(set(self.rules)) != len(self.rules):
            raise PydanticCustomError("rule_twice", "rules: names a rule twice; name each once")
        return self

    @property
    def workload(self) -> str:
        """The workload as KIND/NAME; a Knative Service is `Service/NAME`."""
        return self.owner or f"Service/{self.service}"

    def is_in_force(self, now: datetime) -> bool:
        """Whether it still has an effect."""
        return now < self.expires
