"""No volume holds secrets that the node fetches: the untrusted host reads them before the guest does.

Drivers of inline CSI volumes are told apart by name; a Pod's certificate comes with a key that the kubelet makes.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

from webhook.pod.container import display_name
from webhook.rules.rule import FieldMessage, Rule, Severity, Subject


def check(subject: Subject) -> Iterator[FieldMessage]:
    globs = subject.pod.configuration.secretDrivers
    for index, volume in enumerate(subject.pod.spec.get("volumes") or ()):
        for member in ("csi", "flexVolume"):
            driver = (volume.get(member) or {}).get("driver")
            if driver and _fetches_secrets(driver, globs):
                yield (
                    f"spec.volumes[{index}].{member}.driver",
                    f"driver {display_name(driver)} fetches secrets on the node, so the untrusted host reads them; move"
                    " them to Vault and set annotation morphisms.dev/secret-NAME: PATH",
                )
        if _has_certificate(volume):
            yield (
                f"spec.volumes[{index}].projected",
                "remove the podCertificate source: the kubelet of the untrusted host makes its private key",
            )


@lru_cache(maxsize=256)
def _fetches_secrets(driver: str, globs: tuple[str, ...]) -> bool:
    return any(fnmatchcase(driver.lower(), glob.lower()) for glob in globs)


def _has_certificate(volume: dict[str, Any]) -> bool:
    sources = (volume.get("projected") or {}).get("sources") or ()
    return any(source.get("podCertificate") is not None for source in sources)


RULE = Rule(
    id="secrets/node-fetched",
    severity=Severity.HIGH,
    summary="no volume holds secrets that the node fetched",
    check=check,
)
