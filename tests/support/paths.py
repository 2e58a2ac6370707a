"""Where things lie that several tests read."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
REVIEWS: Final = ROOT / "tests" / "fixtures" / "admissionreviews"

SHARED: Final = ROOT.parent / "shared"
"""Material beside the checkout; tests that want it say why they skip where it is missing."""

VECTORS: Final = SHARED / "vectors"
