"""A cluster, what is trusted, images and a Service, as files in a folder, for tests of `morphisms render`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import yaml

from webhook.configuration.model import Configuration

APP: Final = f"registry.test/app:v1@sha256:{'a' * 64}"
QUEUE: Final = f"registry.test/queue@sha256:{'c' * 64}"
SIDECAR: Final = f"registry.test/morphisms/sidecar@sha256:{'d' * 64}"
CONFIGURATIONS: Final[dict[str, dict[str, Any]]] = {
    APP: {"Env": ["PATH=/bin"], "Entrypoint": ["/app"], "User": "1000:1000"},
    QUEUE: {"Entrypoint": ["/ko-app/queue"], "User": "65532:65532"},
    SIDECAR: {"Entrypoint": ["/usr/bin/morphisms-init"], "User": "65532:65532"},
}
SERVICE: Final = f"""\
# Our payments.
apiVersion: serving.knative.dev/v1
kind: Service
metadata:
  name: payments  # a short name
  namespace: shop
  annotations:
    morphisms.dev/secret-tls: ~/tls#certificate
spec:
  template:
    spec:
      containers:
        - image: {APP}
          command: ["/app"]
          env:
            - name: DB_PASSWORD  # from Vault
              value: vault:~/db#password
            - name: COLOUR
              value: "it's blue"
"""


def cluster() -> dict[str, Any]:
    """What `morphisms capture` would have found."""
    template = Configuration().container_template.model_dump(mode="json", exclude_none=True)
    template["sidecar"]["image"] = SIDECAR
    maps = {"config-deployment": {"queue-sidecar-image": QUEUE}}
    return {"version": 1, "knative": {"version": "v1.23.0", "configMaps": maps}, "template": template}


def trust() -> dict[str, Any]:
    """What people vouch for: the same."""
    login = {"mount": "jwt-prod", "role": "knative"}
    return {
        "version": 1,
        "template": cluster()["template"],
        "queueProxy": QUEUE,
        "guests": ["kata-snp"],
        "vault": login,
    }


def write_inputs(folder: Path) -> list[str]:
    """Write the files, and return the command's arguments for them."""
    (folder / "service.yaml").write_text(SERVICE)
    (folder / "cluster.yaml").write_text(yaml.safe_dump(cluster()))
    (folder / "trust.yaml").write_text(yaml.safe_dump(trust()))
    (folder / "images.json").write_text(json.dumps(CONFIGURATIONS))
    options = {"-f": "service.yaml", "--cluster": "cluster.yaml", "--trust": "trust.yaml", "--images": "images.json"}
    return ["render", "--offline", *(word for name, file in options.items() for word in (name, str(folder / file)))]
