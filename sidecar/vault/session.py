"""A Vault token that is kept: how long it lives, its renewal, and the leases that were taken with it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any, Final

from kbs.messages import VaultToken
from sidecar.deadline import Deadline, fraction, patiently
from sidecar.errors import Exit, RefusalError
from sidecar.http import Answer, json_object
from sidecar.vault.client import Vault, secret

# Renewed at two thirds, as Vault's own clients do: a third is left for an outage.
RENEW_AT: Final = 2 / 3
# A token without an end could be renewed for ever. Who is believed is asked again this often all the same.
LONGEST_UNATTESTED_SECONDS: Final = 3600.0
_UNKNOWN: Final = 403


class TokenGoneError(RefusalError):
    """Vault does not know the token any more: it was revoked, or ended while Vault was away."""

    def __init__(self) -> None:
        super().__init__(Exit.VAULT_REFUSED, "token-gone", "Vault knows this sidecar's token no more")


@dataclass(frozen=True, slots=True)
class Lease:
    """Of credentials that an engine made for us. `seconds`: as granted at first; 0 when there is no lease."""

    id: str = field(default="", repr=False)
    seconds: int = 0
    renewable: bool = False


class Session(Vault):
    """One token, from its arrival until it was given back."""

    gone = False
    """Vault has said that it does not know the token."""
    looked = False
    """What Vault says of the token is known."""

    _ends: float | None = None

    @property
    def is_open(self) -> bool:
        """There is a token that was not given back."""
        return bool(self._token)

    @property
    def is_alive(self) -> bool:
        """As far as we know."""
        return not self.gone and self.remaining() > 0

    def keep(self, token: VaultToken) -> None:
        """From now on this token asks. Raises RefusalError for what no header can carry."""
        self.use(token.token)
        self._since = time.monotonic()
        self._granted = float(token.lease_seconds)
        self._renewable = token.renewable and token.lease_seconds > 0
        self._ends = self._since + self._granted if self._granted else None
        self._longest = 0.0
        self._may_look = False
        self._opened: set[str] = set()
        self._is_capped = False

    def look(self, deadline: Deadline) -> None:
        """Ask Vault what the login's answer did not say: the token's maximum life. Raises RefusalError."""
        answer = self._ask(deadline, "GET", "/v1/auth/token/lookup-self")
        self.looked = True
        self._may_look = answer.status == 200
        if self._may_look:
            self._longest = _number(_member(answer, "data"), "explicit_max_ttl")
        else:
            # A role may withhold the default policy, and with it this question and renewal: it lives as granted then.
            self._renewable = False

    def check(self, deadline: Deadline, path: str) -> None:
        """Raises TokenGoneError when the refusal of this path was the token's own end, and not a lost permission."""
        if self._may_look:
            is_gone = self._ask(deadline, "GET", "/v1/auth/token/lookup-self").status == _UNKNOWN
        else:
            # Nothing tells the two apart. What this token has opened is worth a new one, which has opened nothing yet.
            is_gone = path in self._opened
        if is_gone:
            raise self._lost()

    def renew(self, deadline: Deadline) -> None:
        """Prolong it. Raises RefusalError; TokenGoneError when there is nothing to prolong."""
        answer = self._ask(deadline, "POST", "/v1/auth/token/renew-self", b"{}")
        if answer.status != 200:
            raise self._lost()
        granted = _number(_member(answer, "auth"), "lease_duration")
        self._ends = time.monotonic() + granted if granted else None
        # Vault cuts short what would reach beyond the maximum life, also one that only the mount knows.
        self._is_capped = 0 < granted < self._granted / 2

    def renew_in(self) -> float | None:
        """Seconds until it should be renewed; None when that is not possible or not needed."""
        if not self._renewable or self._is_capped or self._ends is None:
            return None
        return max(0.0, self.remaining() - self._granted * (1 - RENEW_AT)) * _early()

    def attest_in(self) -> float:
        """Seconds until this guest should prove itself again: at two thirds of the token's maximum life.

        At its end at the latest: where no renewal got through, there is nothing left to wait for.
        """
        life = self._longest
        if self._granted and not self._renewable:
            life = min(life or self._granted, self._granted)
        due = self._since + (life * RENEW_AT if life else LONGEST_UNATTESTED_SECONDS) * _early()
        if self._is_capped or self.gone:
            return 0.0
        return min(max(0.0, due - time.monotonic()), self.remaining())

    def remaining(self) -> float:
        """Seconds that the token still lives if it is not renewed; endless without an end."""
        return float("inf") if self._ends is None else max(0.0, self._ends - time.monotonic())

    def read(self, deadline: Deadline, path: str, version: int | None) -> dict[str, Any]:
        found = super().read(deadline, path, version)
        self._opened.add(path)
        return found

    def fetch(self, deadline: Deadline, path: str, version: int | None) -> tuple[dict[str, Any], Lease]:
        """New credentials of an engine that is no KV, and their lease. Raises RefusalError."""
        target, _ = self._target(path, version)
        answer = patiently(deadline, self._events, lambda: self._ask(deadline, "GET", target))
        data = secret(answer, path, None)
        self._opened.add(path)
        whole = json.loads(answer.body)
        lease_id, seconds = whole.get("lease_id"), _number(whole, "lease_duration")
        if not isinstance(lease_id, str) or not lease_id:
            return data, Lease()
        return data, Lease(lease_id, int(seconds), whole.get("renewable") is True)

    def renew_lease(self, deadline: Deadline, lease: Lease) -> float:
        """Prolong it by its first length; the seconds that Vault grants, 0 for none. Raises RefusalError."""
        body = {"lease_id": lease.id, "increment": lease.seconds}
        answer = self._ask(deadline, "POST", "/v1/sys/leases/renew", json.dumps(body).encode())
        if answer.status != 200:
            return 0.0
        return _number(json_object(answer.body), "lease_duration")

    def revoke_lease(self, deadline: Deadline, lease: Lease) -> str:
        """End it before its time; why not, when Vault refuses. Raises RefusalError when Vault cannot answer."""
        body = {"lease_id": lease.id, "sync": False}
        return self._kept(self._ask(deadline, "POST", "/v1/sys/leases/revoke", json.dumps(body).encode()))

    def give_back(self, deadline: Deadline) -> str:
        """End the token and with it its leases; why not, when Vault refuses. Raises RefusalError as above."""
        reason = self._kept(self._ask(deadline, "POST", "/v1/auth/token/revoke-self", b""))
        self._token = ""
        self.rest()
        return reason

    def rest(self) -> None:
        """Drop the connection: nobody keeps one open for minutes, and its end would look like an outage."""
        self._client.close()

    def _kept(self, answer: Answer) -> str:
        return "" if answer.status == _UNKNOWN and not self.is_alive else super()._kept(answer)

    def _ask(self, deadline: Deadline, method: str, path: str, body: bytes | None = None) -> Answer:
        deadline.check("Vault was asked")
        with deadline.stop.interruptible():
            return self._client.call(deadline, method, path, body, self._headers())

    def _lost(self) -> TokenGoneError:
        self.gone = True
        return TokenGoneError()


def _early() -> float:
    """A little less than 1: pods that started together shall not come back together."""
    return 0.95 + 0.05 * fraction()


def _member(answer: Answer, name: str) -> dict[str, Any]:
    found = json_object(answer.body).get(name)
    return found if isinstance(found, dict) else {}


def _number(source: dict[str, Any], name: str) -> float:
    """A duration; 0 for what is none."""
    value = source.get(name)
    return float(value) if type(value) is int and 0 < value < 2**31 else 0.0
