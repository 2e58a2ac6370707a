"""Histograms of a program's metrics, between two looks at them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True)
class Histogram:
    """Observations in seconds: their sum, and how many were within each bound."""

    sum: float
    within: Counter[float]

    @staticmethod
    def read(texts: Iterable[str], name: str, /, **labels: str) -> Histogram:
        """All samples of that name with these labels among others, of all programs together."""
        total, within = 0.0, Counter[float]()
        for text in texts:
            lines = "\n".join(line for line in text.splitlines() if line.startswith((f"{name}_", f"# TYPE {name} ")))
            for family in text_string_to_metric_families(lines + "\n"):
                for sample in family.samples:
                    if labels.items() <= sample.labels.items():
                        if sample.name.endswith("_sum"):
                            total += sample.value
                        elif sample.name.endswith("_bucket"):
                            within[float(sample.labels["le"])] += sample.value  # type: ignore[assignment]
        return Histogram(total, within)

    def __sub__(self, other: Histogram) -> Histogram:
        later = Counter({bound: count - other.within[bound] for bound, count in self.within.items()})
        return Histogram(self.sum - other.sum, later)

    def __add__(self, other: Histogram) -> Histogram:
        bounds = {*self.within, *other.within}
        both = Counter({bound: self.within[bound] + other.within[bound] for bound in bounds})
        return Histogram(self.sum + other.sum, both)

    def __str__(self) -> str:
        count = self.within[math.inf]
        if not count:
            return "none"
        bound = min(bound for bound, within in self.within.items() if within >= 0.99 * count)
        return f"mean {1000 * self.sum / count:.1f} ms, p99 within {1000 * bound:g} ms"
