"""Other secret injectors' annotations: recognised, never acted on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

VAULT_AGENT_PREFIXES: Final = ("vault.hashicorp.com/", "openbao.org/")
BANK_VAULTS_PREFIXES: Final = ("vault.security.banzaicloud.io/", "secrets-webhook.security.bank-vaults.io/")

_ALL_PREFIXES: Final = (*VAULT_AGENT_PREFIXES, *BANK_VAULTS_PREFIXES)

_GO_TRUE: Final = ("1", "t", "T", "true", "TRUE", "True")
_GO_FALSE: Final = ("0", "f", "F", "false", "FALSE", "False")

VAULT_AGENT: Final = "the Vault Agent Injector"
BANK_VAULTS: Final = "the Bank-Vaults webhook"


def parse_bool(value: str) -> bool | None:
    """Go's strconv.ParseBool, which both injectors use; None for a text that it refuses."""
    if value in _GO_TRUE:
        return True
    return False if value in _GO_FALSE else None


def claimed_by(annotations: Mapping[str, str]) -> Iterator[str]:
    """The injectors that these pod annotations request, or that have changed the pod already."""
    for key in annotations:
        if key.startswith(_ALL_PREFIXES):
            break
    else:
        return
    switches = [annotations.get(f"{prefix}agent-inject", "false") for prefix in VAULT_AGENT_PREFIXES]
    worked = any(f"{prefix}agent-inject-status" in annotations for prefix in VAULT_AGENT_PREFIXES)
    # What ParseBool refuses may be a request for injection too.
    if worked or any(parse_bool(switch) is not False for switch in switches):
        yield VAULT_AGENT
    keys = [key for key in annotations if key.startswith(BANK_VAULTS_PREFIXES)]
    if keys and not any(annotations[key] == "skip" for key in keys if key.endswith("/mutate")):
        yield BANK_VAULTS


# The init containers that Bank-Vaults' two webhooks add; a pod without their annotations is theirs too.
_BANK_VAULTS_CONTAINERS: Final = frozenset(("copy-vault-env", "copy-secret-init"))


def has_worked_on(spec: Mapping[str, Any]) -> Iterator[str]:
    """The injectors whose containers a pod spec of checked shape has already."""
    for each in spec.get("initContainers") or ():
        if each.get("name") in _BANK_VAULTS_CONTAINERS:
            yield BANK_VAULTS
            return
