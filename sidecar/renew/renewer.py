"""`agent: sidecar`: the process that published the secrets stays, and keeps them true until it is asked to stop.

Nothing that goes wrong after the first publication takes away what was published. One thread works, one task at a time;
each task says when it is due again, and one that failed comes back after a pause.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from plan.document import Plan
from sidecar.attest.handshake import Attester
from sidecar.deadline import Deadline, jitter
from sidecar.errors import SidecarError, internal_error
from sidecar.health import HealthServer, Status
from sidecar.log import Events
from sidecar.paths import PodPaths
from sidecar.publish.publisher import Data, Publisher
from sidecar.publish.render import Read, mount_of, reads
from sidecar.reasons import Exit
from sidecar.renew.cleanup import Cleanup
from sidecar.renew.outages import Outages
from sidecar.renew.schedule import Schedule, Task
from sidecar.shutdown import ShutdownSignal, StoppedError
from sidecar.vault.client import REVOCATION_SECONDS
from sidecar.vault.session import RENEW_AT, SecretLease, TokenGoneError, VaultSession

ROUND_SECONDS: Final = 60.0  # for one task
LONGEST_SLEEP: Final = 15.0
# More than clocks are put right by while a guest runs.
PAUSE_SECONDS: Final = 30.0
# Between the signal and the end of what it replaces, as far as that lives: an application has to read and reconnect.
HANDOVER_SECONDS: Final = 30.0
RETRY_SECONDS: Final = 5.0
_OF_A_SECRET: Final = (Exit.VAULT_REFUSED, Exit.SECRET_MISSING)
# Whoever cannot be reached is one trouble, whatever we wanted of him.
_PARTIES: Final = {Exit.VAULT_UNREACHABLE: "vault", Exit.DEADLINE: "vault", Exit.VERIFIER_UNREACHABLE: "verifier"}


def publish_and_renew(plan: Plan, paths: PodPaths, events: Events, shutdown: ShutdownSignal) -> None:
    """Publish, then keep it true until we are asked to stop. Raises SidecarError before the first publication."""
    renewer = Renewer(plan, paths, events, shutdown)
    try:
        renewer.start()
        renewer.keep()
    except StoppedError:
        if not renewer.status.published:
            raise
        events.info("stopping")
    finally:
        renewer.close()


@dataclass(frozen=True, slots=True)
class LeasedCredentials:
    """Of an engine that makes them: the lease, and when it is due and when it ends (monotonic)."""

    lease: SecretLease
    due: float
    expires: float


class Renewer:
    """One pod's plan over the pod's whole life."""

    def __init__(self, plan: Plan, paths: PodPaths, events: Events, shutdown: ShutdownSignal) -> None:
        self._plan = plan
        self._paths = paths
        self._events = events
        self._shutdown = shutdown
        self.status = Status()
        self._wanted = reads(plan)
        mounts = dict(plan.vault.mounts)
        self._leased = {read for read in self._wanted if mount_of(mounts, read[0]) is None}
        self._publisher = Publisher(plan, paths, events)
        self._attester = Attester(plan, paths.token, events)
        self._outages = Outages(events)
        self._cleanup = Cleanup(events)
        self._schedule = Schedule(Task)
        self._tasks: Mapping[Task, Callable[[Deadline], float | None]] = {
            Task.TOKEN: self._keep_token,
            Task.LEASES: self._keep_leases,
            Task.ATTESTATION: self._attest_again,
            Task.SECRETS: self._read_again,
            Task.CLEANUP: self._clean_up,
        }
        self._session = VaultSession(plan.vault, events)
        self._unused: VaultSession | None = None
        """A new token that Vault could not be asked with yet."""
        self._credentials: dict[Read, LeasedCredentials] = {}

    def start(self) -> None:
        """As `agent: init` does it, but that the token stays. Raises SidecarError."""
        health = HealthServer(self._paths.health, self.status)
        health.start()
        service, count = self._plan.workload.service, len(self._wanted)
        self._events.info("started", service=service, secrets=count, health_port=health.port)
        deadline = Deadline(self._plan.deadline_seconds, self._shutdown)
        try:
            self._attester.log_in(deadline, self._session.adopt)
            found = {read: self._read(deadline, self._session, read) for read in self._wanted}
            deadline.check("anything was published")
            self._publisher.begin(found)
        except SidecarError as error:
            # What fails after the verifier believed us is told under the id that it remembers us by.
            error.correlation_id = error.correlation_id or self._attester.correlation_id
            raise
        self._begin_session()

    def keep(self) -> None:
        """Until StoppedError."""
        behind = _clock_offset()
        while True:
            self.status.published, self.status.troubles = self._publisher.count, self._outages.reasons()
            self.status.heartbeat()
            task = self._schedule.wait(self._shutdown, LONGEST_SLEEP)
            paused, behind = _clock_offset() - behind, _clock_offset()
            if paused > PAUSE_SECONDS:
                self._catch_up(paused)
            if task is not None:
                self._run_task(task)
                self._session.disconnect()

    def close(self) -> None:
        """Give every token back, and with it its leases, all within the time that one has. Never raises."""
        deadline = Deadline(REVOCATION_SECONDS, ShutdownSignal())
        for session in (self._session, self._unused, *self._cleanup.open_sessions()):
            if session is not None:
                session.revoke(deadline)

    def _run_task(self, task: Task) -> None:
        try:
            pause = self._attempt(task)
        except StoppedError:
            raise
        except SidecarError as error:
            is_gone = isinstance(error, TokenGoneError)
            self._outages.begin(Task.TOKEN if is_gone else _PARTIES.get(error.exit_code, task), error)
            self._schedule.retry(task, error)
            if is_gone:
                self._schedule.run_now(Task.ATTESTATION)
        else:
            self._outages.end(task)
            self._schedule.set(task, pause)

    def _attempt(self, task: Task) -> float | None:
        """What nobody expected is a trouble too: who ended for it would be started again, only to end again."""
        try:
            return self._tasks[task](Deadline(ROUND_SECONDS, self._shutdown, once=True))
        except SidecarError:
            raise
        except Exception as error:
            raise internal_error(error) from None

    # --- the tasks: seconds until due again, None until something sets it ----------------------------------------

    def _keep_token(self, deadline: Deadline) -> float | None:
        if self._session.is_looked_up:
            self._session.renew(deadline)
        else:
            self._session.look_up(deadline)
        self._outages.end("vault")
        self._schedule.set_unless_backing_off(Task.ATTESTATION, self._session.attest_in())
        return self._session.renew_in()

    def _keep_leases(self, deadline: Deadline) -> float | None:
        """Each by itself: one whose engine is broken does not hold up the others."""
        now = time.monotonic()
        for read in [read for read, credentials in self._credentials.items() if credentials.due <= now]:
            try:
                self._keep_lease(deadline, read)
            except (StoppedError, TokenGoneError):
                raise
            except SidecarError as error:
                self._outages.begin(_subject(read), error)
                self._credentials[read] = replace(self._credentials[read], due=time.monotonic() + retry_delay())
        return self._leases_in()

    def _attest_again(self, deadline: Deadline) -> float:
        """A new token, everything read and published with it, and only then the end of the old one."""
        old, fresh = self._session, self._unused or VaultSession(self._plan.vault, self._events)
        previous, self._credentials, self._unused = self._credentials, {}, None
        try:
            if not (fresh.is_open and fresh.is_alive):
                self._attester.log_in(deadline, fresh.adopt)
            # Leased credentials end with the token: better to try again than to have none, while the old one lives.
            self._replace(deadline, fresh, self._changing(), must_have=self._leased if old.is_alive else set())
        except BaseException as error:
            if self._is_to_be_used(fresh, error):
                self._unused = fresh
            else:
                self._cleanup.add_token(fresh, 0.0)
                self._schedule.set(Task.CLEANUP, self._cleanup.due_in())
            self._credentials = previous
            fresh.disconnect()
            raise
        self._session = fresh
        for read in self._leased - self._credentials.keys():
            self._credentials[read] = LeasedCredentials(SecretLease(), time.monotonic() + retry_delay(), 0.0)
        self._cleanup.add_token(old, min(HANDOVER_SECONDS, old.remaining() / 2) if previous else 0.0)
        self._schedule.set(Task.CLEANUP, self._cleanup.due_in())
        self._outages.end("verifier", Task.TOKEN)
        self._begin_session()
        return fresh.attest_in()

    def _read_again(self, deadline: Deadline) -> float:
        self._replace(deadline, self._session, [read for read in self._changing() if read not in self._leased])
        return self._reread_in()

    def _clean_up(self, deadline: Deadline) -> float | None:
        self._cleanup.run(deadline)
        return self._cleanup.due_in()

    def _catch_up(self, paused: float) -> None:
        """A paused VM's monotonic clock stands still, while Vault's leases end: look at everything before its time."""
        self._events.info("paused", seconds=round(paused))
        soon = retry_delay()
        due = time.monotonic() + soon
        self._credentials = {read: replace(each, due=min(each.due, due)) for read, each in self._credentials.items()}
        self._schedule.set_unless_backing_off(Task.LEASES, self._leases_in())
        if self._changing():
            self._schedule.set_unless_backing_off(Task.SECRETS, soon)

    # --- what they share -------------------------------------------------------------------------------------------

    def _begin_session(self) -> None:
        """What a new token makes due."""
        self._schedule.set(Task.TOKEN, 0.0)
        self._schedule.set(Task.LEASES, self._leases_in())
        self._schedule.set(Task.ATTESTATION, self._session.attest_in())
        self._schedule.set(Task.SECRETS, self._reread_in() if self._changing() else None)

    def _is_to_be_used(self, fresh: VaultSession, error: BaseException) -> bool:
        """Whether a token that failed is good for the next attempt: nothing came with it, because Vault is away.

        Else each attempt would leave one behind that nobody uses, and that cannot be revoked before Vault is back.
        """
        is_away = isinstance(error, SidecarError) and error.exit_code is Exit.VAULT_UNREACHABLE
        return is_away and fresh.is_open and not self._credentials

    def _changing(self) -> list[Read]:
        """All but pinned versions."""
        return [read for read in self._wanted if read[1] is None]

    def _replace(
        self, deadline: Deadline, session: VaultSession, wanted: Iterable[Read], must_have: Collection[Read] = ()
    ) -> None:
        """Read and publish; a secret that cannot be had stays as it is.

        Raises SidecarError, and nothing has changed, for one of `must_have` and for what is no matter of one secret.
        """
        found: dict[Read, Data] = {}
        problems: dict[Read, SidecarError] = {}
        for read in wanted:
            try:
                found[read] = self._read(deadline, session, read)
            except (StoppedError, TokenGoneError):
                raise
            except SidecarError as error:
                if error.exit_code is Exit.VAULT_REFUSED:
                    session.check(deadline, read[0])
                # An engine that leases can be broken while Vault is well.
                is_its_own = error.exit_code in _OF_A_SECRET or read in self._leased
                if read in must_have or not is_its_own:
                    raise
                problems[read] = error
        problems |= self._publisher.replace(found, must_have)
        for read, problem in problems.items():
            self._outages.begin(_subject(read), problem)
        if found:
            self._outages.end("vault", *map(_subject, found.keys() - problems.keys()))

    def _read(self, deadline: Deadline, session: VaultSession, read: Read) -> Data:
        if read not in self._leased:
            return session.read(deadline, *read)
        data, lease = session.fetch(deadline, *read)
        self._credentials[read] = self._taken(lease)
        return data

    def _taken(self, lease: SecretLease, seconds: float = 0.0) -> LeasedCredentials:
        """`seconds`: what is left of it after a renewal. What has no lease is read again like a KV secret."""
        now, seconds = time.monotonic(), seconds or lease.seconds
        if not seconds:
            return LeasedCredentials(lease, now + self._reread_in(), float("inf"))
        return LeasedCredentials(lease, now + seconds * RENEW_AT * (0.95 + 0.05 * jitter()), now + seconds)

    def _keep_lease(self, deadline: Deadline, read: Read) -> None:
        """Renew it; where that is no longer worth while, publish new credentials and then end the old ones."""
        old = self._credentials[read]
        if old.lease.renewable:
            seconds = self._session.renew_lease(deadline, old.lease)
            if seconds >= old.lease.seconds / 2:
                self._outages.end("vault", _subject(read))
                self._credentials[read] = self._taken(old.lease, seconds)
                return
        try:
            self._replace(deadline, self._session, [read], must_have=[read])
        except BaseException:
            new, self._credentials[read] = self._credentials[read], old
            if new is not old:
                self._end_lease(new.lease, 0.0)
            raise
        left = max(0.0, old.expires - time.monotonic())
        self._end_lease(old.lease, min(HANDOVER_SECONDS, left / 2))

    def _end_lease(self, lease: SecretLease, seconds: float) -> None:
        self._cleanup.add_lease(self._session, lease, seconds)
        self._schedule.set(Task.CLEANUP, self._cleanup.due_in())

    def _leases_in(self) -> float | None:
        now = time.monotonic()
        return min((max(0.0, each.due - now) for each in self._credentials.values()), default=None)

    def _reread_in(self) -> float:
        return self._paths.reread_seconds * (0.9 + 0.1 * jitter())


def _subject(read: Read) -> str:
    return f"secret {read[0]}"


def _clock_offset() -> float:
    """Seconds by which the monotonic clock is behind the other; what that is worth is only how it changes."""
    return time.time() - time.monotonic()


def retry_delay() -> float:
    """For credentials that could not be had: their life may be short."""
    return RETRY_SECONDS * (0.5 + jitter())
