"""Reading a review: what a client may hide in the text of one."""

from __future__ import annotations

import pytest

from webhook.errors import ReviewError
from webhook.review import read_review

_REVIEW = '{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"1"%s}}'


@pytest.mark.parametrize(
    "rest",
    [
        ',"dryRun":true,"dryRun":0,"object":{"x":1E15}',
        ',"name":"a","name":"b","object":{"x":1E5,"y":1E6}',
        ',"name":"a","name":"b","object":{"x":1}',
    ],
    ids=["one number", "two numbers", "none"],
)
def test_a_member_given_twice_does_not_hide_behind_numbers_that_are_spelled_shorter(rest: str) -> None:
    with pytest.raises(ReviewError, match="twice"):
        read_review((_REVIEW % rest).encode(), "/mutate/pod")


@pytest.mark.parametrize("number", ["1E12", "1e-7", "100.0", "-0"])
def test_a_number_spelled_otherwise_is_read(number: str) -> None:
    request = read_review((_REVIEW % f',"object":{{"x":{number}}}').encode(), "/mutate/pod")
    assert request.object == {"x": float(number)}
