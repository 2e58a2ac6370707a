"""Certificates of the webhook: a CA of its own, short-lived serving certificates, rotation, and the caBundle.

All state is in two Secrets. `certs.rotation.next_step` looks at them and at the live webhook configurations and names
the one write that comes next, so that a leader may die after any of them. `certs.controller` is one replica's part:
it serves what the Secret holds, and while it leads, it takes those steps. `certs.authority` makes certificates, also
for operators who have no cluster at hand. Nothing here knows the rest of the project.
"""
