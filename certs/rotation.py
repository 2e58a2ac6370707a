"""The one write that comes next. Pure: when a leader dies after any step, the next leader continues from that state.

Three rules hold at every step, and every order of crashes and damage is tested against them. A leaf of another CA is
issued only when every live configuration has trusted that CA for a while. No configuration loses a CA while a replica
may serve a leaf of it, that is, until the last leaf has expired; this also covers a replica that was cut off and never
saw the new leaf. Certificates that no replica can serve, or no configuration trusts, never block a step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

from cryptography import x509

from certs.chain import is_authority, valid
from certs.pem import Pair
from certs.periods import BACKDATE, MAX_LEAF, Periods
from certs.state import Live, State, known_voucher, usable_leaf

# Nothing is due for longer than this: a clock that jumps is noticed within it.
MAX_WAIT: Final = timedelta(hours=1)

# Renewal is due within this part of a lifetime before two thirds of it, each certificate at its own moment.
_SPREAD: Final = 1 / 15

# A bundle stays short, however often a CA is lost.
_MAX_FORMER: Final = 16


class Change(Enum):
    """A write to one of the two Secrets."""

    MAKE_AUTHORITY = "make authority"
    MAKE_COMING = "make coming authority"
    PROMOTE_COMING = "promote coming authority"
    ADOPT_FORMER = "adopt former authority"
    LIMIT_FORMER = "limit former authorities"
    RETIRE_FORMER = "retire former authorities"
    ISSUE_LEAF = "issue leaf"


@dataclass(frozen=True, slots=True)
class Publish:
    """Make this configuration trust `State.bundle`."""

    name: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before then, unless something changes."""

    until: datetime


Step = Change | Publish | Wait
TrustedSince = Mapping[x509.Certificate, datetime]
"""Since when, as far as the caller has seen, every live configuration has trusted a CA without a break."""


def next_step(state: State, since: TrustedSince, now: datetime, periods: Periods) -> Step:
    """The step to take in this state. Repeating it without effect (a refused write) does no harm."""
    authority = state.authority
    if authority is None or not is_authority(authority, now):
        return Change.PROMOTE_COMING if _usable(state.coming, now) else Change.MAKE_AUTHORITY
    leaf = usable_leaf(state, now)
    issuer = known_voucher(state, leaf) if leaf is not None else None
    own = issuer == authority.certificate
    # Before anything is published: it needs no new trust, and must not wait for a configuration that cannot be patched.
    if leaf is not None and own and _leaf_due(leaf, authority, now):
        return Change.ISSUE_LEAF
    if adopted(state, now) != state.former:
        return Change.ADOPT_FORMER
    if not own and _may_switch(state, authority, leaf, since, now, periods):
        return Change.ISSUE_LEAF
    if behind := _behind(state):
        return Publish(behind.name)
    if not own:
        return Wait(_settled(since, authority.certificate, now, periods))
    return _rotate(state, authority, leaf, since, now, periods)


def _rotate(
    state: State, authority: Pair, leaf: Pair | None, since: TrustedSince, now: datetime, periods: Periods
) -> Step:
    """The CA's own replacement; the bundle is published and the leaf is this CA's."""
    coming = state.coming
    if state.coming_damaged or (coming is not None and not is_authority(coming, now)):
        return Change.MAKE_COMING
    if coming is not None:
        settled = _settled(since, coming.certificate, now, periods)
        return Change.PROMOTE_COMING if settled <= now else Wait(settled)
    if state.former:
        until = state.former_until
        if until is None or until > now + MAX_LEAF + timedelta(days=1):
            return Change.LIMIT_FORMER
        if until <= now:
            return Change.RETIRE_FORMER
        # Another replacement now would make the bundle longer each time, so it waits for this.
        return Wait(min(until, _latest(leaf, authority, now)))
    if state.rotation_requested or now >= _due(authority.certificate):
        return Change.MAKE_COMING
    return Wait(_latest(leaf, authority, now))


