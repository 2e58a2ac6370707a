"""Messages name the fields of the author's pod, not those of the rewritten one."""

from __future__ import annotations

from typing import Any

import pytest

from webhook.admission.authored_fields import authored_field

TWINS = [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]
AUTHORED: dict[str, Any] = {
    "metadata": {"annotations": {"example.com/a.b": "x"}},
    "spec": {
        "initContainers": [{"name": "migrate", "env": [{"name": "MOVED"}, *TWINS]}],
        "tolerations": [{"key": "a"}, {"key": "b"}],
    },
}
REWRITTEN: dict[str, Any] = {
    "metadata": {"annotations": {"example.com/a.b": "x"}},
    "spec": {
        "initContainers": [{"name": "morphisms-init", "env": [{"name": "P"}]}, {"name": "migrate", "env": TWINS}],
        "tolerations": [{"key": "ours"}, *AUTHORED["spec"]["tolerations"]],
    },
}


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("spec.hostPID", "spec.hostPID"),
        ("spec.initContainers[1]", "spec.initContainers[0]"),
        ("spec.initContainers[1].env[0]", "spec.initContainers[0].env[1]"),
        ("spec.initContainers[1].env[1]", "spec.initContainers[0].env[2]"),
        ("spec.initContainers[1].image", "spec.initContainers[0].image"),
        ("spec.tolerations[2]", "spec.tolerations[1]"),
        ("spec.initContainers[0].env[0]", "spec.initContainers[0].env[0]"),
        ("spec.tolerations[0]", "spec.tolerations[0]"),
        ("spec.initContainers[9].env", "spec.initContainers[9].env"),
        ("metadata.annotations[example.com/a.b]", "metadata.annotations[example.com/a.b]"),
        ("metadata.annotations", "metadata.annotations"),
        ("", ""),
    ],
)
def test_a_field_of_the_pod_is_reported_as_the_field_that_its_author_wrote(field: str, expected: str) -> None:
    assert authored_field(field, REWRITTEN, AUTHORED) == expected
