"""Reference values and folders that load and yet accept more than most operators mean: a warning each.

What no operator can mean is refused where guest entries are read, see `server.guest_entries`.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge

from attestation.verifier.policies.model import PolicySet
from attestation.verifier.reasons import RefusedError
from kbs.reference_values import REQUIRE_CRL, GuestReference, RevocationAction, TcbFloor
from server import logs

_LOOK_SECONDS = 10.0


def permissive(guest: GuestReference) -> list[str]:
    """What this guest's reference values accept, and the advice."""
    found = []
    if tolerates_missing_revocation(guest):
        found.append("crl: a missing or stale revocation list is accepted; the claim snp_revocation says unchecked")
    for key, floor in (("minCommittedTcb", guest.min_committed_tcb), ("minLaunchTcb", guest.min_launch_tcb)):
        if _is_zero(floor):
            found.append(f"{key}: every component is 0, so any old firmware will do; leave the key out to use minTcb")
    if not guest.measurements and not guest.min_guest_svn:
        found.append("minGuestSvn: 0 without measurements, so any old image by the same key will do")
    if guest.masked_chip_id and guest.chip_ids is None:
        found.append("maskedChipId: such a report names no chip, so it can come from any machine of this product")
    if any(guest.vmpl):
        found.append("vmpl: a less privileged part of the guest can attest for all of it; 0 is the guest's kernel")
    return found


def tolerates_missing_revocation(guest: GuestReference) -> bool:
    """A missing or stale list is accepted."""
    rule = guest.revocation or REQUIRE_CRL
    return RevocationAction.ACCEPT in (rule.missing, rule.stale)


def _is_zero(floor: TcbFloor) -> bool:
    return not any((floor.bootloader, floor.tee, floor.snp, floor.microcode, floor.fmc))


def is_open(folder: Path) -> bool:
    """Every account may write to it, and it is not mounted read-only, as Kubernetes mounts configuration."""
    try:
        status, mount = folder.stat(), os.statvfs(folder)
    except OSError:
        return False  # the reader of the folder reports it
    return bool(status.st_mode & stat.S_IWOTH) and not mount.f_flag & os.ST_RDONLY


def warn_of_open_folders(folders: Iterable[Path]) -> None:
    """One warning per folder that every account may write to."""
    for folder in folders:
        if is_open(folder):
            logs.warning("open_folder", path=str(folder), advice="every account may write what to trust: chmod o-w it")


class PermissiveGuests:
    """Logs each warning once, when its guest comes into force, and counts the guests without revocation."""

    def __init__(self, registry: CollectorRegistry, policies: Callable[[], PolicySet]) -> None:
        self._policies = policies
        self._said: set[tuple[str, str]] = set()
        Gauge(
            "morphisms_guests_without_revocation",
            "Guests in force whose reference values accept a missing or stale revocation list.",
            registry=registry,
        ).set_function(lambda: sum(map(tolerates_missing_revocation, self._guests().values())))

    async def watch(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(_LOOK_SECONDS)

    def look(self) -> None:
        """Log what is new."""
        found = {(name, text) for name, guest in self._guests().items() for text in permissive(guest)}
        for name, text in sorted(found - self._said):
            logs.warning("permissive_guest", guest=name, detail=text)
        self._said = found

    def _guests(self) -> dict[str, GuestReference]:
        try:
            return {guest.name: guest for policy in self._policies().policies for guest in policy.guests}
        except RefusedError:
            return {}  # not read yet
