"""A long-lived Vault token: when it expires, its renewal, and the leases made with it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any, Final

from kbs.messages import VaultToken
from sidecar.deadline import Deadline, jitter, retry_until
from sidecar.errors import SidecarError
from sidecar.http import Answer, json_object
from sidecar.reasons import Reason
from sidecar.vault.client import VaultClient, secret

# Renew at two thirds of the life, as Vault's own clients do: a third is left for an outage.
RENEW_AT: Final = 2 / 3
# A token that does not expire could be renewed for ever; the guest attests again this often all the same.
LONGEST_UNATTESTED_SECONDS: Final = 3600.0
_UNKNOWN: Final = 403


class TokenGoneError(SidecarError):
    """Vault no longer knows the token: it was revoked, or expired while Vault was away."""

    def __init__(self) -> None:
        super().__init__(Reason.TOKEN_GONE, "Vault no longer knows this sidecar's token")


@dataclass(frozen=True, slots=True)
class SecretLease:
    """The lease of credentials that an engine made. `seconds`: as first granted; 0 when there is no lease."""

    id: str = field(default="", repr=False)
    seconds: int = 0
    renewable: bool = False


class VaultSession(VaultClient):
    """One token, from its arrival until it is revoked."""

    is_gone = False
    """Vault has answered that it does not know the token."""
    is_looked_up = False
    """Vault has been asked for the token's maximum life."""

    _expires: float | None = None

    @property
    def is_open(self) -> bool:
        """There is a token that has not been revoked."""
        return bool(self._token)

    @property
    def is_alive(self) -> bool:
        """The token is valid, as far as this process knows."""
        return not self.is_gone and self.remaining() > 0

    def adopt(self, token: VaultToken) -> None:
        """From now on this token asks. Raises SidecarError for what no header can carry."""
        self.use(token)
        self._received = time.monotonic()
        self._granted = float(token.lease_seconds)
        self._renewable = token.renewable and token.lease_seconds > 0
        self._expires = self._received + self._granted if self._granted else None
        self._max_life = 0.0
        self._may_look_up = False
        self._paths_read: set[str] = set()
        self._is_capped = False

    def look_up(self, deadline: Deadline) -> None:
        """Look up the token's maximum life, which the login's answer does not hold.

        Raises SidecarError; TokenGoneError when Vault refuses a token that has ended by now.
        """
        answer = self._request(deadline, "GET", "/v1/auth/token/lookup-self")
        if answer.status == _UNKNOWN and not self.is_alive:
            raise self._token_gone()
        self.is_looked_up = True
        self._may_look_up = answer.status == 200
        if self._may_look_up:
            self._max_life = _number(_member(answer, "data"), "explicit_max_ttl")
        else:
            # A role may withhold the default policy, and with it look-up and renewal: the token then lives as granted.
            self._renewable = False

    def check(self, deadline: Deadline, path: str) -> None:
        """Raises TokenGoneError when Vault refused this path because the token has ended."""
        if self._may_look_up:
            is_gone = self._request(deadline, "GET", "/v1/auth/token/lookup-self").status == _UNKNOWN
        else:
            # Nothing tells the two apart. A path that this token has read is worth one new token, which has read none.
            is_gone = path in self._paths_read
        if is_gone:
            raise self._token_gone()

    def renew(self, deadline: Deadline) -> None:
        """Renew the token. Raises SidecarError; TokenGoneError when Vault no longer knows it."""
        answer = self._request(deadline, "POST", "/v1/auth/token/renew-self", b"{}")
        if answer.status != 200:
            raise self._token_gone()
        granted = _number(_member(answer, "auth"), "lease_duration")
        self._expires = time.monotonic() + granted if granted else None
        # Vault cuts a renewal short at the maximum life, also at one that only the mount configures.
        self._is_capped = 0 < granted < self._granted / 2

    def renew_in(self) -> float | None:
        """Seconds until the token should be renewed; None when that is impossible or not needed."""
        if not self._renewable or self._is_capped or self._expires is None:
            return None
        return max(0.0, self.remaining() - self._granted * (1 - RENEW_AT)) * spread()

    def attest_in(self) -> float:
        """Seconds until this guest should attest again: at two thirds of the token's maximum life.

        When the token expires at the latest: if no renewal got through, there is nothing left to wait for.
        """
        life = self._max_life
        if self._granted and not self._renewable:
            life = min(life or self._granted, self._granted)
        due = self._received + (life * RENEW_AT if life else LONGEST_UNATTESTED_SECONDS) * spread()
        if self._is_capped or self.is_gone:
            return 0.0
        return min(max(0.0, due - time.monotonic()), self.remaining())

    def remaining(self) -> float:
        """Seconds until the token expires if it is not renewed; infinite if it does not expire."""
        return float("inf") if self._expires is None else max(0.0, self._expires - time.monotonic())

    def read(self, deadline: Deadline, path: str, version: int | None) -> dict[str, Any]:
        found = super().read(deadline, path, version)
        self._paths_read.add(path)
        return found

    def fetch(self, deadline: Deadline, path: str, version: int | None) -> tuple[dict[str, Any], SecretLease]:
        """New credentials of an engine other than KV, and their lease. Raises SidecarError."""
        target, _ = self._api_path(path, version)
        answer = retry_until(deadline, self._events, lambda: self._request(deadline, "GET", target))
        data = secret(answer, path, None)
        self._paths_read.add(path)
        whole = json.loads(answer.body.decode())
        lease_id, seconds = whole.get("lease_id"), _number(whole, "lease_duration")
        if not isinstance(lease_id, str) or not lease_id:
            return data, SecretLease()
        return data, SecretLease(lease_id, int(seconds), whole.get("renewable") is True)

    def renew_lease(self, deadline: Deadline, lease: SecretLease) -> float:
        """Renew a lease for its first length; the seconds that Vault grants, 0 for none. Raises SidecarError."""
        body = {"lease_id": lease.id, "increment": lease.seconds}
        answer = self._request(deadline, "POST", "/v1/sys/leases/renew", json.dumps(body).encode())
        if answer.status != 200:
            return 0.0
        return _number(json_object(answer.body), "lease_duration")

    def revoke_lease(self, deadline: Deadline, lease: SecretLease) -> str:
        """Revoke a lease; why Vault refused, empty if it did not. Raises SidecarError when Vault cannot answer."""
        body = {"lease_id": lease.id, "sync": False}
        answer = self._request(deadline, "POST", "/v1/sys/leases/revoke", json.dumps(body).encode())
        return self._reason_not_revoked(answer)

    def revoke_token(self, deadline: Deadline) -> str:
        """Revoke the token, and with it its leases; result and error as `revoke_lease`."""
        reason = self._reason_not_revoked(self._request(deadline, "POST", "/v1/auth/token/revoke-self", b""))
        self._token = ""
        self.disconnect()
        return reason

    def trust_as(self, newer: VaultSession) -> None:
        """Trust the CA that came with a newer token: this one has still to be revoked."""
        self._client.trust_as(newer._client)

    def disconnect(self) -> None:
        """Drop the connection: servers close one that is idle for minutes, and that would look like an outage."""
        self._client.close()

    def _reason_not_revoked(self, answer: Answer) -> str:
        return "" if answer.status == _UNKNOWN and not self.is_alive else super()._reason_not_revoked(answer)

    def _request(self, deadline: Deadline, method: str, path: str, body: bytes | None = None) -> Answer:
        deadline.check("a request to Vault")
        with deadline.shutdown.interruptible():
            return self._client.call(deadline, method, path, body, self._headers())

    def _token_gone(self) -> TokenGoneError:
        self.is_gone = True
        return TokenGoneError()


def spread() -> float:
    """A factor of a little less than 1, so that pods which started together do not return together."""
    return 0.95 + 0.05 * jitter()


def _member(answer: Answer, name: str) -> dict[str, Any]:
    found = json_object(answer.body).get(name)
    return found if isinstance(found, dict) else {}


def _number(source: dict[str, Any], name: str) -> float:
    """A duration; 0 for anything else."""
    value = source.get(name)
    return float(value) if type(value) is int and 0 < value < 2**31 else 0.0
