"""The URLs that guests and the verifier call, in parts: one form for configurations and for the clients."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from kbs.trust import tls_name

FORM: Final = "https://HOST[:PORT][/PATH]"
_MAX_NAME: Final = 253
_MAX_LABEL: Final = 63


def https_parts(url: str) -> tuple[str, int, str]:
    """Host, port and path (without `/` at its end) of an HTTPS URL.

    Raises ValueError for one that no request line or certificate can carry, which would look like an outage later.
    """
    host, port, path, scheme = http_parts(url)
    if scheme != "https":
        raise ValueError("not HTTPS")
    return host, port or 443, path


def http_parts(url: str) -> tuple[str, int | None, str, str]:
    """Host, port (None where the scheme's own counts), path and scheme of an HTTP or HTTPS URL. Raises ValueError."""
    parts = urlsplit(url)
    host, port = parts.hostname, parts.port
    plain = url.isascii() and url.isprintable() and " " not in url
    if (
        not host
        or not _is_name(tls_name(host))
        or port == 0
        or not plain
        or parts.scheme not in ("http", "https")
        or parts.query
        or parts.fragment
        or "@" in parts.netloc
    ):
        raise ValueError("not a URL of host, port and path")
    return host, port, parts.path.rstrip("/"), parts.scheme


def _is_name(host: str) -> bool:
    """Whether every label can be one (RFC 1035, 2.3.4), or the host is an IPv6 address."""
    return ":" in host or (len(host) <= _MAX_NAME and all(0 < len(label) <= _MAX_LABEL for label in host.split(".")))
