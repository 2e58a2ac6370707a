"""What an author should know about opting in: annotations without effect, references that stay text."""

from __future__ import annotations

from collections.abc import Iterator

from webhook.modes import Mode
from webhook.pod.annotations import HOST_READS, is_template_digest
from webhook.pod.opt_in import requests_injection
from webhook.pod.other_injectors import claimed_by, has_worked_on
from webhook.pod.pod import Pod
from webhook.request import User
from webhook.rules import POD
from webhook.rules.rule import Subject, Violation, evaluate
from webhook.snapshot import Snapshot
from webhook.wellknown import PREFIX

_OWN_FIELD = f"metadata.annotations[{PREFIX}"


def opt_in_notes(pod: Pod, mode: Mode) -> Iterator[str]:
    """One line for each thing that the pod's author may expect and that does not happen in this mode."""
    if mode is Mode.ABSENT and pod.options.inject is None and pod.names_secrets:
        yield (
            f"[annotations] this namespace has no {PREFIX}mode label, so nothing is injected and Vault references are"
            f' taken literally; annotate the template with {PREFIX}inject: "true"'
        )
    template = pod.own_annotations.get("template")
    if template is not None and pod.named_template is None:
        yield f"[annotations] {_ignored_template(template)}"
    for key in HOST_READS if pod.measured is None else ():
        if key in pod.own_annotations:
            yield f"[annotations] {PREFIX}{key} has no effect on a pod that was not rendered: its host reads its output"
    if mode is Mode.AUDIT and holds_bare_references(pod):
        yield f"[annotations] {bare_references(mode)}"
    if mode is Mode.ENFORCE and pod.options.inject is False:
        yield f'[annotations] {PREFIX}inject: "false" has no effect in a namespace of mode enforce'


def _ignored_template(value: str) -> str:
    if not is_template_digest(value):
        return f"{PREFIX}template is not sha256: and 64 hexadecimal digits, so it has no effect; remove it"
    return f"{PREFIX}template has no effect on a pod whose initdata document was not rendered with it; remove it"


def holds_bare_references(pod: Pod) -> bool:
    """Whether the pod holds references and nothing says that they are ours: they may be another injector's.

    Releases before let such a pod opt in.
    """
    if pod.options.inject is False or requests_injection(pod, Mode.AUDIT) or not pod.references:
        return False
    return not any(claimed_by(pod.annotations)) and not any(has_worked_on(pod.spec))


def bare_references(mode: Mode) -> str:
    """The message about such references, in the mode that leaves them as they are."""
    return (
        f"Vault references alone do not opt in, so mode {mode.value} leaves them as text; if they are for Morphisms,"
        f' write vault:~/PATH#KEY or annotate the template with {PREFIX}inject: "true"'
    )


def annotation_faults(pod: Pod, snapshot: Snapshot | None, user: User | None) -> tuple[Violation, ...]:
    """The violations that lie in our own annotations: mistyped, malformed, or unusable in this pod."""
    if not pod.own_annotations:
        return ()
    found = evaluate(POD, Subject(pod, snapshot, user))
    return tuple(violation for violation in found if violation.field.startswith(_OWN_FIELD))
