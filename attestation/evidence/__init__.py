"""Where a guest gets its evidence: one file per source, one function that tries them in the configured order.

For the inside of the pod: standard library and the library's byte layouts only, nothing that slows a cold start.
`collect_first` is what the sidecar calls; `coco_document` is how evidence travels; `open_source` and a source's own
`collect` are for diagnosis. Nothing here appraises evidence.
"""

from attestation.evidence.coco_document import coco_document
from attestation.evidence.errors import Code, EvidenceError, Kind
from attestation.evidence.order import SOURCES, ConfiguredSource, collect_first, open_source
from attestation.evidence.source import CollectedEvidence, EvidenceSource

__all__ = [
    "SOURCES",
    "Code",
    "CollectedEvidence",
    "ConfiguredSource",
    "EvidenceError",
    "EvidenceSource",
    "Kind",
    "coco_document",
    "collect_first",
    "open_source",
]
