"""The generator of honest requests, which `morphisms render --check` has; it knows nothing of `measured`."""

from __future__ import annotations

from cli.proof.guest_requests import Host, Request, end, guest_requests, run, start, stop

__all__ = ["Host", "Request", "end", "guest_requests", "run", "start", "stop"]
