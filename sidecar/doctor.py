"""`morphisms-init --doctor`: checks each step by itself, publishes nothing, prints no secret."""

from __future__ import annotations

import base64
import binascii
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from attestation.evidence import EvidenceError, Kind, open_source
from kbs import guest, messages
from plan.document import DATA_HUB, EvidenceSource, Plan
from sidecar.attest.data_hub import DataHubLogin
from sidecar.attest.handshake import (
    MAX_CLOCK_SKEW_SECONDS,
    login_of,
    make_gate,
    read_pod_token,
    verifier_client,
)
from sidecar.deadline import Deadline
from sidecar.errors import SidecarError, internal_error
from sidecar.http import VAULT, VERIFIER, Answer, Client, Party, json_object
from sidecar.log import Events
from sidecar.paths import PodPaths
from sidecar.publish.render import environments, files, reads
from sidecar.reasons import Exit, Reason, evidence_reason
from sidecar.shutdown import ShutdownSignal
from sidecar.vault.client import VaultClient
from sidecar.well_known_sources import WELL_KNOWN

if TYPE_CHECKING:
    from attestation.appraisal.appraise_verifier import VerifierResult

STEP_SECONDS: Final = 15.0
_SEAL_STATUS: Final = "/v1/sys/seal-status"  # answered without a token, sealed or not


