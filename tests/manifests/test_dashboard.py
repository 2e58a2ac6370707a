"""The dashboard: it asks for metrics that the code exports, and a real Prometheus answers each of its panels."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import urllib3
import yaml

from attestation.simulator.hierarchy import Hierarchy
from tests.attestation.verifier.process import make_site, verifier
from tests.attestation.verifier.tokens import Issuer
from tests.manifests.exported import exported
from tests.manifests.rendering import MANIFESTS
from tests.support.packages import require
from tests.support.processes import morphisms, running
from tests.support.until import SECONDS, until
from tests.webhook.cluster.apiserver import CLASSES, NAMESPACES, NODES, namespace, node, runtime_class
from tests.webhook.server.control_plane import control_plane
from tests.webhook.server.process import webhook

Json = dict[str, Any]

_DASHBOARD: Json = json.loads((MANIFESTS / "components" / "dashboard" / "morphisms.json").read_text())
_PANELS: list[Json] = [panel for panel in _DASHBOARD["panels"] if panel["type"] != "row"]
_QUERIES = [(panel["title"], target["expr"]) for panel in _PANELS for target in panel["targets"]]
# What the ServiceMonitors add to each series.
_SCRAPED = {"job", "pod"}
_SELECTOR = re.compile(r"\b(morphisms_\w+)\{([^}]*)\}")
_PAUSE = "1s"
_DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web", "namespace": "shop", "uid": "1"},
    "spec": {
        "template": {"spec": {"hostNetwork": True, "containers": [{"name": "app", "image": "registry.example/app"}]}}
    },
}
_POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": _DEPLOYMENT["spec"]["template"]["spec"]}  # type: ignore[index]


def test_each_metric_that_a_panel_asks_for_is_exported_with_the_labels_that_it_is_asked_for() -> None:
    known = exported()
    for title, query in _QUERIES:
        selectors = _SELECTOR.findall(query)
        assert len(selectors) == query.count("morphisms_"), title
        for name, matchers in selectors:
            assert name in known, f"{title}: {name}"
            asked = set(re.findall(r"(\w+)(?:=~|!~|!=|=)", matchers))
            asked |= {label for labels in re.findall(r"by \(([^)]*)\)", query) for label in labels.split(", ")}
            assert asked <= known[name] | _SCRAPED, f"{title}: {asked - known[name]}"
            assert "job" in asked, title


def test_each_panel_says_what_it_shows_and_in_which_unit() -> None:
    assert len(_PANELS) > 15
    assert len({panel["id"] for panel in _DASHBOARD["panels"]}) == len(_DASHBOARD["panels"])
    assert len({panel["title"] for panel in _PANELS}) == len(_PANELS)
    for panel in _PANELS:
        assert len(panel["description"].split()) > 5, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}", (
            "a dashboard that names one Prometheus shows nothing on others"
        )
        for target in panel["targets"]:
            shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            grouped = {each for labels in re.findall(r"by \(([^)]*)\)", target["expr"]) for each in labels.split(", ")}
            assert shown <= grouped, f"{panel['title']}: the legend names a label that the query drops"


def test_no_panel_lies_over_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in _DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24, panel["title"]
        assert not taken & cells, panel["title"]
        taken |= cells


def test_a_configmap_carries_the_dashboard_as_grafanas_sidecar_looks_for_it() -> None:
    component = yaml.safe_load((MANIFESTS / "components" / "dashboard" / "kustomization.yaml").read_text())
    (generator,) = component["configMapGenerator"]
    assert generator["files"] == ["morphisms.json"]
    assert generator["options"]["labels"]["grafana_dashboard"] == "1"


def test_a_prometheus_that_scrapes_the_servers_has_data_for_every_panel(
    tmp_path: Path, hierarchy: Hierarchy, issuer: Issuer
) -> None:
    require(prometheus="prometheus")
    folders = {name: tmp_path / name for name in ("cluster", "webhook", "verifier", "prometheus")}
    for folder in folders.values():
        folder.mkdir()
    objects = {
        NAMESPACES: [namespace("shop", "audit"), namespace("pay", "enforce")],
        NODES: [node("one")],
        CLASSES: [runtime_class("kata-qemu-snp")],
        "/apis/apps/v1/deployments": [_DEPLOYMENT],
        "/apis/apps/v1/replicasets": [],
        "/api/v1/pods": [],
        "/api/v1/events": [],
        "/api/v1/namespaces/morphisms-system/configmaps": [],
    }
    with contextlib.ExitStack() as started:
        kubeconfig = started.enter_context(control_plane(folders["cluster"], objects))
        admission = started.enter_context(webhook(folders["webhook"], "--kubeconfig", kubeconfig))
        scanner = started.enter_context(_scanner(folders["cluster"], kubeconfig))
        site = make_site(folders["verifier"], hierarchy, issuer, "http://127.0.0.1:1")
        appraisal = started.enter_context(verifier(site))
        targets = {"webhook": admission.metrics_port, "verifier": appraisal.metrics_port, "scanner": scanner}
        until(lambda: admission.get("/readyz")[0] == 200)
        assert admission.post("/validate/pod/enforce", json.dumps(_review()).encode())[0] == 200
        ask = started.enter_context(_prometheus(folders["prometheus"], targets))
        for panel in _PANELS:
            for target in panel["targets"]:
                query = target["expr"].replace("$__rate_interval", "1m")
                until(lambda query=query: ask(query), 5 * SECONDS)  # type: ignore[misc]
                # A table's columns are labels; elsewhere the legend names some.
                pattern = r"by \(([^)]*)\)" if panel["type"] == "table" else r"\{\{(\w+)\}\}"
                text = query if panel["type"] == "table" else target["legendFormat"]
                shown = {label for labels in re.findall(pattern, text) for label in labels.split(", ")}
                for series in ask(query):
                    assert shown <= series["metric"].keys(), f"{panel['title']}: {series}"


def _review() -> Json:
    request = {
        "uid": "1",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "namespace": "pay",
        "operation": "CREATE",
        "userInfo": {"username": "dev"},
        "object": _POD,
    }
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


@contextlib.contextmanager
def _scanner(folder: Path, kubeconfig: Path) -> Iterator[int]:
    """A scanner's metrics port."""
    log = folder / "scanner.log"
    options = ["--reports", "--events", "--namespace", "morphisms-system", "--metrics-listen", "127.0.0.1:0"]
    with running(morphisms("scanner", *options, "--kubeconfig", kubeconfig), log) as process:
        yield _said(log, r'"listening".*"metrics":\["[^"]*",(\d+)\]', process)


