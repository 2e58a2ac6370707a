"""`morphisms inject`: reads Kubernetes YAML and prints the objects as the cluster would run them."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from typing import Any

from cli.support.admission import AUTHOR, Admission, Admitted
from cli.support.diff import redacted_diff
from cli.support.manifests import (
    Manifest,
    add_namespace,
    guessed_namespace,
    load_configuration,
    load_snapshot,
    manifests_of,
    unlisted_namespaces,
)
from cli.support.terminal import say, wants_colour
from server.files import UnusableInputError
from server.yaml.kubernetes import STDIN, Document, list_items, read_documents, write_documents
from webhook.errors import MalformedError
from webhook.pod.workloads import (
    knative_kind,
    template_at,
    with_owner,
    with_template,
    without_owner,
    workload_of,
)
from webhook.request import User
from webhook.rules import POD

HELP = "print manifests as the cluster would run them: injected, or refused with the reason"
EXAMPLE = "morphisms inject -f service.yaml --diff"
DESCRIPTION = """\
Reads Kubernetes YAML and prints it as admission would leave it. Pods are rewritten; of Deployments, StatefulSets,
DaemonSets, ReplicaSets, Jobs and CronJobs the pod template; of a Knative Service the Service as admitted (see `render`
for its pod). Everything else passes unchanged, comments aside. What the author wrote is printed as it is, with --diff
every value of the author's is hidden.

Without --snapshot the namespace's mode is taken for `inject`, and what depends on the cluster is not evaluated.
Exit codes: 0 printed, 1 an object is refused (and not printed), 2 unusable input (nothing is printed)."""

_DENIED, _UNUSABLE = 1, 2


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.description = DESCRIPTION
    add_namespace(parser)
    parser.add_argument("--config", metavar="FILE", help="configuration; without it the documented defaults")
    parser.add_argument(
        "--snapshot", metavar="FILE", help="a List of namespaces, nodes, RuntimeClasses; the namespace's mode counts"
    )
    parser.add_argument("-f", "--file", default=STDIN, metavar="FILE|-", help="YAML or JSON; - is stdin, the default")
    parser.add_argument("--diff", action="store_true", help="print what changes, values hidden, instead of the result")


def run(arguments: argparse.Namespace) -> int:
    """Admit every object, then print: unusable input prints nothing."""
    try:
        configuration, snapshot = load_configuration(arguments.config), load_snapshot(arguments.snapshot)
        injector = _Injector(Admission(configuration, snapshot), arguments.namespace)
        results = [(document, injector.document(document)) for document in read_documents(arguments.file)]
    except UnusableInputError as error:
        say(f"morphisms inject: {error}")
        return _UNUSABLE
    for line in injector.messages:
        say(line)
    if (guessed := guessed_namespace(injector.checked)) is not None:
        say(guessed)
    if (unlisted := unlisted_namespaces(injector.checked, snapshot)) is not None:
        say(unlisted)
    if snapshot is None:
        say(f"checked as in mode inject; not evaluated: {', '.join(rule.id for rule in POD if rule.needs_cluster)}")
    if arguments.diff:
        colour = wants_colour(sys.stdout)
        for title, before, after in injector.admitted:
            sys.stdout.write(redacted_diff(title, before, after, configuration, colour=colour))
    else:
        sys.stdout.write(write_documents([result for _, result in results if result is not None]))
    return _DENIED if injector.denied else 0


class _Injector:
    """Admits documents, and collects the messages about them."""

    def __init__(self, admission: Admission, namespace: str | None) -> None:
        self._admission = admission
        self._namespace = namespace
        self.checked: list[Manifest] = []
        self.messages: list[str] = []
        self.admitted: list[tuple[str, dict[str, Any], dict[str, Any]]] = []
        self.denied = False

    def document(self, document: Document) -> dict[str, Any] | None:
        """The document as admitted; None where it is refused. A refused item of a List is left out of it."""
        results = [
            result for each in manifests_of(document, self._namespace) if (result := self._manifest(each)) is not None
        ]
        if list_items(document.object) is not None:
            return {**document.object, "items": results}
        return results[0] if results else None

    def _manifest(self, manifest: Manifest) -> dict[str, Any] | None:
        try:
            admitted = self._admit(manifest)
        except MalformedError as error:
            raise manifest.unusable(error) from None
        if admitted is None:
            return manifest.object
        self.checked.append(manifest)
        where = f"{manifest.source}: {manifest.title}"
        self.messages += [f"{where}: warning: {warning}" for warning in admitted.warnings]
        if admitted.denial is not None:
            self.denied = True
            self.messages.append(f"{where}: refused: {admitted.denial}")
            return None
        self.messages.append(f"{where}: {'changed' if admitted.changed else 'unchanged'} ({admitted.reason})")
        if manifest.kind == "Service":
            self.messages.append(f"{where}: its pods are rewritten when Knative makes them; see: morphisms render")
        self.admitted.append((manifest.title, manifest.object, admitted.object))
        return admitted.object

    def _admit(self, manifest: Manifest) -> Admitted | None:
        """The object as admitted; None for a kind that admission leaves alone."""
        item, namespace = manifest.object, manifest.namespace
        kind = knative_kind(item)
        if kind == "Service":
            return self._admission.service(item, namespace)
        if kind is not None:
            return self._admission.written_by_people(item, namespace, kind)
        workload = workload_of(item)
        if workload is None:
            return None
        template = template_at(item, workload.template)
        if template is None:
            raise MalformedError(f"object.{'.'.join(workload.template)}: not an object")
        user = AUTHOR if workload.creator is None else User(workload.creator, AUTHOR.groups)
        owned = with_owner(item, template)
        admitted = self._admission.pod(owned, namespace, user)
        result = admitted.object if owned is template else without_owner(admitted.object, template)
        return replace(admitted, object=with_template(item, workload.template, result))
