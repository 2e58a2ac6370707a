"""Secrets of every known format, put together at run time, so that no scanner takes this repository for a leak."""

from __future__ import annotations

import base64
import json
import random
import string
from collections.abc import Callable

_RANDOM = random.Random(20)  # the same samples in every run

UPPER = string.ascii_uppercase + "234567"
ALNUM = string.ascii_letters + string.digits
BASE64 = ALNUM + "+/"
BASE64URL = ALNUM + "-_"
HEX = "0123456789abcdef"
BECH32 = "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L"


def body(alphabet: str, length: int) -> str:
    """So many random characters, the first a letter or digit and upper and lower case both there where they exist."""
    text = "".join(_RANDOM.choices(alphabet, k=length))
    head = "".join(character for character in "aB3" if character in alphabet)
    return (head + text)[:length]


def _segment(content: dict[str, object]) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


def jwt(algorithm: str = "RS256") -> str:
    return ".".join([_segment({"alg": algorithm}), _segment({"sub": "shop"}), body(BASE64URL, 40)])


def pem(label: str) -> str:
    return f"-----BEGIN {label}-----\n" + body(BASE64, 64) + f"\n-----END {label}-----\n"


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


_KEY = "PRIVATE KEY"
_ACCOUNT = {"type": "service_account", "project_id": "shop", "private_key_id": "1"}

