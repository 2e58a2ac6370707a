"""Annotations that reach the container runtime or the hypervisor, which act on the pod from outside its guest."""

from __future__ import annotations

from webhook.wellknown import RUNTIME_DOMAINS, RUNTIME_PREFIXES

_ENDS = tuple(f".{domain}" for domain in RUNTIME_DOMAINS)


def reaches_runtime(key: str) -> bool:
    """Whether a runtime, or what it loads, reads an annotation of this key."""
    if key.startswith(RUNTIME_PREFIXES):
        return True
    domain = key.partition("/")[0]
    return domain.endswith(_ENDS) or domain in RUNTIME_DOMAINS
