"""Inside the pod: attest, fetch, publish, renew. `plan.document` is the contract with admission."""
