"""The results: one start's phases, a run's starts and where it ran, and their figures."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final

from tests.bench.node.moments import APPLICATION, Moments

PHASES: Final[Mapping[str, tuple[str, str, str]]] = {
    "admission": ("requested", "created", "the API server's answer to the pod's creation, with all webhooks"),
    "scheduling": ("created", "bound", "until the pod is bound, with the binding's webhook"),
    "sandbox": ("bound", "sandbox", "until the sandbox runs: the kubelet notices, volumes, network, `pause`"),
    "agent": ("sandbox", "running", "until the agent's first line: its container, and its program's start"),
    "attest": ("running", "attested", "until it has a Vault token, by attestation or by Kubernetes authentication"),
    "vault": ("attested", "published", "until the secret is read from Vault and published"),
    "application": (
        "published",
        f"started {APPLICATION}",
        "until the application's container has started; negative where it had before",
    ),
    "ready": (f"started {APPLICATION}", "ready", "until the pod is stored as ready"),
}
"""Each phase's two moments and what it is. Without an agent the application follows the sandbox at once."""
_OURS: Final = ("admission", "scheduling", "agent", "attest", "vault")


@dataclass(frozen=True)
class Start:
    """One pod's cold start: milliseconds by phase, from the API server's receipt of the pod to its being ready."""

    variant: str
    level: int
    round: int
    phases: Mapping[str, float]

    @property
    def total(self) -> float:
        return sum(self.phases.values())

    @classmethod
    def of(cls, variant: str, level: int, number: int, moments: Moments) -> Start:
        """From the pod's moments. Raises KeyError with the name of one that is missing."""
        known = dict(moments)
        if "running" not in known:
            known |= dict.fromkeys(("running", "attested", "published"), known["sandbox"])
        phases = {name: 1000 * (known[end] - known[begin]) for name, (begin, end, _) in PHASES.items()}
        return cls(variant, level, number, phases)


@dataclass
class Run:
    """What a run measured, where and when, and which levels it left out and why."""

    date: str
    machine: Mapping[str, str]
    titles: Mapping[str, str]
    starts: list[Start] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    """By level, as text."""

    @property
    def levels(self) -> list[int]:
        return sorted({start.level for start in self.starts})

    @property
    def base(self) -> str:
        """The variant that the others are compared with."""
        return next(iter(self.titles))

    def of(self, variant: str, level: int) -> list[Start]:
        return [start for start in self.starts if (start.variant, start.level) == (variant, level)]

    def rounds(self, level: int) -> int:
        return len({start.round for start in self.starts if start.level == level})

    def median(self, variant: str, level: int) -> float:
        return statistics.median(start.total for start in self.of(variant, level))

    def p90(self, variant: str, level: int) -> float:
        """The smallest total that nine in ten do not exceed."""
        totals = sorted(start.total for start in self.of(variant, level))
        return totals[max(0, -(-9 * len(totals) // 10) - 1)]

    def mean(self, variant: str, level: int, phase: str) -> float:
        return statistics.fmean(start.phases[phase] for start in self.of(variant, level))

    def added(self, variant: str, level: int) -> float:
        """Milliseconds, the difference of the medians."""
        return self.median(variant, level) - self.median(self.base, level)

    def worked(self, variant: str, level: int) -> float:
        """Of the mean that is added, what is work: admission and the agent."""
        return sum(self.mean(variant, level, phase) - self.mean(self.base, level, phase) for phase in _OURS)

    def waited(self, variant: str, level: int) -> float:
        """Of the mean that is added, the rest: what the kubelet takes, for the most part waiting."""
        rest = [phase for phase in PHASES if phase not in _OURS]
        return sum(self.mean(variant, level, phase) - self.mean(self.base, level, phase) for phase in rest)

    def write(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def read(cls, text: str) -> Run:
        content = json.loads(text)
        starts = [Start(**each) for each in content.pop("starts")]
        return cls(**content, starts=starts)


def variants_of(run: Run) -> Sequence[str]:
    """Those that have starts, in order."""
    present = {start.variant for start in run.starts}
    return [key for key in run.titles if key in present]


def counted(rounds: int) -> str:
    """In words."""
    return f"{rounds} round{'s' if rounds != 1 else ''}"
