"""What all of it is for: a Service applied with kubectl runs confidentially or not at all, and the cluster's store
never sees its secrets."""

from __future__ import annotations

import secrets
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from cli.main import main
from sidecar.reasons import Exit
from tests.cluster.attacks import SIDECAR
from tests.cluster.client import Client, Object
from tests.cluster.controlplane import ControlPlane
from tests.cluster.etcd import holds
from tests.cluster.installation import Installation
from tests.cluster.keyserver import KeyServer, key_server
from tests.cluster.knative import Knative, make_service, pod_of, revisions, settled
from tests.cluster.namespace import Namespace
from tests.cluster.rendered import SERVICE, capture, write_inputs
from tests.e2e.forwarder import Forwarder, forwarder
from tests.support import packages
from tests.support.simulated_machine import simulated_machine
from tests.support.until import until

Make = Callable[..., Namespace]


@pytest.fixture(scope="module")
def keys(cluster: ControlPlane) -> Iterator[KeyServer]:
    packages.require_c_compiler()
    with key_server(cluster, cluster.folder / "keyserver") as running:
        yield running


@pytest.fixture
def shop(morphisms: Installation, keys: KeyServer, namespace: Make) -> Iterator[Namespace]:
    """An enforced namespace whose Service `payments` may have its secrets."""
    here = namespace("enforce")
    keys.trust(here.name, "payments")
    before = morphisms.configuration()
    morphisms.configure(keys.configuration(here.name))
    yield here
    morphisms.configure(before)


def _service(here: Namespace) -> Object:
    service = make_service(
        "payments",
        here,
        env={"DB_PASSWORD": "vault:~/db#password", "LOG_LEVEL": "info"},
        command=["/app/payments"],
        args=["--port", "8080"],
    )
    # On the Service's own metadata, whose copy must not make a Revision of its own later.
    service["metadata"]["annotations"] = {"morphisms.dev/secret-tls": "~/tls#certificate"}
    return service


def test_a_service_is_confidential_on_apply_and_its_secrets_pass_the_api_server_by(
    cluster: ControlPlane, knative: Knative, keys: KeyServer, shop: Namespace
) -> None:
    mark = cluster.audit.mark()
    canary = {name: secrets.token_hex(16) for name in ("password", "certificate")}
    keys.write(shop.name, "payments", "db", password=canary["password"])
    keys.write(shop.name, "payments", "tls", certificate=canary["certificate"])
    developer = cluster.user("dev")
    developer.apply(_service(shop))
    pod = pod_of(shop, "payments")
    _is_rewritten(pod)
    assert pod["spec"]["nodeName"] in {"snp-0", "snp-1"}

    ended = keys.start(pod)
    assert ended.code == 0, ended.said
    assert ended.file("tls") == canary["certificate"]
    assert ended.variables("user-container") == {"DB_PASSWORD": canary["password"]}

    # All that the cluster keeps: each key, each file on etcd's disk, and the log of every request and answer.
    keys_read = 0
    for key, value in cluster.etcd.everything():
        keys_read += 1
        assert not any(holds(value, secret) for secret in canary.values()), key
    assert keys_read > 300
    assert b"vault:~/db#password" in cluster.etcd.value(f"/registry/serving.knative.dev/services/{shop.name}/payments")
    for path, content in cluster.etcd.files():
        assert not any(holds(content, secret) for secret in canary.values()), path.name
    until(lambda: pod["metadata"]["uid"].encode() in cluster.audit.content(mark))  # the log does hold this pod
    log = cluster.audit.content(mark)
    assert not any(holds(log, secret) for secret in canary.values())


def _is_rewritten(pod: Object) -> None:
    spec = pod["spec"]
    assert spec["runtimeClassName"] == "kata-qemu-snp"
    assert spec["overhead"] == {"cpu": "1", "memory": "2Gi"}, "the RuntimeClass plug-in ran once more after us"
    terms = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    wanted = {"key": "amd.feature.node.kubernetes.io/snp", "operator": "In", "values": ["true"]}
    assert all(wanted in term["matchExpressions"] for term in terms)
    assert [container["name"] for container in spec["initContainers"]] == ["morphisms-init"]
    application, queue = spec["containers"]
    assert application["command"] == [
        "/morphisms/run/exec",
        "user-container",
        "--",
        "/app/payments",
        "--port",
        "8080",
    ]
    assert "args" not in application
    assert "DB_PASSWORD" not in {entry["name"] for entry in application["env"]}
    assert {"name": "LOG_LEVEL", "value": "info"} in application["env"]
    assert queue["name"] == "queue-proxy"
    assert not any("morphisms" in mount["name"] for mount in queue.get("volumeMounts", ()))
    assert pod["metadata"]["annotations"]["morphisms.dev/status"]


@pytest.fixture
def machine(morphisms: Installation, keys: KeyServer) -> Iterator[Forwarder]:
    """Where the default profile's guests get their reports: which machine that is, each test says."""
    before = morphisms.configuration()
    with forwarder() as address:
        settings = keys.configuration()
        source = {"source": "simulated", "address": f"http://127.0.0.1:{address.port}"}
        settings["profiles"][0] |= {"name": "kata-snp", "evidence": [source]}
        morphisms.configure({**settings, "sidecar": {**settings["sidecar"], "image": SIDECAR}})
        morphisms.wait_for_sidecar()
        yield address
        morphisms.configure(before)


