"""`morphisms render --check`: the proof of a rendering, in lines for people."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Final

from cli.proof.engine import found_engine
from cli.proof.proof import prove
from cli.rendering.rendering import Rendering
from measured.image import Image, digest_of, write_image
from measured.measured_document import differences, document_of
from measured.refusal import objects
from measured.users import GROUPS
from measured.volumes import mounts_token

_UID: Final = "00000000-0000-4000-8000-000000000000"
_NO_ENGINE: Final = (
    "proof           no policy engine is here, so honest requests and attacks were not tried: pip install"
    " celine-regorus, or name a program with --engine"
)


def check(rendering: Rendering, images: Mapping[str, Image], program: str | None) -> tuple[bool, list[str]]:
    """Whether the rendering holds, and what was tried. Raises UnusableInputError where the engine fails.

    Always: the pod, by several of its names, is the one in the document. With an engine: the policy lets it run, and
    refuses what a hostile host asks in its place.
    """
    pods = [_named(rendering, name) for name in rendering.source.names()]
    document = document_of(rendering.initdata)
    found = sorted({str(each) for pod in pods for each in ([] if document is None else differences(pod, document))})
    if document is None or found:
        return False, [f"differs         {each}" for each in found or ["the document is not one of Morphisms"]]
    lines = [f"proof           the pod, by {len(pods)} names, is the one that the document measures"]
    with found_engine(program) as engine:
        if engine is None:
            return True, [*lines, _NO_ENGINE]
        proof = prove(pods, _by_reference(pods[0], images), rendering.policy, engine)
        tried = f"{proof.sequences} honest sequences, {proof.attacks} attacks, in {engine.name}"
    lines.append(f"proof           {tried}" + (": all as it has to be" if proof.holds else ""))
    lines += [f"refused         {each}, which is honest" for each in proof.refused]
    lines += [f"passed          {each}, which is an attack" for each in proof.passed]
    return proof.holds, lines


def _named(rendering: Rendering, name: str) -> dict[str, Any]:
    """The pod as a node gets it: with a name, and with the token that the API server adds."""
    pod = deepcopy(dict(rendering.pod))
    pod["metadata"] |= {"name": name, "uid": _UID}
    spec = pod["spec"]
    if spec.get("hostname") == rendering.pod["metadata"].get("name"):
        spec.pop("hostname", None)
    spec["automountServiceAccountToken"] = mounts_token(spec, rendering.data["automountsToken"])
    return pod


def _by_reference(pod: Mapping[str, Any], images: Mapping[str, Image]) -> dict[str, dict[str, Any]]:
    containers = [one for group in GROUPS for one in objects(pod["spec"].get(group))]
    references = {str(one["image"]) for one in containers}
    return {name: write_image(images[digest_of(name) or ""]) for name in references}
