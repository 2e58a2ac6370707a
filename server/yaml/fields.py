"""Types of configuration fields whose faults would otherwise show in a guest, a minute later and far away."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from kbs.endpoint import FORM, http_parts, https_parts
from kbs.trust import trusting

# A label of DNS (RFC 1123): no slash, dot or wildcard, because cluster names become parts of Vault paths.
_LABEL: Final = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"


def _https_url(url: str) -> str:
    try:
        https_parts(url)
    except ValueError:
        raise PydanticCustomError(
            "https_url", f"is not of the form {FORM}, such as https://vault.example:8200"
        ) from None
    return url


def _http_url(url: str) -> str:
    try:
        http_parts(url)
    except ValueError:
        raise PydanticCustomError(
            "http_url", f"is not of the form {FORM} (or http://), such as https://vault.example:8200"
        ) from None
    return url


def _ca(text: str) -> str:
    if "PRIVATE KEY-----" in text:
        raise PydanticCustomError("ca", "holds a private key, which would reach every pod; leave the certificate alone")
    if not text:
        return text  # the system's store, which takes 30 ms to read
    try:
        trusting(text)
    except ValueError as error:
        raise PydanticCustomError("ca", f"{error}; write PEM, such as the output of: openssl x509 -in ca.crt") from None
    return text


def _cluster_name(name: str) -> str:
    if not re.fullmatch(_LABEL, name):
        raise PydanticCustomError(
            "cluster_name",
            "is not a name of at most 63 lower-case letters and digits, with - between them, such as prod-eu",
        )
    return name


HttpsUrl = Annotated[str, AfterValidator(_https_url), Field(json_schema_extra={"pattern": "^https://"})]
HttpUrl = Annotated[str, AfterValidator(_http_url), Field(json_schema_extra={"pattern": "^https?://"})]
CertificatesText = Annotated[str, AfterValidator(_ca)]
ClusterName = Annotated[str, AfterValidator(_cluster_name), Field(json_schema_extra={"pattern": _LABEL})]
