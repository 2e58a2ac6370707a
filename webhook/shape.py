"""Whether an untrusted object has the shape of what it claims to be, as far as decisions read it.

The API server sends well-formed objects; everybody else may send anything. Checked once at the door, so that the rules
can be written for real pods. Unknown fields are nobody's business here; null counts as absent.
"""

from __future__ import annotations

from typing import Any


class MalformedError(ValueError):
    """The object does not have the shape of its kind; the message names the field, never its content."""


def check_pod(pod: Any, where: str = "object") -> None:
    """Raise MalformedError unless `pod` can be read as a v1 Pod."""
    _object(pod, where)
    check_metadata(pod, where)
    check_pod_spec(pod.get("spec"), f"{where}.spec")


def check_metadata(item: dict[str, Any], where: str) -> None:
    """Raise MalformedError unless metadata is an object whose labels and annotations map text to text."""
    metadata = item.get("metadata")
    if metadata is None:
        return
    _object(metadata, f"{where}.metadata")
    for member in ("labels", "annotations"):
        _texts(metadata.get(member), f"{where}.metadata.{member}")
    for member in ("name", "namespace", "generateName"):
        _text(metadata.get(member), f"{where}.metadata.{member}")


def check_pod_spec(spec: Any, where: str) -> None:
    """Raise MalformedError unless `spec` can be read as a PodSpec with at least one container."""
    _object(spec, where)
    containers = spec.get("containers")
    if not isinstance(containers, list) or not containers:
        raise MalformedError(f"{where}.containers: not a list with a container in it")
    for member in ("containers", "initContainers", "ephemeralContainers"):
        for index, container in enumerate(_list(spec.get(member), f"{where}.{member}")):
            _container(container, f"{where}.{member}[{index}]")
    for index, volume in enumerate(_list(spec.get("volumes"), f"{where}.volumes")):
        _volume(volume, f"{where}.volumes[{index}]")
    _texts(spec.get("nodeSelector"), f"{where}.nodeSelector")
    for member in ("tolerations", "imagePullSecrets"):
        for index, item in enumerate(_list(spec.get(member), f"{where}.{member}")):
            _object(item, f"{where}.{member}[{index}]")
    for member in ("nodeName", "runtimeClassName", "schedulerName", "serviceAccountName"):
        _text(spec.get(member), f"{where}.{member}")
    for member in ("securityContext", "os"):
        _optional_object(spec.get(member), f"{where}.{member}")
    _affinity(spec.get("affinity"), f"{where}.affinity")


def _container(container: Any, where: str) -> None:
    _object(container, where)
    # A Service's only container may have no name: Knative gives it one.
    for member in ("name", "image", "restartPolicy"):
        _text(container.get(member), f"{where}.{member}")
    for member in ("command", "args"):
        for word in _list(container.get(member), f"{where}.{member}"):
            if not isinstance(word, str):
                raise MalformedError(f"{where}.{member}: holds something that is not text")
    for index, variable in enumerate(container.get("env") or ()):
        if (
            not isinstance(variable, dict)
            or not isinstance(variable.get("name"), str)
            or not isinstance(variable.get("value") or "", str)
            or not isinstance(variable.get("valueFrom") or {}, dict)
        ):
            raise MalformedError(f"{where}.env[{index}]: not a variable")
    for member in ("env", "envFrom", "volumeMounts", "volumeDevices", "ports"):
        for index, item in enumerate(_list(container.get(member), f"{where}.{member}")):
            _object(item, f"{where}.{member}[{index}]")
    for mount in container.get("volumeMounts") or ():
        _text(mount.get("name"), f"{where}.volumeMounts")
        _text(mount.get("mountPath"), f"{where}.volumeMounts")
    security = container.get("securityContext")
    _optional_object(security, f"{where}.securityContext")
    for member in ("resources", "lifecycle"):
        _optional_object(container.get(member), f"{where}.{member}")


def _volume(volume: Any, where: str) -> None:
    _object(volume, where)
    _text(volume.get("name"), f"{where}.name")
    for member in ("emptyDir", "projected", "secret", "hostPath"):
        _optional_object(volume.get(member), f"{where}.{member}")
    projected = volume.get("projected")
    if projected:
        for index, source in enumerate(_list(projected.get("sources"), f"{where}.projected.sources")):
            _object(source, f"{where}.projected.sources[{index}]")


def _affinity(affinity: Any, where: str) -> None:
    node = "nodeAffinity"
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    here = affinity
    for member in ("", node, required):
        here = here.get(member) if member else here
        if here is None:
            return
        _object(here, where)
    for index, term in enumerate(_list(here.get("nodeSelectorTerms"), f"{where}.{node}")):
        _object(term, f"{where}.{node}[{index}]")
        for member in ("matchExpressions", "matchFields"):
            for expression in _list(term.get(member), f"{where}.{node}[{index}].{member}"):
                _object(expression, f"{where}.{node}[{index}].{member}")


def _object(value: Any, where: str) -> None:
    if not isinstance(value, dict):
        raise MalformedError(f"{where}: not an object")


def _optional_object(value: Any, where: str) -> None:
    if value is not None and not isinstance(value, dict):
        raise MalformedError(f"{where}: not an object")


def _list(value: Any, where: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise MalformedError(f"{where}: not a list")
    return value


def _text(value: Any, where: str) -> None:
    if value is not None and not isinstance(value, str):
        raise MalformedError(f"{where}: not text")


def _texts(value: Any, where: str) -> None:
    if value is None:
        return
    _object(value, where)
    for text in value.values():
        if not isinstance(text, str):
            raise MalformedError(f"{where}: holds something that is not text")
