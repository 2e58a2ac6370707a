"""A rendered Service's guest gets its secret from the real verifier and OpenBao, and no other document's guest does.

What was rendered is used as written: `appraisal.yaml` is the verifier's record, and morphisms-init runs with the plan
that its guest's policy pins. Each machine is `morphisms simulated-hardware --host-data`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pytest
import yaml

from attestation.simulator.device import Device
from attestation.simulator.hierarchy import Hierarchy
from cli.main import main
from kbs.guest import EphemeralKey, write_additional_evidence, write_attest
from kbs.messages import binding
from measured.measured_document import document_of_text
from plan.codec import read_plan
from plan.layout import CONTAINER, PLAN_VARIABLE
from sidecar.reasons import Exit
from tests.attestation.verifier.guest import Answer, document
from tests.attestation.verifier.process import Site, Verifier, verifier
from tests.attestation.verifier.tokens import Issuer
from tests.cli import rendering
from tests.e2e.forwarder import Forwarder, forwarder
from tests.e2e.site import replica
from tests.sidecar.pod import CANARY, Pod, refused
from tests.support.raft import RaftOpenBao
from tests.support.simulated_machine import simulated_machine
from tests.support.until import until

# A secret that looks like what Kubernetes would expand.
VALUE: Final = f"{CANARY}-$(HOME)-$$-$(COLOUR)-$"
NewPod = Callable[[Path], Pod]
PATH: Final = "secret/data/knative/prod/shop/payments/measured"
SERVICE: Final = f"""\
apiVersion: serving.knative.dev/v1
kind: Service
metadata:
  name: payments
  namespace: shop
  annotations:
    morphisms.dev/secret-password: ~/measured#password
spec:
  template:
    spec:
      containers:
        - image: {rendering.APP}
          command: ["/app"]
          env:
            - name: PASSWORD
              value: vault:~/measured#password
            - name: COLOUR
              value: blue
"""


@dataclass
class Place:
    """A verifier's folder without a record of the Service, and the ways to verifier and machine that plans name."""

    site: Site
    to_verifier: Forwarder
    to_machine: Forwarder
    bao: RaftOpenBao
    hierarchy: Hierarchy

    def render(self, folder: Path, colour: str, *options: str) -> Path:
        """Render the Service; the folder with its files."""
        folder.mkdir(exist_ok=True)
        arguments = rendering.write_inputs(folder)
        captured, trusted = rendering.cluster(), rendering.trust()
        template = captured["template"]
        template["cluster"] = "prod"
        source = {"source": "simulated", "address": f"http://127.0.0.1:{self.to_machine.port}"}
        template["evidence"]["kata-snp"] = [source]
        template["verifier"] |= {"url": f"https://127.0.0.1:{self.to_verifier.port}"}
        template["verifier"] |= {"ca": (self.site.folder / "ca.crt").read_text()}
        template["vault"] |= {"url": self.bao.url, "ca": self.bao.ca}
        trusted |= {"template": template, "guests": ["simulated"]}
        (folder / "cluster.yaml").write_text(yaml.safe_dump(captured))
        (folder / "trust.yaml").write_text(yaml.safe_dump(trusted))
        (folder / "service.yaml").write_text(SERVICE.replace("blue", colour))
        assert main([*arguments, "-o", str(folder / "out"), *options]) == 0
        return folder / "out"

    def write(self, record: str) -> None:
        """Put this text where the verifier reads the Service's record, in one step."""
        path = self.site.policy_path("payments")
        new = path.with_name(".new")
        new.write_text(record)
        new.replace(path)

    @contextlib.contextmanager
    def verifier(self, record: str) -> Iterator[Verifier]:
        """A verifier that starts with this record, and is the one that plans name."""
        self.write(record)
        with verifier(self.site) as process:
            self.to_verifier.targets[:] = [process.port]
            yield process

    @contextlib.contextmanager
    def machine(self, host_data: str) -> Iterator[None]:
        """The machine that plans name has this HOST_DATA."""
        with simulated_machine(self.hierarchy, bytes.fromhex(host_data)) as address:
            self.to_machine.targets[:] = [int(address.rpartition(":")[2])]
            yield

    def attest(self, process: Verifier, host_data: str, pod_token: str, initdata: str | None = None) -> Answer:
        """A guest with this HOST_DATA, which sends `initdata` as its own document."""
        client, key = process.client(), EphemeralKey()
        nonce = client.nonce()
        additional = write_additional_evidence(pod_token)
        device = Device(self.hierarchy, host_data=bytes.fromhex(host_data))
        body = write_attest(nonce, key.public, document(device, binding(nonce, key.public, additional)), additional)
        if initdata is not None:
            body = json.dumps({**json.loads(body), "init-data": {"format": "toml", "body": initdata}}).encode()
        answer = client.attest(body)
        client.close()
        return answer


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, site: Site, hierarchy: Hierarchy, issuer: Issuer, bao: RaftOpenBao
) -> Iterator[Place]:
    bao.done("POST", PATH, {"data": {"password": VALUE}})
    own = replica(site, tmp_path_factory.mktemp("identity") / "verifier", hierarchy, issuer)
    with forwarder() as to_verifier, forwarder() as to_machine:
        yield Place(own, to_verifier, to_machine, bao, hierarchy)


