"""The parts that the scenario needs, started in the order of their dependencies and stopped in reverse."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from demo.certificates import Certificates
from demo.hardware import DEVICE, Hardware
from demo.image import application_image, build_helper, missing_helper, sidecar_image
from demo.namespace import Namespace, find_namespace
from demo.node import Node
from demo.openbao import OpenBao
from demo.tokens import Issuer
from demo.transcript import Transcript, UnexpectedError
from demo.verifier import HOST_DATA, Verifier, sign_references, write_impostor, write_site
from demo.webhook import Webhook, configuration
from webhook.configuration.sections import Sidecar

_HERE = Path(__file__).parent
_APPLICATION = "example.com/payments@sha256:" + "b" * 64


@dataclass(frozen=True)
class Environment:
    """The running parts. `has_helper`: without it there are no secrets in variables, only in files.

    `impostor`: makes a second verifier, which runs while it is entered.
    """

    transcript: Transcript
    folder: Path
    site: Path
    openbao: OpenBao
    verifier: Verifier
    webhook: Webhook
    snp: Node
    tampered: Node
    plain: Node
    impostor: Callable[[], Verifier]
    has_helper: bool
    password: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)


@contextlib.contextmanager
def started(folder: Path, transcript: Transcript) -> Iterator[Environment]:
    """The environment, for as long as it is entered. Raises UnexpectedError when a part cannot be started."""
    namespace = find_namespace()
    if namespace is None:
        raise UnexpectedError(
            "the pod's processes need a mount namespace: run as root, or where unprivileged users may make a user "
            "namespace (unshare --user --map-root-user --mount)"
        )
    certificates, issuer = Certificates(folder), Issuer()
    machine = folder / "machine"
    machine.mkdir()
    with contextlib.ExitStack() as running:
        openbao = running.enter_context(OpenBao(folder, certificates))
        hardware = running.enter_context(Hardware(machine, "snp-0"))
        tampering = running.enter_context(Hardware(machine, "snp-1", "--tamper", "signature"))
        own = running.enter_context(Hardware(machine, "kms", "--host-data", HOST_DATA))
        site = write_site(folder / "verifier", hardware, own, openbao, issuer)
        impostors = write_impostor(folder / "impostor", site, hardware)
        attest = sign_references([site, impostors], own)
        verifier = running.enter_context(Verifier(site, certificates))
        settings = configuration(openbao, verifier, attest)
        webhook = running.enter_context(Webhook(folder, certificates, settings, _HERE / "cluster.yaml"))
        helper = build_helper(folder)
        images = {
            Sidecar().image: sidecar_image(helper or missing_helper(folder)),
            _APPLICATION: application_image(),
        }
        is_open = all(image.is_open for image in images.values())
        spaces = Namespace(namespace.prefix, maps_users=namespace.maps_users and is_open)

        def node(name: str, device: Hardware | None) -> Node:
            devices = {} if device is None else {DEVICE: device.socket}
            return Node(folder / name, spaces, issuer, images, devices)

        def impostor() -> Verifier:
            return Verifier(impostors, certificates)

        yield Environment(
            transcript=transcript,
            folder=folder,
            site=site,
            openbao=openbao,
            verifier=verifier,
            webhook=webhook,
            snp=node("snp-0", hardware),
            tampered=node("snp-1", tampering),
            plain=node("plain-0", None),
            impostor=impostor,
            has_helper=helper is not None,
        )
