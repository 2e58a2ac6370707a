"""`make schema`: writes the published JSON Schemas from the types; a test holds them against each other."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from attestation.verifier.configuration import VerifierConfiguration
from attestation.verifier.policies.model import AppraisalPolicy
from server.guest_entries import GuestFile
from server.yaml.strict import schema
from webhook.configuration.model import Configuration

DOCS = Path(__file__).parent.parent / "docs"
SCHEMAS: dict[str, type[BaseModel]] = {
    "configuration.schema.json": Configuration,
    "verifier.schema.json": VerifierConfiguration,
    "appraisal-policy.schema.json": AppraisalPolicy,
    "guest.schema.json": GuestFile,
}


def main() -> None:
    """Write every schema."""
    for name, model in SCHEMAS.items():
        (DOCS / name).write_text(schema(model))
        print(f"wrote docs/{name}")


if __name__ == "__main__":
    main()
