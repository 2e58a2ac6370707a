"""What becomes of a secret: pure, with data instead of servers."""

from __future__ import annotations

from typing import Any

import pytest

from plan.document import EnvFrom, EnvVariable, EvidenceSource, Plan, SecretFile, Vault, Verifier, Workload
from sidecar.errors import SidecarError
from sidecar.publish.render import environments, files, reads
from sidecar.reasons import Exit

CANARY = "canary-77aa"


def plan(**changes: Any) -> Plan:
    return Plan(
        Workload("c", "n", "s", "a"),
        (EvidenceSource("simulated", "unix:/x"),),
        Verifier("https://v", "", "a", ""),
        Vault("https://b", "", "", (("m", 2),)),
        **changes,
    )


def rendered(template: str, data: dict[str, Any], key: str | None = None) -> bytes:
    made = plan(secrets=(SecretFile("t", "m/a", "t", key=key, template=template),))
    return files(made, {("m/a", None): data})["t"].content


@pytest.mark.parametrize(
    ("template", "data", "expected"),
    [
        ("{{{a}}}", {"a": '<&"'}, '<&"'),
        ("{{&a}}", {"a": "<"}, "<"),
        ("{{{a}}}", {"a": "{{{b}}}", "b": CANARY}, "{{{b}}}"),
        ("{{{n}}} {{{f}}} {{{yes}}}", {"n": 5432, "f": 1.5, "yes": True}, "5432 1.5 true"),
        ("{{#tls}}on{{/tls}}{{^tls}}off{{/tls}}", {"tls": False}, "off"),
        ("{{#no}}on{{/no}}{{^no}}off{{/no}} {{{no}}} {{{zero}}}", {"no": False, "zero": 0}, "off false 0"),
        ("[{{{none}}}]{{#none}}on{{/none}}", {"none": None}, "[]"),
        ("{{#hosts}}{{{.}}};{{/hosts}}", {"hosts": ["a", "b"]}, "a;b;"),
        ("{{{tls.crt}}}", {"tls": "x"}, None),
        ("{{{tls.crt}}}{{{tls.key}}}{{{plain}}}", {"tls.crt": "x", "tls.key": "<", "plain": "y"}, "x<y"),
        ("{{#on}}{{{a.b.c}}}{{/on}}{{^a.no}}-{{/a.no}}", {"on": True, "a.b.c": 7, "a.no": False}, "7-"),
        ("{{#a.b}}{{{.}}};{{/a.b}}", {"a.b": ["x", "y"]}, "x;y;"),
        ("{{{a.b}}}", {"a.b": "x", "a": "y"}, None),
        ("{{{a.b}}}", {"a.b": "x", "a": {"b": "y"}}, None),
        ("{{{a.b}}}{{{a.b.c}}}", {"a.b": "x", "a.b.c": "y"}, None),
    ],
)
def test_templates(template: str, data: dict[str, Any], expected: str | None) -> None:
    if expected is None:
        with pytest.raises(SidecarError):
            rendered(template, data)
    else:
        assert rendered(template, data) == expected.encode()


@pytest.mark.parametrize(
    ("template", "code"),
    [
        ("{{{missing}}}", Exit.SECRET_MISSING),
        ("{{> /etc/passwd}}", Exit.CONFIGURATION),
        ("{{#a}}", Exit.CONFIGURATION),
        ("{{/a}}", Exit.CONFIGURATION),
        ("{{{a", Exit.CONFIGURATION),
        ("{{#a.__class__.mro}}x{{/a.__class__.mro}}", Exit.CONFIGURATION),
        ("{{{a.format}}}", Exit.SECRET_MISSING),
    ],
)
def test_templates_that_are_refused_name_no_value(template: str, code: Exit) -> None:
    with pytest.raises(SidecarError) as caught:
        rendered(template, {"a": CANARY})
    assert (caught.value.exit_code, caught.value.reason) == (code, "template")
    assert CANARY not in caught.value.line


def test_a_template_with_a_key_sees_that_key_alone() -> None:
    assert rendered("{{{a}}}", {"a": "x", "b": CANARY}, key="a") == b"x"
    with pytest.raises(SidecarError):
        rendered("{{{b}}}", {"a": "x", "b": CANARY}, key="a")


def pairs(data: dict[str, Any], *env: EnvVariable, env_from: bool = True) -> bytes:
    made = plan(env=env, env_from=(EnvFrom("web", "m/a"),) if env_from else ())
    return environments(made, {("m/a", None): data})["env/web"].content


def test_a_container_with_nothing_has_an_empty_file() -> None:
    assert pairs({}) == b""


def test_env_wins_over_env_from_and_no_name_comes_twice() -> None:
    assert pairs({"A": "1", "B": "2"}, EnvVariable("web", "A", value="3")) == b"A=3\0B=2\0"


