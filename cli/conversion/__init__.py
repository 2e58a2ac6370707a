"""Other secret injectors' manifests, translated into ours: pure functions of an object and a configuration.

`convert.convert` is the door. `vault_agent` and `bank_vaults` each know one injector's words, `go_template` the few of
Vault Agent's templates that a logic-less one can say, `paths` the difference between an API path and a logical one.
It stands beside the commands because no admission needs it: the webhook only recognises these injectors.
"""
