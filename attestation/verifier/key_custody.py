"""Where the keys lie that are worth every workload: in production, a file needs an exception with a reason and an end.

The holder of the key that signs logins, or of the credential by which the verifier uses Vault, can log in as every
workload. In a file it is often in a Kubernetes Secret, hence in etcd, its disk and its backups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import date, timedelta
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge

from attestation.verifier.configuration import Exemption, Mode, VerifierConfiguration
from server import logs
from server.yaml.strict import ConfigurationError

_KEY_FILES = "key-files"
_LONGEST = timedelta(days=366)


def check_key_custody(configuration: VerifierConfiguration, today: date) -> None:
    """Raise ConfigurationError for key files in production without an exception in force; log one that is used."""
    files = _key_files(configuration)
    if configuration.mode is not Mode.PRODUCTION or not files:
        return
    exemption = next((each for each in configuration.exceptions if each.id == _KEY_FILES), None)
    problem = _problem(exemption, today)
    if exemption is None or problem:
        raise ConfigurationError([f"{where}: {path}: {problem}" for where, path in files.items()])
    logs.warning(
        "exception",
        id=exemption.id,
        reason=exemption.reason,
        expires=exemption.expires.isoformat(),
        keys=sorted(files),
    )


def expose_exceptions(registry: CollectorRegistry, exceptions: Iterable[Exemption], today: Callable[[], date]) -> None:
    """A metric of each exception's days, so that people decide again before a restart fails."""
    left = Gauge(
        "morphisms_verifier_exception_days_left",
        "Days until an exception of the configuration ends; below 0 the verifier does not start any more.",
        ["id"],
        registry=registry,
    )
    for exemption in exceptions:
        left.labels(exemption.id).set_function(partial(_days_left, exemption, today))


def _days_left(exemption: Exemption, today: Callable[[], date]) -> float:
    return float((exemption.expires - today()).days)


def _problem(exemption: Exemption | None, today: date) -> str:
    example = f'{{id: {_KEY_FILES}, reason: "etcd is encrypted until March", expires: "{today + timedelta(days=90)}"}}'
    if exemption is None:
        return f"a key in a file is every workload; not with mode: production without exceptions: [{example}]"
    if exemption.expires < today:
        return f"exceptions: {_KEY_FILES} expired on {exemption.expires}; decide anew, as in {example}"
    if exemption.expires > today + _LONGEST:
        return f"exceptions: {_KEY_FILES} expires in more than {_LONGEST.days} days; decide earlier, as in {example}"
    return ""


def _key_files(configuration: VerifierConfiguration) -> Mapping[str, Path]:
    files = {}
    if configuration.signing.keys:
        files["signing.keys"] = configuration.signing.keys[0]
    own = configuration.vault.login
    if own is not None and own.appRole is not None:
        files["vault.login.appRole.secretId"] = own.appRole.secretId
    if own is not None and own.tokenFile is not None:
        files["vault.login.tokenFile"] = own.tokenFile
    return files
