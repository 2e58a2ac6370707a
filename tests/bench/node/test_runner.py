"""Which levels a run has: what does not fit on the node or into the time is left out, and says why."""

from __future__ import annotations

from typing import Any, cast

from tests.bench.node.runner import Runner, TooManyError, unschedulable
from tests.bench.node.starts import PHASES, Run, Start

_SAID = "0/1 nodes are available: 1 Insufficient cpu."


class _Rounds(Runner):
    """Rounds without a node, of which one level never fits."""

    def _round(self, level: int, number: int, result: Run) -> None:
        result.starts.append(Start("plain", level, number, dict.fromkeys(PHASES, 1.0)))
        if level == 75:
            raise TooManyError(_SAID)


def _run(seconds: float, available: int = 10**6) -> Run:
    result = Run("", {}, {"plain": "as it is"})
    nothing = cast(Any, None)
    _Rounds(nothing, nothing, lambda line: None, seconds, lambda: available).run({1: 3, 2: 2, 75: 2}, result)
    return result


def test_a_level_that_does_not_fit_has_no_figures_but_a_reason() -> None:
    result = _run(3600)
    assert result.left_out == {"75": _SAID}
    assert [(start.level, start.round) for start in result.starts] == [(1, 0), (2, 0), (1, 1), (1, 2), (2, 1)]


def test_a_level_that_takes_more_memory_than_there_is_is_not_begun() -> None:
    result = _run(3600, available=200)
    assert {start.level for start in result.starts} == {1}
    assert result.left_out["2"] == "it takes some 340 MiB of memory, and 200 MiB were available"


def test_without_time_nothing_is_begun_that_would_not_end_in_it() -> None:
    result = _run(-1)
    assert result.starts == []
    assert set(result.left_out) == {"1", "2", "75"}
    assert all("were left" in why for why in result.left_out.values())


def test_the_scheduler_is_heard_of_pods_that_wait_for_a_node() -> None:
    waiting = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": _SAID}
    scheduled = {"type": "PodScheduled", "status": "True"}
    pods = [{"status": {"conditions": [scheduled]}}, {}, {"status": {"conditions": [waiting]}}]
    assert unschedulable(pods) == _SAID
    assert unschedulable(pods[:2]) is None
