"""Certificates of the webhook: a CA of its own, short-lived serving certificates, rotation, and the caBundle.

All state is in two Secrets. `certs.rotation.next_step` reads them and the live webhook configurations and returns the
one write that comes next, so a leader may die after any of them. `certs.controller` is one replica's part: it serves
what the Secret holds, and while the replica leads, it takes those steps. `certs.authority` makes certificates, also
for operators without a cluster at hand. Of the project this package imports `server` alone.
"""
