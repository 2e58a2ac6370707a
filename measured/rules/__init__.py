"""The rules texts, by version. A text that was released is never changed: a policy is known by it."""