@pytest.fixture
def new_pod(tmp_path: Path, helper: Path, issuer: Issuer) -> NewPod:
    """Makes the pod of a rendering, in which morphisms-init has the plan that its guest's policy pins."""

    def make(out: Path) -> Pod:
        uid = str(uuid4())
        (tmp_path / uid).mkdir()
        return Pod(tmp_path / uid, helper, read_plan(plan_of(out)), lambda: issuer.token(uid=uid))

    return make


def record_of(out: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((out / "appraisal.yaml").read_text()))


def plan_of(out: Path) -> str:
    """The plan in the variables that the guest's policy pins."""
    measured = document_of_text(record_of(out)["document"].encode())
    assert measured is not None
    (init,) = [one for one in measured.data["containers"] if one["name"] == CONTAINER]
    return str(init["env"][PLAN_VARIABLE])


def host_data_of(out: Path) -> str:
    return str(record_of(out)["hostData"][0])


def test_the_rendered_guest_gets_its_secret_as_it_is_and_no_other_guest_does(
    place: Place, tmp_path: Path, new_pod: NewPod
) -> None:
    out = place.render(tmp_path / "blue", "blue")
    other = place.render(tmp_path / "red", "red")
    with place.verifier((out / "appraisal.yaml").read_text()) as process:
        with place.machine(host_data_of(out)):
            pod = new_pod(out)
            ended = pod.run(plan_of(out))
            assert ended.code == Exit.PUBLISHED, ended.stderr
            assert (pod.secrets / "password").read_text() == VALUE
            assert pod.variables("user-container")["PASSWORD"] == VALUE
        with place.machine(host_data_of(other)):
            pod = new_pod(out)
            refused(pod.run(plan_of(out)), Exit.VERIFIER_REFUSED, "verifier-refused", VALUE)
            assert pod.published() == []
        assert [line["reason"] for line in process.events("attestation")] == ["believed", "no-policy"]


def test_the_document_that_a_guest_sends_is_the_measured_one_to_the_byte(
    place: Place, tmp_path: Path, issuer: Issuer
) -> None:
    out = place.render(tmp_path / "blue", "blue")
    host_data, text = host_data_of(out), str(record_of(out)["document"])
    others = (
        f"{text}\n",
        text.replace("\n", "\r\n"),
        text.replace('"sha256"', '"sha384"', 1),
        text.replace("ExecProcessRequest := false", "ExecProcessRequest := true"),
        text.replace("[kbc]", "[kbc ]"),
        str(record_of(place.render(tmp_path / "red", "red"))["document"]),
    )
    with place.verifier((out / "appraisal.yaml").read_text()) as process:
        assert place.attest(process, host_data, issuer.token(uid=str(uuid4())), text).status == 200
        assert place.attest(process, host_data, issuer.token(uid=str(uuid4()))).status == 200, "it may send none"
        for other in others:
            assert other != text
            assert place.attest(process, host_data, issuer.token(uid=str(uuid4())), other).status == 401
        reasons = [line["reason"] for line in process.events("attestation")]
        assert reasons == ["believed", "believed", *["verdict"] * len(others)]


def test_a_record_whose_document_was_changed_gives_nobody_anything(
    place: Place, tmp_path: Path, issuer: Issuer
) -> None:
    """Neither under the digest that was rendered nor under the changed document's own: its rules are not ours."""
    record = record_of(place.render(tmp_path / "blue", "blue"))
    text = record["document"].replace("default ExecProcessRequest := false", "default ExecProcessRequest := true")
    assert text != record["document"]
    changed = hashlib.sha256(text.encode()).hexdigest()
    both = {**record, "document": text, "hostData": [*record["hostData"], changed]}
    with place.verifier(yaml.safe_dump(both)) as process:
        for host_data in both["hostData"]:
            assert place.attest(process, host_data, issuer.token(uid=str(uuid4())), text).status == 401
        (line,) = process.events("file_partly_loaded")
        assert "document holds a policy of others" in str(line["problems"])


def test_old_and_new_documents_are_trusted_while_a_revision_rolls_out_and_the_old_one_is_withdrawn(
    place: Place, tmp_path: Path, new_pod: NewPod
) -> None:
    old = place.render(tmp_path / "service", "blue")
    old = old.rename(tmp_path / "old")
    new = place.render(tmp_path / "service", "red", "--previous", host_data_of(old))
    alone = place.render(tmp_path / "alone", "red")
    assert record_of(new)["hostData"] == [host_data_of(alone), host_data_of(old)]
    with place.verifier((old / "appraisal.yaml").read_text()) as process:
        place.write((new / "appraisal.yaml").read_text())
        until(lambda: len(process.events("file_reloaded")) == 1)
        for out in (old, new):
            with place.machine(host_data_of(out)):
                assert new_pod(out).run(plan_of(out)).code == Exit.PUBLISHED
        place.write((alone / "appraisal.yaml").read_text())
        until(lambda: len(process.events("file_reloaded")) == 2)
        with place.machine(host_data_of(old)):
            refused(new_pod(old).run(plan_of(old)), Exit.VERIFIER_REFUSED, "verifier-refused")
        with place.machine(host_data_of(new)):
            assert new_pod(new).run(plan_of(new)).code == Exit.PUBLISHED
