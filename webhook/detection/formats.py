"""Token formats that their issuers publish. Each is linear to match; one search over all of them decides at once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Format:
    """`id` follows gitleaks' and detect-secrets' naming; `source` is where the format is described."""

    id: str
    pattern: str
    source: str


# Nothing of the token's own alphabet may stand before it, or any long word would do.
_START: Final = r"(?<![A-Za-z0-9_-])"

FORMATS: Final = (
    Format(
        "aws-access-key-id",
        _START + r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b",
        "https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html",
    ),
    Format(
        "github-token",
        _START + r"(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{22,82})",
        "https://github.blog/engineering/behind-githubs-new-authentication-token-formats/",
    ),
    Format(
        "gitlab-token",
        _START + r"gl(?:pat|dt|rt|ptt|cbt|soat)-[A-Za-z0-9_-]{20,}",
        "https://docs.gitlab.com/security/tokens/",
    ),
    Format(
        "slack-token", _START + r"xox[abposr]-[A-Za-z0-9-]{10,}", "https://api.slack.com/authentication/token-types"
    ),
    Format(
        "slack-webhook",
        r"hooks\.slack\.com/(?:services|workflows)/[A-Za-z0-9+/]{20,}",
        "https://api.slack.com/messaging/webhooks",
    ),
    Format("stripe-key", _START + r"[sr]k_(?:live|test)_[A-Za-z0-9]{16,}", "https://docs.stripe.com/keys"),
    Format(
        "google-api-key", _START + r"AIza[A-Za-z0-9_-]{35}", "https://cloud.google.com/docs/authentication/api-keys"
    ),
    Format(
        "jwt",
        _START + r"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
        "https://www.rfc-editor.org/rfc/rfc7519",
    ),
    Format(
        "private-key",
        r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----|LS0tLS1CRUdJTi[A-Za-z0-9+/]{0,40}QUklWQVRFIEtFW",
        "https://www.rfc-editor.org/rfc/rfc7468",
    ),
    Format(
        "vault-token",
        _START + r"hv[sbr]\.[A-Za-z0-9_-]{20,}",
        "https://developer.hashicorp.com/vault/docs/concepts/tokens",
    ),
    Format("npm-token", _START + r"npm_[A-Za-z0-9]{36}", "https://docs.npmjs.com/about-access-tokens"),
    Format("pypi-token", _START + r"pypi-AgE[A-Za-z0-9_-]{20,}", "https://docs.pypi.org/api/secrets/"),
    Format(
        "sendgrid-key",
        _START + r"SG\.[A-Za-z0-9_-]{20,24}\.[A-Za-z0-9_-]{39,50}",
        "https://docs.sendgrid.com/ui/account-and-settings/api-keys",
    ),
    Format(
        "azure-storage-key",
        r"AccountKey=[A-Za-z0-9+/]{80,88}={0,2}",
        "https://learn.microsoft.com/azure/storage/common/storage-configure-connection-string",
    ),
    Format(
        "openai-key",
        _START + r"sk-(?:ant-|proj-|svcacct-)?[A-Za-z0-9_-]{32,}",
        "https://platform.openai.com/docs/api-reference/authentication",
    ),
    Format("huggingface-token", _START + r"hf_[A-Za-z0-9]{30,}", "https://huggingface.co/docs/hub/security-tokens"),
    Format("databricks-token", _START + r"dapi[0-9a-f]{32}", "https://docs.databricks.com/dev-tools/auth/pat"),
    Format(
        "digitalocean-token",
        _START + r"do[opr]_v1_[0-9a-f]{64}",
        "https://docs.digitalocean.com/reference/api/create-personal-access-token/",
    ),
    Format("age-secret-key", r"AGE-SECRET-KEY-1[0-9A-Z]{58}", "https://age-encryption.org/v1"),
    Format(
        "telegram-bot-token",
        _START + r"[0-9]{8,10}:AA[A-Za-z0-9_-]{33}",
        "https://core.telegram.org/bots/api#authorizing-your-bot",
    ),
    # A password inside a URL; ${…}, $(…) and <…> stand for one that comes from elsewhere.
    Format(
        "url-password",
        r"[A-Za-z][A-Za-z0-9+.-]{0,30}://[^\s/:@?#]{0,128}:(?![$<*{])[^\s/@?#]{1,256}@[^\s/@]",
        "https://www.rfc-editor.org/rfc/rfc3986#section-3.2.1",
    ),
    Format(
        "authorization-header",
        r"(?i:\b(?:Basic|Bearer) +)(?=[^\s]*[0-9A-Z])[A-Za-z0-9._~+/-]{16,}",
        "https://www.rfc-editor.org/rfc/rfc6750",
    ),
    Format(
        "connection-string-password",
        r"(?i:(?:^|[;\s])(?:password|pwd|sharedaccesskey) *= *)(?![$<*{;])[^;\s]{3,}",
        "https://learn.microsoft.com/dotnet/framework/data/adonet/connection-strings",
    ),
)

# Cheap to look for: a value without any of these cannot be in a format above.
_MARKS: Final = re.compile(
    r"AKIA|ASIA|ABIA|ACCA|gh[pousr]_|github_pat_|gl[a-z]+-|xox|slack\.com|[sr]k_|AIza|eyJ|PRIVATE KEY|LS0tLS1CRUdJTi"
    r"|hv[sbr]\.|npm_|pypi-|SG\.|AccountKey=|sk-|hf_|dapi|_v1_|AGE-SECRET|:AA|://|[Bb]asic |[Bb]earer "
    r"|(?i:password|pwd|sharedaccesskey)"
)
_COMPILED: Final = tuple((each.id, re.compile(each.pattern)) for each in FORMATS)


def format_of(value: str, off: frozenset[str]) -> str | None:
    """The id of the first format that the value holds, detectors in `off` aside."""
    if _MARKS.search(value) is None:
        return None
    for identifier, pattern in _COMPILED:
        if identifier not in off and pattern.search(value) is not None:
            return identifier
    return None
