"""The metrics of several processes as those of one."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from server.workers.merging import Merging, families_of


class Process:
    """One process's metrics."""

    def __init__(self, answered: int, seconds: float, age: float, ready: float) -> None:
        self.registry = CollectorRegistry()
        counter = Counter("answered", "Answers.", ["code"], registry=self.registry)
        counter.labels("200").inc(answered)
        if answered > 5:
            counter.labels("429").inc()
        Histogram("seconds", "Time.", buckets=(1, 2), registry=self.registry).observe(seconds)
        Gauge("age", "Age.", registry=self.registry).set(age)
        Gauge("morphisms_connections", "Open.", registry=self.registry).set(answered)
        Gauge("morphisms_ready", "Gate.", ["gate"], registry=self.registry).labels("load").set(ready)
        self.families = families_of(self.registry)


def text_of(merging: Merging, *processes: Process) -> str:
    return generate_latest(merging.merged([process.families for process in processes])).decode()


def lines_of(text: str) -> set[str]:
    return {line for line in text.splitlines() if not line.startswith("#") and "_created" not in line}


def test_one_process_reads_as_it_does_by_itself():
    process = Process(3, 0.5, 9, 1)
    assert text_of(Merging({}), process) == generate_latest(process.registry).decode()


def test_counts_are_summed_and_each_gauge_goes_by_its_rule():
    merged = text_of(Merging({"age": max}), Process(3, 0.5, 9, 1), Process(7, 1.5, 4, 0))
    assert lines_of(merged) == {
        'answered_total{code="200"} 10.0',
        'answered_total{code="429"} 1.0',
        'seconds_bucket{le="1.0"} 1.0',
        'seconds_bucket{le="2.0"} 2.0',
        'seconds_bucket{le="+Inf"} 2.0',
        "seconds_count 2.0",
        "seconds_sum 2.0",
        "age 9.0",
        "morphisms_connections 10.0",
        'morphisms_ready{gate="load"} 0.0',
    }


def test_an_ended_process_leaves_its_counts_and_none_of_its_gauges():
    merging = Merging({})
    merging.retire(Process(3, 0.5, 9, 0).families)
    merging.retire(Process(4, 0.5, 9, 0).families)
    merged = lines_of(text_of(merging, Process(7, 1.5, 4, 1)))
    assert {'answered_total{code="200"} 14.0', "seconds_count 3.0", 'morphisms_ready{gate="load"} 1.0'} <= merged
    # Reading changes nothing that is kept.
    assert lines_of(text_of(merging, Process(7, 1.5, 4, 1))) == merged
