"""Each variable's name has the expected class."""

from __future__ import annotations

import pytest

from webhook.detection import Detector
from webhook.detection.names import NameClass, classify_name


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
        *("WIFI_PSK", "IPSEC_PSK", "DBPW", "MYSQL_PW", "JWT_SECRET", "CLIENT_SECRET", "SESSION_SECRETS"),
        *("AIRFLOW__CORE__FERNET_KEY", "CREDENTIALS", "db_creds", "REDISCLI_AUTH", "BASIC_AUTH"),
    ],
)
def test_names_of_secrets(name: str) -> None:
    assert classify_name(name) is NameClass.SECRET


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
        *("RECAPTCHA_SITE_KEY", "HCAPTCHA_SITEKEY", "NEXT_PUBLIC_CAPTCHA_SITE_KEY"),
        *("TOKEN_URL_2", "USE_TOKEN", "ENABLE_PASSWORD_AUTH", "NEXT_PUBLIC_API_KEY", "STRIPE_PUBLISHABLE_KEY"),
    ],
)
def test_names_of_locations_and_settings(name: str) -> None:
    assert classify_name(name) is NameClass.PUBLIC


_OBJECTS = [
    "DB_PASSWORD_SECRET",
    "REGISTRY_CREDENTIALS_SECRET",
    "AUTH_SECRET",
    "DB_PASSWORD_KEY",
    "PASSWORD_SECRET_KEY",
]


@pytest.mark.parametrize("name", _OBJECTS)
def test_names_of_secrets_or_of_objects_that_hold_them(name: str) -> None:
    assert classify_name(name) is NameClass.OBJECT
    assert Detector().find(name, "shop-db") is None
    assert Detector().find(name, "password") is None
    for value in ("hunter2x9", "Shop-Db", "shop db", "a1b2-c3d4", "ab" * 40):
        assert Detector().find(name, value) is not None, value


@pytest.mark.parametrize(
    "name", ["MAPS_KEY", "CACHE_KEY", "AUTH", "TOKEN_BUCKETS", "WEBHOOK_SIGNATURE", "PASS_THROUGH"]
)
def test_names_that_only_hint_at_a_secret(name: str) -> None:
    assert classify_name(name) is NameClass.HINT


@pytest.mark.parametrize(
    "name", ["", "_", "1", "LOG_LEVEL", "MONKEY", "KEYBOARD", "COMPASS", "BYPASS", "PASSENGER", "TOKENIZER", "Ключ"]
)
def test_neutral_names(name: str) -> None:
    assert classify_name(name) is NameClass.NEUTRAL


def test_the_end_of_a_long_name_decides() -> None:
    assert classify_name("X_" * 10_000 + "DB_PASSWORD") is NameClass.SECRET
    assert classify_name("DB_PASSWORD" + "_X" * 10_000) is NameClass.NEUTRAL
