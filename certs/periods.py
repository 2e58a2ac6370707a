"""How long certificates live, and how long a change is given to arrive."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

# A certificate counts from an hour ago: a caller whose clock is behind by less believes it at once.
BACKDATE: Final = timedelta(hours=1)

MAX_LEAF: Final = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class Periods:
    """`leaf` and `authority` are lifetimes. `settle` is what API servers and replicas get to see a published bundle."""

    leaf: timedelta = timedelta(days=7)
    authority: timedelta = timedelta(days=3650)
    settle: timedelta = timedelta(seconds=60)
