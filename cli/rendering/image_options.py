"""The options of the commands that look images up."""

from __future__ import annotations

import argparse

from cli.registry.cache import Cache, default_folder
from cli.registry.lookup import ImageLookup
from cli.registry.registries import load_registries
from cli.rendering.files import read_images
from cli.rendering.images import ImageSource
from cli.support.manifests import read_bytes


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    group = parser.add_argument_group(
        "image configurations", "by digest, from --images, else the cache, else the registry, with docker's credentials"
    )
    group.add_argument("--images", metavar="FILE", help="JSON: {REFERENCE@sha256:…: the config of its OCI image}")
    group.add_argument("--offline", action="store_true", help="ask no registry; --images names all images")
    group.add_argument(
        "--registries", metavar="FILE", help="registries.yaml; without it ~/.config/morphisms/registries.yaml"
    )
    group.add_argument("--default-registry", metavar="HOST", help="of image references that name none")


def image_source(arguments: argparse.Namespace) -> ImageSource:
    """Where the options say that configurations come from. Raises UnusableInputError."""
    path = arguments.images
    given = {} if path is None else read_images(path, read_bytes(path))
    if arguments.offline:
        return ImageSource(given, f"--images {path}", None)
    registries = load_registries(arguments.registries, arguments.default_registry)
    return ImageSource(given, f"--images {path}", ImageLookup(registries, Cache(default_folder())))
