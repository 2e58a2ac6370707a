"""Other secret injectors' annotations: recognised, never acted upon."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

VAULT_AGENT_PREFIXES: Final = ("vault.hashicorp.com/", "openbao.org/")
BANK_VAULTS_PREFIXES: Final = ("vault.security.banzaicloud.io/", "secrets-webhook.security.bank-vaults.io/")

_ALL_PREFIXES: Final = (*VAULT_AGENT_PREFIXES, *BANK_VAULTS_PREFIXES)

# What the injectors' strconv.ParseBool takes for false; anything else is, or may be, a wish.
_GO_FALSE: Final = ("0", "f", "F", "false", "FALSE", "False")

VAULT_AGENT: Final = "the Vault Agent Injector"
BANK_VAULTS: Final = "the Bank-Vaults webhook"


def claimed_by(annotations: Mapping[str, str]) -> Iterator[str]:
    """The injectors that these pod annotations ask for, or that have worked on the pod already."""
    if not any(key.startswith(_ALL_PREFIXES) for key in annotations):
        return
    wishes = [annotations.get(f"{prefix}agent-inject", "false") for prefix in VAULT_AGENT_PREFIXES]
    worked = any(f"{prefix}agent-inject-status" in annotations for prefix in VAULT_AGENT_PREFIXES)
    if worked or any(wish not in _GO_FALSE for wish in wishes):
        yield VAULT_AGENT
    keys = [key for key in annotations if key.startswith(BANK_VAULTS_PREFIXES)]
    if keys and not any(annotations[key] == "skip" for key in keys if key.endswith("/mutate")):
        yield BANK_VAULTS
