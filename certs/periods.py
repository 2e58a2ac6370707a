"""How long certificates are valid, and how long a change may take to arrive."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

# A certificate is valid from an hour before it is made: a caller whose clock is behind by less trusts it at once.
BACKDATE: Final = timedelta(hours=1)

MAX_LEAF: Final = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class Periods:
    """`leaf` and `authority` are lifetimes. `settle` is how long API servers and replicas may take to
    see a published bundle."""

    leaf: timedelta = timedelta(days=7)
    authority: timedelta = timedelta(days=3650)
    settle: timedelta = timedelta(seconds=60)
