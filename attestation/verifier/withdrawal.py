"""Takes back what a policy in force would no longer grant: revokes the Vault tokens of logins that this replica made.

A login is withdrawn when its record, its HOST_DATA, its guest, its chip or its role is gone, or its pod, where pods are
looked up; never because something was added. Each replica looks at its own logins every 30 s. They stand in its records
of logins, so a restarted replica knows them too. Vault's own credentials of the verifier are needed, because an
accessor revokes a token and cannot use it.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from attestation.verifier.cluster.node_chips import NodeChips, check_chip
from attestation.verifier.cluster.pod_lookup import PodLookup
from attestation.verifier.cluster.pod_token import PodIdentity
from attestation.verifier.policies.model import PolicySet
from attestation.verifier.reasons import Reason, RefusedError
from attestation.verifier.session.bearer import Grant
from attestation.verifier.vault.credentials import Credentials
from server import logs

_SWEEP_SECONDS = 30.0
# No token of a login lives longer than this: `vault setup` gives them an hour at most.
_REMEMBERED_SECONDS = 24 * 3600.0
_MOST = 50_000
# Fewer look-ups at a time than attestations may have, which come first.
_LOOKUPS = 4


@dataclass(frozen=True, slots=True)
class LiveLogin:
    """What one login rests on, as its record holds it. `at`: Unix seconds; digests in hex."""

    accessor: str
    at: float
    correlation_id: str
    subject: str
    assurance: str
    guest: str
    measurement: str
    chip_id: str
    host_data: str
    pod: PodIdentity
    mount: str
    role: str
    namespace: str

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_record` reads it."""
        return asdict(self)

    @classmethod
    def of(cls, accessor: str, at: float, grant: Grant, login: tuple[str, str, str]) -> LiveLogin:
        """The login that this grant had. `login`: mount, role and Vault namespace."""
        return cls(
            accessor=accessor,
            at=at,
            correlation_id=grant.correlation_id,
            subject=grant.workload.subject,
            assurance=grant.assurance.value,
            guest=grant.reference.name,
            measurement=grant.claims["snp_measurement"],
            chip_id=grant.claims["snp_chip_id"],
            host_data=grant.host_data.hex(),
            pod=grant.pod,
            mount=login[0],
            role=login[1],
            namespace=login[2],
        )

    @classmethod
    def from_record(cls, basis: Mapping[str, Any]) -> LiveLogin | None:
        """None for a record that is not one of this version."""
        try:
            pod = dict(basis["pod"])
            pod["images"] = tuple(pod.get("images", ()))
            return cls(**{**basis, "pod": PodIdentity(**pod)})
        except (TypeError, KeyError, ValueError):
            return None

    def withdrawn(self, policies: PolicySet, chips: NodeChips | None) -> str:
        """Why the records in force would not grant this login; empty while they would."""
        host_data, chip_id = bytes.fromhex(self.host_data), bytes.fromhex(self.chip_id)
        try:
            if chips is not None:
                check_chip(chips, self.pod, chip_id)
            policy = policies.find(host_data, self.pod)
        except RefusedError as error:
            return str(error)
        record = policy.record
        if record.workload.subject != self.subject or record.assurance.value != self.assurance:
            return f"the record in force is {policy.name}, assurance {record.assurance.value}"
        if record.hostData and host_data not in record.host_data:
            return "HOST_DATA is gone from the record"
        if (record.vault.mount, record.vault.role, record.vault.namespace) != (self.mount, self.role, self.namespace):
            return f"the record no longer names role {self.role}"
        measurement = bytes.fromhex(self.measurement)
        for guest in policy.guests:
            # The signature over the report was checked at its attestation; a guest can only have lost a digest since.
            has_measurement = not guest.measurements or measurement in guest.measurements
            if guest.name == self.guest and has_measurement and (guest.chip_ids is None or chip_id in guest.chip_ids):
                return ""
        return f"guest {self.guest}, its measurement or its chip is gone"


class Withdrawals:
    """The logins of this replica, while `watch` runs. `lookups`, `nodes`: of the clusters that have them.

    `record` keeps a withdrawal on disk.
    """

    def __init__(
        self,
        credentials: Credentials | None,
        policies: Callable[[], PolicySet],
        lookups: Mapping[str, PodLookup],
        nodes: Mapping[str, Callable[[], NodeChips]],
        record: Callable[[Mapping[str, Any]], object],
    ) -> None:
        self._credentials = credentials
        self._policies = policies
        self._lookups = lookups
        self._nodes = nodes
        self._record = record
        self._logins: OrderedDict[str, LiveLogin] = OrderedDict()

    def remember(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Take over the logins that a former process of this replica recorded."""
        oldest = time.time() - _REMEMBERED_SECONDS
        for record in records:
            if record.get("call") == "withdraw":
                self._logins.pop(str(record.get("accessor")), None)
            elif isinstance(basis := record.get("basis"), dict):
                login = LiveLogin.from_record(basis)
                if login is not None and login.at > oldest:
                    self.add(login)

    def add(self, login: LiveLogin) -> None:
        """Watch a login from now on."""
        if self._credentials is None or not login.accessor:
            return
        self._logins[login.accessor] = login
        while len(self._logins) > _MOST:
            self._logins.popitem(last=False)

    def check(self, login: LiveLogin) -> None:
        """Raise RefusedError(POLICY_CHANGED) for a login that would be withdrawn at once."""
        if why := self._why(login, self._policies()):
            raise RefusedError(Reason.POLICY_CHANGED, f"since the attestation: {why}")

    def _why(self, login: LiveLogin, policies: PolicySet) -> str:
        chips = self._nodes.get(login.pod.cluster)
        return login.withdrawn(policies, None if chips is None else chips())

    async def watch(self) -> None:
        """Sweep until cancelled."""
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            try:
                await self.sweep()
            except RefusedError as error:
                logs.warning("withdrawal_waits", reason=error.reason.value, detail=error.detail)

    async def sweep(self) -> None:
        """Look at each login once. Raises RefusedError while the policies are not known."""
        policies = self._policies()
        oldest = time.time() - _REMEMBERED_SECONDS
        for login in list(self._logins.values()):
            if login.at < oldest:
                del self._logins[login.accessor]
            elif why := self._why(login, policies):
                await self._revoke(login, why)
        places = asyncio.Semaphore(_LOOKUPS)
        pods = {login.pod: login for login in self._logins.values() if login.pod.cluster in self._lookups}
        gone = await asyncio.gather(*(self._is_gone(pod, places) for pod in pods))
        dead = {pod for pod, is_gone in zip(pods, gone, strict=True) if is_gone}
        for login in list(self._logins.values()):
            if login.pod in dead:
                await self._revoke(login, "the pod is gone")

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
        prefix = f"{login.namespace}/" if login.namespace and login.namespace != self._credentials.namespace else ""
        try:
            await self._credentials.request("POST", f"{prefix}auth/token/revoke-accessor", {"accessor": login.accessor})
            revoked = True
        except RefusedError as error:
            if error.reason is not Reason.VAULT_REFUSED:  # Vault knows no such accessor: the token has ended
                logs.error("withdrawal_failed", accessor=login.accessor, reason=error.reason.value, detail=error.detail)
                return
            revoked = False
        del self._logins[login.accessor]
        fields = {"subject": login.subject, "accessor": login.accessor, "detail": why, "revoked": revoked}
        logs.warning("login_withdrawn", correlation_id=login.correlation_id, **fields)
        self._record({"id": login.correlation_id, "call": "withdraw", "reason": "withdrawn"} | fields)
