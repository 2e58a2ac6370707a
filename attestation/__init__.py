"""Reads and appraises SEV-SNP reports, collects evidence, and runs the verifier that turns it into a Vault login.

- `report`: the bytes, and the envelopes they come in; parsing never decides
- `pki`: AMD's certificates and revocation lists, and where to get them
- `appraisal`: the checks, and the attestation result
- `evidence`: where a guest gets its report; imports next to nothing
- `simulator`: a simulated machine for trials and tests
- `verifier`: the service beside Vault
"""
