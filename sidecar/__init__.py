"""Inside the pod: attest, fetch, publish, renew. `sidecar.plan` is the contract with admission."""
