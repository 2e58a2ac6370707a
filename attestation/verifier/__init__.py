"""The verifier: a service beside Vault that turns a believed guest into a Vault login of its workload.

Read in this order: `application` (the three calls), `judge` (what is decided), then what it decides with: `nonces`,
`identity` and `read_back`, `policies`, and `vault`. `store` keeps the verdicts for `morphisms explain`. A guest learns
one opaque code and a correlation id; everything else is for the operator.
"""
