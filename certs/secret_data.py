"""What a change writes: one Secret's data, in which None removes a key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from cryptography import x509

from certs.authority import issue_leaf, make_authority
from certs.pem import Pair, write_certificates
from certs.periods import Periods
from certs.rotation import Change, adopted, former_limit, former_of
from certs.state import AUTHORITY_SECRET, LEAF_SECRET, State, write_time

Data = Mapping[str, bytes | None]

_NO_COMING: Data = {"next.crt": None, "next.key": None}
_NO_FORMER: Data = {"former.crt": None, "former.until": None}


def secret_of(change: Change) -> str:
    """The Secret that it writes."""
    return LEAF_SECRET if change is Change.ISSUE_LEAF else AUTHORITY_SECRET


def data_for(change: Change, state: State, now: datetime, periods: Periods) -> Data:
    """The data to write. A private key made here exists nowhere else until it is written."""
    now = now.replace(microsecond=0)
    limit = former_limit(state, now, periods)
    authority, coming = state.authority, state.coming
    match change:
        case Change.MAKE_AUTHORITY:
            new = make_authority(now, periods, state.names, "morphisms webhook")
            return {**_pair("ca", new), **_NO_COMING, **_former(former_of(state, now), limit)}
        case Change.MAKE_COMING:
            return _pair("next", make_authority(now, periods, state.names, "morphisms webhook"))
        case Change.PROMOTE_COMING if coming is not None:
            former = [found for found in former_of(state, now) if found != coming.certificate]
            return {**_pair("ca", coming), **_NO_COMING, **_former(former, limit)}
        case Change.ADOPT_FORMER:
            return _former(adopted(state, now), limit)
        case Change.LIMIT_FORMER:
            return {"former.until": write_time(limit)}
        case Change.RETIRE_FORMER:
            return _NO_FORMER
        case Change.ISSUE_LEAF if authority is not None:
            leaf = issue_leaf(authority, state.names, now, periods)
            bundle = write_certificates(state.bundle)
            return {"tls.crt": leaf.certificate_pem, "tls.key": leaf.key_pem, "ca.crt": bundle}
        case Change.PROMOTE_COMING | Change.ISSUE_LEAF:
            raise ValueError("this state has no CA to make the change with")


def _pair(name: str, pair: Pair) -> Data:
    return {f"{name}.crt": pair.certificate_pem, f"{name}.key": pair.key_pem}


def _former(certificates: Sequence[x509.Certificate], until: datetime) -> Data:
    if not certificates:
        return _NO_FORMER
    return {"former.crt": write_certificates(certificates), "former.until": write_time(until)}
