"""The plan's secrets: read from Vault and published. A secret that cannot be read keeps its last good version."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from plan.document import Plan
from sidecar.deadline import Deadline
from sidecar.errors import SidecarError
from sidecar.log import Events
from sidecar.mounts import mount_of
from sidecar.paths import PodPaths
from sidecar.publish.publisher import Data, Publisher
from sidecar.publish.render import Read, reads
from sidecar.reasons import Exit
from sidecar.renew.leases import Leases, early_reread
from sidecar.renew.outages import VAULT, Outages
from sidecar.shutdown import StoppedError
from sidecar.vault.session import TokenGoneError, VaultSession

# What concerns one secret alone, and not Vault as a whole.
_OF_ONE_SECRET: Final = (Exit.VAULT_REFUSED, Exit.SECRET_MISSING)


class PublishedSecrets:
    """All secrets of one plan, over the pod's whole life."""

    def __init__(self, plan: Plan, paths: PodPaths, events: Events, outages: Outages) -> None:
        mounts = dict(plan.vault.mounts)
        self.wanted = reads(plan)
        self.leased = {read for read in self.wanted if mount_of(mounts, read[0]) is None}
        """Those below no KV mount: reading one makes credentials with a lease."""
        self.changing = [read for read in self.wanted if read[1] is None]
        """All but pinned versions."""
        self._reread_seconds = plan.reread_seconds or paths.reread_seconds
        self._publisher = Publisher(plan, paths, events)
        self._outages = outages

    @property
    def publications(self) -> int:
        """How often something was published."""
        return self._publisher.count

    def new_leases(self) -> Leases:
        """For a new token, which has made no credentials yet."""
        return Leases(self._reread_seconds)

    def reread_in(self) -> float | None:
        """Seconds until secrets without a lease are read again; None when nothing can change."""
        return early_reread(self._reread_seconds) if self.changing else None

    def publish_first(self, deadline: Deadline, session: VaultSession, leases: Leases) -> None:
        """Publish all of it or nothing. Raises SidecarError."""
        found = {read: self._read(deadline, session, leases, read) for read in self.wanted}
        deadline.check("anything was published")
        self._publisher.begin(found)

    def read_again(self, deadline: Deadline, session: VaultSession, leases: Leases) -> None:
        """Publish what has changed among the secrets without a lease. Raises SidecarError as `replace` does."""
        self.replace(deadline, session, leases, [read for read in self.changing if read not in self.leased])

    def replace(
        self,
        deadline: Deadline,
        session: VaultSession,
        leases: Leases,
        wanted: Iterable[Read],
        must_have: Collection[Read] = (),
    ) -> None:
        """Read and publish `wanted`; a secret that cannot be read or published stays as it is.

        Raises SidecarError, and changes nothing, when it is one of `must_have`, or when the failure concerns more than
        one secret.
        """
        found: dict[Read, Data] = {}
        problems: dict[Read, SidecarError] = {}
        for read in wanted:
            try:
                found[read] = self._read(deadline, session, leases, read)
            except (StoppedError, TokenGoneError):
                raise
            except SidecarError as error:
                if error.exit_code is Exit.VAULT_REFUSED:
                    session.check(deadline, read[0])
                # An engine that leases can be broken while Vault is well.
                concerns_one = error.exit_code in _OF_ONE_SECRET or read in self.leased
                if read in must_have or not concerns_one:
                    raise
                problems[read] = error
        problems |= self._publisher.replace(found, must_have)
        for read, problem in problems.items():
            self._outages.begin(subject(read), problem)
        if found:
            self._outages.end(VAULT, *map(subject, found.keys() - problems.keys()))

    def _read(self, deadline: Deadline, session: VaultSession, leases: Leases, read: Read) -> Data:
        if read not in self.leased:
            return session.read(deadline, *read)
        data, lease = session.fetch(deadline, *read)
        leases.grant(read, lease)
        return data


def subject(read: Read) -> str:
    """A secret's name among the outages."""
    return f"secret {read[0]}"
