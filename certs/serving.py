"""A replica's part: serve what the Secret holds, unless clients would trust that less than what is served now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from certs.chain import serves, valid, voucher
from certs.metrics import CertificateMetrics
from certs.pem import Pair, read_pair
from certs.state import Live, Object, secret_data
from server import logs

Install = Callable[[bytes, bytes], None]
"""Takes (certificate, key) as PEM; the server uses them from the next handshake on."""


class Serving:
    """What this replica serves. `names` are the DNS names that callers know the webhook by."""

    def __init__(self, names: Sequence[str], install: Install, metrics: CertificateMetrics) -> None:
        self._names = tuple(names)
        self._install = install
        self._metrics = metrics
        self._leaf: Pair | None = None
        self._reported: str | None = None
        self._ready = False
        self._problem = "no certificate yet: the API server has not answered"

    def problem(self) -> str | None:
        """Why this replica cannot serve callers yet; None from the first moment that it can.

        A configuration that trusts something else later is an alert: it would make every replica unready at once.
        """
        return None if self._ready else self._problem

    def reconcile(self, secret: Object | None, live: Sequence[Live], now: datetime) -> None:
        """Serve what the Secret holds, if callers trust it at least as well as what is served now."""
        pair, reason = self._read(secret, now)
        if pair is not None and pair.certificate != self._certificate:
            if self._must_keep(pair, live, now):
                reason = "the live configurations do not trust it yet"
            else:
                reason = self._take(pair, now)
        self._report(reason)
        self._evaluate(live, reason)

    @property
    def _certificate(self) -> object:
        return self._leaf.certificate if self._leaf is not None else None

    def _read(self, secret: Object | None, now: datetime) -> tuple[Pair | None, str | None]:
        if secret is None:
            return None, "the Secret is absent"
        data = secret_data(secret)
        if missing := [key for key in ("tls.crt", "tls.key") if not data.get(key)]:
            return None, f"the Secret has no {' and no '.join(missing)}"
        pair = read_pair(data["tls.crt"], data["tls.key"])
        if pair is None:
            return None, "certificate and key are not a pair"
        if not serves(pair.certificate, self._names):
            return None, "the certificate is for other names"
        if pair.certificate.not_valid_after_utc < now:
            return None, "the certificate has expired"
        return pair, None

    def _must_keep(self, pair: Pair, live: Sequence[Live], now: datetime) -> bool:
        """Whether callers trust what is served, and would not trust what is new."""
        leaf = self._leaf
        if leaf is None or not valid(leaf.certificate, now):
            return False
        return all(_trusts(each, leaf) for each in live) and not all(_trusts(each, pair) for each in live)

    def _take(self, pair: Pair, now: datetime) -> str | None:
        try:
            self._install(pair.certificate_pem, pair.key_pem)
        except Exception as error:  # TLS has rules of its own, such as for digests; a Secret must not stop the server
            return f"it cannot be served: {type(error).__name__}"
        self._leaf = pair
        expires = pair.certificate.not_valid_after_utc.isoformat()
        logs.info("certificate_in_use", serial=f"{pair.certificate.serial_number:x}", ends=expires)
        if now < pair.certificate.not_valid_before_utc:
            logs.warning("certificate_not_valid_yet", begins=pair.certificate.not_valid_before_utc.isoformat())
        return None

    def _report(self, reason: str | None) -> None:
        if reason != self._reported:
            self._reported = reason
            if reason is not None:
                doing = "waiting for one" if self._leaf is None else "serving the previous one"
                logs.warning("certificate_not_usable", reason=reason, doing=doing)

    def _evaluate(self, live: Sequence[Live], reason: str | None) -> None:
        leaf = self._leaf
        if leaf is None:
            self._problem = f"no certificate yet: {reason}"
            self._metrics.serving(None, None)
            return
        trusting = {each.name: _trusts(each, leaf) for each in live}
        issuer = voucher((found for each in live for found in each.certificates), leaf.certificate)
        self._metrics.serving(leaf.certificate, issuer)
        self._metrics.trusted(trusting)
        if distrusting := [name for name, trusts in trusting.items() if not trusts]:
            self._problem = f"the live configuration does not trust the certificate yet: {', '.join(distrusting)}"
        else:
            self._ready = True


def _trusts(live: Live, leaf: Pair) -> bool:
    return all(bundle is not None and voucher(bundle, leaf.certificate) is not None for bundle in live.bundles)
