"""Whether a guard's policy has the text of this release: what it matches, its conditions, variables and validations.

The lists that the configuration decides (`morphisms guards`) are left out, and so are messages and what an API server
fills in.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from server.kubernetes.untyped import mapping, mappings

DIGESTS: Final[Mapping[str, str]] = {
    "configmap-guard": "2797789cdf2d58634dbadcb8f4825165af23779a8177fd16ba487189f538096a",
    "configuration-guard": "758c663f9836c408c22a0328c86191aed521e69d87c072fc2ab4b154b3999dd9",
    "injection-present": "b37005b74c8acca5f72348d86d719ce2a6b8bea468da347acb5877f20359e80c",
    "knative-labels": "2df5e5ebe8fc99143241130694fe84582433849b2d0e6321a536134acb7ecc18",
    "mode-ratchet": "e99699aacb3d5a8ac9184746d0a3abe7ad47429596a6463d524ae6bf7d520b6f",
    "runtime-class-guard": "69c7221d810784fedf92551c7de0c20b9a784e98aaa260afd898dca308595364",
    "verifier-token": "0b45321cba9a4fb76a7562116ea9ce74b39d8f4b8037cb0ef6f932a39e9218fb",
}
"""By guard; the test that compares them with the manifests says what to write here."""

# The expressions in which `morphisms guards` writes lists.
_CONFIGURED: Final = frozenset(
    {
        "profiles",
        "runtimeClasses",
        "injecting",
        "handlers",
        "no-dry-run-of-knative",
        "not-by-knative",
        "for-the-verifier",
    }
)
_STRING: Final = re.compile(r"'[^']*'")
_LIST: Final = re.compile(r"\[\s*(?:''\s*,?\s*)*\]")
_MAP: Final = re.compile(r"\{\s*(?:'':\s*\[\]\s*,?\s*)*\}")
_SPACE: Final = re.compile(r"\s+")


def digest_of(policy: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of the policy's text."""
    spec = mapping(policy.get("spec"))
    matched = mapping(spec.get("matchConstraints"))
    text = {
        "rules": [
            [each.get(name) for name in ("apiGroups", "apiVersions", "resources", "operations")]
            for each in mappings(matched.get("resourceRules"))
        ],
        **{name: matched.get(name) or None for name in ("excludeResourceRules", "namespaceSelector", "objectSelector")},
        "parameters": spec.get("paramKind") or None,
        **{
            name: [_expression(each) for each in mappings(spec.get(name))]
            for name in ("matchConditions", "variables", "validations")
        },
    }
    return hashlib.sha256(json.dumps(text, sort_keys=True).encode()).hexdigest()


def _expression(entry: Mapping[str, Any]) -> list[str]:
    name, text = str(entry.get("name", "")), _SPACE.sub(" ", str(entry.get("expression")).strip())
    if name in _CONFIGURED:
        text = _MAP.sub("{}", _LIST.sub("[]", _STRING.sub("''", text)))
    return [name, text]
