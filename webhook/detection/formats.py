"""Formats of secrets that their issuers publish, and two cheap checks that spare most values the search.

Identifiers follow gitleaks and detect-secrets where they have one. Every search is linear: a token is searched at the
starts of words only, and every repetition in a pattern is bounded or possessive.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Format:
    """A recognisable secret. `source` is where the format is described.

    Without `marks` it is a token: the start of a word of at least `SHORTEST_TOKEN` letters, digits, `_`, `-` and `.`.
    With them it is another format, and every text that the pattern matches has one of these literals.
    """

    id: str
    pattern: str
    source: str
    marks: tuple[str, ...] = ()


# No token below is shorter.
SHORTEST_TOKEN: Final = 20

AWS_ACCESS_KEY_ID: Final = Format(
    "aws-access-key-id",
    r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}(?![A-Za-z0-9])",
    "https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html#identifiers-unique-ids",
)
# ghs_ tokens carry a JWT since 2026: https://github.blog/changelog/2026-05-15-github-app-installation-tokens-per-request-override-header/
GITHUB_TOKEN: Final = Format(
    "github-token",
    r"(?:gh[pour]_[A-Za-z0-9]{36}|ghs_[A-Za-z0-9._-]{36}|github_pat_[A-Za-z0-9_]{36})",
    "https://docs.github.com/en/authentication/keeping-your-account-and-data-secure/about-authentication-to-github#githubs-token-formats",
)
GITLAB_TOKEN: Final = Format(
    "gitlab-token",
    r"gl(?:pat|oas|dt|rtr?|cbt|ptt|ft|imt|agent|wt|soat|ffct)-[A-Za-z0-9_-]{20}",
    "https://docs.gitlab.com/security/tokens/#token-prefixes",
)
SLACK_TOKEN: Final = Format(
    "slack-token",
    r"(?:xoxe\.)?(?:xox[a-z]|xapp)-[A-Za-z0-9-]{15}",
    "https://docs.slack.dev/authentication/tokens",
)
SLACK_WEBHOOK: Final = Format(
    "slack-webhook",
    r"hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9+/]{20}",
    "https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks",
    ("hooks.slack.com/",),
)
# Test keys move no money, publishable ones are public: https://gitlab.com/gitlab-org/gitlab/-/issues/458019
STRIPE_KEY: Final = Format("stripe-key", r"[sr]k_live_[A-Za-z0-9]{12}", "https://docs.stripe.com/keys")
GOOGLE_API_KEY: Final = Format(
    "google-api-key",
    r"AIza[A-Za-z0-9_-]{35}",
    "https://learn.microsoft.com/en-us/purview/sit-defn-google-api-key",
)
GCP_SERVICE_ACCOUNT: Final = Format(
    "gcp-service-account",
    r'"type"\s{0,8}:\s{0,8}"service_account"',
    "https://cloud.google.com/iam/docs/keys-create-delete",
    ('"service_account"',),
)
JWT: Final = Format(
    "jwt",
    r"eyJ[A-Za-z0-9_-]{14,}+\.eyJ[A-Za-z0-9_-]{6,}+\.",
    "https://www.rfc-editor.org/rfc/rfc7519#section-3.1",
)
PRIVATE_KEY: Final = Format(
    "private-key",
    r"-----BEGIN (?:[A-Z0-9]{1,16} ){0,4}PRIVATE KEY(?: BLOCK)?-----",
    "https://www.rfc-editor.org/rfc/rfc7468#section-10",
    ("-----BEGIN ",),
)


def _encoded(label: str) -> str:
    """The start of a PEM file in base64, as far as its label determines it."""
    head = f"-----BEGIN {label}PRIVATE KEY-----"
    return base64.b64encode(head[: len(head) // 3 * 3].encode()).decode()


PRIVATE_KEY_BASE64: Final = Format(
    "private-key-base64",
    "|".join(_encoded(label) for label in ("", "RSA ", "EC ", "DSA ", "OPENSSH ", "ENCRYPTED ")),
    "https://www.rfc-editor.org/rfc/rfc4648#section-4",
)
VAULT_TOKEN: Final = Format(
    "vault-token",
    r"hv[sbr]\.[A-Za-z0-9_-]{24}",
    "https://developer.hashicorp.com/vault/docs/concepts/tokens#token-prefixes",
)
# Lengths as OpenBao 2.7 gives them: 24 characters of base62 after `s.`, then a namespace's id; batch tokens are longer.
OPENBAO_TOKEN: Final = Format(
    "openbao-token",
    r"(?:[sr]\.(?=[a-z0-9]*[A-Z])(?=[A-Z0-9]*[a-z])[A-Za-z0-9]{24}(?![A-Za-z0-9_-])|b\.AAAA[A-Za-z0-9_-]{60})",
    "https://github.com/openbao/openbao/blob/main/sdk/helper/consts/token_consts.go",
)
TERRAFORM_TOKEN: Final = Format(
    "terraform-token",
    r"\.atlasv1\.(?<=[A-Za-z0-9]{14}\.atlasv1\.)[A-Za-z0-9_=-]{60}",
    "https://developer.hashicorp.com/terraform/cloud-docs/api-docs/organization-tokens#sample-response",
    (".atlasv1.",),
)
NPM_TOKEN: Final = Format(
    "npm-token",
    r"npm_[A-Za-z0-9]{36}",
    "https://github.blog/security/announcing-npms-new-access-token-format",
)
# A macaroon of version 2, in base64.
PYPI_TOKEN: Final = Format(
    "pypi-token",
    r"pypi-AgE[A-Za-z0-9_-]{20}",
    "https://github.com/pypi/warehouse/blob/main/warehouse/macaroons/services.py",
)
SENDGRID_KEY: Final = Format(
    "sendgrid-key",
    r"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}",
    "https://www.twilio.com/docs/sendgrid/ui/account-and-settings/api-keys",
)
TWILIO_KEY: Final = Format(
    "twilio-key",
    r"SK[0-9a-f]{32}(?![A-Za-z0-9])",
    "https://www.twilio.com/docs/glossary/what-is-a-sid",
)
AZURE_STORAGE_KEY: Final = Format(
    "azure-storage-key",
    r"AccountKey=[A-Za-z0-9+/]{86}==",
    "https://learn.microsoft.com/azure/storage/common/storage-configure-connection-string",
    ("AccountKey=",),
)
# Not documented by the issuer. `T3BlbkFJ` is in all of them; keys of others with this prefix are 32 characters or more.
OPENAI_KEY: Final = Format(
    "openai-key",
    r"sk-(?!ant-)(?:[A-Za-z0-9_-]{16,128}T3BlbkFJ[A-Za-z0-9_-]{16}|(?:[a-z]{2,10}-){0,2}(?:v1-)?[A-Za-z0-9]{32})",
    "https://github.com/aquasecurity/trivy/issues/10794",
)
ANTHROPIC_KEY: Final = Format(
    "anthropic-key",
    r"sk-ant-[a-z]{3,10}[0-9]{2}-[A-Za-z0-9_-]{80}",
    "https://gitlab.com/gitlab-org/security-products/analyzers/secrets/-/merge_requests/319",
)
HUGGINGFACE_TOKEN: Final = Format(
    "huggingface-token",
    r"hf_[A-Za-z0-9]{30}",
    "https://huggingface.co/docs/hub/security-tokens",
)
DATABRICKS_TOKEN: Final = Format(
    "databricks-token",
    r"dapi[0-9a-f]{32}(?![A-Za-z0-9])",
    "https://docs.aws.amazon.com/secretsmanager/latest/userguide/mes-partner-DatabricksPAT.html",
)
DIGITALOCEAN_TOKEN: Final = Format(
    "digitalocean-token",
    r"do[opr]_v1_[0-9a-f]{64}",
    "https://docs.digitalocean.com/notes/2022/api-token-format",
)
AGE_SECRET_KEY: Final = Format(
    "age-secret-key",
    r"AGE-SECRET-KEY-(?:PQ-)?1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58}",
    "https://github.com/C2SP/C2SP/blob/main/age.md#the-x25519-recipient-type",
)
TELEGRAM_BOT_TOKEN: Final = Format(
    "telegram-bot-token",
    r":AA(?<=[0-9]{6}:AA)[A-Za-z0-9_-]{33}",
    "https://core.telegram.org/bots/api#authorizing-your-bot",
    (":AA",),
)

SHOPIFY_TOKEN: Final = Format(
    "shopify-token",
    r"shp(?:at|ca|pa|ss|ua|tka)_[0-9a-fA-F]{32}",
    "https://shopify.dev/changelog/length-of-the-shopify-access-token-is-increasing",
)
DOCKER_TOKEN: Final = Format(
    "docker-token",
    r"dckr_[po]at_[A-Za-z0-9_-]{24}",
    "https://docs.docker.com/security/access-tokens/",
)
GRAFANA_TOKEN: Final = Format(
    "grafana-token",
    r"gl(?:sa_[A-Za-z0-9]{32}_[0-9A-Fa-f]{8}|c_[A-Za-z0-9]{16})",
    "https://grafana.com/docs/grafana/latest/administration/service-accounts/",
)
GOOGLE_OAUTH: Final = Format(
    "google-oauth",
    r"(?:ya29\.[A-Za-z0-9_-]{20}|GOCSPX-[A-Za-z0-9_-]{28})",
    "https://cloud.google.com/docs/authentication/token-types#access",
)
GOOGLE_REFRESH_TOKEN: Final = Format(
    "google-refresh-token",
    r"1//0(?<![A-Za-z0-9/:]1//0)[A-Za-z0-9_-]{40}",
    "https://developers.google.com/identity/protocols/oauth2#size",
    ("1//0",),
)
AZURE_SAS: Final = Format(
    "azure-sas",
    r"sig=(?<![A-Za-z0-9_-]sig=)[A-Za-z0-9%+/_-]{40}",
    "https://learn.microsoft.com/rest/api/storageservices/create-service-sas#specify-the-signature",
    ("sig=",),
)
KUBECONFIG_KEY: Final = Format(
    "kubeconfig-key",
    r"client-key-data[\"']?:\s{0,8}[\"']?[A-Za-z0-9+/]{40}",
    "https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/#AuthInfo",
    ("client-key-data:", 'client-key-data"', "client-key-data':"),
)
DISCORD_WEBHOOK: Final = Format(
    "discord-webhook",
    r"/api/webhooks/[0-9]{17,20}/[A-Za-z0-9_-]{60}",
    "https://docs.discord.com/developers/resources/webhook",
    ("/api/webhooks/",),
)
FLY_TOKEN: Final = Format(
    "fly-token",
    r"FlyV1 fm[12][ar]?_[A-Za-z0-9+/=]{40}",
    "https://fly.io/docs/security/tokens/",
    ("FlyV1 fm",),
)
# Prefixes that gitleaks lists.
PREFIXED_TOKEN: Final = Format(
    "prefixed-token",
    "(?:"
    + "|".join(
        (
            r"key-[0-9a-f]{32}(?![A-Za-z0-9])",  # Mailgun
            r"pat[A-Za-z0-9]{14}\.[0-9a-f]{64}",  # Airtable
            r"dp\.(?:audit|ct|pt|sa|scim|st)\.[A-Za-z0-9.-]{40}",  # Doppler
            r"PMAK-[0-9a-f]{24}-[0-9a-f]{34}",  # Postman
            r"pul-[0-9a-f]{40}",  # Pulumi
            r"sbp_[0-9a-f]{40}",  # Supabase
            r"lin_api_[A-Za-z0-9]{40}",  # Linear
            r"(?:secret_[A-Za-z0-9]{43}(?![A-Za-z0-9])|ntn_[0-9]{11}[A-Za-z0-9]{32})",  # Notion
            r"pscale_(?:oauth|pw|tkn)_[A-Za-z0-9_.-]{32}",  # PlanetScale
            r"sntry[su]_[A-Za-z0-9_-]{16}",  # Sentry
            r"vercel_blob_rw_[A-Za-z0-9]{16}_[A-Za-z0-9]{30}",  # Vercel
            r"whsec_[A-Za-z0-9]{32}",  # Stripe
            r"NRAK-[A-Z0-9]{27}",  # New Relic
            r"sq[apu]_[0-9a-f]{40}",  # SonarQube
            r"EAACEdEose0cBA[0-9A-Za-z]{20}",  # Facebook
            r"figd_[A-Za-z0-9_-]{38}",  # Figma
            r"tskey-[a-z]{3,12}-[A-Za-z0-9_-]{16}",  # Tailscale
        )
    )
    + ")",
    "https://github.com/gitleaks/gitleaks/blob/master/config/gitleaks.toml",
)

# `<password>`, `{{password}}`, `***` and `xxx` stand for a value from elsewhere.
_NO_PLACEHOLDER: Final = r"(?!<|\{|%\(|\*{2}|[xX]{3})"

# A password inside a URL; the user may be empty, as Redis has it.
URL_PASSWORD: Final = Format(
    "url-password",
    rf"://(?<=[A-Za-z0-9]://)[^\s/:@?#]{{0,128}}+:{_NO_PLACEHOLDER}[^\s/@?#]{{1,256}}+@[^\s/@]",
    "https://www.rfc-editor.org/rfc/rfc3986#section-3.2.1",
    ("://",),
)
MYSQL_DSN_PASSWORD: Final = Format(
    "mysql-dsn-password",
    rf"(?<![^\s\"'=]){_NO_PLACEHOLDER}[^\s:@/\"'=]{{1,64}}+:{_NO_PLACEHOLDER}[^\s@]{{1,128}}+@(?:tcp|unix)\(",
    "https://github.com/go-sql-driver/mysql#dsn-data-source-name",
    ("@tcp(", "@unix("),
)
AUTHORIZATION_HEADER: Final = Format(
    "authorization-header",
    r"\b(?i:basic {1,4}(?=[a-z+/]{0,64}[0-9=])[a-z0-9+/]{8}"
    r"|bearer {1,4}(?=[a-z._~+/-]{0,64}[0-9])[a-z0-9._~+/-]{16})",
    "https://www.rfc-editor.org/rfc/rfc7617#section-2",
    ("asic ", "earer "),
)


def _preceded_by(sign: str, *words: str) -> str:
    """The sign right after one of the words. A pattern that starts with a literal is the quickest to search."""
    ends = "".join(sorted({word[-1] for word in words}))
    choice = "|".join(f"(?<={word}{space}{sign})" for word in words for space in ("", " "))
    return f"{sign}(?<=[{ends} ]{sign})(?:{choice})"


CONNECTION_STRING_PASSWORD: Final = Format(
    "connection-string-password",
    _preceded_by(
        "=", "assword", "ASSWORD", "asswd", "ASSWD", "[^A-Za-z][Pp]wd", "[^A-Za-z]PWD", "^[Pp]wd",
        "[Ss]hared[Aa]ccess[Kk]ey", "[Cc]lient[Ss]ecret", "client_secret", "access_token",
    )
    + r" ?(?!(?i:true|false|yes|no|on|off|none|null|prompt|required|optional)\b|[0-9]{1,5}\b|[\"']?[/&;])"
    + rf"{_NO_PLACEHOLDER}[^;&\s]{{3}}",
    "https://learn.microsoft.com/dotnet/framework/data/adonet/connection-strings",
    ("=",),
)  # fmt: skip
JSON_PASSWORD: Final = Format(
    "json-password",
    _preceded_by(
        '"', "assword", "asswd", "lient_secret", "lientSecret", "ecret_key", "ecretKey", "ecret_access_key",
        "ecretAccessKey", "rivate_key", "rivateKey", "pi_key", "piKey",
    )
    + rf'\s{{0,8}}:\s{{0,8}}"(?!/|(?i:true|false|none|null)"){_NO_PLACEHOLDER}[^"\s]{{3}}'
    + r'|"auth"\s{0,8}:\s{0,8}"(?=[A-Za-z+/]{0,64}[0-9=])[A-Za-z0-9+/]{8}',
    "https://docs.docker.com/reference/cli/docker/login/",
    ('assword"', 'asswd"', 'ecret"', 'ey"', '"auth"'),
)  # fmt: skip

# A line of YAML whose value is one word; prose and rules of validation are several.
YAML_PASSWORD: Final = Format(
    "yaml-password",
    r"(?m)^[ \t]{0,40}+(?:- {1,4})?[A-Za-z0-9_.-]{0,64}?"
    r"(?:(?:[Pp]ass(?:word|wd|phrase)|PASSWORD|[Ss]ecret[_-]?[Kk]ey|[Aa]pi[_-]?[Kk]ey|[Cc]lient[_-]?[Ss]ecret): {1,4}"
    r"(?![\"']?(?:[/~]|(?i:true|false|yes|no|on|off|null|none|required|optional|string|change[_-]?me|placeholder)\b))"
    rf"[\"']?{_NO_PLACEHOLDER}[^\s\"'<>{{}}\[\]|$&*!#%,]{{4,256}}+[\"']?[ \t\r]{{0,8}}$"
    r"|[Tt]oken: {1,4}[\"']?(?=[A-Za-z._~-]{0,64}[0-9])[A-Za-z0-9._~+/-]{20})",
    "https://yaml.org/spec/1.2.2/#chapter-7-flow-style-productions",
    ("assword: ", "ASSWORD: ", "asswd: ", "assphrase: ", "ey: ", "ecret: ", "oken: "),
)

FORMATS: Final = (
    AWS_ACCESS_KEY_ID, GITHUB_TOKEN, GITLAB_TOKEN, SLACK_TOKEN, SLACK_WEBHOOK, STRIPE_KEY, GOOGLE_API_KEY,
    GCP_SERVICE_ACCOUNT, JWT, PRIVATE_KEY, PRIVATE_KEY_BASE64, VAULT_TOKEN, OPENBAO_TOKEN, TERRAFORM_TOKEN, NPM_TOKEN,
    PYPI_TOKEN, SENDGRID_KEY, TWILIO_KEY, AZURE_STORAGE_KEY, OPENAI_KEY, ANTHROPIC_KEY, HUGGINGFACE_TOKEN,
    DATABRICKS_TOKEN, DIGITALOCEAN_TOKEN, AGE_SECRET_KEY, TELEGRAM_BOT_TOKEN, URL_PASSWORD, MYSQL_DSN_PASSWORD,
    AUTHORIZATION_HEADER, CONNECTION_STRING_PASSWORD, JSON_PASSWORD, SHOPIFY_TOKEN, DOCKER_TOKEN, GRAFANA_TOKEN,
    GOOGLE_OAUTH, GOOGLE_REFRESH_TOKEN, AZURE_SAS, KUBECONFIG_KEY, DISCORD_WEBHOOK, FLY_TOKEN, PREFIXED_TOKEN,
    YAML_PASSWORD,
)  # fmt: skip

# A word of the characters of tokens, long enough to be a token.
_LONG_WORD: Final = re.compile(rf"[A-Za-z0-9_.-]{{{SHORTEST_TOKEN},}}").findall
# Up to here the pattern is quicker; beyond, splitting in C is, and takes the same time whatever the text.
_BY_PATTERN: Final = 96
_WORD_BYTES: Final = bytes(byte if re.match(rb"[A-Za-z0-9_.-]", bytes((byte,))) else 0x20 for byte in range(256))
# Every mark has one of these characters; most values have none.
_SIGNS: Final = '":= /@.'
_PLAIN: Final = re.compile(r"[\w.,+-]*").fullmatch
# `a://:b@c` is the shortest text that a format matches.
_SHORTEST: Final = 8


def cannot_hold_format(text: str) -> bool:
    """Whether the text is too short or too plain to hold any format."""
    return len(text) < _SHORTEST or (len(text) < SHORTEST_TOKEN and _PLAIN(text) is not None)


def long_words(text: str) -> list[str]:
    """The words of a text that could be tokens."""
    if len(text) < SHORTEST_TOKEN:
        return []
    if len(text) <= _BY_PATTERN:
        return _LONG_WORD(text)
    words = text.encode("ascii", "replace").translate(_WORD_BYTES).split()
    return [word.decode() for word in words if len(word) >= SHORTEST_TOKEN]


def format_search(off: Iterable[str]) -> Callable[[str, list[str]], str | None]:
    """A function of (text, its long words) that returns the id of a format in the text, except those in `off`."""
    disabled = frozenset(off)
    on = [each for each in FORMATS if each.id not in disabled]
    tokens = [each for each in on if not each.marks]
    is_token = re.compile("|".join(each.pattern for each in tokens) or "(?!)").match
    by_token = tuple((each.id, re.compile(each.pattern).match) for each in tokens)
    marked: dict[str, list[tuple[str, str, Callable[[str], object]]]] = {sign: [] for sign in _SIGNS}
    for each in on:
        for mark in each.marks:
            sign = next(sign for sign in _SIGNS if sign in mark)
            marked[sign].append((mark, each.id, re.compile(each.pattern).search))
    by_sign = tuple(marked.items())

    def search(text: str, words: list[str]) -> str | None:
        for word in words:
            if is_token(word) is not None:
                return next(identifier for identifier, matches in by_token if matches(word) is not None)
        for sign, candidates in by_sign:
            if sign in text:
                for mark, identifier, matches in candidates:
                    if mark in text and matches(text) is not None:
                        return identifier
        return None

    return search
