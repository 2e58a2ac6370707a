"""What the webhook injects is what the sidecar reads: every golden case with a plan, byte for byte as it is sent.

The golden cases name few secrets each, so one more asks here for everything that annotations and references can.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from chevron.tokenizer import tokenize

from plan import layout
from plan.codec import read_plan, write_plan
from plan.document import Plan
from sidecar.log import Events
from sidecar.publish.render import _INLINE, Read, environments, files, reads
from sidecar.vault.client import VaultClient
from tests.webhook.golden import golden

_FEWEST = 20  # of 135 cases; fewer means that something here looks in the wrong place
_ANNOTATION = "metadata/annotations/morphisms.dev|"
_EVERYTHING = golden.Case(
    name="everything-at-once",
    review="pods-create-payments-by-replicaset-controller.json",
    path="/mutate/pod",
    mode="inject",
    why="",
    set={
        f"{_ANNOTATION}secret-whole": "~/db",
        f"{_ANNOTATION}secret-key": "secret/knative/cluster/default/payments/tls#tls.crt@3",
        f"{_ANNOTATION}file-key": "tls/server.crt",
        f"{_ANNOTATION}mode-key": "0550",
        f"{_ANNOTATION}secret-dsn": "~/db",
        f"{_ANNOTATION}template-dsn": "pg://{{{user}}}:{{{password}}}@db/$(NAME)",
        f"{_ANNOTATION}env-from": "~/flags, ~/more@2",
        "spec/containers/0/command": ["/app"],
        "spec/containers/0/env": [
            {"name": "DB_PASSWORD", "value": "vault:~/db#password@4"},
            {"name": "DB_URL", "value": "pg://${vault:~/db#user}:${vault:~/db#password@2}@db/app?cost=$5"},
        ],
    },
    copy={},
    request={},
    now="2027-01-01",
    configuration={},
    objects=[],
    answer={},
)


@dataclass(frozen=True)
class Injected:
    """One plan, and the containers that the same patch wraps with the exec helper, as their commands name them."""

    case: str
    text: str
    wrapped: frozenset[str]


@pytest.fixture(scope="module")
def injected() -> list[Injected]:
    found = []
    with pytest.MonkeyPatch.context() as patch:
        # The cases show a plan opened for their readers; here it stays the text that a kubelet would hand over.
        patch.setattr(golden, "_open_plan", lambda value: None)
        paths = [path for path in sorted(golden.CASES.glob("*.yaml")) if layout.PLAN_VARIABLE in path.read_text()]
        for case in (*map(golden.read_case, paths), _EVERYTHING):
            values = [operation.get("value") for operation in golden.answer(case).get("patch", [])]
            found += [Injected(case.name, text, frozenset(_wrapped(values))) for text in _plans(values)]
    return found


def _plans(value: Any) -> Iterator[str]:
    if isinstance(value, dict) and value.get("name") == layout.PLAN_VARIABLE and isinstance(value.get("value"), str):
        yield value["value"]
    for item in _items(value):
        yield from _plans(item)


def _wrapped(value: Any) -> Iterator[str]:
    if isinstance(value, list) and value[:1] == [layout.EXEC_HELPER]:
        assert value[2] == "--"
        yield value[1]
    for item in _items(value):
        yield from _wrapped(item)


def _items(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []


def test_the_sidecar_reads_every_plan_that_is_injected(injected: list[Injected]) -> None:
    print(f"{len(injected)} plans are injected")
    assert len(injected) > _FEWEST
    for each in injected:
        assert write_plan(read_plan(each.text)) == each.text, each.case
        assert "$" not in each.text, f"{each.case}: the kubelet would expand it"


def test_every_secret_is_below_a_kv_mount_of_the_plan_or_leased_to_a_sidecar(injected: list[Injected]) -> None:
    read = 0
    for each in injected:
        plan = read_plan(each.text)
        vault = VaultClient(plan.vault, Events(Path("/nonexistent")))
        for path, version in reads(plan):
            target, kv = vault._api_path(path, version)
            if kv is None:
                assert plan.agent == "sidecar", f"{each.case}: nobody would renew what {target} leases"
            else:
                assert target.startswith("/v1/secret/data/knative/cluster/default/payments/"), each.case
            read += 1
    print(f"{read} secrets are read")
    assert read


def test_every_plan_can_be_published_and_gives_each_wrapped_container_its_file(injected: list[Injected]) -> None:
    published, wrapped = 0, 0
    for each in injected:
        plan = read_plan(each.text)
        secrets = {read: _everything(plan) for read in reads(plan)}
        assert set(files(plan, secrets)) == {secret.file for secret in plan.secrets}, each.case
        names = {name.removeprefix("env/") for name in environments(plan, secrets)}
        assert names == each.wrapped, f"{each.case}: a container would wait for a file that nobody writes, or lack one"
        published += len(plan.secrets)
        wrapped += len(names)
    print(f"{published} files and {wrapped} environments")
    assert published
    assert wrapped


def _everything(plan: Plan) -> dict[str, Any]:
    """A secret with every key that anything in the plan asks of any secret."""
    keys = {key for key in [each.key for each in plan.secrets] + [each.key for each in plan.env] if key is not None}
    for secret in plan.secrets:
        keys |= {key for kind, key in tokenize(secret.template or "") if kind != "literal"}
    for variable in plan.env:
        keys |= {match[2] for match in _INLINE.finditer(variable.value or "")}
    return dict.fromkeys(keys, "value")


def test_a_plan_with_every_feature_is_published(injected: list[Injected]) -> None:
    plan = read_plan(next(each.text for each in injected if each.case == _EVERYTHING.name))
    home = "secret/knative/cluster/default/payments"
    assert reads(plan) == [
        (f"{home}/db", None),
        (f"{home}/tls", 3),
        (f"{home}/flags", None),
        (f"{home}/more", 2),
        (f"{home}/db", 4),
        (f"{home}/db", 2),
    ]
    secrets: dict[Read, dict[str, Any]] = {
        (f"{home}/db", None): {"user": "alice", "password": "new"},
        (f"{home}/db", 2): {"password": "older"},
        (f"{home}/db", 4): {"password": "old"},
        (f"{home}/tls", 3): {"tls.crt": "PEM"},
        (f"{home}/flags", None): {"FLAG": "on"},
        (f"{home}/more", 2): {"MORE": "2"},
    }
    written = files(plan, secrets)
    assert {name: (file.content, oct(file.mode)) for name, file in written.items()} == {
        "whole": (b'{"password":"new","user":"alice"}', "0o440"),
        "tls/server.crt": (b"PEM", "0o550"),
        "dsn": (b"pg://alice:new@db/$(NAME)", "0o440"),
    }
    pairs = environments(plan, secrets)["env/user-container"].content.split(b"\0")[:-1]
    assert sorted(pairs) == [
        b"DB_PASSWORD=old",
        b"DB_URL=pg://alice:older@db/app?cost=$$5",  # the helper reads `$$` as `$`, as Kubernetes does
        b"FLAG=on",
        b"MORE=2",
    ]
