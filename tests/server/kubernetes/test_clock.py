"""The API server's time, from its answers."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from server.kubernetes.clock import ServerClock


def test_the_clock_is_the_api_servers() -> None:
    seconds = 100.0
    clock = ServerClock(monotonic=lambda: seconds, wall=lambda: 4e9)
    assert clock.now() == datetime.fromtimestamp(4e9, UTC)
    clock.observe("Tue, 15 Nov 1994 08:12:31 GMT")
    seconds += 60
    assert clock.now() == datetime(1994, 11, 15, 8, 13, 31, tzinfo=UTC)
    for nonsense in (None, "", "yesterday", "Tue, 99 Nov 1994 08:12:31 GMT"):
        clock.observe(nonsense)
    assert clock.now() == datetime(1994, 11, 15, 8, 13, 31, tzinfo=UTC)
    assert clock.skew_seconds == pytest.approx(4e9 - clock.now().timestamp())
