"""`agent: sidecar`: after publishing, the process stays and keeps token, credentials and secrets current until SIGTERM.

Nothing that goes wrong after the first publication takes away what was published. One thread runs one task at a time;
each task returns when it is due again, and one that failed runs again after a pause.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from typing import Final

from plan.document import Plan
from sidecar.attest.handshake import Attester
from sidecar.deadline import Deadline
from sidecar.errors import SidecarError, internal_error
from sidecar.health import HealthServer, Status
from sidecar.log import Events
from sidecar.paths import PodPaths
from sidecar.reasons import Exit, Reason
from sidecar.renew.cleanup import Cleanup
from sidecar.renew.lease_renewer import HANDOVER_SECONDS, LeaseRenewer
from sidecar.renew.leases import Leases, retry_delay
from sidecar.renew.outages import VAULT, VERIFIER, Outages, party_of
from sidecar.renew.schedule import Schedule, Task
from sidecar.renew.secrets import PublishedSecrets
from sidecar.shutdown import ShutdownSignal, StoppedError
from sidecar.vault.session import TokenGoneError, VaultSession

TASK_SECONDS: Final = 60.0
LONGEST_SLEEP: Final = 15.0
PAUSE_SECONDS: Final = 30.0  # more than a clock is corrected by while a guest runs


def publish_and_renew(
    plan: Plan, paths: PodPaths, events: Events, shutdown: ShutdownSignal, listener: socket.socket
) -> None:
    """Publish, then keep it current until SIGTERM; probes are answered at `listener`.

    Raises SidecarError before the first publication.
    """
    renewer = Renewer(plan, paths, events, shutdown)
    try:
        renewer.start(listener)
        renewer.run()
    except StoppedError:
        if not renewer.status.published:
            raise
        events.info("stopping")
    finally:
        renewer.close()


class Renewer:
    """One pod's plan over the pod's whole life."""

    def __init__(self, plan: Plan, paths: PodPaths, events: Events, shutdown: ShutdownSignal) -> None:
        self._plan = plan
        self._paths = paths
        self._events = events
        self._shutdown = shutdown
        self.status = Status()
        self._outages = Outages(events)
        self._schedule = Schedule(Task)
        self._cleanup = Cleanup(events, self._schedule)
        self._secrets = PublishedSecrets(plan, paths, events, self._outages)
        self._lease_renewer = LeaseRenewer(self._secrets, self._outages, self._cleanup)
        self._attester = Attester(plan, paths.token, events)
        self._session = VaultSession(plan.vault, events)
        self._leases = self._secrets.new_leases()
        self._unused: VaultSession | None = None
        """A new token that has read nothing yet, because Vault could not be reached."""
        self._tasks: Mapping[Task, Callable[[Deadline], float | None]] = {
            Task.TOKEN: self._renew_token,
            Task.LEASES: self._renew_leases,
            Task.ATTESTATION: self._attest_again,
            Task.SECRETS: self._read_again,
            Task.CLEANUP: self._clean_up,
        }

    def start(self, listener: socket.socket) -> None:
        """Publish for the first time, as `agent: init` does, and keep the token. Raises SidecarError."""
        health = HealthServer(listener, self.status)
        health.start()
        service, count = self._plan.workload.service, len(self._secrets.wanted)
        self._events.info("started", service=service, secrets=count, health_port=health.port)
        deadline = Deadline(self._plan.deadline_seconds, self._shutdown)
        try:
            self._attester.log_in(deadline, self._session.adopt)
            self._secrets.publish_first(deadline, self._session, self._leases)
        except SidecarError as error:
            # The verifier remembers this guest under the id; what fails after the attestation names it too.
            error.correlation_id = error.correlation_id or self._attester.correlation_id
            raise
        self._schedule_session()

    def run(self) -> None:
        """Run what is due, until StoppedError."""
        offset = _clock_offset()
        while True:
            self.status.published, self.status.troubles = self._secrets.publications, self._outages.reasons()
            self.status.heartbeat()
            task = self._schedule.wait(self._shutdown, LONGEST_SLEEP)
            paused, offset = _clock_offset() - offset, _clock_offset()
            if paused > PAUSE_SECONDS:
                self._catch_up(paused)
            if task is not None:
                self._run_task(task)
                self._session.disconnect()

    def close(self) -> None:
        """Revoke every token, and with it its leases, all within the time allowed for one. Never raises."""
        deadline = Deadline(self._paths.revocation_seconds, ShutdownSignal())
        for session in (self._session, self._unused, *self._cleanup.open_sessions()):
            if session is not None:
                session.revoke(deadline)

    def _run_task(self, task: Task) -> None:
        try:
            seconds = self._attempt(task)
        except StoppedError:
            raise
        except SidecarError as error:
            is_gone = isinstance(error, TokenGoneError)
            self._outages.begin(Task.TOKEN if is_gone else party_of(error) or task, error)
            self._schedule.retry(task, error)
            if is_gone or (task is not Task.ATTESTATION and self._may_have_new_ca(error)):
                self._schedule.run_now(Task.ATTESTATION)
        else:
            self._outages.end(task)
            self._schedule.set(task, seconds)

    def _attempt(self, task: Task) -> float | None:
        """Run a task once. An unexpected error is an outage too: after an exit the restart would run into it again."""
        try:
            return self._tasks[task](Deadline(TASK_SECONDS, self._shutdown, once=True))
        except SidecarError:
            raise
        except Exception as error:
            raise internal_error(error) from None

    # --- the tasks: each returns the seconds until it is due again, None until something sets it ------------------

    def _renew_token(self, deadline: Deadline) -> float | None:
        if self._session.is_looked_up:
            self._session.renew(deadline)
        else:
            self._session.look_up(deadline)
        self._outages.end(VAULT)
        self._schedule.set_unless_backing_off(Task.ATTESTATION, self._session.attest_in())
        return self._session.renew_in()

    def _renew_leases(self, deadline: Deadline) -> float | None:
        self._lease_renewer.run(deadline, self._session, self._leases)
        return self._leases.due_in()

    def _attest_again(self, deadline: Deadline) -> float:
        """Get a new token, read and publish everything with it, and only then revoke the old one."""
        old, leases = self._session, self._secrets.new_leases()
        new, self._unused = self._unused or VaultSession(self._plan.vault, self._events), None
        try:
            if not (new.is_open and new.is_alive):
                self._attester.log_in(deadline, new.adopt)
            # Leased credentials end with the token: better to try again than to have none, while the old one lives.
            must_have = self._secrets.leased if old.is_alive else set()
            self._secrets.replace(deadline, new, leases, self._secrets.changing, must_have)
        except BaseException as error:
            if self._is_reusable(new, leases, error):
                self._unused = new
            else:
                self._cleanup.add_token(new, 0.0)
            new.disconnect()
            raise
        had_leases = not self._leases.is_empty
        self._session, self._leases = new, leases
        old.trust_as(new)
        self._leases.retry_missing(self._secrets.leased)
        self._cleanup.add_token(old, min(HANDOVER_SECONDS, old.remaining() / 2) if had_leases else 0.0)
        self._outages.end(VERIFIER, Task.TOKEN)
        self._schedule_session()
        return new.attest_in()

    def _read_again(self, deadline: Deadline) -> float | None:
        self._secrets.read_again(deadline, self._session, self._leases)
        return self._secrets.reread_in()

    def _clean_up(self, deadline: Deadline) -> float | None:
        self._cleanup.run(deadline)
        return self._cleanup.due_in()

    # --- what a new token and a pause make due ---------------------------------------------------------------------

    def _schedule_session(self) -> None:
        self._schedule.set(Task.TOKEN, 0.0)
        self._schedule.set(Task.LEASES, self._leases.due_in())
        self._schedule.set(Task.ATTESTATION, self._session.attest_in())
        self._schedule.set(Task.SECRETS, self._secrets.reread_in())

    def _catch_up(self, paused: float) -> None:
        """Check everything early: a paused VM's monotonic clock stands still, while Vault's leases expire."""
        self._events.info("paused", seconds=round(paused))
        soon = retry_delay()
        self._leases.bring_forward(soon)
        self._schedule.set_unless_backing_off(Task.LEASES, self._leases.due_in())
        if self._secrets.changing:
            self._schedule.set_unless_backing_off(Task.SECRETS, soon)

    def _may_have_new_ca(self, error: BaseException) -> bool:
        """Whether a new attestation may bring another CA for Vault: a verifier that proves itself names Vault's CA."""
        return (
            self._plan.verifier.attest is not None
            and isinstance(error, SidecarError)
            and error.reason is Reason.VAULT_NOT_TRUSTED
        )

    def _is_reusable(self, new: VaultSession, leases: Leases, error: BaseException) -> bool:
        """Whether the next attempt can use a token that failed: it has made no credentials, because Vault was away.

        Otherwise each attempt would leave an unused token behind, which cannot be revoked before Vault is back.
        """
        is_away = isinstance(error, SidecarError) and error.exit_code is Exit.VAULT_UNREACHABLE
        return is_away and new.is_open and leases.is_empty and not self._may_have_new_ca(error)


def _clock_offset() -> float:
    """Seconds by which the wall clock is ahead of the monotonic one; only its changes mean something."""
    return time.time() - time.monotonic()
