"""The present state: the two Secrets and the live webhook configurations, read from objects that may hold anything.

Secret `morphisms-webhook-ca`: `ca.crt` and `ca.key`, the CA that signs; while it is being replaced also `next.crt` and
`next.key`, a CA that is published and signs nothing yet; and `former.crt` with `former.until`, CAs that no longer sign
and stay trusted until their last leaf has expired. Secret `morphisms-webhook-tls`: `tls.crt` and `tls.key`, which every
replica serves, and `ca.crt`, the CAs that other clients trust them by. Nothing here relies on that `ca.crt`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from cryptography import x509

from certs.chain import serves, valid, voucher
from certs.pem import MAX_CERTIFICATES, Pair, read_certificates, read_pair
from server.kubernetes.untyped import mapping

AUTHORITY_SECRET: Final = "morphisms-webhook-ca"
LEAF_SECRET: Final = "morphisms-webhook-tls"

# On the CA's Secret, with any value: replace the CA now. Removed when the replacement has begun.
ROTATE: Final = "morphisms.dev/rotate"

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Live:
    """One live webhook configuration: what each of its webhooks trusts, None for a caBundle that is not PEM."""

    name: str
    bundles: tuple[tuple[x509.Certificate, ...] | None, ...]

    def holds_exactly(self, certificates: Sequence[x509.Certificate]) -> bool:
        """Whether every webhook trusts these and no other."""
        return all(bundle is not None and set(bundle) == set(certificates) for bundle in self.bundles)

    def trusts(self, certificate: x509.Certificate) -> bool:
        """Whether every webhook trusts this CA."""
        return all(bundle is not None and certificate in bundle for bundle in self.bundles)

    @property
    def certificates(self) -> tuple[x509.Certificate, ...]:
        """The CAs that any of its webhooks trusts."""
        return tuple(dict.fromkeys(found for bundle in self.bundles for found in bundle or ()))


@dataclass(frozen=True, slots=True)
class State:
    """Everything that the next step depends on, except the time.

    `coming_damaged`: the keys of the coming CA hold something that is not a CA. `rotation_requested`: the Secret
    carries ROTATE. `leaf` is None when no replica could serve what the Secret holds. `live` has the configurations
    that exist.
    """

    names: tuple[str, ...]
    authority: Pair | None = None
    coming: Pair | None = None
    coming_damaged: bool = False
    former: tuple[x509.Certificate, ...] = ()
    former_until: datetime | None = None
    rotation_requested: bool = False
    leaf: Pair | None = None
    live: tuple[Live, ...] = ()

    @property
    def bundle(self) -> tuple[x509.Certificate, ...]:
        """The CAs that the live configurations are to trust."""
        pairs = (self.authority, self.coming)
        own = [pair.certificate for pair in pairs if pair is not None]
        return tuple(dict.fromkeys((*own, *self.former)))

    @property
    def live_certificates(self) -> tuple[x509.Certificate, ...]:
        """The CAs that any live configuration trusts."""
        return tuple(dict.fromkeys(found for live in self.live for found in live.certificates))

    def trusted_by_all(self, certificate: x509.Certificate) -> bool:
        """Whether every live configuration trusts this CA; True when there is none."""
        return all(live.trusts(certificate) for live in self.live)


def read_state(names: Sequence[str], authority: Object | None, leaf: Object | None, live: Iterable[Live]) -> State:
    """The state in the two Secrets (None: absent)."""
    own, serving = secret_data(authority), secret_data(leaf)
    coming = read_pair(own.get("next.crt", b""), own.get("next.key", b""))
    return State(
        names=tuple(names),
        authority=read_pair(own.get("ca.crt", b""), own.get("ca.key", b"")),
        coming=coming,
        coming_damaged=coming is None and ("next.crt" in own or "next.key" in own),
        former=(read_certificates(own.get("former.crt", b"")) or ())[: MAX_CERTIFICATES - 2],
        former_until=_read_time(own.get("former.until", b"")),
        rotation_requested=ROTATE in (mapping(mapping(authority).get("metadata")).get("annotations") or {}),
        leaf=read_pair(serving.get("tls.crt", b""), serving.get("tls.key", b"")),
        live=tuple(live),
    )


def read_live(name: str, configuration: Object) -> Live:
    """What a Mutating- or ValidatingWebhookConfiguration trusts."""
    return Live(name, tuple(_bundle(webhook) for webhook in webhooks_of(configuration)))


def webhooks_of(configuration: Object) -> list[Mapping[str, Any]]:
    """Its webhooks, in order."""
    webhooks = configuration.get("webhooks")
    return [mapping(webhook) for webhook in webhooks] if isinstance(webhooks, list) else []


def secret_data(secret: Object | None) -> dict[str, bytes]:
    """A Secret's data, decoded; what is not base64 is empty."""
    return {str(key): _decode(value) for key, value in mapping(mapping(secret).get("data")).items()}


def usable_leaf(state: State, now: datetime) -> Pair | None:
    """The leaf, if it is valid, of the right names, and signed by a CA that is known here."""
    leaf = state.leaf
    if leaf is None or not valid(leaf.certificate, now) or not serves(leaf.certificate, state.names):
        return None
    return leaf if known_voucher(state, leaf) is not None else None


def known_voucher(state: State, leaf: Pair) -> x509.Certificate | None:
    """The CA that signed the leaf: one of ours, else one that is live."""
    return voucher((*state.bundle, *state.live_certificates), leaf.certificate)


def write_time(time: datetime) -> bytes:
    """As `former.until` has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ").encode()


def _read_time(text: bytes) -> datetime | None:
    try:
        time = datetime.fromisoformat(text.decode())
    except ValueError:
        return None
    return time if time.tzinfo is not None else None


def _bundle(webhook: Mapping[str, Any]) -> tuple[x509.Certificate, ...] | None:
    return read_certificates(_decode(mapping(webhook.get("clientConfig")).get("caBundle")))


def _decode(value: object) -> bytes:
    try:
        return base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except (binascii.Error, ValueError):
        return b""
