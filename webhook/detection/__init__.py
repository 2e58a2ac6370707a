"""Whether a variable's plain value looks like a secret: by its name, by a published token format, by its entropy.

`Detector(Allow(...)).find(name, value)` gives a Finding or None. A Finding never holds the value or a part of it.
detect-secrets was measured for this and left aside: see docs/decisions/secret-detection.md.
"""

from webhook.detection.detector import Allow, Detector, Finding

__all__ = ["Allow", "Detector", "Finding"]
