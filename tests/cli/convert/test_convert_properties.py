"""Laws of the translation, whatever the annotations say and whatever shape the object has."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cli.conversion.convert import convert
from webhook.configuration.model import Configuration
from webhook.pod.annotations import own_annotations, parse_annotations
from webhook.pod.other_injectors import BANK_VAULTS_PREFIXES, VAULT_AGENT_PREFIXES
from webhook.pod.references import SecretPrefix

AGENT = [
    "agent-inject", "role", "namespace", "agent-pre-populate-only", "agent-inject-containers", "secret-volume-path",
    "tls-skip-verify", "agent-inject-default-template", "preserve-secret-case", "agent-inject-token", "auth-path",
    *(f"{family}-{name}"
      for family in ("agent-inject-secret", "agent-inject-template", "agent-inject-file", "agent-inject-perms",
                     "secret-volume-path", "preserve-secret-case", "agent-inject-command")
      for name in ("a", "A", "b", "", "file-a", "not a name")),
]  # fmt: skip
BANK = ["mutate", "vault-role", "bao-role", "vault-env-from-path", "vault-env-daemon", "vault-addr", "provider"]
OWN = ["inject", "agent", "vault-role", "secret-a", "file-a", "mode-b", "env-from", "containers", "status"]
VALUES = st.sampled_from(
    ["true", "false", "skip", "", "a", "0400", "0644", "secret/data/a", "secret/a#b@2", "kv/data/x", "database/creds/x",
     "secret/data/a#1,secret/b", '{{ with secret "secret/data/a" }}{{ .Data.data.b }}{{ end }}', "../x", "a,b", "a b",
     '{{ with secret "secret/data/a" }}x{{ .Data.data.b }}{{ end }}', "init", "~/x/y", "vault:login"]
) | st.text(max_size=12)  # fmt: skip
ANNOTATIONS = st.dictionaries(
    st.sampled_from(
        [prefix + key for prefix in VAULT_AGENT_PREFIXES for key in AGENT]
        + [prefix + key for prefix in BANK_VAULTS_PREFIXES for key in BANK]
        + ["morphisms.dev/" + key for key in OWN]
    ),
    VALUES,
    max_size=10,
)
ENV = st.lists(
    st.fixed_dictionaries({"name": st.just("X"), "value": VALUES | VALUES.map(lambda value: f"vault:{value}")}),
    max_size=3,
)


def service(own: dict[str, str], template: dict[str, str], env: Any) -> dict[str, Any]:
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "shop", "annotations": own},
        "spec": {
            "template": {
                "metadata": {"annotations": template},
                "spec": {"containers": [{"name": "app", "env": env}, {"name": "other"}]},
            }
        },
    }


def problems(object_: dict[str, Any]) -> set[tuple[str, str]]:
    own = own_annotations(object_["metadata"]["annotations"])
    own |= own_annotations(object_["spec"]["template"]["metadata"]["annotations"])
    return {(problem.key, problem.message) for problem in parse_annotations(own, SecretPrefix("home/")).problems}


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(ANNOTATIONS, ANNOTATIONS, ENV)
def test_converting_keeps_our_annotations_invents_no_foreign_ones_and_is_idempotent(
    own: dict[str, str], template: dict[str, str], env: list[dict[str, str]]
) -> None:
    object_ = service(own, template, env)
    before = copy.deepcopy(object_)
    converted = convert(object_, Configuration())
    assert object_ == before, "the input is never changed"
    # Only what people wrote under our prefix may be wrong, and only as wrong as it was.
    assert problems(converted.object) <= problems(object_)
    for old, new in (
        (before["metadata"], converted.object["metadata"]),
        (before["spec"]["template"]["metadata"], converted.object["spec"]["template"]["metadata"]),
    ):
        natives = {key: value for key, value in old["annotations"].items() if key.startswith("morphisms.dev/")}
        assert natives.items() <= new["annotations"].items(), "ours win"
        kept = {key: value for key, value in new["annotations"].items() if not key.startswith("morphisms.dev/")}
        assert kept.items() <= old["annotations"].items(), "nothing foreign is invented or changed"
    again = convert(converted.object, Configuration())
    assert again.object == converted.object, "twice is once"


@pytest.mark.parametrize(
    "junk", [None, 1, "x", [], ["x"], [None], {}, {"a": 1}, [{"env": 1}], [{"env": [1, {"value": 2}]}]]
)
def test_malformed_objects_do_not_stop_the_command(junk: Any) -> None:
    annotations = {
        "vault.hashicorp.com/agent-inject": "true",
        "vault.security.banzaicloud.io/vault-env-from-path": "secret/data/a",
    }
    metadata = {"name": "shop", "annotations": annotations}
    for object_ in (
        {"metadata": junk, "spec": junk},
        {"metadata": {"annotations": junk, "labels": junk}, "spec": {"containers": junk, "initContainers": junk}},
        {"metadata": metadata, "spec": {"containers": junk, "initContainers": junk}},
    ):
        convert({"apiVersion": "v1", "kind": "Pod", **copy.deepcopy(object_)}, Configuration())
        template = {"spec": {"template": copy.deepcopy(object_)}, "metadata": junk}
        convert({"apiVersion": "apps/v1", "kind": "Deployment", **template}, Configuration())
    for kind in ("Secret", "ConfigMap"):
        convert({"apiVersion": "v1", "kind": kind, "metadata": junk, "data": junk}, Configuration())
