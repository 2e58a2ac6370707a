"""webhook.pod.references: the accepted forms, their meaning, and the messages for others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.errors import BadReferenceError
from webhook.pod.references import (
    Reference,
    SecretPrefix,
    expand_inline,
    holds_inline,
    is_incomplete,
    is_reference,
    is_wrapped,
    mentions,
    parse,
    parse_variable,
)

PREFIX = SecretPrefix("secret/knative/prod/shop/payments/")
NO_PREFIX = SecretPrefix(None, "the pod does not belong to a Knative Service; write the whole path")


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("secret/shop/db", Reference("secret/shop/db")),
        ("secret/shop/db#password", Reference("secret/shop/db", "password")),
        ("secret/shop/db#password@3", Reference("secret/shop/db", "password", 3)),
        ("secret/shop/db#password#3", Reference("secret/shop/db", "password", 3)),
        ("secret/shop/db@3", Reference("secret/shop/db", None, 3)),
        ("  secret/shop/db#tls.key ", Reference("secret/shop/db", "tls.key")),
        ("~/db#password", Reference("secret/knative/prod/shop/payments/db", "password")),
        ("secret/with space/a+b#x/y", Reference("secret/with space/a+b", "x/y")),
    ],
)
def test_every_form_of_a_reference_is_read(text: str, reference: Reference) -> None:
    assert parse(text, PREFIX) == reference


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no usable path"),
        ("secret", "no usable path"),
        ("/secret/db", "no usable path"),
        ("secret/db/", "no usable path"),
        ("secret//db", "no usable path"),
        ("secret/../db", "empty or dotted part"),
        ("secret/./db", "empty or dotted part"),
        ("~/../other/db", "empty or dotted part"),
        ("secret/ /db", "empty or dotted part"),
        ("secret/db?list=true", "no usable path"),
        ("secret/dü", "no usable path"),
        ("secret/db@0", "version that is not a whole number above 0"),
        ("secret/db@two", "version that is not a whole number above 0"),
        ("secret/db#a@-1", "version that is not a whole number above 0"),
        ("secret/db#{{ .Data }}", "other characters than"),
        ("secret/db@2#a", "no usable path"),
        ("s/" + "x" * 1024, "longer than 1024 characters"),
    ],
)
def test_a_malformed_reference_is_refused(text: str, problem: str) -> None:
    with pytest.raises(BadReferenceError, match=problem):
        parse(text, PREFIX)


def test_a_key_can_be_required_or_forbidden() -> None:
    with pytest.raises(BadReferenceError, match="has no key; write PATH#KEY"):
        parse("secret/db", PREFIX, key=True)
    with pytest.raises(BadReferenceError, match="each key of the secret becomes a variable; write the path alone"):
        parse("secret/db#a", PREFIX, key=False)


def test_the_workloads_prefix_needs_a_service() -> None:
    with pytest.raises(BadReferenceError, match="starts with ~/, but the pod does not belong to a Knative Service"):
        parse("~/db", NO_PREFIX)


def test_references_of_variables_are_read() -> None:
    assert parse_variable("vault:secret/shop/db#password@2", PREFIX) == Reference("secret/shop/db", "password", 2)
    with pytest.raises(BadReferenceError, match="transit ciphertext"):
        parse_variable("vault:v1:8SDd3WHDOjf7mq69CyCqYjBXAiQQAVZRkFM13ok481zoCmHnSeDX9vyf7w==", PREFIX)
    with pytest.raises(BadReferenceError, match="has no key"):
        parse_variable("vault:secret/shop/db", PREFIX)


def test_inline_references_get_their_full_path() -> None:
    text = "postgres://${vault:~/db#user}:${vault:secret/shop/db#password@2}@db/shop"
    assert expand_inline(text, PREFIX) == (
        "postgres://${vault:secret/knative/prod/shop/payments/db#user}:${vault:secret/shop/db#password@2}@db/shop"
    )


@pytest.mark.parametrize("text", ["${vault:secret/db#a", "${vault:secret/{x}#a}", "${vault:${vault:a/b#c}}"])
def test_an_inline_reference_has_to_be_closed(text: str) -> None:
    with pytest.raises(BadReferenceError, match="not closed"):
        expand_inline(text, PREFIX)


def test_values_that_hold_a_reference_are_recognised() -> None:
    assert is_reference("vault:a/b#c")
    assert not is_reference("see vault:a/b#c")
    assert holds_inline("see ${vault:a/b#c}")
    assert not mentions("VAULT:a/b#c")
    assert not mentions("$(vault:a/b#c)")


@pytest.mark.parametrize(
    ("text", "reference", "incomplete"),
    [
        ("vault:secret/shop/db#password", True, False),
        ("vault:~/db#password", True, False),
        ("a:${vault:secret/shop/db#password}@db", True, False),
        ("${vault:secret/shop/db#password", True, False),  # not closed, and refused for that
        ("vault:secret/shop/db", False, True),
        ("vault:~/db", False, True),
        ("${vault:secret/shop/db}", False, True),
        ("${vault:x} ${vault:secret/shop/db}", False, True),
        ("vault:v1:c2VjcmV0", False, True),
        ("vault:1.15", False, False),
        ("vault:1.6.0", False, False),
        ("vault:8200", False, False),
        ("vault:", False, False),
        ("vault:latest#x", False, False),
        ("vault:login", False, False),
        ("${vault:-default}", False, False),
        ("${vault:} /#", False, False),
        ("http://vault:8200/v1/secret#x", False, False),
        (">>vault:secret/shop/db#password#{}", False, False),
    ],
)
def test_a_reference_needs_a_path_and_a_key(text: str, reference: bool, incomplete: bool) -> None:
    assert (mentions(text), is_incomplete(text)) == (reference, incomplete)


@given(st.text(alphabet="${vault:}/# a", max_size=60))
def test_no_text_is_both_a_reference_and_an_incomplete_one(text: str) -> None:
    assert not (mentions(text) and is_incomplete(text))


def test_a_hostile_text_is_read_in_linear_time() -> None:
    """Quadratic reading would take minutes, and the suite's limit ends it."""
    text = "${vault:" * 200_000
    assert not mentions(text)
    assert not is_incomplete(text)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("secret/data/shop/db#password", "secret/shop/db#password"),
        ("secret/data/shop/db#password@3", "secret/shop/db#password@3"),
        ("secret/data/shop/db", "secret/shop/db"),
        ("kv/team/data/db#a", "kv/team/db#a"),
    ],
)
def test_a_path_of_the_kv2_api_is_refused_with_the_line_to_write(text: str, line: str) -> None:
    prefix = SecretPrefix("secret/home/", kv2_mounts=("secret", "kv/team"))
    with pytest.raises(BadReferenceError, match=f"write {line}$"):
        parse(text, prefix)


