"""Which of several replicas this process is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Replica:
    """The namespace of the webhook, and the name of this process's pod."""

    namespace: str
    name: str
