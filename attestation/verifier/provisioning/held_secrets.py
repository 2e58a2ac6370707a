"""The secrets that people or a peer have brought into this process. They are in its memory alone, and in no message."""

from __future__ import annotations

import functools
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from cryptography import x509

from attestation.verifier.reasons import Reason, RefusedError
from attestation.verifier.vault.signing import SigningKeys, read_signing_key
from certs.chain import valid
from certs.pem import Pair, read_certificates, read_pair
from kbs.provision import Outcome, ProvisionErrorType, SecretName
from server.yaml.strict import ConfigurationError

_ID = re.compile(r"[!-~]{1,512}")
_SHARE = re.compile(r"[A-Za-z0-9+/=_-]{16,512}")


class ProvisionRefusedError(Exception):
    """A provisioner's request that cannot be met. `detail` names a secret, and holds none."""

    def __init__(self, problem: ProvisionErrorType, detail: str) -> None:
        super().__init__(f"{problem.value}: {detail}")
        self.problem = problem
        self.detail = detail


class HeldSecrets:
    """What the configuration `needs`, as far as it has come. A value that is held is never replaced.

    A share is not among the held values: OpenBao gets it at once. `problem_of_ca`: why a CA of the right form cannot be
    used; empty when it can.
    """

    def __init__(self, needs: Sequence[SecretName], problem_of_ca: Callable[[Pair], str] = lambda _: "") -> None:
        self._needs = tuple(needs)
        self._problem_of_ca = problem_of_ca
        self._values: dict[SecretName, str] = {}
        self._watchers: list[Callable[[SecretName], None]] = []

    @property
    def missing(self) -> tuple[SecretName, ...]:
        """Those that have not come, in the order of the configuration; never the share."""
        return tuple(name for name in self._needs if name is not SecretName.UNSEAL_SHARE and name not in self._values)

    def when_taken(self, call: Callable[[SecretName], None]) -> None:
        """Call this for each secret that is taken from now on."""
        self._watchers.append(call)

    def text(self, name: SecretName) -> str:
        """The value. Raises RefusedError(SEALED) until it has come."""
        if name not in self._values:
            raise RefusedError(Reason.SEALED, f"{name.value} is not provisioned yet")
        return self._values[name]

    def hand_over(self) -> Mapping[SecretName, str]:
        """All values, for a peer that has proven to be what this process is."""
        return dict(self._values)

    def take(self, secrets: Mapping[SecretName, str], *, skip_unneeded: bool = False) -> dict[SecretName, Outcome]:
        """Take all of them or none; a share is checked, and left to the caller. Raises ProvisionRefusedError.

        `skip_unneeded`: leave out those that this configuration does not need, in place of refusing them.
        """
        if not skip_unneeded and (stray := [name for name in secrets if name not in self._needs]):
            listed = ", ".join(name.value for name in self._needs)
            raise ProvisionRefusedError(
                ProvisionErrorType.NOT_NEEDED, f"{stray[0].value}: not under provisioning.needs, which has {listed}"
            )
        found = {name: normal_form(name, text) for name, text in secrets.items() if name in self._needs}
        found.pop(SecretName.UNSEAL_SHARE, None)
        self._check_ca(found.get(SecretName.TLS_CA_KEY))
        outcomes = {name: self._outcome(name, text) for name, text in found.items()}
        for name, outcome in outcomes.items():
            if outcome is Outcome.TAKEN:
                self._values[name] = found[name]
                for call in self._watchers:
                    call(name)
        return outcomes

    def _check_ca(self, text: str | None) -> None:
        authority = None if text is None else read_authority(text)
        if authority is not None and (problem := self._problem_of_ca(authority)):
            raise ProvisionRefusedError(
                ProvisionErrorType.UNUSABLE, f"{SecretName.TLS_CA_KEY.value}: {problem}; see provisioning.names"
            )

    def _outcome(self, name: SecretName, text: str) -> Outcome:
        held = self._values.get(name)
        if held is None:
            return Outcome.TAKEN
        if hmac.compare_digest(held.encode(), text.encode()):
            return Outcome.UNCHANGED
        raise ProvisionRefusedError(
            ProvisionErrorType.OTHER_VALUE, f"{name.value}: another value is held; restart the verifier to replace it"
        )


def normal_form(name: SecretName, text: str) -> str:
    """The text without the blanks around it, if it is of this secret's form. Raises ProvisionRefusedError."""
    text = text.strip()
    if problem := _FORMS[name](text):
        raise ProvisionRefusedError(ProvisionErrorType.UNUSABLE, f"{name.value}: {problem}")
    return text


def read_authority(text: str) -> Pair | None:
    """The CA that `tls-ca-key` holds: one certificate of a CA, and its key."""
    pem = text.encode()
    certificates = read_certificates(pem)
    if certificates is None or len(certificates) != 1:
        return None
    pair = read_pair(pem, pem)
    return pair if pair is not None and _is_ca(pair.certificate) else None


def held_signing_keys(held: HeldSecrets) -> Callable[[], SigningKeys]:
    """Gives the provisioned signing key; a call raises RefusedError(SEALED) until it has come."""
    read = functools.cache(_signing_keys)
    return lambda: read(held.text(SecretName.SIGNING_KEY))


def _signing_keys(text: str) -> SigningKeys:
    """The key that `signing-key` holds. Raises ConfigurationError."""
    return SigningKeys.of(read_signing_key(text.encode(), SecretName.SIGNING_KEY.value))


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _id_problem(text: str) -> str:
    return "" if _ID.fullmatch(text) else "not one word of at most 512 printable characters"


def _share_problem(text: str) -> str:
    return "" if _SHARE.fullmatch(text) else "not a share, as `bao operator init` prints it, in hex or base64"


def _authority_problem(text: str) -> str:
    pair = read_authority(text)
    if pair is None:
        return "not the PEM of one CA certificate and its unencrypted key, on P-256, P-384 or P-521"
    return "" if valid(pair.certificate, datetime.now(UTC)) else "the CA's certificate is not valid now"


def _signing_problem(text: str) -> str:
    try:
        _signing_keys(text)
    except ConfigurationError as error:
        return error.problems[0].removeprefix(f"{SecretName.SIGNING_KEY.value}: ")
    return ""


_FORMS: Mapping[SecretName, Callable[[str], str]] = {
    SecretName.VAULT_ROLE_ID: _id_problem,
    SecretName.VAULT_SECRET_ID: _id_problem,
    SecretName.UNSEAL_SHARE: _share_problem,
    SecretName.TLS_CA_KEY: _authority_problem,
    SecretName.SIGNING_KEY: _signing_problem,
}