@pytest.mark.parametrize(
    "name",
    [
        *("LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "PATH", "GCONV_PATH", "BASH_ENV", "ENV", "BASH_FUNC_ls%%"),
        *("NODE_OPTIONS", "NODE_PATH", "npm_config_node_options", "PYTHONPATH", "PYTHONHOME", "PERL5OPT", "RUBYOPT"),
        *("JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "CLASSPATH", "DOTNET_STARTUP_HOOKS", "PHPRC"),
        *("CORECLR_PROFILER_PATH", "COR_PROFILER", "LUA_INIT_5_4", "ERL_FLAGS", "OPENSSL_CONF", "GIT_SSH_COMMAND"),
    ],
)
def test_a_key_that_chooses_the_code_is_no_variable_unless_the_plan_names_it(name: str) -> None:
    with pytest.raises(SidecarError, match=f"m/a has a key {name}") as caught:
        pairs({"USER": "a", name: f"{CANARY}/evil.so"})
    assert caught.value.exit_code is Exit.SECRET_MISSING
    assert f"name it: {name}: vault:m/a#{name}" in caught.value.line
    assert CANARY not in caught.value.line
    found = pairs({"USER": "a", name: "secret"}, EnvVariable("web", name, path="m/a", key=name))
    assert f"{name}=secret\0".encode() in found
    # Another container's variable of this name is not this one's.
    with pytest.raises(SidecarError):
        pairs({name: "secret"}, EnvVariable("worker", name, value="x"))


@pytest.mark.parametrize(
    "name", ["user", "password", "DATABASE_URL", "path", "PATHS", "MY_PATH", "NODE_ENV", "LDAP_URL"]
)
def test_an_ordinary_key_is_a_variable(name: str) -> None:
    assert pairs({name: "a"}) == f"{name}=a\0".encode()


@pytest.mark.parametrize(
    "data",
    [{"A": f"{CANARY}\0B=2"}, {f"{CANARY}=": "1"}, {f"{CANARY}\n": "1"}, {f"{CANARY}ü": "1"}, {"": "1"}, {"A\0B": "1"}],
)
def test_what_no_environment_can_hold_is_refused_without_its_value(data: dict[str, Any]) -> None:
    with pytest.raises(SidecarError) as caught:
        pairs(data)
    assert caught.value.exit_code is Exit.SECRET_MISSING
    assert CANARY not in caught.value.line


def test_the_helpers_bounds_are_ours() -> None:
    assert pairs({"A": "x" * (128 * 1024 - 3)})
    for data in (
        {"A": "x" * (128 * 1024 - 2)},
        {f"A{n}": "x" * 120_000 for n in range(9)},
        {f"A{n}": "" for n in range(4097)},
    ):
        with pytest.raises(SidecarError) as caught:
            pairs(data)
        assert caught.value.exit_code is Exit.NO_SPACE


def test_values_that_look_like_references_are_values() -> None:
    text = "${vault:m/a#k} and ${vault:m/a#l}"
    made = pairs({"k": "${vault:m/a#l}", "l": r"\1\g<0>"}, EnvVariable("web", "A", value=text), env_from=False)
    assert made == b"A=$${vault:m/a#l} and \\1\\g<0>\0"


@pytest.mark.parametrize("value", ["$(HOME)", "$$", "$", "$(", "a$$$(B)c", "$x"])
def test_fetched_values_are_never_expanded(value: str) -> None:
    """Each `$` of them is written as Kubernetes and the exec helper write one; the author's text keeps its meaning."""
    doubled = value.replace("$", "$$")
    text = EnvVariable("web", "A", value="$(B)$$${vault:m/a#k}$(C)", expand=("B",))
    whole = EnvVariable("web", "W", path="m/a", key="k")
    assert pairs({"k": value}, text, whole) == f"k={doubled}\0A=$(B)$${doubled}$$(C)\0W={doubled}\0".encode()


def test_a_value_of_dollars_is_as_long_as_another() -> None:
    assert len(pairs({"A": "$" * (128 * 1024 - 3)})) == 2 * (128 * 1024 - 3) + 3
    with pytest.raises(SidecarError) as caught:
        pairs({"A": "$" * (128 * 1024 - 2)})
    assert caught.value.reason == "too-large"


@pytest.mark.parametrize("value", ["${vault:m/a}", "${vault:m/a#k", "${vault:m/a#k@0}", "${vault:#k}"])
def test_a_malformed_inline_reference_is_refused(value: str) -> None:
    with pytest.raises(SidecarError) as caught:
        reads(plan(env=(EnvVariable("web", "A", value=value),)))
    assert caught.value.reason == "inline-reference"


def test_whole_secrets_are_canonical_and_numbers_that_would_change_are_refused() -> None:
    made = plan(secrets=(SecretFile("t", "m/a", "t"),))
    assert files(made, {("m/a", None): {"b": "ü", "a": [1, None]}})["t"].content == '{"a":[1,null],"b":"ü"}'.encode()
    with pytest.raises(SidecarError) as caught:
        files(made, {("m/a", None): {"b": 2**60}})
    assert caught.value.reason == "secret-unusable"


@pytest.mark.parametrize("names", [("a", "a"), ("a", "a/b"), ("a/b", "a"), ("a/b/c", "a/b")])
def test_two_secrets_for_one_file_are_refused(names: tuple[str, str]) -> None:
    made = plan(secrets=tuple(SecretFile(f"s{n}", "m/a", name) for n, name in enumerate(names)))
    with pytest.raises(SidecarError) as caught:
        files(made, {("m/a", None): {"a": "1"}})
    assert caught.value.reason == "file-twice"


def test_secrets_do_not_show_in_what_is_printed() -> None:
    made = plan(secrets=(SecretFile("t", "m/a", "t"),))
    assert CANARY not in repr(files(made, {("m/a", None): {"a": CANARY}}))
