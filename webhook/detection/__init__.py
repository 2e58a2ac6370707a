"""Detects plain values that look like secrets: by the variable's name, by a published token format, by entropy.

`Detector(Allow(...)).find(name, value)` returns a Detection or None. It is pure, bounded in time, and keeps no value;
a Detection never holds the value or a part of it. `DETECTORS` lists the ids for a Detection and for `Allow.detectors`.
Why not detect-secrets: docs/decisions/secret-detection.md.
"""

from webhook.detection.allow import Allow
from webhook.detection.detector import DETECTORS, Detection, Detector
from webhook.detection.harmless import without_scheme

__all__ = ["DETECTORS", "Allow", "Detection", "Detector", "without_scheme"]
