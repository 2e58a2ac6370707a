"""The pod made offline is the one that Knative's own functions make, in each version, in what reaches a guest."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest

from cli.knative.go_values import parse_duration, write_json
from cli.knative.pod import pod_of
from cli.knative.settings import MINOR_VERSIONS, SettingsError, read_settings
from tests.cli.knative.cases import CASES, SYSTEM, inputs

GOLDEN: Final = Path(__file__).parent / "golden"
# What the scheduler and the kubelet alone read.
_NOT_MEASURED: Final = ("resources", "ports", "readinessProbe", "livenessProbe", "startupProbe", "lifecycle")


@pytest.mark.parametrize("minor", MINOR_VERSIONS)
@pytest.mark.parametrize("case", CASES)
def test_the_pod_is_knatives_own(minor: int, case: str) -> None:
    number = list(CASES).index(case)
    deployment = json.loads((GOLDEN / f"1.{minor}.jsonl").read_text().splitlines()[number])
    given = inputs()[number]
    settings = read_settings(f"v1.{minor}.0", SYSTEM, given["configMaps"])
    pod, name = pod_of(given["service"], "shop", settings)
    template = deployment["spec"]["template"]
    assert measured_part(pod["spec"]) == measured_part(template["spec"])
    assert pod["metadata"]["annotations"] == template["metadata"]["annotations"]
    assert pod["metadata"]["generateName"] == f"{deployment['metadata']['name']}-"
    assert re.fullmatch(name.text, f"{deployment['metadata']['name']}-8487cb4498-"[:58] + "nlr9j")
    for label in ("app", "team", "serving.knative.dev/service", "serving.knative.dev/revision"):
        assert pod["metadata"]["labels"][label] == template["metadata"]["labels"][label]


def measured_part(spec: dict[str, Any]) -> dict[str, Any]:
    """The spec without what no guest sees, with equal values in one form."""
    containers = []
    for container in spec["containers"]:
        kept = {key: value for key, value in container.items() if key not in _NOT_MEASURED}
        kept["env"] = {one["name"]: one.get("value") or _path(one) for one in container["env"]}
        kept["volumeMounts"] = container.get("volumeMounts") or []
        kept["readinessExec"] = "exec" in (container.get("readinessProbe") or {})
        containers.append(kept)
    volumes = {volume["name"]: sorted(set(volume) - {"name"}) for volume in spec.get("volumes") or []}
    names = ("enableServiceLinks", "serviceAccountName", "terminationGracePeriodSeconds", "securityContext", "hostname")
    return {"containers": containers, "volumes": volumes, **{name: spec.get(name) for name in names}}


def _path(variable: dict[str, Any]) -> str:
    return str(((variable.get("valueFrom") or {}).get("fieldRef") or {}).get("fieldPath", ""))


@pytest.mark.parametrize("version", ["v1.13.0", "1.18", "v1.20.3", "v1.99.0", "v1.25.0", "v2.0.0", "", "devel", "1.x"])
def test_a_version_whose_pods_are_not_known_is_refused(version: str) -> None:
    with pytest.raises(SettingsError, match="whose pods are known"):
        read_settings(version, SYSTEM, {"config-deployment": {"queue-sidecar-image": "x"}})


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("config-deployment", "queue-sidecar-image", ""),
        ("config-defaults", "revision-timeout-seconds", "five"),
        ("config-defaults", "container-name-template", "{{.Name}}"),
        ("config-observability", "metrics-export-interval", "1 minute"),
        ("config-observability", "logging.enable-request-log", "yes"),
        ("config-observability", "tracing-sampling-rate", "much"),
        ("config-logging", "loglevel.queueproxy", "loud"),
    ],
)
def test_a_setting_that_cannot_be_read_is_named(name: str, key: str, value: str) -> None:
    maps = {"config-deployment": {"queue-sidecar-image": "x"}}
    maps.setdefault(name, {})[key] = value
    with pytest.raises(SettingsError, match=re.escape(name)) as error:
        read_settings("v1.23.0", SYSTEM, maps)
    assert key in str(error.value)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [("0", 0), ("0s", 0), ("15s", 15 * 10**9), ("1m30s", 90 * 10**9), ("1.5h", 5400 * 10**9), ("500ms", 5 * 10**8)],
)
def test_durations_are_go_s(text: str, nanoseconds: int) -> None:
    assert parse_duration(text) == nanoseconds


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": "<b>&\u2028é"}, '{"a":"\\u003cb\\u003e\\u0026\\u2028é"}'),
        (0.25, "0.25"),
        (1.0, "1"),
        (1e-7, "1e-7"),
        (1e-5, "0.00001"),
        (None, "null"),
        ([True, 3], "[true,3]"),
    ],
)
def test_json_is_go_s(value: object, text: str) -> None:
    assert write_json(value) == text
