"""The parts of a verifier that starts sealed, put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from attestation.verifier.configuration import Provisioning
from attestation.verifier.metrics import ProvisioningMetrics
from attestation.verifier.peer import Peer
from attestation.verifier.provisioning.held_secrets import HeldSecrets, read_authority
from attestation.verifier.provisioning.provision_calls import ProvisionCalls
from attestation.verifier.provisioning.seal import Seal
from attestation.verifier.provisioning.serving_leaf import ServingLeaf
from attestation.verifier.provisioning.unsealing import Unsealer
from attestation.verifier.provisioning.vault_relay import Relayed, VaultRelay
from kbs.attested import ATTESTED_PATH
from kbs.provision import PROVISION_PATH, SecretName
from server.health import Check
from server.messages import Handler, Intake
from server.service import Background


@dataclass(frozen=True, slots=True)
class Provisioned:
    """`held`: what has come. `leaf`: serves before and after."""

    held: HeldSecrets
    leaf: ServingLeaf
    seal: Seal
    calls: ProvisionCalls
    metrics: ProvisioningMetrics

    def serve(
        self, routes: Mapping[tuple[str, str], Handler], intakes: Mapping[str, Intake]
    ) -> tuple[dict[tuple[str, str], Handler], dict[str, Intake]]:
        """The routes behind the seal, and the calls that open it."""
        every, conditions = {**routes, **self.calls.routes()}, {**intakes, **self.calls.intakes()}
        return every, self.seal.guard({path for _, path in every}, conditions, (ATTESTED_PATH, PROVISION_PATH))


def make_provisioned(
    configured: Provisioning,
    beside: Peer | None,
    relayed: Relayed | None,
    registry: CollectorRegistry,
    gates: dict[str, Check],
    background: list[Background],
) -> Provisioned:
    """`beside`: the OpenBao on this machine's loopback, where its shares are needed; `relayed`: how guests reach it.

    Adds the readiness to `gates`, and what runs beside the server to `background`.
    """
    leaf = ServingLeaf(configured.names)
    held = HeldSecrets(configured.needs, leaf.problem)
    background.append(leaf.keep)
    unsealer = None if beside is None else Unsealer(beside)
    if unsealer is not None:
        background.append(unsealer.watch)

    def use_authority(name: SecretName) -> None:
        if name is SecretName.TLS_CA_KEY and (authority := read_authority(held.text(name))) is not None:
            leaf.use(authority)

    held.when_taken(use_authority)
    seal = Seal(held, unsealer)
    metrics = ProvisioningMetrics(registry, lambda: seal.is_sealed)
    gates["provisioning"] = seal.check
    if relayed is not None:
        background.append(VaultRelay(relayed, leaf.certificate, lambda: seal.is_sealed, registry).serve)
    calls = ProvisionCalls([each.key() for each in configured.provisioners], held, seal, unsealer, metrics)
    return Provisioned(held, leaf, seal, calls, metrics)
