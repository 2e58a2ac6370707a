"""What the verifier's report binds, and the tree over the guests' nonces."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from hashlib import sha256, sha384

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from kbs.attested import MAX_LEVELS, MAX_NONCES, Side, Step, build_tree, climb, statement_digest
from kbs.attested_guest import AttestedAnswer, read_attested_answer, write_attested
from kbs.base64url import decode, encode
from kbs.messages import WireError
from kbs.verifier import read_attested, write_attested_answer

NONCE = bytes(range(32))
ANSWER = write_attested_answer(
    b'{"attestation_report":{},"cert_chain":null}',
    [Step(Side.LEFT, b"l" * 32), Step(Side.RIGHT, b"r" * 32)],
    policies=b"p" * 32,
    configuration=b"c" * 32,
    references="a.b.c",
)


def test_the_statement_is_the_canonical_json_of_the_design() -> None:
    written = (
        '{"configuration":"Y2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2M","context":"morphisms-verifier/v1",'
        '"nonce":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",'
        '"policies":"cHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHA",'
        '"spki":"c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M"}'
    )
    assert rfc8785.dumps(json.loads(written)) == written.encode()
    digest = statement_digest(nonce=NONCE, spki=b"s" * 32, policies=b"p" * 32, configuration=b"c" * 32)
    assert digest == sha384(written.encode()).digest()


@pytest.mark.parametrize("member", ["nonce", "spki", "policies", "configuration"])
def test_each_member_changes_the_statement(member: str) -> None:
    members = {"nonce": b"n" * 32, "spki": b"s" * 32, "policies": b"p" * 32, "configuration": b"c" * 32}
    assert statement_digest(**members) != statement_digest(**members | {member: b"x" * 32})


def test_three_nonces_by_hand() -> None:
    a, b, c = (sha256(b"\x00" + nonce).digest() for nonce in (b"a", b"b", b"c"))
    ab = sha256(b"\x01" + a + b).digest()
    tree = build_tree([b"a", b"b", b"c"])
    assert tree.root == sha256(b"\x01" + ab + c).digest()
    assert tree.paths == (
        (Step(Side.RIGHT, b), Step(Side.RIGHT, c)),
        (Step(Side.LEFT, a), Step(Side.RIGHT, c)),
        (Step(Side.LEFT, ab),),
    )


def test_a_single_nonce_is_hashed_too() -> None:
    """Else a nonce that is the hash of a node would pass for the root over others' nonces."""
    assert build_tree([NONCE]).root == sha256(b"\x00" + NONCE).digest() != NONCE
    assert build_tree([NONCE]).paths == ((),)


@given(st.integers(1, 300))
def test_each_nonce_climbs_to_the_root_and_to_no_other(count: int) -> None:
    nonces = [number.to_bytes(32) for number in range(count)]
    tree = build_tree(nonces)
    assert {climb(nonce, path) for nonce, path in zip(nonces, tree.paths, strict=True)} == {tree.root}
    assert climb(b"x" * 32, tree.paths[0]) != tree.root
    if count > 1:
        assert climb(nonces[0], tree.paths[1]) != tree.root, "the path of another nonce"


def test_the_largest_tree_has_ten_levels() -> None:
    tree = build_tree([os.urandom(32) for _ in range(MAX_NONCES)])
    assert {len(path) for path in tree.paths} == {MAX_LEVELS}
    for wrong in (0, MAX_NONCES + 1):
        with pytest.raises(ValueError, match="required 1 to 1024"):
            build_tree([NONCE] * wrong)


