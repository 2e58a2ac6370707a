"""What a client would trip over later is refused where the verifier's configuration names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from attestation.simulator.hierarchy import Hierarchy
from attestation.verifier.configuration import load_configuration
from server.yaml.strict import ConfigurationError
from tests.attestation.verifier.process import make_site
from tests.attestation.verifier.tokens import Issuer


@pytest.mark.parametrize(
    ("where", "value", "problem"),
    [
        (("vault", "url"), "vault.example:8200", "vault.url: is not of the form https://HOST[:PORT][/PATH]"),
        (("vault", "url"), "ftp://vault.example", "vault.url: is not of the form"),
        (("vault", "url"), "https://u:hunter2@vault.example", "such as https://vault.example:8200"),
        (("vault", "url"), "https://vault.example/#hunter2", "vault.url: is not of the form"),
        (("clusters", 0, "name"), "prod.eu", "such as prod-eu"),
        (("clusters", 0, "name"), "prod/eu", "such as prod-eu"),
        (("clusters", 0, "jwks"), {"url": "https://api.example:x/jwks"}, "jwks.url: is not of the form"),
        (("clusters", 0, "readBack"), {"url": "https:///pods"}, "readBack.url: is not of the form"),
        (("clusters", 0, "tokenReview"), {"url": "https://äpi.example"}, "tokenReview.url: is not of the form"),
    ],
)
def test_unusable_urls_and_names_are_refused_by_field(
    tmp_path: Path, hierarchy: Hierarchy, issuer: Issuer, where: Any, value: Any, problem: str
) -> None:
    site = make_site(tmp_path, hierarchy, issuer, "http://127.0.0.1:1")
    section: Any = site.settings
    for step in where[:-1]:
        section = section[step]
    section[where[-1]] = value
    with pytest.raises(ConfigurationError) as raised:
        load_configuration(site.write())
    assert problem in str(raised.value)
    assert "hunter2" not in str(raised.value)
