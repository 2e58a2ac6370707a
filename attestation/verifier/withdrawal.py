"""Takes back what a policy in force would no longer grant: revokes the Vault tokens of logins that this replica made.

A login is withdrawn when its record would no longer grant it (see `session.basis`), when its role is another one now,
when a revocation list names its chip's certificate, or when its pod is gone, where pods are looked up; never because
something was added. Each replica looks at its own logins when the records change, and every 30 s. They stand in its
records of logins, so a restarted replica knows them too. Vault's own credentials of the verifier are needed, because
an accessor revokes a token and cannot use it.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from attestation.verifier.cluster.pod_lookup import PodLookup
from attestation.verifier.cluster.pod_token import PodIdentity
from attestation.verifier.policies.model import VaultLogin
from attestation.verifier.rate_limit import RateLimiter
from attestation.verifier.reasons import Reason, RefusedError
from attestation.verifier.session.basis import Basis, InForce
from attestation.verifier.vault.credentials import Credentials
from server import logs

_SWEEP_SECONDS = 30.0
_LOOK_SECONDS = 2.0
_WARNING_SECONDS = 60.0
# No token of a login lives longer than this: `vault setup` gives them an hour at most.
_REMEMBERED_SECONDS = 24 * 3600.0
_MOST = 50_000
# Fewer look-ups at a time than attestations may have, which come first.
_LOOKUPS = 4


@dataclass(frozen=True, slots=True)
class LiveLogin:
    """One login, as its record holds it. `at`: Unix seconds. `granted_by`: digest of the policy that granted it."""

    accessor: str
    at: float
    correlation_id: str
    basis: Basis
    granted_by: str
    vault: VaultLogin

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_record` reads it."""
        return {
            "accessor": self.accessor,
            "at": self.at,
            "correlation_id": self.correlation_id,
            "basis": self.basis.as_dict(),
            "granted_by": self.granted_by,
            "vault": self.vault.model_dump(),
        }

    @classmethod
    def from_record(cls, login: Mapping[str, Any]) -> LiveLogin | None:
        """None for a record that is not one of this version."""
        try:
            return cls(**{**login, "basis": Basis.from_dict(login["basis"]), "vault": VaultLogin(**login["vault"])})
        except (TypeError, KeyError, ValueError):
            return None


