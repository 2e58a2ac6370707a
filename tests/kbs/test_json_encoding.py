"""JSON that another party sends is UTF-8 and nothing else, whichever reader takes it.

`json.loads` guesses UTF-16 and UTF-32 when it is given bytes: a proxy or a log in between would read another document.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from attestation.errors import FormatError
from attestation.report.coco import parse_coco_json
from attestation.verifier.untrusted_json import read_json as read_untrusted
from kbs.guest import read_attest_answer, read_correlation_id
from kbs.messages import WireError, read_json
from kbs.verifier import read_auth
from server.kubernetes.client import _object
from server.kubernetes.errors import AnswerError
from sidecar.http import json_object

DOCUMENT = '{"token":"t"}'
ENCODINGS = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "utf-8-sig")
READERS: dict[str, Callable[[bytes], Any]] = {
    "the guest's half": lambda body: read_json(body, 1000, "answer"),
    "the bearer": read_attest_answer,
    "the verifier's half": read_auth,
    "a server's answer to the verifier": read_untrusted,
    "the API server's answer": _object,
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("reader", READERS)
def test_a_reader_refuses_another_encoding(reader: str, encoding: str) -> None:
    """`json.loads` would have taken it: none of them may reach the point of missing a member."""
    with pytest.raises((ValueError, AnswerError)) as caught:
        READERS[reader](DOCUMENT.encode(encoding))
    assert "is missing" not in str(caught.value)
    assert "version is not" not in str(caught.value)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_evidence_has_one_encoding(encoding: str) -> None:
    with pytest.raises(FormatError, match="evidence is not JSON"):
        parse_coco_json(DOCUMENT.encode(encoding))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_vaults_answer_to_the_sidecar_has_one_encoding(encoding: str) -> None:
    assert json_object(DOCUMENT.encode()) == {"token": "t"}
    assert json_object(DOCUMENT.encode(encoding)) == {}


def test_utf_8_is_read() -> None:
    text = '{"token":"t","more":"ä€𝄞"}'
    assert read_json(text.encode(), 1000, "answer")["more"] == "ä€𝄞"
    assert read_untrusted(text.encode())["more"] == "ä€𝄞"
    assert read_correlation_id(text.encode()) == ""
    with pytest.raises(WireError, match="not JSON"):
        read_json(text.encode("latin-1", "replace"), 1000, "answer")
