"""Every run uses the same examples, and no example has a deadline, which a busy machine would miss.

Hypothesis also draws constants of the modules of this checkout that the process has imported, so that what ran before
in it would change the examples: those are left out.

`HYPOTHESIS_PROFILE=search` searches for new ones. Loaded before any test module, because `settings` of a test take what
is in force when its module is imported.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings
from hypothesis.internal.conjecture import providers


def _is_never_local(_file: str) -> bool:
    return False


_SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)

settings.register_profile(
    "fixed",
    max_examples=100,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=_SLOW,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
)
settings.register_profile("search", max_examples=5000, deadline=None, suppress_health_check=_SLOW, print_blob=True)
_profile = os.environ.get("HYPOTHESIS_PROFILE", "fixed")
settings.load_profile(_profile)
if _profile == "fixed":
    providers.is_local_module_file = _is_never_local
