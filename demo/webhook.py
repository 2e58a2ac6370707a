"""`morphisms webhook`, spoken to over TLS like the API server would."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from pathlib import Path
from typing import Any

import yaml

from demo.certificates import Certificates
from demo.hardware import EVIDENCE
from demo.openbao import OpenBao
from demo.process import Process, morphisms
from demo.verifier import CLUSTER, Verifier
from webhook.configuration.profiles import PRESETS

PROFILE = "kata-snp-simulated"


def configuration(openbao: OpenBao, verifier: Verifier, attest: dict[str, Any]) -> dict[str, Any]:
    """As `kata-snp`, but on simulated evidence. `attest`: what pods demand of the verifier."""
    preset = next(profile for profile in PRESETS if profile.name == "kata-snp").model_dump(exclude_defaults=True)
    evidence = [{"source": "simulated", "address": EVIDENCE}]
    ca = openbao.ca.read_text()
    return {
        "cluster": CLUSTER,
        "profiles": [json.loads(json.dumps({**preset, "name": PROFILE, "evidence": evidence}))],
        "defaultProfile": PROFILE,
        "verifier": {"url": verifier.url, "ca": ca, "attest": attest},
        "vault": {"url": openbao.url, "ca": ca},
        "sidecar": {"deadlineSeconds": 20},
    }


class Webhook(Process):
    """The server, for the cluster that the snapshot describes. `answers` is all it ever said, as bytes."""

    def __init__(self, folder: Path, certificates: Certificates, settings: dict[str, Any], snapshot: Path) -> None:
        self._ca = certificates.ca
        self.answers: list[bytes] = []
        path = folder / "webhook.yaml"
        path.write_text(yaml.safe_dump(settings, sort_keys=False))
        arguments = ["--config", path, "--snapshot", snapshot, "--listen", "127.0.0.1:0"]
        arguments += ["--tls-cert", certificates.certificate, "--tls-key", certificates.key]
        super().__init__("the webhook", morphisms("webhook", *arguments), folder / "webhook.log")

    def ready(self) -> None:
        self.port = int(self.await_line(r'"event":"listening","address":\["[^"]*",(\d+)\]')[1])

    def ask(self, path: str, review: dict[str, Any]) -> dict[str, Any]:
        """Post a review; its response, the patch decoded."""
        context = ssl.create_default_context(cafile=str(self._ca))
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=10, context=context)
        connection.request("POST", path, json.dumps(review), {"Content-Type": "application/json"})
        answer = connection.getresponse().read()
        connection.close()
        response: dict[str, Any] = json.loads(answer)["response"]
        self.answers.append(answer)
        if "patch" in response:
            patch = base64.b64decode(response["patch"])
            self.answers.append(patch)
            response["patch"] = json.loads(patch)
        return response
