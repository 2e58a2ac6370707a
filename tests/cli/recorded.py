"""Recorded objects as manifests, and a command run in this process."""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support.paths import REVIEWS

# What the recorded objects' authors wrote and nobody else may see.
CANARIES = ("hunter2", "p4ss", "tok-1")


def recorded(name: str) -> dict[str, Any]:
    """The object of a recorded review, without the bookkeeping of the API server."""
    item: dict[str, Any] = json.loads((REVIEWS / f"{name}.json").read_bytes())["request"]["object"]
    item["metadata"].pop("managedFields", None)
    return item


def names(prefix: str) -> list[str]:
    """The recorded reviews with this prefix of their name."""
    found = sorted(path.stem for path in REVIEWS.glob(f"{prefix}*.json"))
    assert found
    return found


@dataclass(frozen=True)
class Result:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def documents(self) -> list[Any]:
        return list(yaml.safe_load_all(self.out))


Command = Callable[..., Result]


def run_module(name: str, arguments: list[str]) -> int:
    """Run a subcommand's module as the entry point does."""
    module = importlib.import_module(f"cli.commands.{name}")
    parser = argparse.ArgumentParser(prog=f"morphisms {name}")
    module.configure(parser)
    return int(module.run(parser.parse_args(arguments)))


def write(path: Path, *objects: Any) -> str:
    """The objects as one YAML file; its path."""
    path.write_text(yaml.safe_dump_all(objects, sort_keys=False))
    return str(path)


def pod(**spec: Any) -> dict[str, Any]:
    """A pod that every rule is content with once it is injected."""
    container = {"name": "app", "image": f"example.com/app@sha256:{'a' * 64}", "command": ["/app"]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "app", "namespace": "shop"},
        "spec": {"containers": [container], **spec},
    }


def service(container: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    """A Knative Service with one container, a reference to a pinned image filled in."""
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "payments", "namespace": "shop", **metadata},
        "spec": {"template": {"spec": {"containers": [{"image": f"example.com/app@sha256:{'a' * 64}", **container}]}}},
    }


def cluster(mode: str | None, **runtime_class: Any) -> dict[str, Any]:
    """A snapshot: namespace `shop` in that mode, the RuntimeClass of the default profile."""
    labels = {} if mode is None else {"morphisms.dev/mode": mode}
    handler = {"handler": "kata-qemu-snp", **runtime_class}
    return {
        "apiVersion": "v1",
        "kind": "List",
        "items": [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": labels}},
            {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "kata-qemu-snp"}, **handler},
        ],
    }


# Each is unusable; "hunter2" stands where a careless message would repeat it.
HOSTILE = {
    "nothing": b"",
    "not-utf8": b"\xff\x00hunter2",
    "not-yaml": b"password: 'hunter2",
    "text": b"hunter2",
    "not-an-object": b"password: hunter2",
    "unknown-tag": b"apiVersion: v1\nkind: Pod\nx: !!python/object/apply:os.system [hunter2]\n",
    "key-twice": b"apiVersion: v1\nkind: Pod\nkind: hunter2\n",
    "deep": b"apiVersion: v1\nkind: Pod\nx: " + b"[" * 5000,
    "bomb": b"apiVersion: v1\nkind: Pod\na: &a [x,x,x,x,x,x,x,x,x]\n"
    + b"".join(
        f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n".encode()
        for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    ),
    "item-of-a-list": b"apiVersion: v1\nkind: List\nitems:\n- hunter2\n",
    "list-in-a-list": b"apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: List, items: []}\n",
    "metadata": b"apiVersion: v1\nkind: Pod\nmetadata: hunter2\n",
    "annotations": b"apiVersion: v1\nkind: Pod\nmetadata: {annotations: {a: [hunter2]}}\n",
    "no-spec": b"apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n",
    "no-containers": b"apiVersion: v1\nkind: Pod\nspec: {containers: []}\n",
    "number-in-env": b"apiVersion: v1\nkind: Pod\nspec: {containers: [{name: a, env: [{name: P, value: 8080}]}]}\n",
    "no-template": b"apiVersion: apps/v1\nkind: Deployment\nspec: {template: hunter2}\n",
    "no-service-template": b"apiVersion: serving.knative.dev/v1\nkind: Service\nspec: {}\n",
    "revision": b"apiVersion: serving.knative.dev/v1\nkind: Revision\nspec: {containers: hunter2}\n",
}
