"""Reports and reference values as tests write them."""

from __future__ import annotations

from typing import Any

from attestation.report.abi import LAYOUT, Report
from kbs.reference_values import GuestReference
from server.guest_entries import GuestFile
from server.yaml.strict import validate


def field_values(report: Report) -> dict[str, int | bytes]:
    """The fields without `raw`: what `encode_report` takes."""
    return {name: getattr(report, name) for name in LAYOUT}


def guest_reference(entry: Any, name: str = "guest") -> GuestReference:
    """The plain type of one guest's entry. Raises ConfigurationError."""
    return validate({name: entry}, GuestFile, name="guests").root[name].reference(name)


# Entries of a host's certificate table that the agent passes on and nothing reads: kinds that virtee/sev does not know
# (serde writes its variant `OTHER(Uuid)` as an object), and kinds that it knows and no verifier needs.
UNREAD_ENTRIES: tuple[dict[str, Any], ...] = (
    {"cert_type": {"OTHER": "ecae0c0f-9502-43b1-afa2-0ae2e0d565b6"}, "data": [1, 0, 0, 0]},
    {"cert_type": {"OTHER": "00000000-0000-0000-0000-0000000000ff"}, "data": []},
    {"cert_type": {"OTHER": "not a GUID"}, "data": None},
    {"cert_type": {"Other": [1, 2, 3]}},
    {"cert_type": {"A future variant": {"guid": 1}}, "data": "AQID"},
    {"cert_type": "Empty", "data": []},
    {"cert_type": "CRL", "data": [48, 0]},
    {"cert_type": "ARK", "data": [48, 0]},
)
