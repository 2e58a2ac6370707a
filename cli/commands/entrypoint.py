"""`morphisms entrypoint`: the lines that name an image's own process, for a container that needs a command."""

from __future__ import annotations

import argparse
import json

from cli.registry.errors import RegistryError, UnreachableError
from cli.registry.process import Process, process_of
from cli.rendering import image_options
from cli.rendering.images import TagError
from cli.support.terminal import say
from measured.image import digest_of
from server.files import UnusableInputError

HELP = "print the command: and args: that an image starts with, looked up by digest in its registry"
EXAMPLE = "morphisms entrypoint registry.example/app:v1@sha256:…"

_PRINTED, _REFUSED, _UNUSABLE, _UNREACHABLE = 0, 1, 2, 3


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.description = (
        "A container that gets Vault references as environment names its command, because Kubernetes does not know\n"
        "an image's entrypoint. This prints the lines to write. An image by tag is refused, with the tag's digest.\n"
        "Exit codes: 0 printed, 1 the image has no digest or names no process, 2 unusable, 3 no answer."
    )
    parser.add_argument("image", metavar="IMAGE", help="reference with a digest")
    parser.add_argument("-o", "--output", choices=("yaml", "json"), default="yaml", help="yaml (lines) by default")
    image_options.configure(parser)


def run(arguments: argparse.Namespace) -> int:
    """Look up and print."""
    source = image_options.image_source(arguments)
    try:
        image = source.find(arguments.image)
    except TagError as error:
        return _failed(error, _REFUSED)
    except UnreachableError as error:
        return _failed(error, _UNREACHABLE)
    except RegistryError as error:
        return _failed(error, _UNUSABLE)
    if image is None:
        raise UnusableInputError("the image is not in --images, and --offline asks no registry")
    process = process_of(image)
    if process is None:
        say("morphisms entrypoint: the image names no process; write the command of the program in it")
        return _REFUSED
    digest = digest_of(arguments.image) or ""
    _print(process, arguments, digest, source.sources[digest])
    return _PRINTED


def _print(process: Process, arguments: argparse.Namespace, digest: str, source: str) -> None:
    if arguments.output == "json":
        print(
            json.dumps({"image": arguments.image, "command": process.command, "args": process.args, "source": source})
        )
        return
    for line in process.lines():
        print(line)
    say(f"{digest}: {source}")


def _failed(error: RegistryError, code: int) -> int:
    say(f"morphisms entrypoint: {error}")
    return code
