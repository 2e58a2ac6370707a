"""Ties a pod to the machine below it: the chips of each node, as the operator lists them.

A pod's token and an approved guest image are enough to pass for the pod on any genuine machine, also on one of the
attacker's own. With the node's name, which the API server says, and this table, the report has to be of a chip there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, RootModel
from pydantic_core import PydanticCustomError

from attestation.verifier.cluster.pod_token import PodIdentity
from attestation.verifier.reasons import Reason, RefusedError
from server.yaml.strict import Loaded, load


def _not_masked(chip_id: str) -> str:
    if not chip_id.strip("0"):
        raise PydanticCustomError("chip_id", "is all zeros, which is the CHIP_ID that a host masks; it names no chip")
    return chip_id


_ChipId = Annotated[str, Field(pattern="^[0-9a-f]{128}$"), AfterValidator(_not_masked)]


class NodeFile(RootModel[dict[str, tuple[_ChipId, ...]]]):
    """Node name to the CHIP_IDs of its sockets, 128 hexadecimal digits each."""


NodeChips = Mapping[str, frozenset[bytes]]


def load_node_chips(path: Path) -> Loaded[NodeChips]:
    """Node name to CHIP_IDs. Raises ConfigurationError."""
    loaded = load(path, NodeFile)
    chips = {node: frozenset(map(bytes.fromhex, each)) for node, each in loaded.value.root.items()}
    return Loaded(chips, loaded.digest)


def check_chip(chips: NodeChips, pod: PodIdentity, chip_id: bytes) -> None:
    """Raises RefusedError(NODE_CHIP) unless the chip is one of the live pod's node.

    Of a guest without a pod token no node is known; any of the cluster's will do.
    """
    if pod.without_token:
        if not any(chip_id in each for each in chips.values()):
            raise RefusedError(Reason.NODE_CHIP, f"CHIP_ID {chip_id.hex()} is not of a node of {pod.cluster}")
        return
    if not pod.node:
        raise RefusedError(Reason.NODE_CHIP, "the pod is bound to no node")
    if pod.node not in chips:
        raise RefusedError(Reason.NODE_CHIP, f"nodes has no entry for {pod.node}")
    if chip_id not in chips[pod.node]:
        raise RefusedError(Reason.NODE_CHIP, f"CHIP_ID {chip_id.hex()} is not of node {pod.node}")
