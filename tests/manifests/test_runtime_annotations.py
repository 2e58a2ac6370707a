"""The registration's match condition and the rules agree on which annotations a container runtime reads."""

from __future__ import annotations

import re

import pytest

from tests.manifests.rendering import rendered
from webhook.pod.runtime_annotations import reaches_runtime
from webhook.wellknown import RUNTIME_DOMAINS, RUNTIME_PREFIXES


def _pattern() -> re.Pattern[str]:
    text = "\n".join(str(each) for each in rendered("install.yaml"))
    (pattern,) = set(re.findall(r"key\.matches\('([^']+)'\)", text.replace("\\'", "'")))
    return re.compile(pattern)


@pytest.mark.parametrize(
    "key",
    [
        *(f"{prefix}x" for prefix in RUNTIME_PREFIXES),
        *(prefix for prefix in RUNTIME_PREFIXES),
        *(f"a.{domain}/b" for domain in RUNTIME_DOMAINS),
        *(f"a.{domain}" for domain in RUNTIME_DOMAINS),
        *(f"{domain}/b" for domain in RUNTIME_DOMAINS),
        *(f"a{domain}/b" for domain in RUNTIME_DOMAINS),
        *(f"example.org/{domain}" for domain in RUNTIME_DOMAINS),
        *("prometheus.io/scrape", "io.kubernetes.container.x", "morphisms.dev/inject", "xcdi.k8s.io/y", "note"),
    ],
)
def test_a_changed_annotation_for_the_runtime_is_evaluated(key: str) -> None:
    assert (_pattern().search(key) is not None) == reaches_runtime(key)
