"""Whether two texts name the same certificate authorities."""

from __future__ import annotations

import ssl

from kbs.trust import same_certificates
from tests.support.certificates import make_pair

ONE, OTHER = (make_pair()[0].decode() for _ in range(2))


def test_the_same_certificates_in_other_words_are_the_same() -> None:
    again = ssl.DER_cert_to_PEM_cert(ssl.PEM_cert_to_DER_cert(ONE))
    assert same_certificates(ONE, f"# a comment ü\r\n{again}")
    assert same_certificates(ONE + OTHER, OTHER + ONE + ONE)
    assert same_certificates("", "no certificate at all")


def test_one_more_one_less_or_another_certificate_is_a_difference() -> None:
    assert not same_certificates(ONE, OTHER)
    assert not same_certificates(ONE, ONE + OTHER)
    assert not same_certificates(ONE, "")
