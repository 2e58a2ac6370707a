"""The ways in which people write a Service, and tools that look whether it differs from what is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.client import Object
from tests.cluster.commands import until_unchanged
from tests.cluster.controlplane import ControlPlane
from tests.cluster.knative import make_service, pod_of, revisions, settled
from tests.cluster.namespace import Namespace

Make = Callable[..., Namespace]

pytestmark = pytest.mark.usefixtures("knative", "morphisms")


def _service(here: Namespace, **container: Any) -> Object:
    service = make_service("web", here, command=["/app"], **container)
    service["metadata"]["annotations"] = {"morphisms.dev/secret-tls": "~/tls#certificate"}
    return service


def test_server_side_apply_of_the_unchanged_service_changes_nothing(cluster: ControlPlane, namespace: Make) -> None:
    here, developer = namespace("enforce"), cluster.user("dev")
    developer.kubectl("apply", "--server-side", "-f", "-", input=_service(here))
    first = settled(here, "web")
    assert first["spec"]["template"]["metadata"]["annotations"] == {"morphisms.dev/secret-tls": "~/tls#certificate"}
    developer.kubectl("apply", "--server-side", "-f", "-", input=_service(here))
    again = settled(here, "web")
    assert again["spec"] == first["spec"]
    assert again["metadata"]["generation"] == 1
    assert revisions(here) == ["web-00001"]
    # Nor do its fields change hands: another manager's apply would conflict otherwise.
    (ours,) = (entry for entry in again["metadata"]["managedFields"] if entry["manager"] == "kubectl")
    assert "f:annotations" not in str(ours["fieldsV1"]["f:spec"])


@pytest.mark.parametrize("options", [(), ("--server-side",)])
def test_diff_of_the_unchanged_service_is_quiet_and_of_a_changed_one_shows_that_change(
    cluster: ControlPlane, namespace: Make, options: tuple[str, ...]
) -> None:
    here, developer = namespace("enforce"), cluster.user("dev")
    developer.kubectl("apply", *options, "-f", "-", input=_service(here))
    settled(here, "web")
    until_unchanged(developer, *options, "-f", "-", input=_service(here))
    other = developer.kubectl("diff", *options, "-f", "-", input=_service(here, args=["--fast"]), check=False)
    assert other.code == 1
    changes = [line[1:].strip() for line in other.out.splitlines() if line.startswith(("+ ", "- "))]
    assert "morphisms" not in "".join(changes)
    assert any("--fast" in change for change in changes)


def test_dry_run_shows_the_service_with_its_annotations_copied_and_leaves_nothing(
    cluster: ControlPlane, namespace: Make
) -> None:
    here, developer = namespace("enforce"), cluster.user("dev")
    done = developer.kubectl(
        "apply",
        "--dry-run=server",
        "-o=jsonpath={.spec.template.metadata.annotations}",
        "-f",
        "-",
        input=_service(here),
    )
    assert done.out == '{"morphisms.dev/secret-tls":"~/tls#certificate"}'
    refused = make_service("web", here, env={"DB_PASSWORD": "hunter2-hunter2-Xx9"})
    done = developer.kubectl("apply", "--dry-run=server", "-f", "-", input=refused, check=False)
    assert done.code == 1
    assert "secrets/plaintext-env" in done.err
    assert cluster.admin.items(here.services()) == []


def test_edit_makes_one_revision_and_keeps_the_copied_annotations(
    cluster: ControlPlane, namespace: Make, tmp_path: Path
) -> None:
    here, developer = namespace("enforce"), cluster.user("dev")
    developer.apply(_service(here))
    settled(here, "web")
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i "s/timeoutSeconds: 300/timeoutSeconds: 200/" "$1"\n')
    editor.chmod(0o700)
    developer.kubectl("edit", "ksvc", "web", "--namespace", here.name, KUBE_EDITOR=str(editor))
    edited = settled(here, "web")["spec"]["template"]
    assert edited["spec"]["timeoutSeconds"] == 200
    assert edited["metadata"]["annotations"] == {"morphisms.dev/secret-tls": "~/tls#certificate"}
    assert revisions(here) == ["web-00001", "web-00002"]
    assert pod_of(here, "web-00002")["spec"]["runtimeClassName"] == "kata-qemu-snp"


def test_an_annotation_added_to_the_service_alone_waits_for_the_next_revision(
    cluster: ControlPlane, namespace: Make
) -> None:
    here, developer = namespace("inject"), cluster.user("dev")
    developer.apply(make_service("web", here, command=["/app"]))
    settled(here, "web")
    done = developer.apply(_service(here))
    assert any("next Revision" in warning for warning in done.warnings)
    settled(here, "web")
    assert revisions(here) == ["web-00001"]
    developer.apply(_service(here, args=["--fast"]))
    template = settled(here, "web")["spec"]["template"]
    assert template["metadata"]["annotations"] == {"morphisms.dev/secret-tls": "~/tls#certificate"}
    assert revisions(here) == ["web-00001", "web-00002"]


def test_what_knative_refuses_stays_refused_by_knative(cluster: ControlPlane, namespace: Make) -> None:
    for mode in (None, "enforce"):
        here = namespace(mode)
        service = _service(here)
        service["spec"]["template"]["spec"]["nodeSelector"] = {"disk": "fast"}
        done = cluster.user("dev").kubectl("apply", "-f", "-", input=service, check=False)
        assert done.code == 1
        assert 'webhook "validation.webhook.serving.knative.dev" denied the request' in done.err
        assert cluster.admin.items(here.services()) == []
