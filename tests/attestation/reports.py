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
