"""The guest opens what a JOSE library sealed for its key, in the one form that the verifier sends, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwe
from joserfc.jwk import ECKey
from joserfc.registry import HeaderParameter

from kbs.base64url import decode, encode
from kbs.ephemeral_key import EphemeralKey
from kbs.messages import WireError

HEADER = {"alg": "ECDH-ES+A256KW", "enc": "A256GCM", "nonce": "n", "role": "r"}
_ANY = jwe.JWERegistry(
    header_registry={name: HeaderParameter(name, "str", False) for name in ("nonce", "role", "other")},
    algorithms=["ECDH-ES+A256KW", "ECDH-ES+A128KW", "ECDH-ES", "A256GCM", "A128GCM", "DEF"],
)
KEY = EphemeralKey()


def sealed(plaintext: bytes, key: EphemeralKey = KEY, **header: Any) -> list[str]:
    """The five parts, by the library; a member of `header` that is None is left out."""
    members = {name: value for name, value in {**HEADER, **header}.items() if value is not None}
    public = ECKey.import_key({name: key.public[name] for name in ("kty", "crv", "x", "y")})
    return jwe.encrypt_compact(members, plaintext, public, registry=_ANY).split(".")


def with_header(parts: list[str], **changes: Any) -> list[str]:
    """The parts under another protected header, as one who relays the answer would write it."""
    header = json.loads(decode(parts[0])) | changes
    return [encode(json.dumps(header).encode()), *parts[1:]]


@given(st.binary(max_size=2000))
def test_what_a_library_seals_is_opened(plaintext: bytes) -> None:
    header, opened = KEY.decrypt(*sealed(plaintext))
    assert opened == plaintext
    assert {name: header[name] for name in HEADER} == HEADER


def test_another_key_opens_nothing() -> None:
    with pytest.raises(WireError, match="cannot be decrypted"):
        EphemeralKey().decrypt(*sealed(b"secret"))


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "ECDH-ES+A128KW"},
        {"enc": "A128GCM"},
        {"zip": "DEF"},
        {"apu": "QWxpY2U"},
        {"apv": "Qm9i"},
        {"kid": "1"},
        {"other": "x"},
        {"nonce": None},
        {"role": None},
    ],
)
def test_another_form_of_a_jwe_is_refused_although_it_is_for_this_key(header: dict[str, Any]) -> None:
    with pytest.raises(WireError, match="protected header"):
        KEY.decrypt(*sealed(b"secret", **header))


def _foreign_epk(curve: str) -> dict[str, Any]:
    return {**ECKey.generate_key(curve).as_dict(private=False)}


@pytest.mark.parametrize(
    "epk",
    [
        None,
        "x",
        {},
        _foreign_epk("P-384"),
        {**_foreign_epk("P-256"), "x": "AA"},
        {**_foreign_epk("P-256"), "x": encode(bytes(31) + b"\x01"), "y": encode(bytes(31) + b"\x01")},  # off the curve
        {**_foreign_epk("P-256"), "x": encode(bytes(32)), "y": encode(bytes(32))},
        {**_foreign_epk("P-256"), "y": encode(b"\xff" * 32)},
        {**_foreign_epk("P-256"), "crv": "P-521"},
        {**_foreign_epk("P-256"), "kty": "OKP"},
    ],
)
def test_a_key_in_the_header_that_is_no_point_of_the_curve_is_refused(epk: object) -> None:
    with pytest.raises(WireError, match=r"epk|JWE"):
        KEY.decrypt(*with_header(sealed(b"secret"), epk=epk))


def test_a_header_that_somebody_changed_on_the_way_opens_nothing() -> None:
    for change in ({"role": "other"}, {"nonce": "other"}, {"epk": _foreign_epk("P-256")}):
        with pytest.raises(WireError, match="cannot be decrypted"):
            KEY.decrypt(*with_header(sealed(b"secret"), **change))


@given(st.integers(0, 4), st.data())
def test_a_part_that_somebody_changed_opens_nothing(part: int, data: st.DataObject) -> None:
    parts = sealed(b"secret")
    position = data.draw(st.integers(0, len(parts[part]) - 1))
    character = data.draw(st.sampled_from("Ab9_-=./+ é\n"))
    changed = parts[part][:position] + character + parts[part][position + 1 :]
    cut = data.draw(st.sampled_from([changed, parts[part][:position], parts[part] + "A", ""]))
    if cut != parts[part]:
        with pytest.raises(WireError):
            KEY.decrypt(*parts[:part], cut, *parts[part + 1 :])


def test_the_public_half_is_a_key_of_43_characters_a_coordinate_and_new_each_time() -> None:
    keys = [EphemeralKey().public for _ in range(40)]
    assert {len(key[name]) for key in keys for name in ("x", "y")} == {43}
    assert len({key["x"] for key in keys}) == 40
    for key in keys:
        assert ECKey.import_key({name: key[name] for name in ("kty", "crv", "x", "y")}).curve_name == "P-256"
