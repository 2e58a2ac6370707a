"""`coco-aa`: the attestation agent of Confidential Containers, over the REST server in the guest.

confidential-containers/guest-components, api-server-rest/src/aa.rs: `GET /aa/evidence?runtime_data=…` on 127.0.0.1:8006
answers the agent's evidence as JSON. It is there only with `agent.guest_components_rest_api=attestation` or `all` on
the guest kernel's command line (a part of the launch measurement); with the default, `resource`, it answers 404.
"""

from __future__ import annotations

import re
from urllib.parse import urlencode

from attestation.errors import FormatError
from attestation.evidence.endpoint import get, parse_address, require_loopback
from attestation.evidence.errors import Code, EvidenceError
from attestation.evidence.source import CollectedEvidence, accept, require_report_data
from attestation.report.coco import MAX_EVIDENCE_SIZE, parse_coco_json
from attestation.report.report_data import ascii_encoded

NAME = "coco-aa"
_UNRESERVED = re.compile(rb"[A-Za-z0-9_-]{64}")


class CocoAttestationAgent:
    """`address` is `http://HOST:PORT` on loopback, or `unix:/PATH`. Raises EvidenceError(BAD_ADDRESS)."""

    name = NAME

    def __init__(self, address: str) -> None:
        self._address = parse_address(NAME, address)
        require_loopback(NAME, self._address)

    def report_data(self, digest: bytes) -> bytes:
        """64 characters of base64url: old agents take the parameter's raw bytes, new ones base64 on request as well.

        Without that request every version puts exactly these bytes into REPORT_DATA.
        """
        return ascii_encoded(digest)

    def collect(self, report_data: bytes, *, timeout: float) -> CollectedEvidence:
        """See EvidenceSource. Raises ValueError for REPORT_DATA that is not 64 characters of base64url."""
        require_report_data(report_data)
        if not _UNRESERVED.fullmatch(report_data):
            raise ValueError("the agent passes REPORT_DATA unchanged only as 64 characters of base64url")
        query = urlencode({"runtime_data": report_data.decode("ascii")})
        body = get(
            NAME,
            self._address,
            f"/aa/evidence?{query}",
            timeout=timeout,
            limit=MAX_EVIDENCE_SIZE,
            on_404=Code.NOT_ENABLED,
        )
        try:
            report, certificates = parse_coco_json(body)
        except FormatError as error:
            raise EvidenceError(NAME, Code.MALFORMED, str(error)) from None
        return accept(NAME, report_data, report, certificates, body)
