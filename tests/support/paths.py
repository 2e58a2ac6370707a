"""Where things lie that several tests read."""

import os
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
REVIEWS: Final = ROOT / "tests" / "fixtures" / "admissionreviews"

SHARED: Final = Path(os.environ.get("MORPHISMS_SHARED", ROOT.parent / "shared"))
"""Material beside the checkout; tests that want it say why they skip where it is missing. Set MORPHISMS_SHARED to a
folder that does not exist to see what a checkout alone runs."""

VECTORS: Final = SHARED / "vectors"
