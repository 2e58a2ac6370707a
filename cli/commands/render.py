"""`morphisms render`: the pod that the cluster would run for a Knative Service, as far as it is known offline."""

from __future__ import annotations

import argparse
import sys
from typing import Any, Final

from cli.registry.errors import RegistryError
from cli.registry.process import write_process
from cli.rendering import command, image_options
from cli.rendering.images import ImageSource
from cli.support.admission import Admission
from cli.support.knative import containers_needing_entrypoint, pod_of_service
from cli.support.manifests import (
    Manifest,
    add_namespace,
    guessed_namespace,
    load_configuration,
    manifests_of,
    read_bytes,
)
from cli.support.terminal import say
from measured.initdata import Initdata, InitdataError, parse_initdata, write_initdata
from server.files import UnusableInputError
from server.text import printable
from server.yaml.kubernetes import read_documents, write_documents
from webhook.configuration.model import Configuration
from webhook.errors import MalformedError
from webhook.pod.container import Container
from webhook.pod.workloads import knative_kind
from webhook.request import User
from webhook.wellknown import INITDATA

HELP = "print the pod that the cluster would run for a Knative Service"
# A measured plan is the author's; one that is not measured is what the webhook writes on the day.
_UNMEASURED_DEMAND = (
    "note: these pods demand that the verifier proves itself first (verifier.attest). Without --initdata the plan is"
    " the webhook's word: that protects against third parties on the way, never against the control plane"
)
EXAMPLE = "morphisms render -f service.yaml --entrypoint /app/server --initdata initdata.toml"
DESCRIPTION = """\
Prints the pod of each Knative Service in the file, injected, as far as it is known offline. What Knative's controller
adds from the cluster's own settings is not invented: queue-proxy, the K_* and PORT variables, probes, defaults.

--entrypoint is the command of the containers that take Vault references as environment and name none; without
it, the entrypoint of their image is looked up by digest. A word that starts with a dash is written --entrypoint=-jar.
--initdata adds the measured document to the pod and prints its HOST_DATA on stderr, as a policy of assurance workload
names it. Such a pod is complete: injection changes nothing of it. Knative itself cannot be handed one yet: its Services
take no init containers unless the cluster's config-features say so, and only its controllers may make its pods.

With --cluster it writes a measured Service, its guest policy and the verifier's record into a folder.
Exit codes: 0 printed or written, 1 a Service is refused (and not printed), 2 unusable input (nothing is printed), 3 a
registry does not answer (with --cluster)."""

_DENIED, _UNUSABLE = 1, 2
# Knative's Deployments come to pods by way of a ReplicaSet.
_CREATOR: Final = User("system:serviceaccount:kube-system:replicaset-controller", ("system:authenticated",))

_NOT_INJECTED: Final = {
    "cannot-inject": "the pod cannot be injected, for the reasons above",
    "opted-out": 'the Service opts out of injection (inject: "false")',
}


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.description = DESCRIPTION
    add_namespace(parser)
    parser.add_argument("--config", metavar="FILE", help="configuration; without it the documented defaults")
    parser.add_argument("-f", "--file", required=True, metavar="FILE|-", help="YAML or JSON; - is stdin")
    parser.add_argument(
        "--entrypoint",
        nargs="+",
        action="extend",
        default=[],
        metavar="CMD",
        help="command of the containers that need one and have none",
    )
    parser.add_argument("--initdata", metavar="FILE", help="raw TOML of the initdata document")
    image_options.configure(parser)
    command.configure(parser)


def run(arguments: argparse.Namespace) -> int:
    """Render every Service, then print: unusable input prints nothing."""
    try:
        if arguments.cluster is not None:
            return command.run(arguments)
        if arguments.output is not None or arguments.check is not None:
            raise UnusableInputError("-o and --check need --cluster")
        configuration = load_configuration(arguments.config)
        services = _services(arguments.file, arguments.namespace)
        initdata = None if arguments.initdata is None else _initdata(arguments.initdata, services)
        renderer = _Renderer(configuration, arguments.entrypoint, initdata, image_options.image_source(arguments))
        pods = [pod for service in services if (pod := renderer.pod(service)) is not None]
    except UnusableInputError as error:
        say(f"morphisms render: {error}")
        return _UNUSABLE
    for line in renderer.messages:
        say(line)
    if configuration.verifier.attest is not None and initdata is None and pods:
        say(_UNMEASURED_DEMAND)
    if (guessed := guessed_namespace(services)) is not None:
        say(guessed)
    sys.stdout.write(write_documents(pods))
    return 0 if len(pods) == len(services) else _DENIED


