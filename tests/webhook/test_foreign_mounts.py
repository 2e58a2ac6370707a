"""The quick look of `isolation/foreign-mounts`, which spares most containers the closer one."""

from __future__ import annotations

import pytest

from webhook.configuration.model import Configuration
from webhook.pod.pod import Pod
from webhook.rules.isolation import foreign_mounts
from webhook.rules.rule import Subject

_PATHS = ("/morphisms", "/morphisms/secrets/db", "/a/../morphisms/run", "//morphisms")


@pytest.mark.parametrize("name", foreign_mounts._RESERVED_VOLUMES)
def test_a_container_that_mounts_a_volume_of_ours_is_found_without_any_other_mention_of_us(name: str) -> None:
    assert _found({"volumeMounts": [{"name": name, "mountPath": "/x"}]})


@pytest.mark.parametrize("name", foreign_mounts._RESERVED_VOLUMES)
def test_a_container_that_names_a_volume_of_ours_elsewhere_is_found(name: str) -> None:
    assert _found({"env": [{"name": "A", "valueFrom": {"fileKeyRef": {"volumeName": name}}}]})


@pytest.mark.parametrize("path", _PATHS)
def test_a_container_that_mounts_into_our_tree_is_found(path: str) -> None:
    assert _found({"volumeMounts": [{"name": "x", "mountPath": path}]})


def test_a_container_with_a_number_that_cannot_be_encoded_is_looked_at_closely() -> None:
    mounts = [{"name": foreign_mounts._RESERVED_VOLUMES[0], "mountPath": "/x"}]
    assert _found({"volumeMounts": mounts, "resources": {"limits": {"x": 1 << 80}}})


def test_a_container_that_names_nothing_of_ours_is_not_found() -> None:
    assert not _found({"volumeMounts": [{"name": "data", "mountPath": "/data"}], "args": ["serve"]})


def _found(container: dict[str, object]) -> list[object]:
    pod = Pod({"spec": {"containers": [{"name": "app", **container}]}}, "shop", Configuration())
    return list(foreign_mounts.check(Subject(pod)))
