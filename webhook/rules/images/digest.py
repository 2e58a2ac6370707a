"""Images are pinned by digest, as Knative resolves them: a tag can name another image tomorrow.

Knative resolves containers' images, so a Service may name them by tag; of volumes it resolves none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase

from webhook.rules.rule import FieldMessage, Rule, Severity, Subject

_PINNED = re.compile(r"[^@\s]+@sha256:[0-9a-f]{64}")


def check(subject: Subject) -> Iterator[FieldMessage]:
    platform = subject.pod.configuration.platformImages
    # queue-proxy's image is the operator's choice, the same for every Service, and no developer can pin it.
    for container in subject.pod.checked if subject.source is None else ():
        image = container.object.get("image")
        if image and not _PINNED.fullmatch(image) and not _is_platform_image(image, platform):
            yield (
                f"{container.field}.image",
                f"pin the image of container {container.label} by digest (name@sha256:…)",
            )
    for index, volume in enumerate(subject.pod.spec.get("volumes") or ()):
        # A container can run what an image volume holds.
        image = (volume.get("image") or {}).get("reference")
        if image and not _PINNED.fullmatch(image) and not _is_platform_image(image, platform):
            yield f"spec.volumes[{index}].image.reference", "pin the image of the volume by digest (name@sha256:…)"


def _is_platform_image(image: str, globs: tuple[str, ...]) -> bool:
    return any(fnmatchcase(image, glob) for glob in globs)


RULE = Rule(
    id="images/digest",
    severity=Severity.MEDIUM,
    summary="images are pinned by digest",
    check=check,
)