class Withdrawals:
    """The logins of this replica, while `watch` runs. `lookups`: of the clusters that have them.

    `revoked`: the serials on the revocation lists of a product line. `record` keeps a withdrawal on disk, and
    returns the SHA-256 of its line.
    """

    def __init__(
        self,
        credentials: Credentials | None,
        in_force: InForce,
        lookups: Mapping[str, PodLookup],
        revoked: Callable[[str], frozenset[int]],
        record: Callable[[Mapping[str, Any]], str | None],
    ) -> None:
        self._credentials = credentials
        self._in_force = in_force
        self._lookups = lookups
        self._revoked = revoked
        self._record = record
        self._warnings = RateLimiter(1, _WARNING_SECONDS, time.monotonic)
        self._logins: OrderedDict[str, LiveLogin] = OrderedDict()

    def remember(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Take over the logins that a former process of this replica recorded."""
        oldest = time.time() - _REMEMBERED_SECONDS
        for record in records:
            if record.get("call") == "withdraw":
                self._logins.pop(str(record.get("accessor")), None)
            elif isinstance(written := record.get("login"), dict):
                login = LiveLogin.from_record(written)
                if login is not None and login.at > oldest:
                    self.add(login)

    def add(self, login: LiveLogin) -> None:
        """Watch a login from now on."""
        if self._credentials is None or not login.accessor:
            return
        self._logins[login.accessor] = login
        while len(self._logins) > _MOST:
            self._logins.popitem(last=False)

    async def watch(self) -> None:
        """Compare the logins with the records soon after these have changed, and with all else now and then."""
        seen: object = None
        swept = float("-inf")
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                if (policies := self._in_force.policies()) is not seen:
                    await self.compare()
                    seen = policies
                if time.monotonic() - swept >= _SWEEP_SECONDS:
                    swept = float("-inf")
                    await self.sweep()
            except RefusedError as error:
                if self._warnings.take(error.reason):
                    logs.warning("withdrawal_waits", reason=error.reason.value, detail=error.detail)

    async def sweep(self) -> None:
        """Look at each login, and at each pod where pods are looked up. Raises RefusedError as `compare`."""
        await self.compare()
        await self._look_pods_up()

    async def compare(self) -> None:
        """Look at each login once. Raises RefusedError while the policies are not known."""
        oldest = time.time() - _REMEMBERED_SECONDS
        revoked = {line: self._revoked(line) for line in {each.basis.attested.line for each in self._logins.values()}}
        for login in list(self._logins.values()):
            if login.at < oldest:
                self._logins.pop(login.accessor, None)
            elif not revoked[login.basis.attested.line].isdisjoint(login.basis.attested.serials):
                await self._revoke(login, "a revocation list names the chip's certificate or its issuer")
            elif why := self._why(login):
                await self._revoke(login, why)
            await asyncio.sleep(0)  # an edit of a guest costs a comparison each: attestations go on between them

    async def _look_pods_up(self) -> None:
        places = asyncio.Semaphore(_LOOKUPS)
        pods = {
            login.basis.pod
            for login in self._logins.values()
            if login.basis.pod.cluster in self._lookups and not login.basis.pod.without_token
        }
        gone = await asyncio.gather(*(self._is_gone(pod, places) for pod in pods))
        dead = {pod for pod, is_gone in zip(pods, gone, strict=True) if is_gone}
        for login in list(self._logins.values()):
            if login.basis.pod in dead:
                await self._revoke(login, "the pod is gone")

    def _why(self, login: LiveLogin) -> str:
        """Why the records in force would not grant this login; empty while they would."""
        try:
            policy = self._in_force.policy_for(login.basis, login.granted_by)
        except RefusedError as error:
            if error.reason is not Reason.POLICY_CHANGED:
                raise
            return error.detail
        if policy.record.vault != login.vault:
            return f"the record no longer names role {login.vault.role} of {login.vault.mount}"
        if policy.digest != login.granted_by and login.accessor in self._logins:
            self._logins[login.accessor] = replace(login, granted_by=policy.digest)
        return ""

    async def _is_gone(self, pod: PodIdentity, places: asyncio.Semaphore) -> bool:
        async with places:
            try:
                live = await self._lookups[pod.cluster].look_up(pod)
            except RefusedError as error:
                # An API server that does not answer says nothing about the pod.
                return error.reason is Reason.POD_MISMATCH
        return live.service != pod.service

    async def _revoke(self, login: LiveLogin, why: str) -> None:
        if self._credentials is None:
            raise AssertionError("logins are watched only with credentials")
        namespace = login.vault.namespace
        prefix = f"{namespace}/" if namespace and namespace != self._credentials.namespace else ""
        try:
            await self._credentials.request("POST", f"{prefix}auth/token/revoke-accessor", {"accessor": login.accessor})
            revoked = True
        except RefusedError as error:
            if error.reason is not Reason.VAULT_REFUSED:  # Vault knows no such accessor: the token has ended
                logs.error("withdrawal_failed", accessor=login.accessor, reason=error.reason.value, detail=error.detail)
                return
            revoked = False
        self._logins.pop(login.accessor, None)
        fields = {
            "subject": login.basis.workload.subject,
            "accessor": login.accessor,
            "detail": why,
            "revoked": revoked,
        }
        record = self._record({"id": login.correlation_id, "call": "withdraw", "reason": "withdrawn"} | fields)
        logs.warning("login_withdrawn", correlation_id=login.correlation_id, **fields, record=record)
