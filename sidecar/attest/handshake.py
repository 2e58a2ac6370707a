"""The handshake: this guest attests to the verifier and gets a Vault token that only it can decrypt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from attestation.errors import AttestationError
from attestation.evidence import EvidenceError, Kind, coco_document, collect_first
from kbs import guest, messages
from kbs.ephemeral_key import EphemeralKey
from kbs.trust import same_certificates
from plan.document import Plan
from sidecar.deadline import Deadline, retry_until
from sidecar.errors import SidecarError, UnattestedKeyError
from sidecar.http import VERIFIER, Answer, Client
from sidecar.log import Events
from sidecar.reasons import Reason, evidence_reason

if TYPE_CHECKING:
    from sidecar.attest.data_hub import DataHubLogin
    from sidecar.attest.verifier_first import VerifierGate

MAX_CLOCK_SKEW_SECONDS: Final = 60.0  # the verifier bounds a nonce's age and a token's time more narrowly than that
# The verifier accepts a nonce and a bearer for 60 s; an attempt that took longer starts again.
FRESH_SECONDS: Final = 45.0
# Replicas do not know each other's bearers. More often than this, something on the way separates the three calls.
_MOST_LOST_BEARERS: Final = 3


T = TypeVar("T")


class Attester:
    """Gets Vault tokens for one plan."""

    def __init__(self, plan: Plan, token_file: Path, events: Events) -> None:
        self._plan = plan
        self._token_file = token_file
        self._events = events
        self._source = ""
        self._has_warned = False
        self.correlation_id = ""
        """The verifier's id of the last attestation; empty before one, or when the verifier sent none."""
        self._role = plan.verifier.role or messages.DEFAULT_ROLE
        if not guest.is_role(self._role):
            raise SidecarError(Reason.VERIFIER_ROLE, "the plan's Vault role is not a name, such as payments")
        self._lost_bearers = 0
        self._gate = make_gate(plan, events)
        self._client = verifier_client(plan, self._gate)

    def log_in(self, deadline: Deadline, keep: Callable[[messages.VaultToken], None]) -> None:
        """Hand the token to `keep` before anything can interrupt. Raises SidecarError.

        Its `vault_ca` is there only where this process has attested the verifier that named it.
        """
        self._lost_bearers = 0
        try:
            retry_until(deadline, self._events, lambda: self._attempt(deadline, keep))
        except SidecarError as error:
            if self._skew:
                error.detail += self._skew
            raise
        finally:
            self._client.close()
            if self._gate is not None:
                self._gate.close()

    def _attempt(self, deadline: Deadline, keep: Callable[[messages.VaultToken], None]) -> None:
        """One attempt. A nonce is valid once, so a retry starts from the beginning, with another key.

        It has a connection of its own, because only the replica that gave the nonce accepts it, and the bearer.
        """
        self._client.close()
        if self._gate is None:
            self._attest(deadline, keep)
            return
        self._gate.attest(self._client, deadline)
        try:
            self._attest(deadline, keep)
        except UnattestedKeyError as error:
            # Also from within a step that retries by itself: only a new attempt asks for proof of the new key.
            error.retryable = True
            raise

    def _attest(self, deadline: Deadline, keep: Callable[[messages.VaultToken], None]) -> None:
        pod_token = read_pod_token(self._token_file)
        key = EphemeralKey()
        with deadline.shutdown.interruptible():
            answer = self._client.call(deadline, "POST", messages.AUTH_PATH, guest.write_auth())
        nonce = _parsed(guest.read_auth_answer, _accepted(answer))
        self._warn_of_skew()
        additional = guest.write_additional_evidence(pod_token)
        evidence = self._evidence(deadline, messages.binding(nonce, key.public, additional))
        body = guest.write_attest(nonce, key.public, evidence, additional)
        with deadline.shutdown.interruptible():
            answer = self._client.call(deadline, "POST", messages.ATTEST_PATH, body, {messages.NONCE_HEADER: nonce})
        bearer = _parsed(guest.read_attest_answer, _accepted(answer))
        self.correlation_id = _parsed(guest.read_correlation_id, answer.body)
        fresh = Deadline(min(deadline.remaining(), FRESH_SECONDS), deadline.shutdown, once=deadline.once)
        try:
            retry_until(fresh, self._events, lambda: self._fetch_token(fresh, bearer, key, nonce, keep))
        except SidecarError as error:
            if error.reason is Reason.VERIFIER_SESSION:
                self._lost_bearers += 1
                error.retryable = self._lost_bearers <= _MOST_LOST_BEARERS
            raise
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

    def _fetch_token(
        self,
        deadline: Deadline,
        bearer: str,
        key: EphemeralKey,
        nonce: str,
        keep: Callable[[messages.VaultToken], None],
    ) -> None:
        deadline.shutdown.check()
        # Not interruptible: once the verifier has logged in to Vault there is a token, which only we can revoke.
        headers = {"Authorization": f"Bearer {bearer}"}
        if self._gate is not None:
            headers[messages.WIRE_HEADER] = messages.WIRE_VERSION
        answer = self._client.call(deadline, "GET", guest.token_path(self._role), headers=headers)
        body = _accepted(answer)
        token = _parsed(lambda text: guest.open_token(text, key, nonce, self._role), body)
        is_another_ca = bool(token.vault_ca) and not same_certificates(token.vault_ca, self._plan.vault.ca)
        if self._gate is not None:
            if is_another_ca:
                self._events.info("vault_ca_replaced", detail="the attested verifier names another CA than the plan")
            keep(token)
            return
        # The token is kept all the same, so that it can be revoked, but nothing is trusted by this CA.
        keep(token._replace(vault_ca=""))
        if is_another_ca:
            raise SidecarError(
                Reason.VAULT_CA_DIFFERS,
                "the verifier names another CA for Vault than the plan, which does not demand that the verifier proves"
                " itself",
            )

    def _warn_of_skew(self) -> None:
        if self._skew and not self._has_warned:
            self._has_warned = True
            self._events.warning("clock_skew", detail=self._skew.removeprefix("; "))

    @property
    def _skew(self) -> str:
        ahead = self._client.clock_ahead
        if ahead is None or abs(ahead) < MAX_CLOCK_SKEW_SECONDS:
            return ""
        return f"; this guest's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the verifier's"