def _services(path: str, namespace: str | None) -> list[Manifest]:
    manifests = [manifest for document in read_documents(path) for manifest in manifests_of(document, namespace)]
    services = [manifest for manifest in manifests if knative_kind(manifest.object) == "Service"]
    if not services:
        raise UnusableInputError(f"{path}: holds no Knative Service")
    return services


def _initdata(path: str, services: list[Manifest]) -> Initdata:
    if len(services) > 1:
        raise UnusableInputError("an initdata document names one pod's containers, but the file has several Services")
    try:
        return parse_initdata(read_bytes(path))
    except InitdataError as error:
        raise UnusableInputError(f"{path}: the initdata {error}") from None


class _Renderer:
    """Renders Services, and collects the messages about them."""

    def __init__(
        self, configuration: Configuration, entrypoint: list[str], initdata: Initdata | None, images: ImageSource
    ) -> None:
        self._configuration = configuration
        self._admission = Admission(configuration)
        self._entrypoint = entrypoint
        self._initdata = initdata
        self._images = images
        self.messages: list[str] = []

    def pod(self, manifest: Manifest) -> dict[str, Any] | None:
        """The pod of one Service; None where it is refused. Raises UnusableInputError."""
        where = f"{manifest.source}: {manifest.title}"
        try:
            service = self._admission.copied_down(manifest.object, manifest.namespace)
            pod = pod_of_service(service, manifest.namespace)
            self._fill_commands(pod, manifest.namespace, where)
            if self._initdata is not None:
                (pod["metadata"].get("annotations") or {}).pop(INITDATA, None)
            admitted = self._admission.pod(pod, manifest.namespace, _CREATOR)
        except MalformedError as error:
            raise manifest.unusable(error) from None
        self.messages += [f"{where}: warning: {warning}" for warning in admitted.warnings]
        if admitted.denial is not None:
            self.messages.append(f"{where}: refused: {admitted.denial}")
            return None
        if admitted.reason in _NOT_INJECTED:
            # In mode inject the cluster would run it as it is; a render of that would pass for confidential.
            self.messages.append(f"{where}: refused: {_NOT_INJECTED[admitted.reason]}")
            return None
        if self._initdata is None:
            return admitted.object
        return self._measured(admitted.object, self._initdata, manifest.namespace, where)

    def _fill_commands(self, pod: dict[str, Any], namespace: str, where: str) -> None:
        """Give the entrypoint to the containers that need one; the pod is ours to change."""
        takers = containers_needing_entrypoint(pod, namespace, self._configuration)
        if not self._entrypoint:
            for container in takers:
                self._look_up(container, where)
            return
        for container in takers:
            container.object["command"] = list(self._entrypoint)
        names = ", ".join(printable(container.name) for container in takers)
        self.messages.append(f"{where}: entrypoint set in {names}" if names else f"{where}: no entrypoint is needed")

    def _look_up(self, container: Container, where: str) -> None:
        """Write the process of the container's image into it, or say why it is not known: admission then refuses."""
        own, name = container.object, printable(container.name)
        try:
            image = self._images.find(str(own.get("image", "")))
        except RegistryError as error:
            self.messages.append(f"{where}: the image of {name}: {error}")
            return
        if image is not None and write_process(own, image):
            self.messages.append(f"{where}: entrypoint of its image set in {name}")

    def _measured(self, pod: dict[str, Any], initdata: Initdata, namespace: str, where: str) -> dict[str, Any] | None:
        """The pod with the initdata, once admission has agreed to leave it as it is."""
        metadata = pod["metadata"]
        annotations = {**(metadata.get("annotations") or {}), INITDATA: write_initdata(initdata.toml)}
        pod = {**pod, "metadata": {**metadata, "annotations": annotations}}
        again = self._admission.pod(pod, namespace, _CREATOR)
        if again.denial is not None or again.changed:
            self.messages.append(f"{where}: refused: {again.denial or 'injection would still change the pod'}")
            return None
        self.messages.append(f"HOST_DATA {initdata.host_data.hex()}")
        return pod
