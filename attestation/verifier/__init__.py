"""The verifier: a service beside Vault that turns an accepted attestation into a Vault login of the guest's workload.

Read in this order: `handlers` (the three calls), `appraiser` (the decision), then its parts: `session` (nonces,
bearers), `cluster` (pod tokens, pod look-up), `policies`, and `vault`. `assembly` puts them together, `responses`
writes refusals, `records` keeps the results for `morphisms explain`. A guest learns one opaque code and a correlation
id; everything else is for the operator.
"""
