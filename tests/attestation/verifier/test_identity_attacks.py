"""Attacks on who a guest is said to be, from the outside: a neighbour's pod, another cluster, old tokens, old keys."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from attestation.simulator.device import Device
from attestation.simulator.hierarchy import Hierarchy, open_hierarchy
from tests.attestation.verifier.process import Site, make_site, policy, verifier
from tests.attestation.verifier.test_pod_lookup import LIVE
from tests.attestation.verifier.test_refusals import Guest, inside
from tests.attestation.verifier.tokens import ISSUER, Issuer
from tests.support.until import until


@pytest.fixture
def site(tmp_path: Path, hierarchy: Hierarchy, issuer: Issuer) -> Site:
    """Its Vault is not there: these attacks end before a login."""
    return make_site(tmp_path, hierarchy, issuer, "http://127.0.0.1:1")


def test_a_neighbours_pod_of_account_default_is_not_taken_for_the_one_vm_workload(
    site: Site, device: Device, issuer: Issuer
) -> None:
    site.write_policy("payments", policy(assurance="vm", hostData=[]))
    with verifier(site) as running:
        answer = Guest(running.client(), device, issuer.token(pod="blog-00001-deployment-x")).attest()
        assert (answer.status, inside(running, answer)[0]) == (401, "no-policy")


def test_a_removed_record_is_withdrawn_while_another_ones_guest_is_broken(
    site: Site, device: Device, issuer: Issuer
) -> None:
    site.write_policy("payments", policy())
    with verifier(site) as running:
        client = running.client()
        assert Guest(client, device, issuer.token(uid="before")).attest().status == 200
        (site.folder / "guests" / "broken.yaml").write_text("other: {product: Pentium}")
        next((site.folder / "policies").rglob("payments.yaml")).unlink()
        until(lambda: Guest(client, device, issuer.token(uid=f"{time.time()}")).attest().status == 401)


def test_a_foreign_record_that_lists_our_digest_changes_nothing(site: Site, device: Device, issuer: Issuer) -> None:
    site.write_policy("payments", policy())
    with verifier(site) as running:
        client = running.client()
        site.write_policy("evil", policy("evil", account="evil", workload={"namespace": "evil"}))
        until(lambda: running.events("file_reloaded"))
        assert running.events("file_partly_loaded") == []
        assert Guest(client, device, issuer.token(uid="ours")).attest().status == 200


def test_a_cluster_that_lists_anothers_key_does_not_shut_it_out(site: Site, device: Device, issuer: Issuer) -> None:
    dev = Issuer("dev-1")
    dev.write_jwks(site.folder / "dev.jwks", issuer)
    prod = site.settings["clusters"][0]
    prod["audiences"] = ["morphisms-verifier/prod"]
    site.settings["clusters"].append(
        {"name": "dev", "issuer": ISSUER, "audiences": ["morphisms-verifier/dev"], "jwks": {"file": "dev.jwks"}}
    )
    site.write_policy("payments", policy())
    with verifier(site) as running:
        token = issuer.token(audience="morphisms-verifier/prod")
        assert Guest(running.client(), device, token).attest().status == 200
        (line,) = running.events("cluster_key_shared")
        assert set(line["clusters"]) == {"prod", "dev"}


def test_a_token_for_ten_years_is_refused(site: Site, device: Device, issuer: Issuer) -> None:
    site.write_policy("payments", policy())
    with verifier(site) as running:
        issued = int(time.time()) - 400 * 86400
        token = issuer.token(iat=issued, nbf=issued, exp=issued + 4000 * 86400)
        answer = Guest(running.client(), device, token).attest()
        assert (answer.status, inside(running, answer)[0]) == (401, "token-too-long")


def test_a_strangers_key_id_does_not_turn_a_new_key_into_a_refusal(site: Site, device: Device, issuer: Issuer) -> None:
    site.write_policy("payments", policy())
    with verifier(site) as running:
        client = running.client()
        assert Guest(client, device, issuer.token()).attest().status == 200
        assert Guest(client, device, Issuer("stranger").token()).attest().status == 503
        rotated = Issuer("prod-2")
        rotated.write_jwks(site.folder / "prod.jwks", issuer)
        answer = Guest(client, device, rotated.token(uid="rotated")).attest()
        # Unless so long has passed that the verifier has read the keys anew.
        assert answer.status == 200 or (answer.status, inside(running, answer)[0]) == (503, "token-key-unknown")


@contextlib.contextmanager
def api_server(folder: Path, *nodes: str) -> Iterator[str]:
    """The URL of an API server with one live pod of Service payments for each node: `payments-1` and so on."""
    pods = folder / "api/v1/namespaces/shop/pods"
    pods.mkdir(parents=True)
    for number, node in enumerate(nodes, 1):
        live = {**LIVE, "spec": {**LIVE["spec"], "nodeName": node}}
        (pods / f"payments-{number}").write_text(json.dumps(live))
    command = ["python3", "-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(folder), "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{process.stdout.readline().split('port ')[1].split()[0]}"
        finally:
            process.kill()


def test_an_approved_guest_on_another_machine_than_its_pods_node_is_refused(
    site: Site, device: Device, issuer: Issuer, tmp_path: Path
) -> None:
    """The chip is genuine, the guest approved, the token the pod's: as on an attacker's own machine."""
    (tmp_path / "other").mkdir()
    own, other = (each.vcek.vek.hwid for each in (device.hierarchy, open_hierarchy(tmp_path / "other")))
    assert own is not None
    assert other is not None
    nodes = {"worker-1": [own.hex()], "worker-2": [other.hex()]}
    (site.folder / "nodes.yaml").write_text(yaml.safe_dump(nodes))
    site.write_policy("payments", policy(assurance="vm", hostData=[]))
    with api_server(tmp_path / "api", "worker-1", "worker-2", "worker-3", "") as url:
        site.settings["clusters"][0] |= {"readBack": {"url": url, "timeoutSeconds": 10}, "nodes": "nodes.yaml"}
        with verifier(site) as running:
            client = running.client()
            found = [
                (answer.status, inside(running, answer)[0] if answer.status != 200 else "")
                for answer in (
                    Guest(client, device, issuer.token(pod=f"payments-{number}", uid="uid-1")).attest()
                    for number in (1, 2, 3, 4)
                )
            ]
            assert found == [(200, ""), (401, "node-chip"), (401, "node-chip"), (401, "node-chip")]
            # A chip that is taken off the list is refused within seconds.
            (site.folder / "nodes.yaml").write_text(yaml.safe_dump({"worker-1": []}))
            until(lambda: running.events("file_reloaded"))
            answer = Guest(client, device, issuer.token(uid="uid-1")).attest()
            assert (answer.status, inside(running, answer)[0]) == (401, "node-chip")


@pytest.mark.parametrize("chip", ["00" * 64, "ab", "AB" * 64, 7])
def test_a_list_of_chips_that_could_mean_none_or_any_is_refused(site: Site, chip: object) -> None:
    (site.folder / "nodes.yaml").write_text(yaml.safe_dump({"worker-1": [chip]}))
    site.settings["clusters"][0] |= {"readBack": {"url": "http://127.0.0.1:1"}, "nodes": "nodes.yaml"}
    with pytest.raises(RuntimeError, match=r"nodes.yaml:1: worker-1\[0\]"), verifier(site):
        pass


def test_chips_of_nodes_need_the_pods_node(site: Site) -> None:
    site.settings["clusters"][0] |= {"nodes": "nodes.yaml"}
    with pytest.raises(RuntimeError, match=r"clusters\.prod\.nodes: needs readBack"), verifier(site):
        pass
