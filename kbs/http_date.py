"""The one form of an HTTP date that is written today (RFC 9110, 5.6.7), without the modules that know all of them."""

from __future__ import annotations

from typing import Final

_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_NUMBERS: Final = ((5, 7, 31), (12, 16, 9999), (17, 19, 23), (20, 22, 59), (23, 25, 60))  # from, to, most
_LENGTH: Final = len("Sun, 06 Nov 1994 08:49:37 GMT")
_DAYS_TO_1970: Final = 719_468  # from 1 March of year 0


def seconds_since_1970(text: str) -> float | None:
    """Seconds from 1970 to a date such as `Sun, 06 Nov 1994 08:49:37 GMT`; None for text that is not one."""
    between = (text[3:5], text[7:8], text[11:12], text[16:17], text[19:20], text[22:23], text[25:])
    digits = [text[start:end] for start, end, _ in _NUMBERS]
    if (
        len(text) != _LENGTH
        or not text.isascii()
        or between != (", ", " ", " ", " ", ":", ":", " GMT")
        or text[8:11] not in _MONTHS
        or not all(map(str.isdigit, digits))
    ):
        return None
    numbers = [int(each) for each in digits]
    day, year, hour, minute, second = numbers
    if day < 1 or any(number > most for number, (_, _, most) in zip(numbers, _NUMBERS, strict=True)):
        return None
    # Gregorian years that begin in March, so that a leap day is a year's last.
    month = (_MONTHS.index(text[8:11]) + 10) % 12
    year -= month > 9
    days = 365 * year + year // 4 - year // 100 + year // 400 + (153 * month + 2) // 5 + day - 1
    return float((days - _DAYS_TO_1970) * 86_400 + hour * 3600 + minute * 60 + second)
