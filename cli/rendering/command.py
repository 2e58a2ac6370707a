"""The part of `morphisms render` that writes a measured Service, Pod, Deployment or StatefulSet."""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from pathlib import Path
from typing import Final

from cli.proof.engine import VARIABLE
from cli.registry.errors import RegistryError, UnreachableError
from cli.rendering import outputs
from cli.rendering.check import check
from cli.rendering.files import Inputs, read_inputs
from cli.rendering.image_options import image_source
from cli.rendering.images import ImageSource, TagError, tried
from cli.rendering.refused import RefusedError
from cli.rendering.rendering import Rendering, images_of, render, summary
from cli.rendering.workload import KINDS, is_workload
from cli.support.manifests import Manifest, manifests_of, read_bytes
from cli.support.terminal import say
from plan.document import DATA_HUB
from server.files import UnusableInputError
from server.yaml.kubernetes import Document, read_with_text
from webhook.errors import MalformedError
from webhook.pod.workloads import knative_kind

_RENDERED, _REFUSED, _UNUSABLE, _UNREACHABLE = 0, 1, 2, 3
_HOST_DATA: Final = re.compile(r"[0-9a-f]{64}")


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of a measured rendering; each needs --cluster."""
    group = parser.add_argument_group(
        "a measured Service, Pod, Deployment or StatefulSet", "assurance workload: for these, --cluster is needed"
    )
    group.add_argument("--cluster", metavar="FILE", help="cluster.yaml, as morphisms capture writes it")
    group.add_argument("--trust", metavar="FILE", help="trust.yaml: what people vouch for; without it, for trying out")
    group.add_argument(
        "--previous", nargs="+", action="extend", default=[], metavar="HOSTDATA", help="digests that stay trusted"
    )
    group.add_argument(
        "--evidence",
        choices=[DATA_HUB],
        help="for guests that serve no evidence over HTTP: their data hub fetches the Vault token, without a pod token",
    )
    group.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        help="the folder that gets service.yaml (other kinds: workload.yaml), policy.rego, appraisal.yaml",
    )
    group.add_argument(
        "--check",
        nargs="?",
        const="",
        metavar="DIR",
        help="prove the rendering instead of writing it, and compare it with a folder: 1 where it fails or differs",
    )
    group.add_argument(
        "--engine",
        metavar="FILE",
        help=f"with --check: a program that evaluates the policy; default ${VARIABLE}, else Python's regorus if there",
    )


def run(arguments: argparse.Namespace) -> int:
    """Render, then write or compare. Raises UnusableInputError."""
    if (arguments.output is None) == (arguments.check is None):
        raise UnusableInputError("--cluster needs either -o DIR or --check [DIR]")
    if bad := [digest for digest in arguments.previous if not _HOST_DATA.fullmatch(digest)]:
        raise UnusableInputError(f"--previous: {len(bad)} of the digests is not 64 hexadecimal digits in lower case")
    source, documents = read_with_text(arguments.file)
    index, manifest = _rendered(arguments.file, documents, arguments.namespace)
    trust = None if arguments.trust is None else read_bytes(arguments.trust)
    inputs = read_inputs(arguments.cluster, read_bytes(arguments.cluster), arguments.trust, trust)
    images = image_source(arguments)
    inputs = replace(inputs, evidence=arguments.evidence or "")
    try:
        if failed := tried(images, images_of(manifest.object, manifest.namespace, inputs)):
            return _not_looked_up(manifest, failed)
        rendering = render(manifest.object, manifest.namespace, inputs, images.images, arguments.previous)
    except MalformedError as error:
        raise manifest.unusable(error) from None
    except RefusedError as error:
        for refusal in error.refusals:
            say(f"{manifest.source}: {manifest.title}: refused: {refusal}")
        return _REFUSED
    files = outputs.texts(rendering, inputs, source, documents, index)
    if arguments.check is not None:
        same = not arguments.check or _compare(Path(arguments.check), files, rendering)
        holds, lines = check(rendering, images.images, arguments.engine)
        for line in lines:
            say(line)
        return _RENDERED if same and holds else _REFUSED
    return _write(Path(arguments.output), files, rendering, inputs, images)


def _not_looked_up(manifest: Manifest, failed: list[tuple[str, RegistryError]]) -> int:
    """A line for each image that cannot be used; the exit code."""
    codes = []
    for field, error in failed:
        tag, unreachable = isinstance(error, TagError), isinstance(error, UnreachableError)
        codes.append(_REFUSED if tag else _UNREACHABLE if unreachable else _UNUSABLE)
        say(f"{manifest.source}: {manifest.title}: {'refused: ' if tag else ''}{field}: {error}")
    return max(codes)


def _rendered(path: str, documents: list[Document], namespace: str | None) -> tuple[int, Manifest]:
    found = [
        (index, manifest)
        for index, document in enumerate(documents)
        for manifest in manifests_of(document, namespace)
        if manifest.object is document.object
        and (knative_kind(manifest.object) == "Service" or is_workload(manifest.object))
    ]
    if len(found) != 1:
        kinds = ", ".join(KINDS)
        raise UnusableInputError(f"{path}: holds {len(found)} of Knative's Service, {kinds}; a rendering is of one")
    return found[0]


def _write(folder: Path, files: dict[str, str], rendering: Rendering, inputs: Inputs, images: ImageSource) -> int:
    lines = [*summary(rendering, inputs, images.sources), *outputs.changes(folder, rendering)]
    outputs.write(folder, files)
    for line in lines:
        say(line)
    return _RENDERED


def _compare(folder: Path, files: dict[str, str], rendering: Rendering) -> bool:
    """Whether the folder holds just this rendering."""
    differing = outputs.differing(folder, files)
    for line in [*(f"differs         {name}" for name in differing), *outputs.changes(folder, rendering)]:
        say(line)
    return not differing