def login_of(plan: Plan, token_file: Path, events: Events) -> Attester | DataHubLogin:
    """What gets this plan's Vault tokens. Raises SidecarError."""
    if not plan.data_hub:
        return Attester(plan, token_file, events)
    from sidecar.attest.data_hub import DataHubLogin  # here, because most plans have another source

    return DataHubLogin(plan, events)


def make_gate(plan: Plan, events: Events) -> VerifierGate | None:
    """What stands before a verifier that has to prove itself first; None where the plan does not demand it."""
    if plan.verifier.attest is None:
        return None
    from sidecar.attest.verifier_first import VerifierGate  # here, because most plans do not demand it

    return VerifierGate(plan.verifier.attest, events)


def verifier_client(plan: Plan, gate: VerifierGate | None) -> Client:
    """A client of the plan's verifier; with a gate each connection has to pass it."""
    verifier = plan.verifier
    if gate is None:
        return Client(VERIFIER, verifier.url, verifier.ca, limit=messages.MAX_ANSWER_SIZE)
    from kbs.attested import MAX_ATTESTED_ANSWER_SIZE

    return Client(VERIFIER, verifier.url, verifier.ca, limit=MAX_ATTESTED_ANSWER_SIZE, vet=gate.vet)


def read_pod_token(path: Path) -> str:
    """The pod's projected service-account token. Raises SidecarError."""
    try:
        with path.open("rb") as file:
            content = file.read(messages.MAX_POD_TOKEN_SIZE + 1)
    except OSError as error:
        raise SidecarError(Reason.POD_TOKEN, f"cannot read the pod's token at {path}: {error.strerror}") from None
    token = content.strip()
    if not token or len(content) > messages.MAX_POD_TOKEN_SIZE or not token.isascii() or b" " in token:
        raise SidecarError(Reason.POD_TOKEN, f"the content of {path} is not a token")
    return token.decode()


def _accepted(answer: Answer) -> bytes:
    if answer.status == 200:
        return answer.body
    error = guest.read_error(answer.body)
    if error.problem == messages.ErrorType.SESSION:
        raise SidecarError(
            Reason.VERIFIER_SESSION,
            "the verifier does not know this attestation's bearer: another replica made it, or its policy changed",
            correlation_id=error.correlation_id,
        )
    problem = error.problem or f"HTTP {answer.status}"
    help_ = f"; its operator can run: morphisms explain {error.correlation_id}" if error.correlation_id else ""
    raise SidecarError(
        Reason.VERIFIER_REFUSED,
        f"the verifier refused this guest or its pod: {problem}{help_}",
        correlation_id=error.correlation_id,
    )


def _parsed(read: Callable[[bytes], T], body: bytes) -> T:
    try:
        return read(body)
    except messages.WireError as error:
        raise SidecarError(
            Reason.VERIFIER_ANSWER,
            f"the server at the verifier's URL does not speak its protocol: {error}",
        ) from None
