"""The audit log is read while the API server writes it."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.audit import AuditLog


def test_a_line_that_was_half_written_at_the_mark_is_of_something_before_it(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.log")
    log.path.write_text('{"verb": "first"}\n{"verb": "sec')
    half = log.mark()
    with log.path.open("a") as written:
        written.write('ond"}\n{"verb": "third"}\n{"verb": "half')
    assert [event["verb"] for event in log.events(half)] == ["third"]
    assert [event["verb"] for event in log.events()] == ["first", "second", "third"]


def test_a_mark_at_a_lines_end_loses_nothing(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.log")
    log.path.write_text('{"verb": "first"}\n')
    mark = log.mark()
    with log.path.open("a") as written:
        written.write('{"verb": "second"}\n')
    assert [event["verb"] for event in log.events(mark)] == ["second"]
