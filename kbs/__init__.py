"""The messages between guest and verifier: `messages` holds what both share, `guest` and `verifier` are the halves."""
