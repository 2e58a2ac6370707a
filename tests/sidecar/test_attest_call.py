"""The second call names its nonce in a header: a verifier under attack keeps room for such calls."""

from __future__ import annotations

from pathlib import Path

from kbs.messages import ATTEST_PATH, NONCE_HEADER, NONCE_PATTERN
from tests.attestation.verifier.process import Verifier
from tests.sidecar.front import front, never
from tests.sidecar.pod import Pod


def test_the_sidecar_names_its_nonce(pod: Pod, verifier_process: Verifier, tmp_path: Path) -> None:
    """The verifier refuses a header that is not the body's nonce: the two are the same."""
    with front(tmp_path / "front", (verifier_process.port, pod.plan.verifier.ca), never) as fronted:
        pod.change(verifier=pod.plan.verifier._replace(url=fronted.url, ca=fronted.ca))
        assert pod.run().code == 0
        (call,) = (each for each in fronted.seen if each.path == ATTEST_PATH)
    assert NONCE_PATTERN.fullmatch(call.headers[NONCE_HEADER])
