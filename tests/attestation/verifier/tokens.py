"""A cluster's token issuer: service-account tokens as the API server makes them."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from joserfc import jwt
from joserfc.jwk import RSAKey

ISSUER = "https://kubernetes.default.svc.cluster.local"
AUDIENCE = "morphisms-verifier"
UID = "6f1c2f2e-0f0e-4b43-9a58-3a3f7d1a5c11"


def _key() -> RSAKey:
    return RSAKey.generate_key(2048)


@dataclass
class Issuer:
    """One cluster's keys; `kid` is what its API server would call the key."""

    kid: str = "prod-1"
    key: RSAKey = field(default_factory=_key)

    def write_jwks(self, path: Path, *others: Issuer) -> None:
        """The cluster's JWKS."""
        keys = [{**each.key.as_dict(private=False), "kid": each.kid, "use": "sig"} for each in (self, *others)]
        path.write_text(json.dumps({"keys": keys}))

    def token(
        self,
        namespace: str = "shop",
        account: str = "default",
        pod: str = "payments-1",
        uid: str = UID,
        expires_in: float = 600,
        audience: str = AUDIENCE,
        **changes: Any,
    ) -> str:
        """A bound token; `changes` replace claims, None removes one."""
        now = int(time.time())
        claims: dict[str, Any] = {
            "aud": [audience],
            "exp": int(now + expires_in),
            "iat": now,
            "nbf": now,
            "iss": ISSUER,
            "jti": "0b1f5a36-5f25-4c5c-9f0f-1d3a4f1c2b3a",
            "kubernetes.io": {
                "namespace": namespace,
                "node": {"name": "node-1", "uid": "2c9b1f3e-3f6a-4c56-8b7d-6a0b7a0c1d2e"},
                "pod": {"name": pod, "uid": uid},
                "serviceaccount": {"name": account, "uid": "8d0c2f44-6e1b-4f6a-9a39-1f6a0f2c3d4e"},
            },
            "sub": f"system:serviceaccount:{namespace}:{account}",
        }
        claims = {name: value for name, value in (claims | changes).items() if value is not None}
        return jwt.encode({"alg": "RS256", "kid": self.kid}, claims, self.key, algorithms=["RS256"])
