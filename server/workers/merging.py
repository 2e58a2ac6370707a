"""The metrics of several processes as those of one.

Counters, histograms and summaries are summed, also over the processes that have ended: no sum ever falls. Of a gauge
the rule is stated here, by name, because a sum of ages or of digests means nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from server.workers.messages import Family, Sample

Rule = Callable[[float, float], float]


def _sum(one: float, other: float) -> float:
    return one + other


_SUMMED_TYPES: Final = frozenset({"counter", "histogram", "summary"})
_CREATED: Final = "_created"

GAUGES: Final[Mapping[str, Rule]] = {
    "morphisms_event_loop_lag_seconds": max,
    "morphisms_requests_running": _sum,
    "morphisms_body_bytes_held": _sum,
    "morphisms_connections": _sum,
    # A gate is open when it is open in every process.
    "morphisms_ready": min,
    "morphisms_workers": max,
    "morphisms_serving_certificate_not_after_seconds": min,
    "morphisms_file_info": max,
    "morphisms_file_last_reload_success": min,
    "morphisms_file_last_reload_timestamp_seconds": min,
    "process_virtual_memory_bytes": _sum,
    "process_resident_memory_bytes": _sum,
    "process_open_fds": _sum,
    "process_max_fds": min,
    "process_start_time_seconds": min,
    "python_info": max,
}
"""How the values of one gauge become one, by the gauge's name. One that is not named has its largest value."""

_Key = tuple[str, tuple[tuple[str, str], ...]]


def families_of(registry: Collector) -> list[Family]:
    """What a registry holds now, fit to be sent."""
    return [
        Family(
            metric.name,
            metric.documentation,
            metric.type,
            [Sample(sample.name, dict(sample.labels), float(sample.value)) for sample in metric.samples],
        )
        for metric in registry.collect()
    ]


class Merging(Collector):
    """The sum of processes. `add` takes what one has now, `retire` what one had when it ended."""

    def __init__(self, gauges: Mapping[str, Rule]) -> None:
        self._gauges = {**GAUGES, **gauges}
        self._retired: dict[str, tuple[Family, dict[_Key, float]]] = {}

    def retire(self, families: Iterable[Family]) -> None:
        """Keep the counts of a process that has ended. Its gauges end with it."""
        self._merge(self._retired, [family for family in families if family.type in _SUMMED_TYPES])

    def merged(self, processes: Iterable[Iterable[Family]]) -> _Merged:
        """The metrics of all processes together."""
        merged = {name: (family, dict(values)) for name, (family, values) in self._retired.items()}
        for families in processes:
            self._merge(merged, families)
        return _Merged(merged)

    def collect(self) -> Iterable[Metric]:
        """What is kept of ended processes."""
        return self.merged(()).collect()

    def _merge(self, into: dict[str, tuple[Family, dict[_Key, float]]], families: Iterable[Family]) -> None:
        for family in families:
            _, values = into.setdefault(family.name, (family, {}))
            rule: Rule = _sum if family.type in _SUMMED_TYPES else self._gauges.get(family.name, max)
            for sample in family.samples:
                key = (sample.name, tuple(sorted(sample.labels.items())))
                before = values.get(key)
                how = min if sample.name.endswith(_CREATED) else rule
                values[key] = sample.value if before is None else how(before, sample.value)


class _Merged(Collector):
    def __init__(self, families: Mapping[str, tuple[Family, dict[_Key, float]]]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        for family, values in self._families.values():
            metric = Metric(family.name, family.help, family.type)
            for (name, labels), value in values.items():
                metric.add_sample(name, dict(labels), value)
            yield metric
