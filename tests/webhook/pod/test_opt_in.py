"""Which pods opt in: by annotation, in our own spelling, or by a reference beside an annotation."""

from __future__ import annotations

from typing import Any

import pytest

from webhook.configuration.model import Configuration
from webhook.modes import Mode
from webhook.pod.opt_in import requests_injection
from webhook.pod.pod import Pod

_LABELLED = (Mode.AUDIT, Mode.INJECT, Mode.ENFORCE)
_BARE, _OWN = "vault:secret/shop/db#password", "vault:~/db#password"


def _pod(annotations: dict[str, str] | None = None, *values: str, **spec: Any) -> Pod:
    ours = {f"morphisms.dev/{key}" if "/" not in key else key: value for key, value in (annotations or {}).items()}
    env = [{"name": f"V{place}", "value": value} for place, value in enumerate(values)]
    container = {"name": "app", "command": ["x"], "env": env}
    return Pod(
        {"metadata": {"annotations": ours}, "spec": {"containers": [container], **spec}}, "shop", Configuration()
    )


@pytest.mark.parametrize(
    ("pod", "opts_in"),
    [
        (_pod(), False),
        (_pod({"inject": "true"}), True),
        (_pod({"secret-db": "secret/shop/db"}), True),
        (_pod({"env-from": "secret/shop/db"}), True),
        (_pod({"inject": "false", "secret-db": "secret/shop/db"}, _OWN), False),
        # References.
        (_pod(None, _BARE), False),
        (_pod(None, "a:${vault:secret/shop/db#password}@db"), False),
        (_pod(None, _OWN), True),
        (_pod(None, "a:${vault:~/db#password}@db"), True),
        (_pod(None, "vault:~/db"), True),  # refused, for its key is forgotten
        (_pod(None, "vault:1.15", "vault:8200", "vault:secret/shop/db"), False),
        (_pod(None, ">>vault:secret/data/db#password#{}"), False),
        # References of any path beside annotations.
        *((_pod({key: "x"}, _BARE), True) for key in ("profile", "agent", "containers", "vault-role", "injct")),
        *((_pod({key: "x"}, _BARE), False) for key in ("status", "template", "literal-env")),
        *((_pod({key: "x"}), False) for key in ("profile", "agent", "literal-env", "injct")),
        (_pod({"agent": "init"}, "vault:1.15"), False),
        (_pod({"example.org/inject": "true"}, _BARE), False),
        # Variables that are text.
        (_pod({"literal-env": "V0"}, _OWN), False),
        (_pod({"literal-env": "V1"}, _OWN), True),
        (_pod({"literal-env": "V0", "agent": "init"}, _BARE), False),
        (_pod({"literal-env": "V0", "agent": "init"}, _BARE, _BARE), True),
        # Where a reference counts.
        (_pod(initContainers=[{"name": "first", "env": [{"name": "A", "value": _OWN}]}]), True),
        (_pod(initContainers=[{"name": "istio-proxy", "env": [{"name": "A", "value": _OWN}]}]), False),
        (_pod(initContainers=[{"name": "morphisms-init"}]), True),
        # An unusable `inject`.
        *((_pod({"inject": value}), True) for value in ("True", "yes", "1", " true", "")),
    ],
)
def test_what_opts_in_where_a_namespace_has_a_mode(pod: Pod, opts_in: bool) -> None:
    assert [requests_injection(pod, mode) for mode in _LABELLED] == [opts_in] * 3


@pytest.mark.parametrize(
    ("pod", "opts_in"),
    [
        (_pod({"inject": "true"}), True),
        (_pod({"inject": "True"}), True),  # and is refused
        (_pod({"inject": "false"}), False),
        (_pod({"secret-db": "secret/shop/db"}), False),
        (_pod(None, _OWN), False),
        (_pod({"agent": "init"}, _BARE), False),
    ],
)
def test_only_inject_counts_where_a_namespace_has_no_mode(pod: Pod, opts_in: bool) -> None:
    assert requests_injection(pod, Mode.ABSENT) is opts_in
