"""Inside the pod: attest, fetch, publish, renew. `plan` is the contract with admission."""