@contextlib.contextmanager
def _prometheus(folder: Path, ports: dict[str, int]) -> Iterator[Any]:
    """A Prometheus that scrapes these; called with a query it gives the series that the answer holds."""
    jobs = [
        {
            "job_name": f"morphisms-{name}-metrics",
            "static_configs": [{"targets": [f"127.0.0.1:{port}"], "labels": {"pod": f"{name}-0"}}],
        }
        for name, port in ports.items()
    ]
    configuration = folder / "prometheus.yaml"
    configuration.write_text(
        yaml.safe_dump({"global": {"scrape_interval": _PAUSE, "scrape_timeout": _PAUSE}, "scrape_configs": jobs})
    )
    log = folder / "log"
    options = [f"--config.file={configuration}", f"--storage.tsdb.path={folder / 'data'}"]
    with running(["prometheus", *options, "--web.listen-address=127.0.0.1:0"], log) as process:
        port = _said(log, r'msg="Listening on" address=127\.0\.0\.1:(\d+)', process)

        def ask(query: str) -> list[Json]:
            answer = urllib3.request(
                "GET", f"http://127.0.0.1:{port}/api/v1/query", fields={"query": query}, retries=False
            )
            if answer.status == 503:  # it starts
                return []
            body = answer.json()
            assert body["status"] == "success", f"{query}: {body}"
            return list(body["data"]["result"])

        yield ask


def _said(log: Path, pattern: str, process: Any) -> int:
    """The port that a process logs once it listens."""

    def found() -> re.Match[str] | None:
        assert process.poll() is None, log.read_text()
        return re.search(pattern, log.read_text())

    until(found)
    match = found()
    assert match is not None
    return int(match[1])
