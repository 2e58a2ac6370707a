"""webhook.pod.annotations: the options in annotations, and the problems of unreadable ones."""

from __future__ import annotations

import pytest

from plan.document import SecretFile
from webhook.pod.annotations import NO_OPTIONS, own_annotations, parse_annotations
from webhook.pod.references import Reference, SecretPrefix

PREFIX = SecretPrefix("secret/knative/prod/shop/payments/")


def test_every_annotation_is_read() -> None:
    options = parse_annotations(
        {
            "inject": "true",
            "profile": "kata-snp",
            "vault-role": "shop",
            "vault-namespace": "team/a",
            "secret-db": "~/db#password@2",
            "file-db": "conf.d/db",
            "mode-db": "0400",
            "template-db": "{{ password }}",
            "secret-all": "secret/shop/all",
            "env-from": "secret/shop/env, secret/shop/more@3",
            "containers": "app, helper",
            "agent": "sidecar",
            "on-change": "signal:SIGHUP:nginx",
            "status": "whatever",
        },
        PREFIX,
    )
    assert options.problems == ()
    assert options.inject is True
    assert options.names_secrets
    assert options.secrets == (
        SecretFile("all", "secret/shop/all", "all"),
        SecretFile("db", "secret/knative/prod/shop/payments/db", "conf.d/db", "password", 2, "0400", "{{ password }}"),
    )
    assert options.env_from == (Reference("secret/shop/env"), Reference("secret/shop/more", None, 3))
    assert options.containers == ("app", "helper")
    assert (options.vault_role, options.vault_namespace) == ("shop", "team/a")
    assert (options.agent, options.on_change) == ("sidecar", "signal:SIGHUP:nginx")


@pytest.mark.parametrize(
    ("annotations", "key", "message"),
    [
        ({"inject": "yes"}, "inject", 'is neither "true" nor "false"; write inject: "true" or remove it'),
        ({"inject": "True"}, "inject", 'is neither "true" nor "false"; write inject: "true" or remove it'),
        ({"injekt": "true"}, "injekt", "is not an annotation of Morphisms; did you mean inject?"),
        ({"zzz": "true"}, "zzz", "is not an annotation of Morphisms"),
        ({"agent": "daemon"}, "agent", "is not one of init, sidecar"),
        ({"vault-role": "a b"}, "vault-role", "is not a name (letters, digits, . _ / -)"),
        ({"containers": "app,,"}, "containers", "is not a comma list of container names, such as app,worker"),
        ({"containers": "App"}, "containers", "is not a comma list of container names, such as app,worker"),
        ({"file-db": "a"}, "file-db", "needs annotation secret-db beside it"),
        ({"template-db": "a"}, "template-db", "needs annotation secret-db beside it"),
        ({"secret-db": "~/db", "template-db": "{{#a}}"}, "template-db", "has a section that is never closed"),
        ({"secret-a b": "x/y"}, "secret-a b", "has a name with characters other than letters, digits, . _ -"),
        ({"secret-": "x/y"}, "secret-", "has a name with characters other than letters, digits, . _ -"),
        ({"secret-a": "x"}, "secret-a", "has no usable path; write MOUNT/PATH#KEY, such as secret/shop/db#password"),
        (
            {"secret-a": "x/y", "file-a": "../etc/passwd"},
            "file-a",
            "is not a relative path inside the secrets folder, such as conf.d/db",
        ),
        (
            {"secret-a": "x/y", "file-a": "/etc/x"},
            "file-a",
            "is not a relative path inside the secrets folder, such as conf.d/db",
        ),
        (
            {"secret-a": "x/y", "file-a": "..data/x"},
            "file-a",
            "is not a relative path inside the secrets folder, such as conf.d/db",
        ),
        (
            {"secret-a": "x/y", "mode-a": "0644"},
            "mode-a",
            "is not an octal mode that the owner can read and others cannot, such as 0440",
        ),
        (
            {"env-from": "x/y#k"},
            "env-from",
            "has a key, but each key of the secret becomes a variable; write the path alone",
        ),
        ({"env-from": ""}, "env-from", "has no usable path; write MOUNT/PATH#KEY, such as secret/shop/db#password"),
        (
            {"on-change": "signal:HUP:nginx"},
            "on-change",
            "expected none or signal:SIGNAL:PROCESS, such as signal:SIGHUP:nginx",
        ),
        (
            {"on-change": "signal:SIGHUP:nginx"},
            "on-change",
            'needs agent: "sidecar"; with "init" no process is left to send the signal',
        ),
        (
            {"secret-a": "x/y", "secret-b": "x/y", "file-b": "a"},
            "secret-a",
            "writes a file that another secret writes too; set file-NAME",
        ),
        (
            {"secret-a": "x/y", "secret-b": "x/y", "file-b": "a/b"},
            "secret-a",
            "writes a file that another secret writes too; set file-NAME",
        ),
    ],
)
def test_an_unusable_annotation_is_a_problem(annotations: dict[str, str], key: str, message: str) -> None:
    assert (key, message) in [(each.key, each.message) for each in parse_annotations(annotations, PREFIX).problems]


def test_an_unreadable_annotation_still_names_secrets() -> None:
    assert parse_annotations({"secret-a": "nonsense"}, PREFIX).names_secrets
    assert parse_annotations({"env-from": "nonsense"}, PREFIX).names_secrets


def test_other_annotations_request_nothing() -> None:
    assert parse_annotations({}, PREFIX) is NO_OPTIONS
    assert parse_annotations({"inject": "false"}, PREFIX).inject is False
    assert not parse_annotations({"inject": "false"}, PREFIX).names_secrets


def test_only_text_annotations_with_the_prefix_are_read() -> None:
    annotations = {"morphisms.dev/inject": "true", "morphisms.dev/agent": 1, "other/inject": "true", "inject": "true"}
    assert own_annotations(annotations) == {"inject": "true"}
    assert own_annotations(None) == {}
    assert own_annotations(["morphisms.dev/inject"]) == {}
