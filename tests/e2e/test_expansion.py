"""`$(NAME)` beside inline references, from the pod's env to the application's: as Kubernetes would have expanded it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from plan.codec import read_plan, write_plan
from plan.document import EnvVariable, EvidenceSource, Plan, Vault, Verifier, Workload
from sidecar.publish.render import environments
from tests.support.exec_helper import build_helper
from webhook.pod.container import Container
from webhook.pod.env_references import EnvReferences, Spelling, read_env_references
from webhook.pod.references import SecretPrefix

# A secret that looks like everything that Kubernetes, a reference or the helper would expand.
SECRET = "s3cret-$(HOME)-$$-$(A)-${vault:secret/x#y}-$(-)-$"
SECRETS: dict[tuple[str, int | None], dict[str, Any]] = {("secret/x", None): {"y": SECRET, "paren": "A)"}}
SERVICE = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "DB_PORT_5432_TCP_ADDR": "10.0.0.2"}
# Beside `envFrom` the helper cannot tell what only the image has from what a ConfigMap has: docs/reference.md says so.
IMAGE = {"HOME": "/root", "PATH": "/bin", "LATER": "image's"}


def expand(text: str, value_of: Callable[[str], str | None]) -> str:
    """Kubernetes' own, line by line: k8s.io/kubernetes/third_party/forked/golang/expansion, Expand."""
    answer, checkpoint, cursor = "", 0, 0
    while cursor < len(text):
        if text[cursor] == "$" and cursor + 1 < len(text):
            answer += text[checkpoint:cursor]
            rest = text[cursor + 1 :]
            if rest[0] == "$":
                answer, advance = answer + "$", 1
            elif rest[0] == "(" and ")" in rest:
                end = rest.index(")")
                value = value_of(rest[1:end])
                answer, advance = answer + (f"$({rest[1:end]})" if value is None else value), end + 1
            elif rest[0] == "(":
                answer, advance = answer + "$(", 1
            else:
                answer, advance = answer + "$" + rest[0], 1
            cursor += advance
            checkpoint = cursor + 1
        cursor += 1
    return answer + text[checkpoint:]


def kubelet(env: list[dict[str, Any]], from_sources: Mapping[str, str], runtime: Mapping[str, str]) -> dict[str, str]:
    """The variables of a container as the kubelet makes them (kubelet_pods.go, makeEnvironmentVariables).

    `runtime`: what a `valueFrom` yields, by its name; one that is optional and missing yields none.
    """
    known, result = dict(from_sources), dict(from_sources)
    for each in env:
        name = each["name"]
        if "valueFrom" in each:
            if name not in runtime:
                continue
            value = runtime[name]
        else:
            value = expand(each["value"], lambda other: known.get(other, SERVICE.get(other)))
        known[name] = result[name] = value
    return {**SERVICE, **result}


def moved(env: list[dict[str, Any]], **fields: Any) -> EnvReferences:
    container = {"name": "app", "command": ["/app"], "env": env, **fields}
    return read_env_references(
        Container("containers", 0, "app", container), Spelling(SecretPrefix("secret/knative/prod/shop/payments/"))
    )


def _plan(variables: tuple[EnvVariable, ...]) -> Plan:
    plan = Plan(
        Workload("c", "n", "s", "a"),
        (EvidenceSource("simulated", "x"),),
        Verifier("https://v", "", "a", ""),
        Vault("https://w", "", "", (("secret", 2),)),
        env=variables,
    )
    return read_plan(write_plan(plan))


def published(found: EnvReferences) -> bytes:
    """The file of the exec helper for the container, by the plan as it travels."""
    return environments(_plan(found.variables), SECRETS)["env/app"].content


def application(found: EnvReferences, inherited: dict[str, str]) -> dict[str, str]:
    """The variables after the exec helper, which `tests/sidecar/exec/fuzz.c` compares with such a statement."""
    pairs = dict(pair.split("=", 1) for pair in published(found).decode().split("\0")[:-1])
    return {**inherited, **{name: expand(value, inherited.get) for name, value in pairs.items()}}


REFERENCES = ("${vault:secret/x#y}", "${vault:secret/x#paren}")
# Stand for the references while Kubernetes expands what is around them.
MARKS = ("\ue000", "\ue001")
NAMES = ("A", "B", "LATER", "OPTIONAL", "FIELD", "MAP", "KUBERNETES_SERVICE_HOST", "DB_PORT_5432_TCP_ADDR", "NONE", "-")
PARTS = st.sampled_from(
    ["$", "$$", "$(", ")", "(", "x", "é", "{", "}", "$x", *(f"$({name})" for name in NAMES), *REFERENCES]
)
TEXTS = st.lists(PARTS, max_size=8).map("".join)


