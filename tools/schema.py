"""`make schema`: writes the JSON Schemas from the types and the page of rules; tests hold them against each other."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from attestation.verifier.configuration import VerifierConfiguration
from attestation.verifier.policies.model import AppraisalPolicy
from server.guest_entries import GuestFile
from server.yaml.strict import schema
from tools import rules_page
from webhook.configuration.model import Configuration

DOCS = Path(__file__).parent.parent / "docs"
SCHEMAS: dict[str, type[BaseModel]] = {
    "configuration.schema.json": Configuration,
    "verifier.schema.json": VerifierConfiguration,
    "appraisal-policy.schema.json": AppraisalPolicy,
    "guest.schema.json": GuestFile,
}


def main() -> None:
    """Write every schema, and the page of rules."""
    for name, model in SCHEMAS.items():
        (DOCS / name).write_text(schema(model))
        print(f"wrote docs/{name}")
    (DOCS / rules_page.PAGE).write_text(rules_page.page(rules_page.introduction()))
    print(f"wrote docs/{rules_page.PAGE}")


if __name__ == "__main__":
    main()