# Samples by the detector that finds them.
SAMPLES: dict[str, list[str]] = {
    "aws-access-key-id": ["AKIA" + body(UPPER, 16), "ASIA" + body(UPPER, 16), "id=AKIA" + body(UPPER, 16) + ",x"],
    "github-token": [
        *(f"gh{kind}_" + body(ALNUM, 36) for kind in "pousr"),
        "ghs_" + "123456_" + jwt(),
        "github_pat_" + body(ALNUM, 22) + "_" + body(ALNUM, 59),
        "https://" + "ghp_" + body(ALNUM, 36) + "@github.com/shop/api",
    ],
    "gitlab-token": [
        f"gl{kind}-" + body(BASE64URL, 20)
        for kind in "pat oas dt rt rtr cbt ptt ft imt agent wt soat ffct".split()  # noqa: SIM905 - reads better
    ],
    "slack-token": [
        "xoxb-" + "123456789012-1234567890123-" + body(ALNUM, 24),
        "xapp-" + "1-A0123-" + body(HEX, 64),
        "xoxe." + "xoxp-1-" + body(ALNUM, 100),
    ],
    "slack-webhook": ["https://hooks.slack.com/services/" + f"T{body(UPPER, 8)}/B{body(UPPER, 8)}/" + body(ALNUM, 24)],
    "stripe-key": ["sk_" + "live_" + body(ALNUM, 24), "rk_" + "live_" + body(ALNUM, 99)],
    "google-api-key": ["AIza" + body(BASE64URL, 35)],
    "gcp-service-account": [json.dumps(_ACCOUNT), json.dumps(_ACCOUNT, indent=2)],
    "jwt": [jwt(), jwt("HS256"), jwt("none").rpartition(".")[0] + "."],
    "private-key": [
        pem(label + _KEY + tail)
        for label, tail in [("", ""), ("RSA ", ""), ("EC ", ""), ("ENCRYPTED ", ""), ("PGP ", " BLOCK")]
    ]
    + [pem("OPENSSH " + _KEY), pem(_KEY).replace("\n", "\\n"), pem("CERTIFICATE") + pem("RSA " + _KEY)],
    "private-key-base64": [encoded(pem(label + _KEY)) for label in ("", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED ")],
    "vault-token": ["hvs." + body(BASE64URL, 91), "hvb." + body(BASE64URL, 150), "hvr." + body(ALNUM, 24)],
    "openbao-token": [
        "s." + body(ALNUM, 24),
        "s." + body(ALNUM, 24) + "." + body(ALNUM, 6),
        "b.AAAA" + "AQ" + body(BASE64URL, 118),
    ],
    "terraform-token": [body(ALNUM, 14) + ".atlasv1." + body(ALNUM, 67)],
    "npm-token": ["npm_" + body(ALNUM, 36)],
    "pypi-token": ["pypi-" + "AgEIcHlwaS5vcmc" + body(BASE64URL, 120)],
    "sendgrid-key": ["SG." + body(BASE64URL, 22) + "." + body(BASE64URL, 43)],
    "twilio-key": ["SK" + body(HEX, 32)],
    "azure-storage-key": [
        "DefaultEndpointsProtocol=https;AccountName=shop;" + "AccountKey=" + body(BASE64, 86) + "==;EndpointSuffix=x"
    ],
    "openai-key": [
        "sk-" + body(ALNUM, 48),
        "sk-" + "proj-" + body(BASE64URL, 74) + "T3BlbkFJ" + body(BASE64URL, 74),
        "sk-" + "or-v1-" + body(HEX, 64),
    ],
    "anthropic-key": [f"sk-{kind}" + body(BASE64URL, 93) + "AA" for kind in ("ant-api03-", "ant-admin01-")],
    "huggingface-token": ["hf_" + body(ALNUM, 34)],
    "databricks-token": ["dapi" + body(HEX, 32), "dapi" + body(HEX, 32) + "-3"],
    "digitalocean-token": [f"do{kind}_v1_" + body(HEX, 64) for kind in "por"],
    "age-secret-key": ["AGE-SECRET-KEY-" + "1" + body(BECH32, 58), "AGE-SECRET-KEY-" + "PQ-1" + body(BECH32, 58)],
    "telegram-bot-token": [
        "7204583149:" + "AA" + body(BASE64URL, 33),
        "https://api.example.com/bot123456:" + "AA" + body(ALNUM, 33),
    ],
    "url-password": [
        "postgres://app:" + "s3cr3t@db.shop.svc/payments",
        "redis://:" + "s3cr3t@redis:6379/0",
        "a://:" + "b@c",
        "mongodb+srv://app:" + "p%40ss@cluster0.example.net/?retryWrites=true",
        "amqp://guest:" + "guest@rabbitmq:5672/%2f",
        "https://user:" + "pw@registry.example.com/v2/",
        "jdbc:postgresql://app:" + "x@db/app",
        "http://a.example:8080,https://b:" + "c@d.example",
    ],
    "mysql-dsn-password": [
        "app:" + "s3cr3t@tcp(db:3306)/shop?parseTime=true",
        "app:" + "x@unix(/run/mysqld.sock)/shop",
    ],
    "authorization-header": [
        "Bearer " + body(ALNUM, 32),
        "Authorization: Basic " + encoded("app:s3cr3t"),
        "authorization=bearer " + body(ALNUM, 20),
    ],
    "connection-string-password": [
        "Server=db;User Id=app;" + "Password=s3cr3t;",
        "Server=db;Uid=app;" + "Pwd=s3cr3t",
        "host=db user=app " + "password=s3cr3t dbname=shop",
        "jdbc:mysql://db/shop?user=app&" + "password=s3cr3t",
        "-Djavax.net.ssl.trustStorePassword" + "=changeit",
        "Endpoint=sb://shop.example/;SharedAccessKeyName=root;" + "SharedAccessKey=" + body(BASE64, 43) + "=",
        "User = app; " + "Password = s3cr3t",
    ],
    "shopify-token": [f"shp{kind}_" + body(HEX, 32) for kind in ("at", "ca", "pa", "ss")],
    "docker-token": ["dckr_" + "pat_" + body(BASE64URL, 27), "dckr_" + "oat_" + body(BASE64URL, 32)],
    "grafana-token": ["glsa_" + body(ALNUM, 32) + "_" + body(HEX, 8), "glc_" + "eyJv" + body(ALNUM, 80)],
    "google-oauth": ["ya29." + "a0" + body(BASE64URL, 60), "GOCSPX-" + body(BASE64URL, 28)],
    "google-refresh-token": ["1//0" + body(BASE64URL, 60)],
    "azure-sas": [
        "https://shop.blob.core.windows.net/c?sv=2022-11-02&sp=r&" + "sig=" + body(ALNUM, 43) + "%3D",
        "sv=2023-01-03&ss=b;" + "sig=" + body(BASE64, 43) + "=",
    ],
    "kubeconfig-key": ["users: [{user: {client-key-" + "data: " + encoded("x" * 90) + "}}]"],
    "discord-webhook": ["https://discord.com/api/" + "webhooks/123456789012345678/" + body(BASE64URL, 68)],
    "fly-token": ["FlyV1 " + "fm2_" + body(BASE64, 100)],
    "prefixed-token": [
        "key-" + body(HEX, 32),
        "pat" + body(ALNUM, 14) + "." + body(HEX, 64),
        "dp.pt." + body(ALNUM, 43),
        "PMAK-" + body(HEX, 24) + "-" + body(HEX, 34),
        "pul-" + body(HEX, 40),
        "sbp_" + body(HEX, 40),
        "lin_api_" + body(ALNUM, 40),
        "secret_" + body(ALNUM, 43),
        "ntn_" + "12345678901" + body(ALNUM, 35),
        "pscale_tkn_" + body(ALNUM, 43),
        "sntrys_" + body(ALNUM, 60),
        "vercel_blob_rw_" + body(ALNUM, 16) + "_" + body(ALNUM, 30),
        "whsec_" + body(ALNUM, 32),
        "NRAK-" + body(UPPER, 27),
        "sqp_" + body(HEX, 40),
        "figd_" + body(BASE64URL, 40),
        "tskey-auth-" + body(ALNUM, 30),
    ],
    "yaml-password": [
        "db:\n  user: app\n  password: " + "s3cr3t\n  port: 5432",
        "db:\n  smtp_password: " + "'s3cr3t'\nport: 1",
        "a:\n- api_key: " + body(ALNUM, 24) + "\nport: 1",
        "users:\n- user:\n    token: " + body(ALNUM, 40) + "\nkind: Config",
    ],
    "json-password": [
        json.dumps({"user": "app", "password": "s3cr3t"}),
        json.dumps({"dbPassword": "s3cr3t"}),
        json.dumps({"auths": {"registry.example.com": {"auth": encoded("app:s3cr3t")}}}),
        json.dumps({"client_id": "x", "client_secret": body(ALNUM, 30)}, indent=2),
    ],
}  # fmt: skip

# Values close to a format that are not secrets, by their description.
NEAR_MISSES: dict[str, str] = {
    "an access key id cut short": "AKIA" + body(UPPER, 15),
    "an access key id with more behind it": "AKIA" + body(UPPER, 17),
    "an access key id within a word": "XAKIA" + body(UPPER, 16),
    "an AWS role id": "AROA" + body(UPPER, 17),
    "a GitHub prefix in a variable's name": "use_ghp_for_personal_access_tokens",
    "a Stripe test key": "sk_" + "test_" + body("abc", 24),
    "a Stripe publishable key": "pk_" + "live_" + "abcdefghijklmnopqrstuvwx",
    "a Slack channel": "xox-team-announcements-and-more",
    "a host called s": "s.abcdefghijklmnopqrstuvwx.example.com",
    "a Kubernetes name that starts with sk": "sk-payments-frontend-canary-blue-green-deployment-7",
    "a Twilio account": "AC-" + "shop",
    "a certificate": pem("CERTIFICATE"),
    "a public key": pem("PUBLIC KEY"),
    "a certificate in base64": encoded(pem("CERTIFICATE")),
    "a URL": "https://idp.example.com/realms/shop/protocol/openid-connect/token",
    "a URL with a port": "redis://redis.shop.svc:6379/0",
    "a URL with a user": "ssh://git@github.com:22/shop/api.git",
    "a URL with a port and an at-sign": "http://unpkg.example:8080/@scope/pkg@1.0.0",
    "a URL with a placeholder": "postgres://app:<password>@db/app",
    "a URL with a template": "postgres://app:{{ .Values.password }}@db/app",
    "a URL with asterisks": "postgres://app:*****@db/app",
    "a URL with a reference": "postgres://app:${vault:secret/db#password}@db/app",
    "a URL with a variable": "postgres://app:$(DB_PASSWORD)@db/app",
    "URLs in a list": "http://a:2379,http://b:2379,http://c:2379",
    "a DSN with a reference": "app:${vault:secret/db#password}@tcp(db:3306)/shop",
    "a DSN without a password": "app@tcp(db:3306)/shop",
    "an image": "registry.example.com:5000/shop/api@sha256:" + body(HEX, 64),
    "prose about Basic": "Basic authentication is off",
    "prose about Bearer": "Bearer tokens are accepted",
    "a challenge": 'Bearer realm="https://auth.example.com/token",service="registry"',
    "a connection string without a password": "Server=db;Database=shop;Integrated Security=true",
    "a connection string with an empty password": "Server=db;Password=;Database=shop",
    "a connection string with a reference": "Server=db;Password=${vault:secret/db#password};Database=shop",
    "a connection string with a reference first": "Password=$(DB_PASSWORD),Server=db",
    "options about passwords": "min-password=8;password=required;reset_password=true",
    "a JSON object with an empty password": '{"user":"app","password":""}',
    "a JSON object that names a file": '{"user":"app","password":"/run/secrets/db"}',
    "a JSON object that names a Secret": '{"secretName":"db","key":"password","private_key_id":"7"}',
    "a JSON object about OIDC": '{"auth":"oidc","tokenUrl":"https://idp.example.com/token"}',
    "YAML that names a Secret": "db:\n  passwordSecret: shop-db\n  passwordKey: password\n  x: 1",
    "YAML with a template": "db:\n  password: {{ .Values.password }}\n  other: x",
    "YAML with a variable": "db:\n  password: ${DB_PASSWORD}\n  other: x",
    "YAML with a reference": "db:\n  password: ${vault:secret/db#password}\n  other: x",
    "YAML that names a file": "db:\n  password: /run/secrets/db\n  other: x",
    "rules of validation": "user: required\npassword: required|min:12\nother: x",
    "prose of several words": "first line\npassword: at least 12 characters\nlast line",
    "a schema": "properties:\n  password:\n    type: string\n  token: string",
    "a signature of something else": "https://example.com/?design=abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqr",
    "a URL about webhooks": "https://discord.com/api/webhooks/docs",
    "a Shopify domain": "shpat-example.myshopify.com",
    "workload identity": '{"type":"external_account","audience":"//iam.googleapis.com/projects/1"}',
}  # fmt: skip

# Random values as their tools make them, with the least share that entropy has to find under a name that says nothing.
RANDOM_VALUES: dict[str, tuple[Callable[[random.Random], str], float]] = {
    "openssl rand -hex 10": (lambda source: source.randbytes(10).hex(), 0.9),
    "openssl rand -hex 16": (lambda source: source.randbytes(16).hex(), 0.95),
    "openssl rand -hex 24": (lambda source: source.randbytes(24).hex(), 0.95),
    "openssl rand -base64 24": (lambda source: base64.b64encode(source.randbytes(24)).decode(), 0.85),
    "openssl rand -base64 32": (lambda source: base64.b64encode(source.randbytes(32)).decode(), 0.9),
    "an AWS secret access key": (lambda source: "".join(source.choices(BASE64, k=40)), 0.9),
    "secrets.token_urlsafe()": (
        lambda source: base64.urlsafe_b64encode(source.randbytes(32)).decode().rstrip("="),
        0.9,
    ),
    "pwgen -s 32": (lambda source: "".join(source.choices(ALNUM, k=32)), 0.9),
    "a Laravel key": (lambda source: "base64:" + base64.b64encode(source.randbytes(32)).decode(), 0.9),
    "an Azure DevOps token": (
        lambda source: "".join(source.choices(string.ascii_lowercase + string.digits, k=52)),
        0.6,
    ),
}