@given(st.lists(st.tuples(st.sampled_from(NAMES[:5]), TEXTS), min_size=1, max_size=6), TEXTS, TEXTS, st.booleans())
def test_the_application_gets_what_kubernetes_would_have_made(
    plain: list[tuple[str, str]], before: str, after: str, has_sources: bool
) -> None:
    value = f"{before}{REFERENCES[0]}{after}"
    env: list[dict[str, Any]] = []
    for name, text in dict(plain).items():
        if name in ("OPTIONAL", "FIELD"):
            env.append({"name": name, "valueFrom": {"fieldRef": {"fieldPath": "x"}}})
        else:
            env.append({"name": name, "value": "".join(part for part in text if part not in "{}")})
    env.insert(
        next((i for i, each in enumerate(env) if each["name"] == "LATER"), len(env)), {"name": "U", "value": value}
    )
    sources = {"MAP": "from $(A) a ConfigMap"} if has_sources else {}
    found = moved(env, **({"envFrom": [{"configMapRef": {"name": "m"}}]} if has_sources else {}))
    assume(not found.problems)
    runtime = {"FIELD": "$(A) of a field"}
    left = [each for each in env if each["name"] != "U"]
    got = application(found, {**({} if has_sources else IMAGE), **kubelet(left, sources, runtime)})["U"]
    marked = value
    for reference, mark in zip(REFERENCES, MARKS, strict=True):
        marked = marked.replace(reference, mark)
    marked_env = [{**each, "value": marked} if each["name"] == "U" else each for each in env]
    wanted = kubelet(marked_env, sources, runtime)["U"]
    for key, mark in zip(("y", "paren"), MARKS, strict=True):
        wanted = wanted.replace(mark, SECRETS["secret/x", None][key])
    assert got == wanted


DSN = "postgres://$(DATABASE_USER):${vault:secret/x#y}@$(DATABASE_HOST):5432/app?a=$$1&b=$$(HOME)&c=$(UNKNOWN)"


def test_the_real_helper_makes_it_so(tmp_path: Path) -> None:
    env: list[dict[str, Any]] = [
        {"name": "DATABASE_HOST", "value": "db.shop.svc"},
        {"name": "DATABASE_USER", "valueFrom": {"configMapKeyRef": {"name": "db", "key": "user"}}},
        {"name": "DATABASE_URL", "value": DSN},
        {"name": "WHOLE", "value": "vault:secret/x#y"},
    ]
    found = moved(env)
    assert found.problems == ()
    assert found.variables[0].expand == ("DATABASE_USER", "DATABASE_HOST")
    run = tmp_path / "run"
    (run / "env").mkdir(parents=True)
    (run / "env" / "app").write_bytes(published(found))
    (run / "ready").touch()
    helper = build_helper(tmp_path / "helper", f'-DRUN_DIRECTORY=\\"{run}\\"')
    inherited = {"DATABASE_HOST": "db.shop.svc", "DATABASE_USER": "payments", "HOME": "/root", "UNKNOWN": "image's"}
    done = subprocess.run([helper, "app", "--", "/usr/bin/env", "-0"], env=inherited, capture_output=True, check=True)
    got = dict(pair.split("=", 1) for pair in done.stdout.decode().split("\0")[:-1])
    url = f"postgres://payments:{SECRET}@db.shop.svc:5432/app?a=$1&b=$(HOME)&c=$(UNKNOWN)"
    assert got == {**inherited, "DATABASE_URL": url, "WHOLE": SECRET}


_INLINE = {"name": "URL", "value": "x$(A)${vault:secret/x#y}"}
_REFERENCE = {"name": "A", "value": "vault:secret/x#y"}


@pytest.mark.parametrize(
    ("env", "fields", "where", "words"),
    [
        ([_REFERENCE, _INLINE], {}, "env[1]", "$(A) expands a Vault reference"),
        (
            [_REFERENCE],
            {"volumeMounts": [{"name": "d", "subPathExpr": "x/$(A)"}]},
            "volumeMounts[0].subPathExpr",
            "$(A)",
        ),
        ([_REFERENCE], {"startupProbe": {"exec": {"command": ["t", "$(A)"]}}}, "startupProbe.exec.command", "$(A)"),
        ([_REFERENCE], {"livenessProbe": {"exec": {"command": ["$(A)"]}}}, "livenessProbe.exec.command", "$(A)"),
        ([_REFERENCE], {"args": ["$$$(A)"]}, "args", "$(A)"),
        (
            [{"name": "A", "value": "1"}, _INLINE, {"name": "A", "value": "2"}],
            {},
            "env[1]",
            "$(A), which is given 2 times",
        ),
        ([_INLINE, {"name": "A", "value": "1"}], {"envFrom": [{}]}, "env[0]", "$(A), which is given after it"),
        ([{"name": "URL", "value": "$${vault:secret/x#y}"}], {}, "env[0]", "$$ directly before {vault:"),
        ([{"name": "URL", "value": "a$$$${vault:secret/x#y}"}], {}, "env[0]", "$$ directly before {vault:"),
    ],
)
def test_what_cannot_be_expanded_is_refused_by_name(
    env: list[dict[str, Any]], fields: dict[str, Any], where: str, words: str
) -> None:
    ((field, message),) = moved(env, **fields).problems
    assert field == f"spec.containers[0].{where}"
    assert words in message


@pytest.mark.parametrize(
    ("fields", "name", "expands"),
    [
        ({}, "A", False),
        ({"envFrom": [{"configMapRef": {"name": "m"}}]}, "A", True),
        ({}, "DB_SERVICE_HOST", True),
        ({}, "KUBERNETES_SERVICE_PORT_HTTPS", True),
        ({}, "DB_PORT_5432_TCP", True),
        ({}, "PORT", False),
        ({}, "date +%s", False),
    ],
)
def test_a_name_that_env_does_not_have(fields: dict[str, Any], name: str, expands: bool) -> None:
    found = moved([{"name": "URL", "value": f"$({name})${{vault:secret/x#y}}"}], **fields)
    assert found.problems == ()
    assert found.variables[0].expand == ((name,) if expands else ())
