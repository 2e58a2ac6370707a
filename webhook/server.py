"""The admission server: HTTP around `decide`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from certs.identity import Identity
from certs.serving import Install
from server import logs
from server.health import Check, Gate
from server.limits import LAME_DUCK_SECONDS, Limits
from server.messages import Handler, RequestInfo, Response
from server.metrics import new_registry
from server.service import Address, Application, Background
from server.tls import CertificateFiles, HeldCertificate
from server.watched import FileMetrics, Watched
from server.workers.link import ParentLink
from webhook.cluster.protocol import Cluster, Sharing, TemplatesInForce
from webhook.cluster.replica import Replica
from webhook.cluster.shared_templates import TOPIC, ReceivedTemplates
from webhook.configuration.model import Configuration
from webhook.configuration_file import watched_configuration, without_effect
from webhook.decide import PATHS, decide, lookup
from webhook.decision import Decision, refuse
from webhook.errors import ReviewError
from webhook.metrics import AdmissionMetrics
from webhook.request import Request
from webhook.review import read_review, write_review
from webhook.snapshot import WorkloadsLookup
from webhook.workload_name import workload_name

if TYPE_CHECKING:
    from certs.controller import CertificateController
    from webhook.cluster.templates import Templates

# Below every timeout of the registration (2 s in audit mode, 5 s elsewhere), so that the API server gets an answer.
LIMITS = Limits(deadline_seconds=1.8)

CERTIFICATE_TOPIC = "certificate"
"""The pair to serve, from a parent to its workers: a JSON list of chain and key."""


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """The command line's settings.

    `certificate`: files, or this replica's identity where the replicas keep a CA of their own. `replica`: which one of
    several it is, that share their container templates; None for one by itself. `workers`: the processes that answer;
    one of them is the server itself.
    """

    listen: Address
    certificate: CertificateFiles | Identity
    metrics_listen: Address | None = None
    configuration: Path | None = None
    lame_duck_seconds: float = LAME_DUCK_SECONDS
    kubeconfig: str | None = None
    replica: Replica | None = None
    workers: int = 1


def make_application(
    settings: WebhookSettings, make_cluster: Callable[[Configuration], Cluster], parent: ParentLink | None = None
) -> Application:
    """The admission server as `server.service.run` takes it. Raises ConfigurationError.

    `parent`: the process whose worker this is; it keeps the certificates and the container templates.
    """
    registry = new_registry()
    files = FileMetrics(registry)
    background: list[Background] = []
    # `admission` is made below, from what is loaded here.
    watched = watched_configuration(settings.configuration, files, lambda new: admission.reconfigure(new))  # noqa: PLW0108
    if watched is not None:
        background.append(watched.watch)
    current = configuration_of(watched)
    if parent is None:
        warn_of_image(current())
    cluster = make_cluster(current())
    metrics = AdmissionMetrics(registry, lambda: cluster.current().age_seconds or 0.0)
    gates: dict[str, Check] = {"cluster": cluster.problem}
    background.append(cluster.run)
    templates: Templates | ReceivedTemplates | None = None
    if settings.replica is not None and parent is not None:
        templates = ReceivedTemplates()
        parent.on_topic(TOPIC, templates.take)
        gates["templates"] = templates.problem
    elif settings.replica is not None:
        templates = templates_of(settings, settings.replica, current, registry)
        background.append(templates.run)
        gates["templates"] = templates.problem
    admission = Admission(current, cluster, metrics, templates)
    certificate: CertificateFiles | HeldCertificate
    if isinstance(settings.certificate, Identity):
        certificate = HeldCertificate()
        if parent is not None:
            gates["certificate"] = _receive(certificate, parent)
        else:
            controller = controller_of(settings, settings.certificate, certificate.replace, current, registry)
            background.append(controller.run)
            gates["certificate"] = controller.problem
    else:
        certificate = settings.certificate
    return Application(
        routes={("POST", path): admission.handler(path) for path in PATHS},
        certificate=certificate,
        listen=settings.listen,
        metrics_listen=settings.metrics_listen if parent is None else None,
        limits=limits_of(settings),
        gates=gates,
        background=background,
        registry=registry,
        files=files,
        parent=parent,
    )


def configuration_of(watched: Watched[Configuration] | None) -> Callable[[], Configuration]:
    """The newest configuration of a watched file, or the documented defaults."""
    default = Configuration()
    return lambda: default if watched is None else watched.value


def limits_of(settings: WebhookSettings) -> Limits:
    """The bounds of the admission server."""
    return replace(LIMITS, lame_duck_seconds=settings.lame_duck_seconds)


def warn_of_image(configuration: Configuration) -> None:
    """Log advice when the sidecar's image may change under its tag."""
    if "@sha256:" not in configuration.sidecar.image:
        logs.warning("sidecar_image_not_pinned", advice="pin sidecar.image by digest; Knative does not resolve it")


