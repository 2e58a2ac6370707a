"""Dates of HTTP, beside the standard library's reader of them."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.http_date import seconds_since_1970


@given(st.datetimes(min_value=datetime(1000, 1, 1), max_value=datetime(9999, 12, 31)))
def test_a_date_is_read_as_the_standard_library_reads_it(moment: datetime) -> None:
    whole = moment.replace(microsecond=0, tzinfo=UTC)
    text = format_datetime(whole, usegmt=True)
    assert seconds_since_1970(text) == whole.timestamp() == parsedate_to_datetime(text).timestamp()


@pytest.mark.parametrize("year", [1600, 1900, 2000, 2024, 2100])
@pytest.mark.parametrize(("month", "day"), [(1, 1), (2, 28), (3, 1), (12, 31)])
def test_centuries_have_the_leap_days_of_the_calendar(year: int, month: int, day: int) -> None:
    whole = datetime(year, month, day, tzinfo=UTC)
    assert seconds_since_1970(format_datetime(whole, usegmt=True)) == whole.timestamp()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "-1",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 +0100",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "Sun, 06 Abc 1994 08:49:37 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Sun, 32 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:49:37 GMT",
        "Sun, 06 Nov 1994 08:60:37 GMT",
        "Sun, 06 Nov 1994 08:49:61 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT\n",
        "Sun, \u0660\u0666 Nov 1994 08:49:37 GMT",
    ],
)
def test_text_that_is_not_a_date_says_nothing(text: str) -> None:
    assert seconds_since_1970(text) is None
