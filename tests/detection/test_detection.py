"""Plaintext secrets are found by name, by format and by entropy, and what is none is left alone."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.detection import Allow, Detector
from webhook.detection.formats import FORMATS

_REVIEWS = Path(__file__).parent.parent / "fixtures" / "admissionreviews"

# Put together here, so that no scanner takes this file for a leak.
_A = "a1B2c3D4e5F6g7H8i9J0"
_SAMPLES = {
    "aws-access-key-id": "AKIA" + "IOSFODNN7EXAMPLE",
    "github-token": "ghp_" + (_A * 2)[:36],
    "gitlab-token": "glpat-" + _A,
    "slack-token": "xoxb-" + "1234567890-abcdef",
    "slack-webhook": "https://hooks.slack.com/services/" + "T00000000/B00000000/XXXXXXXX",
    "stripe-key": "sk_live_" + _A,
    "google-api-key": "AIza" + (_A * 2)[:35],
    "jwt": "eyJhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxMjM0In0." + "c2lnbmF0dXJlLW9mLWl0",
    "private-key": "-----BEGIN EC " + "PRIVATE KEY-----\nabc",
    "vault-token": "hvs." + _A * 2,
    "npm-token": "npm_" + (_A * 2)[:36],
    "pypi-token": "pypi-" + "AgE" + _A,
    "sendgrid-key": "SG." + (_A * 2)[:22] + "." + (_A * 3)[:43],
    "azure-storage-key": "DefaultEndpointsProtocol=https;AccountKey=" + (_A * 5)[:86] + "==",
    "openai-key": "sk-" + "proj-" + _A * 2,
    "huggingface-token": "hf_" + (_A * 2)[:34],
    "databricks-token": "dapi" + "0123456789abcdef" * 2,
    "digitalocean-token": "dop_v1_" + "0123456789abcdef" * 4,
    "age-secret-key": "AGE-SECRET-KEY-1" + ("QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L" * 2)[:58],
    "telegram-bot-token": "123456789:" + "AA" + (_A * 2)[:33],
    "url-password": "postgres://app:" + "s3cr3t@db.shop.svc/payments",
    "authorization-header": "Bearer " + _A,
    "connection-string-password": "Server=db;User Id=app;" + "Password=s3cr3t;",
}


@pytest.mark.parametrize("identifier", [each.id for each in FORMATS])
def test_each_published_format_is_found_under_a_harmless_name(identifier: str) -> None:
    found = Detector().find("SETTING", _SAMPLES[identifier])
    assert found is not None
    assert (found.kind, found.detector) == ("value", identifier)


@pytest.mark.parametrize(
    "name",
    ["DB_PASSWORD", "dbPassword", "API_KEY", "apiKey", "STRIPE_SECRET", "TOKEN", "REDIS_PASS", "PASSWORD_2", "ssh-key"],
)
def test_a_name_that_says_so_makes_any_value_a_secret(name: str) -> None:
    found = Detector().find(name, "hunter2")
    assert found is not None
    assert found.detector == "name"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DB_PASSWORD", "vault:secret/db#password"),
        ("DB_PASSWORD", "${vault:secret/db#password}"),
        ("DB_URL", "postgres://app:${vault:secret/db#password}@db/app"),
        ("DB_URL", "postgres://app:$(DB_PASSWORD)@db/app"),
        ("DB_PASSWORD", ""),
        ("DB_PASSWORD", "$(OTHER)"),
        ("DB_PASSWORD_FILE", "/run/secrets/db"),
        ("PASSWORD", "/run/secrets/db"),
        ("TOKEN_URL", "https://idp.example.com/oauth/token"),
        ("TOKEN_TTL", "3600"),
        ("SECRET_NAME", "payments"),
        ("USE_TOKEN", "true"),
        ("AUTH_TOKEN_AUDIENCE", "api"),
        ("IMAGE", "example.com/app@sha256:" + "0123456789abcdef" * 4),
        ("COMMIT", "0123456789abcdef0123456789abcdef01234567"),
        ("POD_UID", "dd0caa23-dda9-4966-abe1-4e0af3809fd5"),
        ("TLS_CIPHERS", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"),
        ("JAVA_TOOL_OPTIONS", "-XX:MaxRAMPercentage=75 -Djava.security.egd=file:/dev/urandom"),
        ("BROKERS", "kafka-0.kafka.svc:9092,kafka-1.kafka.svc:9092"),
        ("HANDLER", "com.example.payments.checkout.CheckoutRequestHandlerFactoryBean2"),
        ("KEYBOARD", "qwerty"),
        ("MONKEY", "capuchin"),
    ],
)
def test_what_is_no_secret_is_left_alone(name: str, value: str) -> None:
    assert Detector().find(name, value) is None


def test_a_long_random_word_is_found_by_its_entropy() -> None:
    word = hashlib.sha512(b"some seed").digest()
    import base64

    found = Detector().find("SETTING", base64.b64encode(word).decode()[:60])
    assert found is not None
    assert found.detector == "entropy"


def test_each_allow_list_lifts_what_it_names() -> None:
    value = "hunter2"
    assert Detector(Allow(names=("db_*",))).find("DB_PASSWORD", value) is None
    digest = hashlib.sha256(value.encode()).hexdigest()
    assert Detector(Allow(values_sha256=(digest,))).find("DB_PASSWORD", value) is None
    assert Detector(Allow(values_sha256=(digest,))).find("DB_PASSWORD", "another") is not None
    assert Detector(Allow(detectors=("name",))).find("DB_PASSWORD", value) is None
    assert Detector(Allow(detectors=("stripe-key",))).find("SETTING", _SAMPLES["stripe-key"]) is None


def _variables(node: Any) -> Iterator[tuple[str, str]]:
    if isinstance(node, list):
        for item in node:
            yield from _variables(item)
    elif isinstance(node, dict):
        if isinstance(node.get("name"), str) and isinstance(node.get("value"), str):
            yield node["name"], node["value"]
        for item in node.values():
            yield from _variables(item)


def test_the_recorded_reviews_and_knatives_own_pods_give_no_false_positive() -> None:
    found = set()
    for path in _REVIEWS.glob("*.json"):
        for name, value in _variables(json.loads(path.read_text())):
            if Detector().find(name, value) is not None:
                found.add((name, value))
    # What the recordings planted, and nothing else.
    assert [each for each in found if not any(canary in each[1] for canary in ("hunter2", "p4ss", "tok-1"))] == []
    assert {name for name, _ in found} >= {"DB_PASSWORD", "DB_URL"}


@given(st.text(max_size=60), st.text(max_size=600))
def test_any_text_is_judged_without_an_error_and_never_repeated(name: str, value: str) -> None:
    found = Detector().find(name, value)
    assert found is None or len(value) < 8 or value not in repr(found)


@pytest.mark.parametrize(
    "value",
    ["/a.." * 250_000, "eyJ" * 300_000, "a:" * 500_000, "://" * 300_000, "Bearer " * 150_000, "password" * 100_000],
)
def test_a_hostile_value_takes_bounded_time(value: str) -> None:
    start = time.perf_counter()
    Detector().find("PASSWORD_OR_NOT", value + "!")
    Detector().find("SETTING", value + "!")
    assert time.perf_counter() - start < 1