def _receive(certificate: HeldCertificate, parent: ParentLink) -> Check:
    """Let the parent's pairs be served. Returns the gate that opens with the first one."""
    gate = Gate("not received yet")

    def take(content: bytes) -> None:
        chain, key = json.loads(content)
        certificate.replace(chain.encode(), key.encode())
        gate.open()

    parent.on_topic(CERTIFICATE_TOPIC, take)
    return gate


def controller_of(
    settings: WebhookSettings,
    identity: Identity,
    install: Install,
    current: Callable[[], Configuration],
    registry: CollectorRegistry,
) -> CertificateController:
    """What keeps the replica's certificates, and gives each pair to serve to `install`."""
    from certs.controller import CertificateController  # imports a Kubernetes client
    from server.kubernetes.connect import connect

    return CertificateController(
        identity,
        connect=lambda: connect(settings.kubeconfig),
        install=install,
        periods=lambda: current().certificates.periods,
        registry=registry,
    )


def templates_of(
    settings: WebhookSettings,
    replica: Replica,
    current: Callable[[], Configuration],
    registry: CollectorRegistry,
    sharing: Sharing | None = None,
) -> Templates:
    """The replica's container templates; `sharing` where workers use them."""
    from server.kubernetes.connect import connect  # imports a Kubernetes client
    from webhook.cluster.templates import Templates

    return Templates(
        replica,
        connect=lambda: connect(settings.kubeconfig),
        configuration=current,
        registry=registry,
        sharing=sharing,
    )


class Admission:
    """Answers AdmissionReviews, one handler per path."""

    def __init__(
        self,
        configuration: Callable[[], Configuration],
        cluster: Cluster,
        metrics: AdmissionMetrics,
        templates: TemplatesInForce | None = None,
    ) -> None:
        self._templates = templates
        self._configuration = configuration
        self._cluster = cluster
        self._metrics = metrics
        self._report(configuration())

    def handler(self, path: str) -> Handler:
        """The handler of one admission path."""
        family = PATHS[path].family  # the mode is a label of its own

        async def answer(body: bytes, _info: RequestInfo) -> Response:
            try:
                request = read_review(body, path)
            except ReviewError as error:
                logs.warning("unusable_review", path=path, problem=str(error))
                return unusable(error)
            logs.set_correlation_id(request.uid)
            decision = await self._decide(request)
            self._metrics.decided(family, decision)
            _log(request, decision)
            return Response(200, write_review(request.uid, decision))

        return answer

    def reconfigure(self, configuration: Configuration) -> None:
        """Take a reloaded configuration into use."""
        self._report(configuration)
        self._cluster.configured(configuration)
        if self._templates is not None:
            self._templates.configured()

    def _report(self, configuration: Configuration) -> None:
        self._metrics.configured(configuration.digest, configuration.exceptions)
        for problem in without_effect(configuration, datetime.now(UTC)):
            logs.warning("exception_expired", problem=problem)

    async def _decide(self, request: Request) -> Decision:
        configuration = self._configuration()
        snapshot = self._cluster.current()
        if self._templates is not None:
            snapshot = snapshot.with_templates(self._templates.current())
        wanted = lookup(request, configuration, snapshot)
        if wanted is None:
            return decide(request, configuration, snapshot)
        snapshot = snapshot.with_fetched(await self._cluster.look_up(wanted))
        if isinstance(wanted, WorkloadsLookup):
            # Hundreds of pods are evaluated; other requests get their turns between.
            return await asyncio.to_thread(decide, request, configuration, snapshot)
        return decide(request, configuration, snapshot)


def unusable(error: ReviewError) -> Response:
    """The answer to a body that is not an AdmissionReview: a denial where it has a uid, else HTTP 400."""
    if error.uid is None:
        return Response(400, json.dumps({"message": str(error)}).encode())
    return Response(200, write_review(error.uid, refuse(str(error), 400, "BadRequest")))


def _log(request: Request, decision: Decision) -> None:
    """Log one line per denial or violation; plain mutations are in the API server's audit annotations.

    The line has rule ids and names only: messages are long, and the denied user sees them. A controller's pod has no
    name yet; `owner` and `generate_name` say whose it is.
    """
    if decision.allowed and not decision.violations and not decision.covered:
        return
    workload = workload_name(request)
    logs.info(
        "decision",
        path=request.path,
        kind=request.kind[2],
        operation=request.operation,
        namespace=request.namespace,
        name=request.name or workload.name,
        generate_name=workload.generate_name,
        owner=workload.owner,
        dry_run=request.dry_run,
        mode=decision.mode,
        decision=decision.outcome,
        reason=decision.reason,
        rules=list(dict.fromkeys(violation.rule.id for violation in decision.violations)),
        excepted=list(dict.fromkeys(each.violation.rule.id for each in decision.covered)),
    )