@pytest.mark.parametrize("text", ["old/data/shop/db#a", "secret/database#a", "secret/shop/data/db#a", "~/data/db#a"])
def test_other_paths_with_data_are_logical(text: str) -> None:
    prefix = SecretPrefix("secret/home/", kv2_mounts=("secret",))
    assert "data" in parse(text, prefix).path


@given(st.text(max_size=40))
def test_messages_never_repeat_the_text(text: str) -> None:
    said = []
    for read in (parse, parse_variable, expand_inline):
        try:
            read("kanarie" + text, PREFIX)
        except BadReferenceError as error:
            said.append(str(error))
    assert "kanarie" not in "".join(said)


@given(st.text(alphabet="ab~./#@ 12", max_size=16))
def test_a_path_has_no_empty_or_dot_segments(text: str) -> None:
    try:
        reference = parse(text, PREFIX)
    except BadReferenceError:
        return
    segments = reference.path.split("/")
    assert len(segments) > 1
    assert not {"", ".", ".."} & {segment.strip() for segment in segments}
    assert reference.version is None or reference.version > 0


@pytest.mark.parametrize(
    "text",
    [
        " vault:secret/db#a",
        "\tvault:~/db#a",
        '"vault:secret/db#a"',
        "'vault:secret/db#a'",
        "{vault:~/db#a}",
        "$(vault:~/db#a)",
        "{{ vault:~/db#a }}",
        "<vault:secret/data/db#a>",
        "${ vault:secret/db#a}",
    ],
)
def test_a_reference_in_quotes_brackets_or_behind_blanks_is_recognised(text: str) -> None:
    assert is_wrapped(text)
    assert not mentions(text)


@pytest.mark.parametrize(
    "text",
    [
        "vault:secret/db#a",
        "${vault:secret/db#a}",
        '"vault:1.15"',
        " vault:8200/ui",
        "see vault:secret/db#a",
        ">>vault:a/b#c",
    ],
)
def test_other_texts_are_not_references_in_quotes(text: str) -> None:
    assert not is_wrapped(text)


def test_quotes_without_end_take_no_time() -> None:
    assert not is_wrapped('"' * 1_000_000)
    assert not is_wrapped(" vault:" + "/" * 1_000_000)
