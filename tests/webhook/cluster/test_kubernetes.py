"""The client is there, and its models are not."""

from __future__ import annotations

import subprocess
import sys

from tests.support.paths import ROOT

_SEEN = """
import sys
import webhook.cluster.kubernetes
from kubernetes_asyncio.config import load_kube_config
from kubernetes_asyncio.client import ApiClient, Configuration
assert ApiClient is webhook.cluster.kubernetes.ApiClient and Configuration is webhook.cluster.kubernetes.Configuration
generated = ("kubernetes_asyncio.client.models.", "kubernetes_asyncio.client.api.")
print(sum(name.startswith(generated) for name in sys.modules))
"""


def test_no_model_and_no_api_class_is_loaded() -> None:
    root = ROOT
    done = subprocess.run([sys.executable, "-c", _SEEN], cwd=root, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_a_client_that_is_loaded_whole_stays_whole() -> None:
    root = ROOT
    first = "import kubernetes_asyncio.client\n" + _SEEN
    done = subprocess.run([sys.executable, "-c", first], cwd=root, capture_output=True, text=True, timeout=60)
    assert int(done.stdout) > 500, done.stderr
