"""The attacks that are known on guests' policies, each with the test that plays it: none of the list is missing."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any, Final

import pytest

from tests.measured import test_policy_refuses as refuses
from tests.support.paths import ROOT

HERE: Final = Path(__file__).parent
_FILES: Final = "tests/measured/test_initdata.py"
_IDENTITY: Final = "tests/e2e/test_workload_identity.py"
_STATE: Final = "test_nothing_starts_out_of_order_twice_or_under_a_used_id"
_SENT: Final = f"{_IDENTITY}::test_the_document_that_a_guest_sends_is_the_measured_one_to_the_byte"
_OTHER_BYTE: Final = f"{_FILES}::test_any_other_byte_is_another_host_data"

# Attack → the case in a table of test_policy_refuses.py, a test there, or a test elsewhere as FILE::TEST.
ATTACKS: Final[dict[str, tuple[tuple[str, str] | str, ...]]] = {
    "image: source swapped": (("CREATE_APP", "image: source swapped"),),
    "image: image-name annotation swapped": (("CREATE_APP", "image: annotation swapped"),),
    "image: no storage, and the root is a tree that CopyFile wrote": (
        ("CREATE_APP", "image: none, root from copied files"),
        ("COPIES", "root file system"),
    ),
    "image: no storage (CVE-2026-24054)": (("CREATE_APP", "image: none"),),
    "image: two storages": (("CREATE_APP", "image: two"),),
    "image: driver_options say sandbox": (("CREATE_APP", "image: options say sandbox"),),
    "image: same tag, other digest": (("CREATE_APP", "image: same tag, other digest"),),
    "image: storage beside verity layers": (("CREATE_APP", "image: beside verity layers"),),
    "env: one left out": (("CREATE_APP", "env: one left out"),),
    "env: FOO_SERVICE_PORT_X": (("CREATE_APP", "env: service-like name"),),
    "env: TERM": (("CREATE_APP", "env: TERM"),),
    "env: HOSTNAME twice": (("CREATE_APP", "env: HOSTNAME twice"),),
    "env: LD_PRELOAD": (("CREATE_APP", "env: LD_PRELOAD"),),
    "env: same key, other value": (("CREATE_APP", "env: other value"),),
    "env: values with an equals sign": (("CREATE_APP", "env: value cut at its equals sign"),),
    "env: values with a newline": (
        ("CREATE_APP", "env: newline appended"),
        ("CREATE_APP", "env: value of a second line"),
        ("CREATE_APP", "env: address with a newline"),
    ),
    "mounts: one left out": (("CREATE_APP", "mount: one left out"), ("CREATE_APP", "mount: the pod's token left out")),
    "mounts: /dev/shm by a detour": (("CREATE_APP", "mount: shm by a detour"),),
    "mounts: relative source": (("CREATE_APP", "mount: relative source"),),
    "mounts: bind option on another type": (("CREATE_APP", "mount: bind on another type"),),
    "mounts: volumes exchanged": (("CREATE_APP", "mount: volumes exchanged"),),
    "mounts: one twice": (("CREATE_APP", "mount: one twice"),),
    "process: extra argument": (("CREATE_APP", "args: one more"),),
    "process: working folder": (("CREATE_APP", "cwd"),),
    "process: user": (("CREATE_APP", "user: root"),),
    "process: group": (("CREATE_APP", "user: other group"),),
    "process: extra group": (("CREATE_APP", "user: one more group"),),
    "process: capabilities": (
        ("CREATE_APP", "capabilities: one more"),
        ("CREATE_APP", "capabilities: one more, bounding"),
        ("CREATE_APP", "capabilities: ambient"),
    ),
    "process: new privileges": (("CREATE_APP", "no new privileges off"),),
    "process: terminal": (("CREATE_APP", "terminal"),),
    "process: hooks": (("CREATE_APP", "hooks"),),
    "process: ports": (
        ("CREATE_APP", "stdin port"),
        ("CREATE_APP", "stdout port"),
        ("CREATE_APP", "stderr port"),
    ),
    "process: masked path over the entry point": (("CREATE_APP", "masked path over the application"),),
    "process: cgroup namespace with a path": (("CREATE_APP", "namespace: cgroup with a path"),),
    "process: shared process namespace": (("CREATE_APP", "namespace: shared process ids"),),
    "process: device": (("CREATE_APP", "device"), ("CREATE_APP", "device of the agent")),
    "process: CDI": (("CREATE_APP", "annotation: a device by CDI"),),
    "process: sysctl": (("CREATE_APP", "sysctl"),),
    "state: application before init": (_STATE,),
    "state: start of an unknown id": (_STATE,),
    "state: same id twice": (_STATE,),
    "state: second instance": (_STATE, "test_two_started_instances_cannot_be_made_by_creating_both_first"),
    "state: removal of the policy's own keys": (_STATE,),
    "state: id after removal": (_STATE,),
    "state: failed creation": ("tests/measured/test_policy_admits.py::test_a_creation_that_failed_is_tried_again",),
    "names: prefix": (("CREATE_PAUSE", "pause: pod of another name"),),
    "names: suffix": (
        ("CREATE_PAUSE", "pause: pod's name with a suffix"),
        ("CREATE_PAUSE", "pause: pod's name and a newline"),
        ("CREATE_APP", "annotation: name with a suffix"),
    ),
    "names: other namespace": (
        ("CREATE_PAUSE", "pause: other namespace"),
        ("CREATE_APP", "annotation: other namespace"),
    ),
    "names: second pod name": (("CREATE_APP", "annotation: other pod"), _STATE),
    "pause: arguments": (("CREATE_PAUSE", "pause: other program"),),
    "pause: mounts": (("CREATE_PAUSE", "pause: a mount"),),
    "pause: type confusion": (
        ("CREATE_PAUSE", "pause: says container"),
        ("CREATE_APP", "annotation: says sandbox"),
        ("CREATE_APP", "annotation: Kata's type says sandbox"),
    ),
    "CopyFile: link at the top": (("COPIES", "link at the top"),),
    "CopyFile: absolute link (CVE-2026-41326, GHSA-q49m-57vm-c8cc)": (("COPIES", "absolute link"),),
    "CopyFile: link out of the folder": (
        ("COPIES", "link out of the folder"),
        ("COPIES", "link that names its parent"),
    ),
    "CopyFile: tail after a file's name": (("COPIES", "tail after a file's name"),),
    "CopyFile: other types": (("COPIES", "a device"), ("COPIES", "no type"), ("COPIES", "folder in a file's place")),
    "CopyFile: root file system (GHSA-rh99-wc69-c255)": (("COPIES", "root file system"),),
    "requests: every other": ("test_every_other_request_is_refused",),
    "requests: exec": ("test_an_exec_is_refused_for_a_container_that_runs",),
    "requests: loopback": ("test_the_loopback_interface_is_out_of_reach", "test_no_route_leads_to_the_loopback"),
    "annotations: Kata's own (GHSA-rr59-xxvx-96qr)": (("CREATE_APP", "annotation: Kata's, not measured"),),
    "leaks: no print": ("tests/measured/test_policy_admits.py::test_the_rules_can_be_read_by_every_agent",),
    "document: absent": (
        "tests/attestation/verifier/test_policies.py::test_a_wrong_record_is_refused_by_key",
        f"{_IDENTITY}::test_the_rendered_guest_gets_its_secret_as_it_is_and_no_other_guest_does",
    ),
    "document: other algorithm": (_OTHER_BYTE, f"{_FILES}::test_problems"),
    "document: second gzip member": (
        f"{_FILES}::test_a_second_gzip_member_is_refused_because_other_readers_would_measure_another_document",
    ),
    "document: unknown files": (_OTHER_BYTE,),
    "document: over 256 KiB": (f"{_FILES}::test_problems",),
    "document: CRLF": (_OTHER_BYTE, _SENT),
    "document: aa.toml or cdh.toml changed": (_OTHER_BYTE, _SENT),
    "document: right HOST_DATA, another document": (
        _SENT,
        f"{_IDENTITY}::test_a_record_whose_document_was_changed_gives_nobody_anything",
    ),
    "record: no HOST_DATA": ("tests/attestation/verifier/test_policies.py::test_a_wrong_record_is_refused_by_key",),
    "template: revoked": ("tests/cli/test_render_measured.py::test_a_pod_of_a_revoked_template_is_refused_by_name",),
    "secret: $(HOME) and $$": (
        f"{_IDENTITY}::test_the_rendered_guest_gets_its_secret_as_it_is_and_no_other_guest_does",
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_each_known_attack_is_played(attack: str) -> None:
    assert ATTACKS[attack]
    for where in ATTACKS[attack]:
        if isinstance(where, tuple):
            table: dict[str, Any] = getattr(refuses, where[0])
            assert where[1] in table
        else:
            file, _, test = where.rpartition("::")
            path = ROOT / file if file else HERE / "test_policy_refuses.py"
            names = {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}
            assert test in names, f"{path.name} has no {test}"