def test_a_rendered_service_gets_its_secrets_in_the_guest_of_its_document_and_in_no_other(
    cluster: ControlPlane, knative: Knative, keys: KeyServer, machine: Forwarder, namespace: Make, tmp_path: Path
) -> None:
    here, canary = namespace("enforce"), secrets.token_hex(16)
    keys.write(here.name, "payments", "db", password=canary)
    keys.write(here.name, "payments", "tls", certificate=canary)
    options = write_inputs(tmp_path, capture(cluster))
    trust = yaml.safe_load((tmp_path / "trust.yaml").read_text())
    trust |= {"guests": ["simulated"], "vault": {"mount": "jwt-prod", "role": "knative"}}
    (tmp_path / "trust.yaml").write_text(yaml.safe_dump(trust))
    (tmp_path / "service.yaml").write_text(SERVICE)
    options += ["-f", str(tmp_path / "service.yaml"), "-o", str(tmp_path / "out")]
    assert main(["render", "-n", here.name, *options]) == 0
    cluster.user("dev").kubectl("-n", here.name, "apply", "-f", tmp_path / "out" / "service.yaml")
    service = yaml.safe_load((tmp_path / "out" / "service.yaml").read_text())
    pod = pod_of(here, service["spec"]["template"]["metadata"]["name"])

    record = yaml.safe_load((tmp_path / "out" / "appraisal.yaml").read_text())
    before = len(keys.judge.events("file_reloaded"))
    keys.judge.site.write_policy("payments", record)
    until(lambda: len(keys.judge.events("file_reloaded")) > before)
    own = bytes.fromhex(record["hostData"][0])
    for host_data, code in ((own, Exit.PUBLISHED), (bytes(reversed(own)), Exit.VERIFIER_REFUSED)):
        with simulated_machine(keys.judge.site.hierarchy, host_data) as address:
            machine.targets[:] = [int(address.rpartition(":")[2])]
            ended = keys.start(pod)
        assert ended.code == code, ended.said
        if code == Exit.PUBLISHED:
            assert ended.file("tls") == canary
            assert ended.variables("user-container") == {"DB_PASSWORD": canary}
        else:
            assert not [each for each in ended.folder.rglob("*") if each.is_file() and canary in each.read_text()]
        shutil.rmtree(ended.folder)


def test_without_us_the_same_secret_is_all_over_the_store(
    cluster: ControlPlane, knative: Knative, namespace: Make
) -> None:
    """So the search above can find: a plain value lies in every object on the way to the pod, and in the log."""
    here, mark = namespace(), cluster.audit.mark()
    canary = secrets.token_hex(16)
    cluster.user("dev").apply(make_service("plain", here, env={"DB_PASSWORD": canary}))
    pod_of(here, "plain")
    found = {key.split("/")[2] for key, value in cluster.etcd.everything() if holds(value, canary)}
    assert found == {"serving.knative.dev", "deployments", "replicasets", "pods"}
    assert any(holds(content, canary) for _, content in cluster.etcd.files())
    until(lambda: holds(cluster.audit.content(mark), canary))


def test_a_pod_of_it_goes_nowhere_else(cluster: ControlPlane, knative: Knative, shop: Namespace) -> None:
    scheduler = cluster.processes["kube-scheduler"]
    scheduler.signal(signal.SIGSTOP)  # so that there is a pod to bind
    try:
        cluster.user("dev").apply(_service(shop))
        name = pod_of(shop, "payments", bound=False)["metadata"]["name"]
        by = cluster.user("system:kube-scheduler")
        refusal = by.request("POST", shop.pods(f"{name}/binding"), _binding(name, "plain-0"))
        assert (refusal.status, refusal.body["reason"]) == (403, "Forbidden"), refusal.message
        assert "placement/binding" in refusal.message
        assert cluster.admin.get(shop.pods(name))["spec"].get("nodeName") is None
        assert by.request("POST", shop.pods(f"{name}/binding"), _binding(name, "snp-1")).status == 201
        assert cluster.admin.get(shop.pods(name))["spec"]["nodeName"] == "snp-1"
    finally:
        scheduler.signal(signal.SIGCONT)


def _binding(name: str, node: str) -> Object:
    target = {"apiVersion": "v1", "kind": "Node", "name": node}
    return {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}


def test_a_replace_of_the_unchanged_manifest_makes_no_revision(
    cluster: ControlPlane, knative: Knative, shop: Namespace, namespace: Make
) -> None:
    developer = cluster.user("dev")
    # Without us Knative does the same.
    for here in (shop, namespace()):
        developer.apply(_service(here))
        first = settled(here, "payments")
        manifest = _service(here)
        # Knative refuses to lose these, so who replaces carries them; its defaults, and our copies, are left out.
        for key in ("serving.knative.dev/creator", "serving.knative.dev/lastModifier"):
            manifest["metadata"]["annotations"][key] = first["metadata"]["annotations"][key]
        for write in (_replace, Client.apply):
            write(developer, manifest)
            assert settled(here, "payments")["spec"] == first["spec"]
        assert revisions(here) == ["payments-00001"]
        manifest["spec"]["template"]["spec"]["containers"][0]["args"] = ["--port", "8081"]
        _replace(developer, manifest)
        settled(here, "payments")
        assert revisions(here) == ["payments-00001", "payments-00002"], "a changed one does"


def _replace(client: Client, manifest: Object) -> None:
    """kubectl replace; again when Knative wrote a status between its reading and its writing."""
    while (done := client.kubectl("replace", "-f", "-", input=manifest, check=False)).code != 0:
        assert "(Conflict)" in done.err, done.err