def former_limit(state: State, now: datetime, periods: Periods) -> datetime:
    """When the last leaf of a CA that no longer signs has expired, by any clock that `settle` allows for."""
    leaf = state.leaf.certificate.not_valid_after_utc if state.leaf is not None else now
    return max(now + periods.leaf, min(leaf, now + MAX_LEAF)) + periods.settle


def former_of(state: State, now: datetime) -> tuple[x509.Certificate, ...]:
    """The CAs that stay trusted when the present one stops signing.

    Where the Secret has lost that one, only the live configurations show what clients trust the replicas by.
    """
    if state.authority is None or not is_authority(state.authority, now):
        return _bounded((*state.former, *state.live_certificates), now)
    return _bounded((state.authority.certificate, *state.former), now)


def adopted(state: State, now: datetime) -> tuple[x509.Certificate, ...]:
    """`state.former`, and the live CAs whose leaves replicas may still serve, though neither Secret names them."""
    live = [found for found in state.live_certificates if found not in state.bundle and valid(found, now)]
    leaf = usable_leaf(state, now)
    issuer = known_voucher(state, leaf) if leaf is not None else None
    authority = state.authority.certificate if state.authority is not None else None
    is_unpublished = authority not in state.live_certificates
    # Where no configuration trusts this CA yet, or some do not and there is no leaf, replicas serve by the live CAs.
    if is_unpublished or (leaf is None and authority is not None and not state.trusted_by_all(authority)):
        unknown = live
    else:
        unknown = [found for found in live if found == issuer]
    return _bounded((*unknown, *state.former), now) if unknown else state.former


def _bounded(certificates: Iterable[x509.Certificate], now: datetime) -> tuple[x509.Certificate, ...]:
    return tuple(dict.fromkeys(found for found in certificates if valid(found, now)))[:_MAX_FORMER]


def _behind(state: State) -> Live | None:
    return next((live for live in state.live if not live.holds_exactly(state.bundle)), None)


def _may_switch(
    state: State, authority: Pair, leaf: Pair | None, since: TrustedSince, now: datetime, periods: Periods
) -> bool:
    """Whether a leaf of the present CA may take the place of another CA's leaf, or of none."""
    if state.trusted_by_all(authority.certificate):
        return not state.live or _settled(since, authority.certificate, now, periods) <= now
    # Nothing to lose: no configuration trusts the present leaf.
    trusted = [found for found in state.live_certificates if valid(found, now)]
    return leaf is None and all(found == authority.certificate for found in trusted)


def _settled(since: TrustedSince, certificate: x509.Certificate, now: datetime, periods: Periods) -> datetime:
    # A moment in the future means that the clock went back: count again from now.
    return min(since.get(certificate, now), now) + periods.settle


def _usable(pair: Pair | None, now: datetime) -> bool:
    return pair is not None and is_authority(pair, now)


def _leaf_due(leaf: Pair, authority: Pair, now: datetime) -> bool:
    # A leaf that expires with its CA would be replaced by one that expires at the same moment.
    ends = leaf.certificate.not_valid_after_utc
    return now >= _due(leaf.certificate) and ends < authority.certificate.not_valid_after_utc


def _latest(leaf: Pair | None, authority: Pair, now: datetime) -> datetime:
    due = [now + MAX_WAIT, _due(authority.certificate)]
    if leaf is not None:
        due.append(_due(leaf.certificate))
    return max(now + timedelta(seconds=1), min(due))


def _due(certificate: x509.Certificate) -> datetime:
    """When to replace it: at two thirds of its lifetime or a little before, each certificate at its own moment."""
    begins = certificate.not_valid_before_utc + BACKDATE
    ends = certificate.not_valid_after_utc
    part = 2 / 3 - _SPREAD * (certificate.serial_number & 0xFFFF) / 0x10000
    return begins + part * max(ends - begins, timedelta())
