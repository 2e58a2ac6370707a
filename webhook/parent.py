"""The parent process of admission servers that share one port: it accepts for them, and keeps what a replica has once.

That is the plain port, the certificates and the container templates. Each worker has its own view of the cluster.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from certs.identity import Identity
from certs.serving import Install
from server.health import Check
from server.metrics import new_registry
from server.service import Application, Background
from server.tls import CertificateFiles, HeldCertificate
from server.watched import FileMetrics
from server.workers.merging import Rule
from server.workers.pool import WorkerPool
from webhook.cluster.shared_templates import TOPIC, written
from webhook.configuration.accepted_templates import AcceptedTemplates
from webhook.configuration.model import Configuration
from webhook.configuration_file import watched_configuration
from webhook.server import (
    CERTIFICATE_TOPIC,
    WebhookSettings,
    configuration_of,
    controller_of,
    limits_of,
    templates_of,
    warn_of_image,
)

if TYPE_CHECKING:
    from webhook.cluster.templates import Templates

GAUGES: Final[Mapping[str, Rule]] = {
    "morphisms_snapshot_age_seconds": max,
    "morphisms_configuration_info": max,
    "morphisms_exception_days_left": min,
}
"""How the workers' own gauges become one."""


def make_parent(settings: WebhookSettings) -> Application:
    """The parent as `server.service.run` takes it. Raises ConfigurationError."""
    registry = new_registry()
    files = FileMetrics(registry)
    pool = WorkerPool(settings.workers, registry, gauges=GAUGES)
    background: list[Background] = []
    gates: dict[str, Check] = {}
    templates: Templates | None = None

    def changed(_configuration: Configuration) -> None:
        if templates is not None:
            templates.configured()

    watched = watched_configuration(settings.configuration, files, changed)
    if watched is not None:
        background.append(watched.watch)
    current = configuration_of(watched)
    warn_of_image(current())
    if settings.replica is not None:
        templates = templates_of(settings, settings.replica, current, registry, _Sharing(pool))
        background.append(templates.run)
        gates["templates"] = templates.problem
        pool.known = templates.shared
    certificate: CertificateFiles | HeldCertificate
    if isinstance(settings.certificate, Identity):
        certificate = HeldCertificate()
        install = _installing(certificate, pool)
        controller = controller_of(settings, settings.certificate, install, current, registry)
        background.append(controller.run)
        gates["certificate"] = controller.problem
    else:
        # Each worker watches the files itself. They are loaded here to refuse, at once, a pair that cannot be served.
        certificate = settings.certificate
    return Application(
        routes={},
        certificate=certificate,
        listen=settings.listen,
        metrics_listen=settings.metrics_listen,
        limits=limits_of(settings),
        gates=gates,
        background=background,
        registry=registry,
        files=files,
        workers=pool,
    )


def _installing(held: HeldCertificate, pool: WorkerPool) -> Install:
    def install(chain: bytes, key: bytes) -> None:
        held.replace(chain, key)  # raises for a pair that no worker could serve
        pool.publish(CERTIFICATE_TOPIC, json.dumps([chain.decode(), key.decode()]).encode())

    return install


class _Sharing:
    """As `webhook.cluster.protocol.Sharing`."""

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool

    def share(self, templates: AcceptedTemplates) -> None:
        self._pool.publish(TOPIC, written(templates))

    def is_shared(self) -> bool:
        return self._pool.is_known(TOPIC)
