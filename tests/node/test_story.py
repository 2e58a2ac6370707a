"""A Service that names secrets, on a kubelet and under stock Knative: it gets them, and nothing else on the node does.

Evidence is simulated, and the runtime class is plain runc.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.client import Object
from tests.cluster.etcd import forms, holds
from tests.node.services import RESTRICTED_NAMESPACE, digest, service
from tests.node.stack import Stack

pytestmark = pytest.mark.node

NAMESPACE = "shop"
# Neither occurs anywhere else.
PASSWORD = "canary-of-the-file-7d1f20c4a6"
TOKEN = "canary-of-the-variable-93be5518d0"
MARK = "plain-and-known-to-all-1f6a0b"


@pytest.fixture(scope="module")
def shop(stack: Stack) -> Stack:
    """A namespace in enforce, whose pods may be restricted ones only."""
    stack.namespace(NAMESPACE, {"morphisms.dev/mode": "enforce", **RESTRICTED_NAMESPACE})
    stack.morphisms.write_secret("knative/cluster/shop/payments/db", password=PASSWORD)
    stack.morphisms.write_secret("knative/cluster/shop/payments/api", token=TOKEN)
    return stack


@pytest.fixture(scope="module")
def payments(shop: Stack) -> Object:
    """Applied with kubectl; its first pod, ready."""
    applied = service(
        shop.application.pinned,
        f"{NAMESPACE}/payments",
        {"morphisms.dev/secret-db": "~/db#password", "example.dev/mark": MARK},
        command=["/application"],
        env={"FILES": "/morphisms/secrets/db", "API_TOKEN": "vault:~/api#token", "VARIABLES": "API_TOKEN"},
    )
    shop.admin.kubectl("apply", "-f", "-", input=yaml.safe_dump(applied))
    return shop.ready_pod(NAMESPACE, "payments")


def test_its_pod_is_ready_with_init_container_and_queue_proxy(shop: Stack, payments: Object) -> None:
    statuses = {status["name"]: status for status in payments["status"]["containerStatuses"]}
    assert set(statuses) == {"user-container", "queue-proxy"}
    assert all(status["ready"] for status in statuses.values())
    (init,) = payments["status"]["initContainerStatuses"]
    assert init["name"] == "morphisms-init"
    assert init["state"]["terminated"]["exitCode"] == 0
    assert init["imageID"].endswith(payments["spec"]["initContainers"][0]["image"].partition("@")[2])
    assert payments["spec"]["runtimeClassName"] == "kata-qemu-snp"


def test_it_answers_from_zero_with_digests_of_its_secrets(shop: Stack, payments: Object) -> None:
    shop.gone(NAMESPACE, "payments")
    answer = shop.request(NAMESPACE, "payments-00001")
    assert answer.status == 200, answer.body
    assert answer.content["files"] == {"/morphisms/secrets/db": digest(PASSWORD)}
    assert answer.content["variables"] == {"API_TOKEN": digest(TOKEN)}
    assert answer.content["user"] == 65532


def test_its_secrets_are_nowhere_else_on_the_node(shop: Stack, payments: Object) -> None:
    answer = shop.request(NAMESPACE, "payments-00001")
    assert answer.status == 200
    etcd, audit = shop.cluster.control_plane.etcd, shop.cluster.control_plane.audit
    with shop.busy(NAMESPACE, "payments-00001"):
        places: dict[str, bytes] = {f"etcd {key}": value for key, value in etcd.everything()}
        places |= {f"etcd's file {path.name}": content for path, content in etcd.files()}
        places["audit log"] = audit.content()
        places |= {f"OCI spec {path.parent.name}": text for path, text in shop.specifications()}
        processes = dict(_processes(shop))
    for secret in (PASSWORD, TOKEN):
        assert [name for name, content in places.items() if holds(content, secret)] == []
        assert _on_disk(shop, secret) == []
        assert [name for name, (_, command) in processes.items() if holds(command, secret)] == []
    # The application has the one that it asked for as a variable, and no other process has either.
    having = {name for name, (environment, _) in processes.items() for s in (PASSWORD, TOKEN) if holds(environment, s)}
    assert {name.partition(" ")[0] for name in having} == {"application"}
    # What is found where it is known to be shows that the search looks there.
    assert {"audit log"} < {name for name, content in places.items() if holds(content, MARK)}
    assert any(name.startswith("etcd /") for name, content in places.items() if holds(content, MARK))
    assert any("etcd" in path for path in _on_disk(shop, MARK))


def _processes(shop: Stack) -> Iterator[tuple[str, tuple[bytes, bytes]]]:
    """(name and id, (environment, command line)) of all processes on the node, the control plane's too."""
    for pid in shop.sandbox.cgroup.members():
        folder = Path(f"/proc/{pid}")
        try:
            name = (folder / "comm").read_text().strip()
            yield f"{name} {pid}", ((folder / "environ").read_bytes(), (folder / "cmdline").read_bytes())
        except (FileNotFoundError, ProcessLookupError):
            continue


def _on_disk(shop: Stack, secret: str) -> list[str]:
    """Files below the node's folder, where container logs, roots and volumes lie; memory volumes are not seen there."""
    patterns = b"\n".join(forms(secret))
    command = ["grep", "-rlaF", "-f", "-", "--exclude-dir=images", "--exclude-dir=io.containerd.content.v1.content"]
    found = subprocess.run([*command, str(shop.sandbox.folder)], input=patterns, capture_output=True, check=False)
    return found.stdout.decode().splitlines()
