"""What cannot be measured is refused, all at once, each with its field; what can comes out as the guest sees it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import pytest

from measured.image import Image, ImageError, read_image
from measured.pod import measure
from measured.pod_name import PodName, name_of_deployment, name_of_stateful_set
from measured.policy import PolicyError, read_policy, rules_text, write_policy
from measured.refusal import UnmeasurableError
from tests.measured import pods

Change = Callable[[dict[str, Any]], Any]

REFUSED: Final[dict[str, Change]] = {
    "spec.containers[app].image": lambda spec: spec["containers"][0].update(image="registry.test/app:v1"),
    "spec.containers[second].image": lambda spec: spec["containers"][1].update(image=f"x@sha256:{'9' * 64}"),
    "spec.containers[app].envFrom": lambda spec: spec["containers"][0].update(
        envFrom=[{"configMapRef": {"name": "x"}}]
    ),
    "spec.containers[app].env[KEY]": lambda spec: spec["containers"][0]["env"].append(
        {"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "x", "key": "y"}}}
    ),
    "spec.containers[app].env[CPU]": lambda spec: spec["containers"][0]["env"].append(
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}
    ),
    "spec.containers[app].env[LATE]": lambda spec: spec["containers"][0]["env"].insert(
        0, {"name": "LATE", "value": "$(PLAIN)"}
    ),
    "spec.containers[app].env[ADDRESS]": lambda spec: spec["containers"][0]["env"].append(
        {"name": "ADDRESS", "value": "http://$(IP)"}
    ),
    "spec.containers[app].env[SERVICE]": lambda spec: spec["containers"][0]["env"].append(
        {"name": "SERVICE", "value": "$(KUBERNETES_SERVICE_HOST)"}
    ),
    "spec.containers[app].env[PLAIN]": lambda spec: spec["containers"][0]["env"].append(
        {"name": "PLAIN", "value": "x"}
    ),
    "spec.containers[app].env[LANG]": lambda spec: spec["containers"][0]["env"].append({"name": "LANG", "value": "x"}),
    "spec.containers[app].env[HOSTNAME]": lambda spec: spec["containers"][0]["env"].append({"name": "HOSTNAME"}),
    "spec.containers[app].args": lambda spec: spec["containers"][0].update(args=["$(NOWHERE)"]),
    "spec.containers[second].command": lambda spec: spec["containers"][1].update(command=["$(NOWHERE)"]),
    "spec.containers[app].volumeMounts[/x].subPath": lambda spec: spec["containers"][0]["volumeMounts"].append(
        {"name": "run", "mountPath": "/x", "subPath": "y"}
    ),
    "spec.containers[app].volumeMounts[/x].subPathExpr": lambda spec: spec["containers"][0]["volumeMounts"].append(
        {"name": "run", "mountPath": "/x", "subPathExpr": "$(POD)"}
    ),
    "spec.containers[app].volumeMounts[/x].name": lambda spec: spec["containers"][0]["volumeMounts"].append(
        {"name": "nowhere", "mountPath": "/x"}
    ),
    "spec.containers[app].volumeMounts[/x/../y]": lambda spec: spec["containers"][0]["volumeMounts"].append(
        {"name": "run", "mountPath": "/x/../y"}
    ),
    "spec.containers[app].volumeMounts[/scratch]": lambda spec: spec["containers"][0]["volumeMounts"].append(
        {"name": "run", "mountPath": "/scratch"}
    ),
    "spec.containers[app].volumeMounts[/x].mountPropagation": lambda spec: spec["containers"][0]["volumeMounts"].append(
        {"name": "run", "mountPath": "/x", "mountPropagation": "HostToContainer"}
    ),
    "spec.volumes[settings]": lambda spec: spec["volumes"][-1].update(configMap=None, hostPath={"path": "/"}),
    "spec.volumes[run]": lambda spec: spec["volumes"][0].update(emptyDir={"medium": "HugePages"}),
    "spec.volumes[other]": lambda spec: spec["volumes"].__setitem__(1, {"name": "other", "csi": {"driver": "x"}}),
    "spec.containers[app].volumeDevices": lambda spec: spec["containers"][0].update(volumeDevices=[{"name": "x"}]),
    "spec.containers[app].securityContext.privileged": lambda spec: spec["containers"][0]["securityContext"].update(
        privileged=True
    ),
    "spec.containers[app].securityContext.procMount": lambda spec: spec["containers"][0]["securityContext"].update(
        procMount="Unmasked"
    ),
    "spec.containers[app].securityContext.capabilities.add": lambda spec: spec["containers"][0][
        "securityContext"
    ].update(capabilities={"add": ["all"]}),
    "spec.containers[app].livenessProbe.exec": lambda spec: spec["containers"][0].update(
        livenessProbe={"exec": {"command": ["true"]}}
    ),
    "spec.containers[app].lifecycle.preStop.exec": lambda spec: spec["containers"][0].update(
        lifecycle={"preStop": {"exec": {"command": ["true"]}}}
    ),
    "spec.containers[app].tty": lambda spec: spec["containers"][0].update(tty=True),
    "spec.containers[app].stdin": lambda spec: spec["containers"][0].update(stdin=True),
    "spec.containers[app].resources.claims": lambda spec: spec["containers"][0].update(
        resources={"claims": [{"name": "x"}]}
    ),
    "spec.containers[app]": lambda spec: spec["containers"][1].update(name="app"),
    "spec.enableServiceLinks": lambda spec: spec.pop("enableServiceLinks"),
    "spec.hostNetwork": lambda spec: spec.update(hostNetwork=True),
    "spec.hostPID": lambda spec: spec.update(hostPID=True),
    "spec.shareProcessNamespace": lambda spec: spec.update(shareProcessNamespace=True),
    "spec.hostUsers": lambda spec: spec.update(hostUsers=False),
    "spec.setHostnameAsFQDN": lambda spec: spec.update(setHostnameAsFQDN=True),
    "spec.securityContext.sysctls": lambda spec: spec["securityContext"].update(sysctls=[{"name": "x", "value": "y"}]),
    "spec.ephemeralContainers": lambda spec: spec.update(ephemeralContainers=[{"name": "x"}]),
    "spec.os.name": lambda spec: spec.update(os={"name": "windows"}),
}


@pytest.mark.parametrize(("field", "change"), REFUSED.items(), ids=REFUSED)
def test_what_a_guest_cannot_pin_is_refused_with_its_field(field: str, change: Change) -> None:
    pod = pods.pod()
    change(pod["spec"])
    with pytest.raises(UnmeasurableError) as error:
        measure(pod, pods.IMAGES)
    assert field in [refusal.field for refusal in error.value.refusals]
    assert all(refusal.message for refusal in error.value.refusals)


def test_all_refusals_come_at_once() -> None:
    pod = pods.pod()
    pod["spec"]["hostNetwork"] = pod["spec"]["hostPID"] = True
    pod["spec"]["containers"][0]["tty"] = True
    with pytest.raises(UnmeasurableError) as error:
        measure(pod, pods.IMAGES)
    assert [refusal.field for refusal in error.value.refusals] == [
        "spec.hostNetwork",
        "spec.hostPID",
        "spec.containers[app].tty",
    ]


def test_a_named_user_of_the_image_needs_its_number_in_the_pod() -> None:
    pod = pods.pod()
    images = {**pods.IMAGES, f"sha256:{'b' * 64}": Image(user="nobody")}
    with pytest.raises(UnmeasurableError, match=re.escape("spec.containers[second].securityContext.runAsUser")):
        measure(pod, images)
    for container in (pod["spec"]["initContainers"][1], pod["spec"]["containers"][1]):
        container["securityContext"] = {"runAsUser": 65534}
    assert measure(pod, images)["containers"][3]["user"]["uid"] == 65534


def test_a_volume_of_the_image_has_to_be_mounted() -> None:
    pod = pods.pod()
    images = {**pods.IMAGES, f"sha256:{'a' * 64}": Image(volumes=("/data",))}
    with pytest.raises(UnmeasurableError, match="/data"):
        measure(pod, images)
    pod["spec"]["containers"][0]["volumeMounts"].append({"name": "run", "mountPath": "/data"})
    measure(pod, images)


def test_values_come_out_as_the_kubelet_expands_them() -> None:
    data = measure(pods.pod(), pods.IMAGES)
    first, _, app, second = data["containers"]
    assert app["env"]["BOTH"] == "x-a=b c\nd-$(KEPT)"
    assert app["env"]["PATH"] == "/bin"
    assert app["envOfHost"] == {"POD": "metadata.name", "IP": "status.podIP"}
    assert first["args"] == ["sh", "-c", "cp /settings/a $(TO)"]
    assert app["args"] == ["/app", "serve"]
    assert second["args"] == ["/tool"]
    assert app["user"] == {"uid": 1000, "gid": 0, "groups": [0, 2000, 3000]}
    assert (app["cwd"], second["cwd"]) == ("/srv", "/tmp")


def test_what_the_scheduler_and_the_kubelet_may_choose_is_not_measured() -> None:
    pod, other = pods.pod(), pods.pod()
    other["metadata"].update(labels={"a": "b"}, uid="another", annotations={"example.com/note": "x"})
    other["spec"].update(nodeName="n", affinity={}, tolerations=[], priority=3, terminationGracePeriodSeconds=5)
    other["spec"]["containers"][0].update(
        resources={"limits": {"cpu": "1"}}, readinessProbe={"httpGet": {"port": 1}}, ports=[{"containerPort": 1}]
    )
    other["spec"]["volumes"].append({"name": "unused", "emptyDir": {}})
    assert measure(other, pods.IMAGES) == measure(pod, pods.IMAGES)


def test_the_token_volume_of_the_api_server_is_what_was_expected_without_it() -> None:
    pod, admitted = pods.pod(), pods.pod()
    admitted["spec"]["volumes"].append({"name": "kube-api-access-x7c2p", "projected": {"sources": []}})
    mount = {
        "name": "kube-api-access-x7c2p",
        "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
        "readOnly": True,
    }
    for kind in ("initContainers", "containers"):
        for container in admitted["spec"][kind]:
            container.setdefault("volumeMounts", []).append(mount)
    assert measure(admitted, pods.IMAGES) == measure(pod, pods.IMAGES)
    pod["spec"]["automountServiceAccountToken"] = False
    assert measure(admitted, pods.IMAGES) != measure(pod, pods.IMAGES)


@pytest.mark.parametrize("length", [1, 20, 45, 46, 47, 48, 55, 56, 57, 58, 63])
def test_the_names_of_a_deployments_pods_are_those_that_kubernetes_makes(length: int) -> None:
    deployment = "d" * length
    pattern = name_of_deployment(deployment)
    assert pattern.is_pattern
    for hash_ in ("4", "8487cb4498", "bcdf456789", "999999999"):
        name = f"{deployment}-{hash_}-"[:58] + "nlr9j"
        assert re.fullmatch(pattern.text, name), name
        assert not re.fullmatch(pattern.text, f"evil-{name}")
        assert not re.fullmatch(pattern.text, f"{name}-evil")
    if length < 40:
        assert not re.fullmatch(pattern.text, f"{deployment}-evil-service-8487cb4498-nlr9j")


def test_the_names_of_a_stateful_sets_pods() -> None:
    pattern = name_of_stateful_set("morphisms-kms")
    assert re.fullmatch(pattern.text, "morphisms-kms-0")
    assert not re.fullmatch(pattern.text, "morphisms-kms-00")
    assert not re.fullmatch(pattern.text, "morphisms-kms-x")


def test_a_policy_reads_back_as_it_was_written() -> None:
    data = measure(pods.pod(), pods.IMAGES, PodName("[a-z]+", is_pattern=True))
    text = write_policy(data)
    assert read_policy(text).data == data
    assert text == write_policy(read_policy(text).data)


@pytest.mark.parametrize("value", ["", "'''", "x" * 5000, '\x00\x7f\\"\r\n', "💥" * 500, "'" * 999, '{"join": ["x"]}'])
def test_any_value_of_a_variable_survives(value: str) -> None:
    pod = pods.pod()
    pod["spec"]["containers"][1]["env"] = [{"name": "join", "value": value.replace("$", "$$")}]
    text = write_policy(measure(pod, pods.IMAGES))
    assert read_policy(text).data["containers"][3]["env"]["join"] == value
    assert "'''" not in text
    assert max(map(len, text.splitlines())) < 1000


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("default ExecProcessRequest := false", "default ExecProcessRequest := true"),
        lambda text: text.replace("package agent_policy\n", "package agent_policy\n\n"),
        lambda text: text + "\nExecProcessRequest := true\n",
        lambda text: text.replace('"version": 1', '"version": 2'),
        lambda text: text.replace('"version": 1', '"version": 1,\n "version": 1'),
        lambda text: text.replace(' "namespace": "shop"', '  "namespace": "shop"'),
        lambda text: text.replace('"namespace": "shop"', '"namespace": NaN'),
        lambda text: text.replace("\n# end of data", "x := 1\n# end of data"),
        lambda text: text.partition("\nmeasured :=")[0],
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "",
    ],
)
def test_a_policy_of_another_text_or_form_is_not_ours(change: Callable[[str], str]) -> None:
    text = pods.policy()
    changed = change(text)
    assert changed != text
    with pytest.raises(PolicyError):
        read_policy(changed)


def test_a_name_that_would_make_a_line_too_long_is_refused() -> None:
    pod = pods.pod()
    pod["spec"]["containers"][1]["env"] = [{"name": "N" * 990, "value": "x"}]
    with pytest.raises(PolicyError, match="columns"):
        write_policy(measure(pod, pods.IMAGES))


@pytest.mark.parametrize(
    "config", [None, [], {"Env": "x"}, {"Env": ["novalue"]}, {"User": 5}, {"Volumes": []}, {"Cmd": [1]}], ids=str
)
def test_an_image_configuration_of_another_form_is_refused(config: object) -> None:
    if config == {"Volumes": []}:
        read_image(config)
    else:
        with pytest.raises(ImageError):
            read_image(config)


def test_the_rules_text_is_known_by_its_version() -> None:
    assert rules_text(1).startswith("# Guest policy of Morphisms, rules version 1")
    with pytest.raises(PolicyError):
        rules_text(2)
