"""Evidence sources that a guest may have although its plan does not list them, at their usual addresses."""

from __future__ import annotations

from typing import Final

from plan.document import EvidenceSource

WELL_KNOWN: Final = (
    EvidenceSource("coco-aa", "http://127.0.0.1:8006"),
    EvidenceSource("configfs-tsm", "/sys/kernel/config/tsm/report"),
    EvidenceSource("sev-guest", "/dev/sev-guest"),
)
