"""From violations to an answer: deny, warn or record, by mode and by whether the pod asks."""

from __future__ import annotations

from collections.abc import Sequence

from webhook.configuration import Configuration
from webhook.decision import Decision, as_warnings, deny, summary
from webhook.modes import Action, Mode
from webhook.rules.rule import Violation, action_of


def judge(
    violations: Sequence[Violation],
    mode: Mode,
    configuration: Configuration,
    *,
    asked: bool,
    audit: dict[str, str] | None = None,
) -> Decision:
    """Deny for the violations whose action says so; warn of the rest, which are recorded too."""
    denying, recorded = [], []
    for violation in violations:
        action = action_of(violation.rule, mode, _configured(configuration, violation), asked)
        if action == "deny":
            denying.append(violation)
        elif action == "record":
            recorded.append(violation)
    if denying:
        return deny(mode, "violations", [*denying], audit)
    annotations = summary(mode, "allowed", recorded) | (audit or {})
    if mode is not Mode.ENFORCE and recorded:
        would_deny = [each for each in recorded if _denied_in_enforce(configuration, each)]
        if would_deny:
            annotations["would-deny"] = str(len(would_deny))
    return Decision(
        "allowed",
        mode,
        "violations-recorded" if recorded else "clean",
        warnings=as_warnings(recorded),
        audit=annotations,
        violations=tuple(recorded),
    )


def _configured(configuration: Configuration, violation: Violation) -> dict[str, Action | None]:
    actions = configuration.rules.get(violation.rule.id)
    return {} if actions is None else {mode.value: actions.of(mode) for mode in Mode}


def _denied_in_enforce(configuration: Configuration, violation: Violation) -> bool:
    return action_of(violation.rule, Mode.ENFORCE, _configured(configuration, violation), asks=False) == "deny"
