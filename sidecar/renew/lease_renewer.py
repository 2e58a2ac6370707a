"""Renews leases; replaces credentials whose lease cannot be renewed any further."""

from __future__ import annotations

import time
from typing import Final

from sidecar.deadline import Deadline
from sidecar.errors import SidecarError
from sidecar.publish.render import Read
from sidecar.renew.cleanup import Cleanup
from sidecar.renew.leases import Leases
from sidecar.renew.outages import VAULT, Outages
from sidecar.renew.secrets import PublishedSecrets, subject
from sidecar.shutdown import StoppedError
from sidecar.vault.session import TokenGoneError, VaultSession

# From the signal until what it replaces is revoked, if that lives so long: an application has to read and reconnect.
HANDOVER_SECONDS: Final = 30.0


class LeaseRenewer:
    """Keeps the credentials of one plan valid."""

    def __init__(self, secrets: PublishedSecrets, outages: Outages, cleanup: Cleanup) -> None:
        self._secrets = secrets
        self._outages = outages
        self._cleanup = cleanup

    def run(self, deadline: Deadline, session: VaultSession, leases: Leases) -> None:
        """Renew or replace what is due, each by itself: a broken engine does not hold up the others.

        Raises StoppedError and TokenGoneError; any other failure is an outage of that secret, and tried again soon.
        """
        for read in leases.due():
            try:
                self._renew_or_replace(deadline, session, leases, read)
            except (StoppedError, TokenGoneError):
                raise
            except SidecarError as error:
                self._outages.begin(subject(read), error)
                leases.postpone(read)

    def _renew_or_replace(self, deadline: Deadline, session: VaultSession, leases: Leases, read: Read) -> None:
        old = leases.get(read)
        if old.lease.renewable:
            seconds = session.renew_lease(deadline, old.lease)
            if seconds >= old.lease.seconds / 2:
                self._outages.end(VAULT, subject(read))
                leases.grant(read, old.lease, seconds)
                return
        try:
            self._secrets.replace(deadline, session, leases, [read], must_have=[read])
        except BaseException:
            new = leases.get(read)
            leases.put(read, old)
            if new is not old:
                self._cleanup.add_lease(session, new.lease, 0.0)
            raise
        remaining = max(0.0, old.expires - time.monotonic())
        self._cleanup.add_lease(session, old.lease, min(HANDOVER_SECONDS, remaining / 2))
