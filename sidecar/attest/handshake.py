"""The handshake: this guest proves itself to the verifier and gets a Vault token that only it can open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from attestation.errors import AttestationError
from attestation.evidence import Code, EvidenceError, Kind, coco_document, collect_first
from kbs import guest, messages
from plan.document import Plan
from sidecar.deadline import Deadline, retry_until
from sidecar.errors import SidecarError
from sidecar.http import VERIFIER, Answer, Client
from sidecar.log import Events
from sidecar.reasons import Reason

MAX_CLOCK_SKEW_SECONDS: Final = 60.0  # the verifier bounds a nonce's age and a token's time more narrowly than that
# A nonce and a bearer live 60 s at the verifier; what took longer starts again instead of being refused.
FRESH_SECONDS: Final = 45.0


T = TypeVar("T")


class Attester:
    """One plan's way to a Vault token."""

    def __init__(self, plan: Plan, token_file: Path, events: Events) -> None:
        self._plan = plan
        self._token_file = token_file
        self._events = events
        self._source = ""
        self._told_skew = False
        self.correlation_id = ""
        """Under which the verifier remembers the last attestation; empty before one, or when it did not say."""
        self._role = plan.verifier.role or messages.DEFAULT_ROLE
        if not guest.is_role(self._role):
            raise SidecarError(Reason.VERIFIER_ROLE, "the plan's role is not a name")
        self._client = Client(VERIFIER, plan.verifier.url, plan.verifier.ca, limit=messages.MAX_ANSWER_SIZE)

    def log_in(self, deadline: Deadline, keep: Callable[[messages.VaultToken], None]) -> None:
        """Hands the token to `keep` before anything can interrupt us. Raises SidecarError."""
        try:
            retry_until(deadline, self._events, lambda: self._once(deadline, keep))
        except SidecarError as error:
            if self._skew:
                error.detail += self._skew
            raise
        finally:
            self._client.close()

    def _once(self, deadline: Deadline, keep: Callable[[messages.VaultToken], None]) -> None:
        """A nonce is good for one attempt, so a new attempt starts from the beginning, with a key of its own."""
        pod_token = read_pod_token(self._token_file)
        key = guest.EphemeralKey()
        with deadline.shutdown.interruptible():
            answer = self._client.call(deadline, "POST", messages.AUTH_PATH, guest.write_auth())
        nonce = _understood(guest.read_auth_answer, _accepted(answer))
        self._warn_of_skew()
        additional = guest.write_additional_evidence(pod_token)
        evidence = self._evidence(deadline, messages.binding(nonce, key.public, additional))
        body = guest.write_attest(nonce, key.public, evidence, additional)
        with deadline.shutdown.interruptible():
            answer = self._client.call(deadline, "POST", messages.ATTEST_PATH, body)
        bearer = _understood(guest.read_attest_answer, _accepted(answer))
        self.correlation_id = _understood(guest.read_correlation_id, answer.body)
        soon = Deadline(min(deadline.remaining(), FRESH_SECONDS), deadline.shutdown, once=deadline.once)
        retry_until(soon, self._events, lambda: self._token(soon, bearer, key, nonce, keep))
        self._events.info("attested", source=self._source, correlation_id=self.correlation_id)

    def _evidence(self, deadline: Deadline, digest: bytes) -> dict[str, object]:
        try:
            with deadline.shutdown.interruptible():
                evidence = collect_first(self._plan.evidence, digest, timeout=min(deadline.remaining(), FRESH_SECONDS))
            self._source = evidence.source
            return coco_document(evidence)
        except EvidenceError as error:
            raise SidecarError(
                evidence_reason(error.code), f"{error.source}: {error.detail}", retryable=error.kind is Kind.BUSY
            ) from None
        except AttestationError as error:
            raise SidecarError(Reason.EVIDENCE_MALFORMED, str(error)) from None

    def _token(
        self,
        deadline: Deadline,
        bearer: str,
        key: guest.EphemeralKey,
        nonce: str,
        keep: Callable[[messages.VaultToken], None],
    ) -> None:
        deadline.shutdown.check()
        # Not interruptible: once the verifier has logged in for us there is a token, and we must have it to revoke it.
        answer = self._client.call(
            deadline, "GET", guest.token_path(self._role), headers={"Authorization": f"Bearer {bearer}"}
        )
        body = _accepted(answer)
        keep(_understood(lambda text: guest.open_token(text, key, nonce, self._role), body))

    def _warn_of_skew(self) -> None:
        if self._skew and not self._told_skew:
            self._told_skew = True
            self._events.warning("clock_skew", detail=self._skew.removeprefix("; "))

    @property
    def _skew(self) -> str:
        ahead = self._client.clock_ahead
        if ahead is None or abs(ahead) < MAX_CLOCK_SKEW_SECONDS:
            return ""
        return f"; this guest's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the verifier's"


def evidence_reason(code: Code) -> Reason:
    """The reason that stands for an evidence source's error code."""
    return Reason[f"EVIDENCE_{code.name}"]


def read_pod_token(path: Path) -> str:
    """The pod's projected service-account token. Raises SidecarError."""
    try:
        with path.open("rb") as file:
            content = file.read(messages.MAX_POD_TOKEN_SIZE + 1)
    except OSError as error:
        raise SidecarError(Reason.POD_TOKEN, f"cannot read the pod's token at {path}: {error.strerror}") from None
    token = content.strip()
    if not token or len(content) > messages.MAX_POD_TOKEN_SIZE or not token.isascii() or b" " in token:
        raise SidecarError(Reason.POD_TOKEN, f"what is at {path} is not a token")
    return token.decode()


def _accepted(answer: Answer) -> bytes:
    if answer.status == 200:
        return answer.body
    error = guest.read_error(answer.body)
    problem = error.problem or f"HTTP {answer.status}"
    help_ = f"; whoever runs it: morphisms explain {error.correlation_id}" if error.correlation_id else ""
    raise SidecarError(
        Reason.VERIFIER_REFUSED,
        f"the verifier refused this guest or its pod: {problem}{help_}",
        correlation_id=error.correlation_id,
    )


def _understood(read: Callable[[bytes], T], body: bytes) -> T:
    try:
        return read(body)
    except messages.WireError as error:
        raise SidecarError(
            Reason.VERIFIER_ANSWER,
            f"what answers as the verifier does not speak its protocol: {error}",
        ) from None