class Report:
    """Lines for people, in the order of the steps; the first failure gives the exit code."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self.exit_code = Exit.PUBLISHED

    def ok(self, what: str, text: str) -> None:
        self._line("ok", what, text)

    def note(self, what: str, text: str) -> None:
        """Information, not a failure."""
        self._line("-", what, text)

    def failed(self, what: str, error: SidecarError) -> None:
        identifier = f", correlation id {error.correlation_id}" if error.correlation_id else ""
        self._line("FAIL", what, f"{error.detail} [{error.reason}{identifier}]")
        self.exit_code = self.exit_code or error.exit_code

    def skipped(self, what: str, text: str) -> None:
        self._line("?", what, f"not checked: {text}")

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """A step whose failure is one line; the next step still runs."""
        try:
            yield
        except SidecarError as error:
            self.failed(what, error)
        except Exception as error:
            self.failed(what, internal_error(error))

    def _line(self, mark: str, what: str, text: str) -> None:
        self._write(f"{mark:4}  {what:12}  {text}\n")


def examine(plan: Plan | None, paths: PodPaths, events: Events, shutdown: ShutdownSignal) -> Exit:
    """Check every step; without a plan only the guest. Never raises; revokes the token that it got."""
    report = Report(sys.stdout.write)
    if plan is None:
        report.note("plan", "none in the environment: only the guest itself can be checked")
    else:
        report.ok("plan", _summary(plan))
    _evidence(report, plan, events, shutdown)
    if plan is not None:
        vault = VaultClient(plan.vault, events)
        try:
            _pod(report, plan, paths)
            servers = [_verifier(report, plan, events, shutdown), _vault_server(report, plan, shutdown)]
            if all(servers):
                with report.step("attestation"):
                    _log_in(report, plan, paths, vault, events, shutdown)
                    _secrets(report, plan, vault, shutdown)
            else:
                report.skipped("attestation", "the verifier or Vault did not answer as it should")
        finally:
            vault.revoke(Deadline(paths.revocation_seconds, ShutdownSignal()))
    sys.stdout.flush()
    return report.exit_code


def _summary(plan: Plan) -> str:
    who = f"{plan.workload.cluster}/{plan.workload.namespace}/{plan.workload.service}"
    variables = len(plan.env) + len(plan.env_from)
    return f"for {who}: {len(plan.secrets)} files, {variables} variables, agent {plan.agent}"


def _evidence(report: Report, plan: Plan | None, events: Events, shutdown: ShutdownSignal) -> None:
    """Check each source by itself: the first configured one that is there has to answer; the rest is information."""
    answered = False
    for source in () if plan is None or plan.data_hub else plan.evidence:
        problem = _probe(source)
        if problem is None:
            report.ok("evidence", f"{source.name} at {source.address} gives reports{_label(source)}")
        elif problem.kind is Kind.UNAVAILABLE or answered:
            report.note("evidence", f"{source.name} at {source.address}: {problem.detail}")
        else:
            report.failed("evidence", _evidence_error(problem))
        answered = answered or problem is None
    if plan is not None and plan.data_hub:
        with report.step("evidence"):
            login = DataHubLogin(plan, events)
            features = login.features(Deadline(STEP_SECONDS, shutdown))
            report.ok("evidence", f"{DATA_HUB} at {plan.data_hub} serves {features}; it attests in the step below")
    elif plan is not None and not answered and not report.exit_code:
        report.failed("evidence", SidecarError(Reason.EVIDENCE_NO_SOURCE, "no configured source is there"))
    for source in WELL_KNOWN:
        if (plan is None or source.name not in {each.name for each in plan.evidence}) and _probe(source) is None:
            report.note("evidence", f"{source.name} at {source.address} would give reports, and is not configured")


def _probe(source: EvidenceSource) -> EvidenceError | None:
    try:
        opened = open_source(source.name, source.address)
        # This report is bound to random bytes, so no verifier would accept it; it is dropped.
        opened.collect(opened.report_data(os.urandom(48)), timeout=STEP_SECONDS)
    except EvidenceError as error:
        return error
    return None


def _label(source: EvidenceSource) -> str:
    return " - SIMULATED: they prove nothing about any machine" if source.name == "simulated" else ""


def _evidence_error(error: EvidenceError) -> SidecarError:
    return SidecarError(evidence_reason(error.code), f"{error.source}: {error.detail}", exit_code=Exit.EVIDENCE)


def _pod(report: Report, plan: Plan, paths: PodPaths) -> None:
    with report.step("pod token"):
        claims = _claims(read_pod_token(paths.token))
        audiences = claims.get("aud")
        if plan.verifier.audience not in (audiences if isinstance(audiences, list) else [audiences]):
            raise SidecarError(Reason.POD_TOKEN_AUDIENCE, f"it is not for the audience {plan.verifier.audience}")
        left = _left(claims)
        if left <= 0:
            raise SidecarError(Reason.POD_TOKEN_OLD, f"it expired {-left} s ago by this guest's clock")
        report.ok("pod token", f"for {plan.verifier.audience}, expires in {left} s")
    for folder in (paths.secrets, paths.run):
        with report.step("volume"):
            if not os.access(folder, os.W_OK | os.X_OK):
                raise SidecarError(Reason.VOLUME, f"{folder} does not exist, or this user may not write to it")
            report.ok("volume", f"{folder} can be written")


def _verifier(report: Report, plan: Plan, events: Events, shutdown: ShutdownSignal) -> bool:
    there = False
    gate = make_gate(plan, events)
    client = verifier_client(plan, gate)
    with report.step("verifier"):
        if gate is not None:
            _proof(report, gate.attest(client, Deadline(STEP_SECONDS, shutdown, once=True)))
        answer = client.call(Deadline(STEP_SECONDS, shutdown), "POST", messages.AUTH_PATH, guest.write_auth())
        _expect_success(VERIFIER, answer)
        guest.read_auth_answer(answer.body)
        report.ok("verifier", f"{plan.verifier.url} is trusted and gives a nonce")
        there = True
    _clock(report, "the verifier", client)
    client.close()
    return there


def _proof(report: Report, result: VerifierResult | None) -> None:
    if result is None:
        raise AssertionError("a new gate knows a key")
    label = ", SIMULATED: it proves nothing about any machine" if result.simulated else ""
    serial = "" if result.serial is None else f", reference values of serial {result.serial}"
    report.ok("proof", f"the verifier runs in guest {result.guest}{serial}{label}")


def _vault_server(report: Report, plan: Plan, shutdown: ShutdownSignal) -> bool:
    there = False
    client = Client(VAULT, plan.vault.url, plan.vault.ca, limit=64 * 1024)
    with report.step("Vault"):
        answer = client.call(Deadline(STEP_SECONDS, shutdown), "GET", _SEAL_STATUS)
        _expect_success(VAULT, answer)
        if json_object(answer.body).get("sealed") is not False:
            raise SidecarError(Reason.VAULT_SEALED, f"{plan.vault.url} is trusted, and is sealed")
        report.ok("Vault", f"{plan.vault.url} is trusted and unsealed")
        there = True
    _clock(report, "Vault", client)
    client.close()
    return there


def _clock(report: Report, whose: str, client: Client) -> None:
    ahead = client.clock_ahead
    if ahead is None:
        report.skipped("clock", f"{whose} sent no date")
    elif abs(ahead) >= MAX_CLOCK_SKEW_SECONDS:
        words = f"this guest's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} {whose}'s"
        report.failed("clock", SidecarError(Reason.CLOCK_SKEW, words))
    else:
        # Dates in HTTP are whole seconds.
        report.ok("clock", f"within {abs(ahead) + 1:.0f} s of {whose}'s")


def _log_in(
    report: Report, plan: Plan, paths: PodPaths, vault: VaultClient, events: Events, shutdown: ShutdownSignal
) -> None:
    got: list[messages.VaultToken] = []

    def keep(token: messages.VaultToken) -> None:
        vault.use(token)
        got.append(token)

    attester = login_of(plan, paths.token, events)
    attester.log_in(Deadline(STEP_SECONDS, shutdown), keep)
    (token,) = got
    label = ", SIMULATED" if token.simulated else ""
    life = f"for {token.lease_seconds} s" if token.lease_seconds else "that does not expire"
    story = f"; morphisms explain {attester.correlation_id}" if attester.correlation_id else ""
    report.ok("attestation", f"accepted, assurance {token.assurance}{label}; a Vault token {life}{story}")


def _secrets(report: Report, plan: Plan, vault: VaultClient, shutdown: ShutdownSignal) -> None:
    found: dict[tuple[str, int | None], dict[str, Any]] = {}
    wanted = reads(plan)
    for path, version in wanted:
        what = path if version is None else f"{path}@{version}"
        with report.step("secret"):
            found[path, version] = vault.read(Deadline(STEP_SECONDS, shutdown), path, version)
            report.ok("secret", f"{what} can be read, {len(found[path, version])} keys")
    if len(found) < len(wanted):
        report.skipped("contents", "a secret is missing")
        return
    with report.step("contents"):
        count = len(files(plan, found)) + len(environments(plan, found))
        report.ok("contents", f"{count} files would be published; nothing was")


def _claims(token: str) -> dict[str, Any]:
    """The claims of the pod's token, unverified: the verifier checks them."""
    parts = token.split(".")
    try:
        payload = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
    except (IndexError, binascii.Error, ValueError):
        payload = b""
    return json_object(payload)


def _left(claims: dict[str, Any]) -> int:
    end = claims.get("exp")
    return int(end - time.time()) if isinstance(end, (int, float)) else 0


def _expect_success(party: Party, answer: Answer) -> None:
    if answer.status != 200:
        words = f"another server than {party.name} answers there (HTTP {answer.status})"
        raise SidecarError(party.answer, words)
