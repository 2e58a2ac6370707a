"""/validate/connect: exec, attach and port-forward reach into a running pod and bypass its attestation."""

from __future__ import annotations

from webhook.admission.enforcement import enforce
from webhook.configuration.model import Configuration
from webhook.decision import Decision, summary
from webhook.modes import Mode
from webhook.request import Request
from webhook.rules import CONNECT
from webhook.rules.rule import ConnectSubject, evaluate
from webhook.snapshot import Snapshot


def decide(request: Request, configuration: Configuration, snapshot: Snapshot | None, mode: Mode) -> Decision:
    """Refuse in enforce mode except for exempt groups; record, with a warning, in the other modes."""
    if mode is Mode.ABSENT:
        return Decision("skipped", mode, "no-mode", audit=summary(mode, "skipped", ()))
    subject = ConnectSubject(request.namespace, request.subresource, request.user, configuration)
    return enforce(tuple(evaluate(CONNECT, subject)), mode, configuration, opted_in=False)
