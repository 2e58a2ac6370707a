"""Whether a variable's plain value looks like a secret: by its name, by a published token format, by its entropy.

`Detector(Allow(...)).find(name, value)` gives a Finding or None. It is pure and bounded in time, keeps no value, and a
Finding never holds the value or a part of it. `DETECTORS` lists the ids that a Finding and `Allow.detectors` may name.
detect-secrets was measured for this and left aside: see docs/decisions/secret-detection.md.
"""

from webhook.detection.allow import Allow
from webhook.detection.detector import DETECTORS, Detector, Finding

__all__ = ["DETECTORS", "Allow", "Detector", "Finding"]
