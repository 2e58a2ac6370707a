"""Enforces violations: denies, warns or records, by mode and by whether the pod opts in."""

from __future__ import annotations

from collections.abc import Sequence

from webhook.configuration.model import Configuration
from webhook.decision import Decision, as_warnings, deny, rule_ids, summary
from webhook.modes import Action, Mode
from webhook.policy_version import FIRST, denies
from webhook.rules.rule import Violation, action_of


def enforce(
    violations: Sequence[Violation],
    mode: Mode,
    configuration: Configuration,
    *,
    opted_in: bool,
    audit: dict[str, str] | None = None,
) -> Decision:
    """Deny for the violations whose action is `deny`; warn about those whose action is `record`, and record them."""
    denying, recorded = [], []
    for violation in violations:
        does = action(configuration, violation, mode, opted_in)
        if does == "deny":
            denying.append(violation)
        elif does == "record":
            recorded.append(violation)
    if denying:
        return deny(mode, "violations", [*denying], audit)
    annotations = summary(mode, "allowed", recorded) | (audit or {})
    newer = [each for each in recorded if not is_in_force(configuration, each)]
    if newer:
        annotations["denied-by-newer-policy"] = rule_ids(newer)
    if mode is not Mode.ENFORCE and recorded and "would-deny" not in annotations:
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


def action(configuration: Configuration, violation: Violation, mode: Mode, opted_in: bool) -> Action:
    """The action that this configuration has for a violation."""
    configured = configuration.rules.get(violation.rule.id)
    named = None if configured is None else configured.of(mode)
    if named is None and not is_in_force(configuration, violation):
        return "record"
    return action_of(violation.rule, mode, named, opted_in)


def is_in_force(configuration: Configuration, violation: Violation) -> bool:
    """Whether the configuration's policy denies for it; what is newer is recorded, in every mode."""
    return violation.since == FIRST or denies(violation.since, configuration.policy_in_force)


def _denied_in_enforce(configuration: Configuration, violation: Violation) -> bool:
    return action(configuration, violation, Mode.ENFORCE, opted_in=False) == "deny"
