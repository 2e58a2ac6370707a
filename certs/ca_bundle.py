"""The caBundle of a webhook configuration, patched: what the API server trusts the webhook's certificate by."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

from cryptography import x509

from certs.pem import write_certificates
from certs.state import Object, read_live, webhooks_of
from server.kubernetes.objects import version_of


def bundle_patch(configuration: Object, bundle: Sequence[x509.Certificate]) -> list[dict[str, object]]:
    """JSON Patch (RFC 6902) that sets the caBundle of each webhook with another one, and changes nothing else.

    It applies to the version that was read and no other: a list has indices only, and may have changed since.
    """
    encoded = base64.b64encode(write_certificates(bundle)).decode()
    patch: list[dict[str, object]] = [
        {"op": "test", "path": "/metadata/resourceVersion", "value": version_of(configuration)}
    ]
    for index, webhook in enumerate(webhooks_of(configuration)):
        if not _has(webhook, bundle):
            patch.append({"op": "test", "path": f"/webhooks/{index}/name", "value": webhook.get("name")})
            # `add` of a member also replaces it; a caBundle that is empty is not there to be replaced.
            patch.append({"op": "add", "path": f"/webhooks/{index}/clientConfig/caBundle", "value": encoded})
    return patch


def _has(webhook: Mapping[str, object], bundle: Sequence[x509.Certificate]) -> bool:
    (found,) = read_live("", {"webhooks": [webhook]}).bundles
    return found is not None and set(found) == set(bundle)
