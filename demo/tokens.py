"""The demo cluster's token issuer: bound service-account tokens, as its API server gives them to a kubelet."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from joserfc import jwt
from joserfc.jwk import RSAKey

ISSUER = "https://kubernetes.default.svc.cluster.local"
_KEY_ID = "demo-1"
_ALGORITHM = "RS256"


@dataclass(frozen=True)
class Issuer:
    """The cluster's signing key."""

    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048), repr=False)

    def write_jwks(self, path: Path) -> None:
        """The document that the API server serves at /openid/v1/jwks."""
        key = {**self.key.as_dict(private=False), "kid": _KEY_ID, "use": "sig", "alg": _ALGORITHM}
        path.write_text(json.dumps({"keys": [key]}))

    def token(self, pod: dict[str, Any], projection: dict[str, Any], account: str | None = None) -> str:
        """For a pod's `serviceAccountToken` projection; `account` is another service account than the pod's own."""
        metadata, now = pod["metadata"], int(time.time())
        account = account or pod["spec"].get("serviceAccountName") or "default"
        namespace = metadata["namespace"]
        claims = {
            "iss": ISSUER,
            "aud": [projection.get("audience") or ISSUER],
            "iat": now,
            "nbf": now,
            "exp": now + projection.get("expirationSeconds", 3600),
            "jti": str(uuid4()),
            "sub": f"system:serviceaccount:{namespace}:{account}",
            "kubernetes.io": {
                "namespace": namespace,
                "pod": {"name": metadata["name"], "uid": metadata["uid"]},
                "serviceaccount": {"name": account, "uid": str(uuid4())},
            },
        }
        return jwt.encode({"alg": _ALGORITHM, "kid": _KEY_ID}, claims, self.key, algorithms=[_ALGORITHM])
