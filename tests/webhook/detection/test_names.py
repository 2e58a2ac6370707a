"""What a variable's name says of its value."""

from __future__ import annotations

import pytest

from webhook.detection.names import Verdict, judge


@pytest.mark.parametrize(
    "name",
    [
        *(
            "PASSWORD",
            "DB_PASSWORD",
            "dbPassword",
            "DBPassword",
            "db-password",
            "db.password",
            "PASSWORD_2",
            "MYSQL_PWD",
        ),
        *("PGPASSWORD", "PASSWORD_POSTGRES", "ROOT_PASSWORD_HASH", "TRUSTSTORE_PASSPHRASE", "REDIS_PASS", "SSHPASS"),
        *("TOKEN", "AUTH_TOKEN", "apiToken", "GITHUB_TOKEN_1", "TOKEN_PROD", "ACCESSTOKEN", "API_TOKENS"),
        *("STRIPE_SECRET", "CLIENTSECRET", "SECRET_KEY_BASE", "DJANGO_SECRET_KEY", "APP_SECRETS"),
        *(
            "API_KEY",
            "apiKey",
            "APIKEY",
            "AWS_SECRET_ACCESS_KEY",
            "PRIVATE_KEY",
            "ssh-key",
            "ENCRYPTION_KEY",
            "APP_KEY",
        ),
        *("AIRFLOW__CORE__FERNET_KEY", "CREDENTIALS", "db_creds", "REDISCLI_AUTH", "BASIC_AUTH"),
    ],
)
def test_a_secret(name: str) -> None:
    assert judge(name) is Verdict.SECRET


@pytest.mark.parametrize(
    "name",
    [
        *("AUTH_URL", "TOKEN_URL", "SECRET_NAME", "PASSWORD_FILE", "TOKEN_PATH", "CREDENTIALS_DIR", "TOKEN_ENABLED"),
        *(
            "TOKEN_TTL",
            "PASSWORD_TIMEOUT",
            "TOKEN_HEADER",
            "TOKEN_AUDIENCE",
            "KEY_ID",
            "AWS_ACCESS_KEY_ID",
            "secretName",
        ),
        *("PASSWORD_MIN_LENGTH", "SECRET_STORE", "COMMIT", "CONFIG_HASH", "IMAGE_PULL_SECRET", "TLS_SECRET"),
        *("TOKEN_URL_2", "USE_TOKEN", "ENABLE_PASSWORD_AUTH", "NEXT_PUBLIC_API_KEY", "STRIPE_PUBLISHABLE_KEY"),
    ],
)
def test_a_place_or_a_setting(name: str) -> None:
    assert judge(name) is Verdict.PLACE


@pytest.mark.parametrize(
    "name", ["MAPS_KEY", "CACHE_KEY", "AUTH", "TOKEN_BUCKETS", "WEBHOOK_SIGNATURE", "PASS_THROUGH"]
)
def test_a_hint_and_no_more(name: str) -> None:
    assert judge(name) is Verdict.HINT


@pytest.mark.parametrize(
    "name", ["", "_", "1", "LOG_LEVEL", "MONKEY", "KEYBOARD", "COMPASS", "BYPASS", "PASSENGER", "TOKENIZER", "Ключ"]
)
def test_nothing(name: str) -> None:
    assert judge(name) is Verdict.NEUTRAL


def test_the_end_of_a_long_name_decides() -> None:
    assert judge("X_" * 10_000 + "DB_PASSWORD") is Verdict.SECRET
    assert judge("DB_PASSWORD" + "_X" * 10_000) is Verdict.NEUTRAL