def test_the_request_is_read_as_it_was_written() -> None:
    assert write_attested(NONCE) == b'{"nonce":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"}'
    assert read_attested(write_attested(NONCE)) == NONCE
    with pytest.raises(ValueError, match="32"):
        write_attested(NONCE[1:])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"nonce":""}',
        b'{"nonce":7}',
        b'{"nonce":"%s="}' % encode(NONCE).encode(),  # padded
        b'{"nonce":"%s9"}' % encode(NONCE)[:-1].encode(),  # bits to spare that are not zero
        b'{"nonce":"%s"}' % encode(NONCE).replace("A", "+").encode(),  # the other alphabet
        b'{"nonce":"%s","spki":""}' % encode(NONCE).encode(),
        b'{"nonce":"%s","nonce":"%s"}' % (encode(NONCE).encode(), encode(NONCE).encode()),
        write_attested(NONCE) + b" " * 4096,
    ],
)
def test_a_request_that_is_not_one(body: bytes) -> None:
    with pytest.raises(WireError):
        read_attested(body)


def test_the_answer_is_read_as_it_was_written() -> None:
    answer = read_attested_answer(ANSWER)
    assert answer == AttestedAnswer(
        evidence={"attestation_report": {}, "cert_chain": None},
        path=(Step(Side.LEFT, b"l" * 32), Step(Side.RIGHT, b"r" * 32)),
        policies=b"p" * 32,
        configuration=b"c" * 32,
        references="a.b.c",
    )
    root = climb(NONCE, answer.path)
    assert answer.digest(NONCE, b"s" * 32) == statement_digest(
        nonce=root, spki=b"s" * 32, policies=b"p" * 32, configuration=b"c" * 32
    )
    assert answer._replace(path=()).digest(NONCE, b"s" * 32) != answer.digest(NONCE, b"s" * 32)


STEP = {"side": "left", "hash": encode(NONCE)}


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("evidence", None),
        ("evidence", []),
        ("path", None),
        ("path", [STEP] * 11),
        ("path", [None]),
        ("path", [STEP | {"side": "up"}]),
        ("path", [STEP | {"side": ["left"]}]),
        ("path", [STEP | {"hash": encode(NONCE[1:])}]),
        ("path", [STEP | {"more": 1}]),
        ("policies", ""),
        ("policies", None),
        ("configuration", encode(b"c" * 33)),
        ("references", None),
        ("references", "é"),
        ("references", "x" * (16 * 1024 + 1)),
    ],
)
def test_an_answer_that_is_not_one(member: str, value: object) -> None:
    with pytest.raises(WireError, match=member):
        read_attested_answer(json.dumps(json.loads(ANSWER) | {member: value}).encode())


@given(
    st.sampled_from(["evidence", "path", "policies", "configuration", "references"]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["side", "hash", "x"]), inner),
        max_leaves=8,
    ),
)
def test_any_other_json_is_refused_by_one_kind_of_error(member: str, value: object) -> None:
    """The verifier that a guest calls may be anybody's."""
    with contextlib.suppress(WireError):
        read_attested_answer(json.dumps(json.loads(ANSWER) | {member: value}).encode())


def test_an_answer_with_a_member_twice_is_refused() -> None:
    with pytest.raises(WireError, match="twice"):
        read_attested_answer(ANSWER[:-1] + b',"policies":"%s"}' % encode(b"q" * 32).encode())


def test_a_verifier_without_references_leaves_them_out() -> None:
    body = write_attested_answer(b"{}", (), policies=NONCE, configuration=NONCE, references="", simulated=True)
    assert json.loads(body).keys() == {"evidence", "path", "policies", "configuration", "simulated"}
    assert read_attested_answer(body).references == ""


@given(st.binary(max_size=80))
def test_bytes_have_one_spelling(raw: bytes) -> None:
    assert decode(encode(raw), len(raw)) == raw
    with pytest.raises(ValueError, match="required"):
        decode(encode(raw), len(raw) + 1)


def test_text_that_is_not_ascii_is_no_bytes() -> None:
    with pytest.raises(ValueError, match="required 32 bytes"):
        decode("é" * 43, 32)
    assert secrets.compare_digest(decode(encode(NONCE), 32), NONCE)
