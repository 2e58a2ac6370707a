"""Snapshot files: what is read, and that a refusal names the place and no value."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.webhook.cluster.apiserver import namespace, node, runtime_class
from webhook.cluster import file
from webhook.cluster.file import FileCluster, SnapshotFileError, read_objects
from webhook.modes import Mode
from webhook.snapshot import WorkloadsLookup

_ITEMS = [namespace("shop", "enforce"), node("n1", snp="true"), runtime_class("kata")]


def _written(folder: Path, content: str | bytes) -> Path:
    path = folder / "snapshot"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    "content",
    [
        json.dumps({"kind": "List", "items": _ITEMS}),
        "kind: List\nitems:\n" + "".join(f"- {json.dumps(item)}\n" for item in _ITEMS),
        "---\n" + "\n---\n".join(json.dumps(item) for item in _ITEMS) + "\n---\n",
        json.dumps({"kind": "List", "items": _ITEMS[:1]})
        + "\n---\n"
        + json.dumps({"kind": "List", "items": _ITEMS[1:]}),
    ],
    ids=["json", "yaml", "documents", "lists"],
)
def test_lists_and_documents_are_read(tmp_path: Path, content: str) -> None:
    path = _written(tmp_path, content)
    assert read_objects(path) == _ITEMS
    snapshot = FileCluster.read(path).current()
    assert snapshot.namespaces == {"shop": Mode.ENFORCE}
    assert dict(snapshot.nodes["n1"].labels)["snp"] == "true"
    assert snapshot.runtime_classes["kata"].handler == "kata"
    assert snapshot.age_seconds is None
    assert snapshot.unlisted is Mode.ABSENT


def test_items_of_a_typed_list_have_its_kind(tmp_path: Path) -> None:
    items = [{"metadata": {"name": "n1"}}]
    assert list(
        FileCluster.read(_written(tmp_path, json.dumps({"kind": "NodeList", "items": items}))).current().nodes
    ) == ["n1"]


def test_workloads_of_a_typed_list_are_found_though_their_kind_is_left_out(tmp_path: Path) -> None:
    """`kubectl get --raw /apis/apps/v1/namespaces/shop/deployments` prints such a list."""
    items = [{"metadata": {"name": "web", "namespace": "shop"}}]
    listed = {"apiVersion": "apps/v1", "kind": "DeploymentList", "items": items}
    cluster = FileCluster.read(_written(tmp_path, json.dumps(listed)))
    found = asyncio.run(cluster.look_up(WorkloadsLookup("shop"))).workloads
    assert [each["metadata"]["name"] for listing in found or () for each in listing.items or ()] == ["web"]


def test_a_timestamp_is_text_as_in_kubernetes(tmp_path: Path) -> None:
    (item,) = read_objects(_written(tmp_path, "kind: Pod\nmetadata: {creationTimestamp: 2026-11-23T06:39:43Z}\n"))
    assert item["metadata"]["creationTimestamp"] == "2026-11-23T06:39:43Z"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", ": holds no objects"),
        ("hunter2", ": document 1: not an object with a kind"),
        ("[hunter2]", ": document 1: not an object with a kind"),
        ("kind: List\nitems: hunter2\n", ": document 1: items is not a list of objects"),
        ("kind: Pod\n---\nkind: List\nitems: [hunter2]\n", ": document 2: items is not a list of objects"),
        ("kind: List\nitems: []\n", ": holds no objects"),
        ('{"kind": "hunter2', ":1:18: not valid YAML"),
        ("kind: Pod\nhunter2: [*hunter2]\n", ":2:11: aliases are not supported"),
        ("a: &a [x]\nkind: Pod\nb: *a\n", ":3:4: aliases are not supported"),
        ("kind: Pod\nspec: " + "[" * 200, ":2:106: nested deeper than 100"),
        ('{"kind": "Pod", "spec": ' + "[" * 5000 + "]" * 5000 + "}", "nested deeper than 100"),
        ("kind: !!python/name:os.system hunter2\n", ":1: this YAML tag is not supported"),
        ("kind: Pod\nspec: !!int hunter2\n", ":2: this YAML tag is not supported"),
        (b"kind: \xff\xfe", ": not UTF-8"),
    ],
)
def test_a_refusal_never_repeats_a_value(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = _written(tmp_path, content)
    with pytest.raises(SnapshotFileError) as caught:
        read_objects(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SnapshotFileError, match="cannot be read: No such file"):
        read_objects(tmp_path / "absent")


def test_a_large_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _written(tmp_path, "kind: Pod\nname: x\n")
    monkeypatch.setattr(file, "MAX_YAML_BYTES", 10)
    with pytest.raises(SnapshotFileError, match="write it with -o json"):
        read_objects(path)
    monkeypatch.setattr(file, "MAX_JSON_BYTES", 9)
    with pytest.raises(SnapshotFileError, match="larger than"):
        read_objects(path)
