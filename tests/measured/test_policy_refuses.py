"""What a hostile host can send, one thing at a time: each is refused, and all that honestly went before it is allowed.

The list follows the attacks on Kata's generated policies that are public: GHSA-q49m-57vm-c8cc, CVE-2026-41326, and
the issues of kata-containers and its kin on images, variables, mounts and state.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any, Final

import pytest

from cli.proof.guest_requests import Request
from measured.policy import rules_text
from tests.measured import pods
from tests.measured.test_policy_admits import allowed, container_of
from tests.support.policy_engine import Engine

Change = Callable[[dict[str, Any]], None]


def set_(path: str, value: Any) -> Change:
    """Set one field: `a.b.0.c`; a key with dots stands in brackets, `Annotations[x.y]`."""

    def change(request: dict[str, Any]) -> None:
        *parents, last = _parts(path)
        target: Any = request
        for part in parents:
            target = target[part]
        target[last] = value

    return change


def _parts(path: str) -> list[Any]:
    plain, _, key = path.partition("[")
    parts: list[Any] = [int(part) if part.isdigit() else part for part in plain.split(".")]
    return [*parts, key.removesuffix("]")] if key else parts


def env(change: Callable[[list[str]], list[str]]) -> Change:
    def apply(request: dict[str, Any]) -> None:
        request["OCI"]["Process"]["Env"] = change(request["OCI"]["Process"]["Env"])

    return apply


def mount(destination: str, **fields: Any) -> Change:
    def apply(request: dict[str, Any]) -> None:
        next(one for one in request["OCI"]["Mounts"] if one["destination"] == destination).update(fields)

    return apply


def both(*changes: Change) -> Change:
    def apply(request: dict[str, Any]) -> None:
        for change in changes:
            change(request)

    return apply


def storage(driver: str, **fields: Any) -> Change:
    def apply(request: dict[str, Any]) -> None:
        next(one for one in request["storages"] if one["driver"] == driver).update(fields)

    return apply


def without_mount(destination: str) -> Change:
    def apply(request: dict[str, Any]) -> None:
        request["OCI"]["Mounts"] = [one for one in request["OCI"]["Mounts"] if one["destination"] != destination]

    return apply


def more(path: str, value: Any) -> Change:
    """Append to a list."""

    def apply(request: dict[str, Any]) -> None:
        target: Any = request
        for part in _parts(path):
            target = target[part]
        target.append(value)

    return apply


def exchange(one: str, other: str) -> Change:
    """Two mounts show each other's content."""

    def apply(request: dict[str, Any]) -> None:
        first, second = (
            next(m for m in request["OCI"]["Mounts"] if m["destination"] == where) for where in (one, other)
        )
        first["source"], second["source"] = second["source"], first["source"]

    return apply


def copied_root(request: dict[str, Any]) -> None:
    """The root file system is a tree that CopyFile wrote, and no image is pulled."""
    tree = f"/run/kata-containers/shared/containers/{'1' * 64}-{'a' * 16}-x/run/kata-containers/y/rootfs"
    request["OCI"]["Root"]["Path"] = tree
    request["storages"] = [one for one in request["storages"] if one["driver"] != "image_guest_pull"]


def two_images(request: dict[str, Any]) -> None:
    request["storages"].append(copy.deepcopy(request["storages"][0]))


def relabelled(request: dict[str, Any]) -> None:
    """The storage says that the container is the sandbox, which runs the guest's own pause image."""
    prefix, _, text = request["storages"][0]["driver_options"][0].partition("=")
    metadata = json.loads(text)
    metadata["metadata"]["io.kubernetes.cri.container-type"] = "sandbox"
    request["storages"][0]["driver_options"] = [f"{prefix}={json.dumps(metadata)}"]


def twice(destination: str) -> Change:
    def apply(request: dict[str, Any]) -> None:
        found = next(one for one in request["OCI"]["Mounts"] if one["destination"] == destination)
        request["OCI"]["Mounts"].append(copy.deepcopy(found))

    return apply


SHARED: Final = "/run/kata-containers/shared/containers"
ANNOTATIONS: Final = "OCI.Annotations"
IMAGE_NAME: Final = f"{ANNOTATIONS}[io.kubernetes.cri.image-name]"

CREATE_APP: Final[dict[str, Change]] = {
    "image: source swapped": storage("image_guest_pull", source=pods.OTHER),
    "image: same tag, other digest": storage("image_guest_pull", source=pods.APP.replace("a" * 64, "d" * 64)),
    "image: by tag only": storage("image_guest_pull", source="registry.test/app:v1"),
    "image: two digests": storage("image_guest_pull", source=f"evil@sha256:{'e' * 64}@sha256:{'a' * 64}"),
    "image: annotation swapped": set_(IMAGE_NAME, pods.OTHER),
    "image: none, root from copied files": copied_root,
    "image: none": set_("storages", []),
    "image: two": two_images,
    "image: options say sandbox": relabelled,
    "image: options without metadata": storage("image_guest_pull", driver_options=["image_guest_pull={}"]),
    "image: options not JSON": storage("image_guest_pull", driver_options=["image_guest_pull={"]),
    "image: two options": storage("image_guest_pull", driver_options=["a", "b"]),
    "image: mounted elsewhere": storage("image_guest_pull", mount_point="/run/kata-containers/other/rootfs"),
    "image: with an option": storage("image_guest_pull", options=["ro"]),
    "image: of another file system": storage("image_guest_pull", fstype="erofs"),
    "image: shared": storage("image_guest_pull", shared=True),
    "image: beside verity layers": more("storages", {"driver": "blk", "options": ["io.katacontainers.fs-opt.layer=x"]}),
    "root: elsewhere": set_("OCI.Root.Path", "/"),
    "root: of another container": set_("OCI.Root.Path", f"/run/kata-containers/{'1' * 64}/rootfs"),
    "root: writable": set_("OCI.Root.Readonly", False),
    "env: one left out": env(lambda entries: [one for one in entries if not one.startswith("PLAIN=")]),
    "env: all left out": env(lambda _: []),
    "env: LD_PRELOAD": env(lambda entries: [*entries, "LD_PRELOAD=/x.so"]),
    "env: service-like name": env(lambda entries: [*entries, "FOO_SERVICE_PORT_X=1"]),
    "env: TERM": env(lambda entries: [*entries, "TERM=xterm"]),
    "env: HOSTNAME twice": env(lambda entries: [*entries, next(one for one in entries if one.startswith("HOSTNAME="))]),
    "env: one twice instead of another": env(lambda entries: [*entries[:-1], entries[0]]),
    "env: other value": env(lambda entries: [one.replace("PLAIN=a", "PLAIN=b") for one in entries]),
    "env: value cut at its equals sign": env(lambda entries: [one.replace("PLAIN=a=b", "PLAIN=a") for one in entries]),
    "env: newline appended": env(lambda entries: [f"{one}\n" if one.startswith("PLAIN=") else one for one in entries]),
    "env: value of a second line": env(lambda entries: [one.replace("c\nd", "c") for one in entries]),
    "env: HOSTNAME of another pod": env(lambda entries: [one.replace("HOSTNAME=", "HOSTNAME=x") for one in entries]),
    "env: name of another pod": env(lambda entries: [one.replace("POD=payments", "POD=billing") for one in entries]),
    "env: address with a newline": env(
        lambda entries: [f"{one}\n" if one.startswith("IP=") else one for one in entries]
    ),
    "env: address that is a command": env(
        lambda entries: ["IP=$(id)" if one.startswith("IP=") else one for one in entries]
    ),
    "env: service port that is a word": env(
        lambda entries: [
            "KUBERNETES_SERVICE_PORT=x" if one.startswith("KUBERNETES_SERVICE_PORT=") else one for one in entries
        ]
    ),
    "env: lower-case name": env(lambda entries: [one.replace("PLAIN=", "plain=") for one in entries]),
    "env: no equals sign": env(lambda entries: [*entries[:-1], "KUBERNETES_PORT"]),
    "args: one more": more("OCI.Process.Args", "--debug"),
    "args: none": set_("OCI.Process.Args", []),
    "args: other program": set_("OCI.Process.Args", ["/bin/sh"]),
    "cwd": set_("OCI.Process.Cwd", "/"),
    "user: root": set_("OCI.Process.User.UID", 0),
    "user: other group": set_("OCI.Process.User.GID", 1000),
    "user: one more group": more("OCI.Process.User.AdditionalGids", 27),
    "user: one group less": set_("OCI.Process.User.AdditionalGids", [0]),
    "user: a name": set_("OCI.Process.User.Username", "root"),
    "user: a string": set_("string_user", {"uid": "root"}),
    "capabilities: one more": more("OCI.Process.Capabilities.Effective", "CAP_SYS_ADMIN"),
    "capabilities: one more, bounding": more("OCI.Process.Capabilities.Bounding", "CAP_SYS_ADMIN"),
    "capabilities: ambient": set_("OCI.Process.Capabilities.Ambient", ["CAP_NET_BIND_SERVICE"]),
    "capabilities: inheritable": set_("OCI.Process.Capabilities.Inheritable", ["CAP_NET_BIND_SERVICE"]),
    "no new privileges off": set_("OCI.Process.NoNewPrivileges", False),
    "terminal": set_("OCI.Process.Terminal", True),
    "SELinux label": set_("OCI.Process.SelinuxLabel", "x"),
    "stdin port": set_("stdin_port", 1),
    "stdout port": set_("stdout_port", 1),
    "stderr port": set_("stderr_port", 1),
    "hooks": set_("OCI.Hooks", {"Prestart": [{"Path": "/x"}]}),
    "masked path over the application": more("OCI.Linux.MaskedPaths", "/entrypoint.sh"),
    "masked path by a detour": more("OCI.Linux.MaskedPaths", "/proc/../entrypoint.sh"),
    "masked paths: none": set_("OCI.Linux.MaskedPaths", []),
    "read-only path over the application": more("OCI.Linux.ReadonlyPaths", "/srv"),
    "read-only paths: none": set_("OCI.Linux.ReadonlyPaths", []),
    "namespace: cgroup": more("OCI.Linux.Namespaces", {"Type": "cgroup", "Path": ""}),
    "namespace: cgroup with a path": more("OCI.Linux.Namespaces", {"Type": "cgroup", "Path": "/proc/1/ns/cgroup"}),
    "namespace: of another process": set_("OCI.Linux.Namespaces.0.Path", "/proc/1/ns/ipc"),
    "namespace: none": set_("OCI.Linux.Namespaces", []),
    "namespace: shared process ids": set_("sandbox_pidns", True),
    "device": more("OCI.Linux.Devices", {"Path": "/dev/mem"}),
    "device of the agent": more("devices", {"id": "x"}),
    "device cgroup": more("OCI.Linux.Resources.Devices", {"Allow": True}),
    "shared mount": more("shared_mounts", {"name": "x"}),
    "sysctl": set_("OCI.Linux.Sysctl", {"kernel.core_pattern": "|/x"}),
    "seccomp": set_("OCI.Linux.Seccomp", {"DefaultAction": "allow"}),
    "host name": set_("OCI.Hostname", "other"),
    "uid mapping": more("OCI.Linux.UIDMappings", {"HostID": 0}),
    "root propagation": set_("OCI.Linux.RootfsPropagation", "shared"),
    "annotation: a device by CDI": set_(f"{ANNOTATIONS}[cdi.k8s.io/x]", "vendor.com/gpu=0"),
    "annotation: Kata's, not measured": set_(f"{ANNOTATIONS}[io.katacontainers.config.agent.kernel_modules]", "x"),
    "annotation: unknown of the runtime": set_(f"{ANNOTATIONS}[io.kubernetes.cri.x]", "y"),
    "annotation: other container": set_(f"{ANNOTATIONS}[io.kubernetes.cri.container-name]", "second"),
    "annotation: name with a suffix": set_(f"{ANNOTATIONS}[io.kubernetes.cri.container-name]", "app-evil"),
    "annotation: other namespace": set_(f"{ANNOTATIONS}[io.kubernetes.cri.sandbox-namespace]", "evil"),
    "annotation: other pod": set_(f"{ANNOTATIONS}[io.kubernetes.cri.sandbox-name]", "payments-1"),
    "annotation: other sandbox": set_(f"{ANNOTATIONS}[io.kubernetes.cri.sandbox-id]", "2" * 64),
    "annotation: other uid": set_(f"{ANNOTATIONS}[io.kubernetes.cri.sandbox-uid]", "x"),
    "annotation: says sandbox": set_(f"{ANNOTATIONS}[io.kubernetes.cri.container-type]", "sandbox"),
    "annotation: Kata's type says sandbox": set_(
        f"{ANNOTATIONS}[io.katacontainers.pkg.oci.container_type]", "pod_sandbox"
    ),
    "annotation: other termination path": set_(
        f"{ANNOTATIONS}[io.kubernetes.container.terminationMessagePath]", "/srv/x"
    ),
    "mount: one left out": without_mount("/etc/settings"),
    "mount: the pod's token left out": without_mount("/var/run/secrets/kubernetes.io/serviceaccount"),
    "mount: the pod's token is another folder": mount(
        "/var/run/secrets/kubernetes.io/serviceaccount", source=f"{SHARED}/{'1' * 64}-{'a' * 16}-serviceaccount"
    ),
    "mount: proc left out": without_mount("/proc"),
    "mount: one twice": twice("/etc/settings"),
    "mount: one more": more(
        "OCI.Mounts", {"destination": "/app", "source": "/x", "type_": "bind", "options": ["rbind", "rprivate", "ro"]}
    ),
    "mount: shm by a detour": mount("/dev/shm", source="/run/kata-containers/sandbox/shm/../../../.."),
    "mount: shm is the guest's root": mount("/dev/shm", source="/"),
    "mount: relative source": mount("/etc/settings", source="settings"),
    "mount: another container's file": mount("/etc/settings", source=f"{SHARED}/{'1' * 64}-{'a' * 16}-settings"),
    "mount: another file of ours": mount("/etc/settings", source=f"{SHARED}/{'1' * 64}-{'a' * 16}-hosts"),
    "mount: source with a tail": mount("/etc/settings", source=f"{SHARED}/x/{'1' * 64}-{'a' * 16}-settings"),
    "mount: bind on another type": mount("/proc", options=["nosuid", "noexec", "nodev", "bind"]),
    "mount: proc from elsewhere": mount("/proc", source="/run", type_="bind"),
    "mount: writable": mount("/run/shared", options=["rbind", "rprivate", "rw"]),
    "mount: executable and shared": mount("/run/shared", options=["rbind", "rshared", "ro"]),
    "mount: volumes exchanged": exchange("/run/shared", "/run/other"),
    "mount: disks exchanged for memory": exchange("/scratch", "/run/other"),
    "mount: two disks are one": both(
        lambda request: mount(
            "/spare", source=next(one["source"] for one in request["OCI"]["Mounts"] if one["destination"] == "/scratch")
        )(request)
    ),
    "mount: cgroup writable": mount("/sys/fs/cgroup", options=["nosuid", "noexec", "nodev", "relatime", "rw"]),
    "storage: memory somewhere else": storage("ephemeral", mount_point="/run/kata-containers/sandbox/ephemeral/../x"),
    "storage: memory of another group": storage("ephemeral", options=["fsgid=0"]),
    "storage: memory that is a bind": storage("ephemeral", source="/etc", fstype="bind"),
    "storage: one more of memory": more(
        "storages",
        {
            "driver": "ephemeral",
            "driver_options": [],
            "source": "tmpfs",
            "fstype": "tmpfs",
            "options": ["fsgid=2000"],
            "mount_point": "/run/kata-containers/sandbox/ephemeral/parked",
            "fs_group": None,
            "shared": False,
        },
    ),
    "storage: disk not encrypted": storage("scsi", driver_options=["create_filesystem"]),
    "storage: disk with content": storage("scsi", driver_options=["encryption_key=ephemeral"]),
    "storage: disk elsewhere": storage("scsi", mount_point="/run/kata-containers/sandbox/storage/eA"),
    "storage: virtio-fs": more("storages", {"driver": "virtio-fs", "source": "kataShared", "mount_point": "/x"}),
    "storage: local": more("storages", {"driver": "local", "source": "local", "mount_point": "/x"}),
    "id: too short": both(set_("container_id", "1"), set_("exec_id", "1")),
    "id: with a path": both(set_("container_id", "../x"), set_("exec_id", "../x")),
    "id: exec id differs": set_("exec_id", "1" * 64),
}

CREATE_PAUSE: Final[dict[str, Change]] = {
    "pause: other program": set_("OCI.Process.Args", ["/bin/sh"]),
    "pause: a variable": more("OCI.Process.Env", "LD_PRELOAD=/x.so"),
    "pause: a mount": more("OCI.Mounts", {"destination": "/x", "source": "/", "type_": "bind", "options": ["rbind"]}),
    "pause: an image of the host's choice": storage("image_guest_pull", source=pods.OTHER),
    "pause: capability": more("OCI.Process.Capabilities.Effective", "CAP_SYS_ADMIN"),
    "pause: writable root": set_("OCI.Root.Readonly", False),
    "pause: says container": set_(f"{ANNOTATIONS}[io.kubernetes.cri.container-type]", "container"),
    "pause: name of a container": set_(f"{ANNOTATIONS}[io.kubernetes.cri.container-name]", "app"),
    "pause: pod of another name": set_(f"{ANNOTATIONS}[io.kubernetes.cri.sandbox-name]", "evil-payments-0"),
    "pause: pod's name with a suffix": set_(f"{ANNOTATIONS}[io.kubernetes.cri.sandbox-name]", "payments-0-evil"),
    "pause: pod's name and a newline": set_(f"{ANNOTATIONS}[io.kubernetes.cri.sandbox-name]", "payments-0\n"),
    "pause: other namespace": set_(f"{ANNOTATIONS}[io.kubernetes.cri.sandbox-namespace]", "evil"),
    "pause: other host name": set_("OCI.Hostname", "evil"),
    "pause: other sandbox id": set_(f"{ANNOTATIONS}[io.kubernetes.cri.sandbox-id]", "2" * 64),
}

CREATE_SANDBOX: Final[dict[str, Change]] = {
    "sandbox: shared process ids": set_("sandbox_pidns", True),
    "sandbox: guest hooks": set_("guest_hook_path", "/x"),
    "sandbox: kernel module": set_("kernel_modules", [{"name": "x"}]),
    "sandbox: parked storage": more(
        "storages", {"driver": "ephemeral", "source": "shm", "fstype": "tmpfs", "options": [], "mount_point": "/x"}
    ),
    "sandbox: shm elsewhere": set_("storages.0.mount_point", "/etc"),
    "sandbox: shm executable": set_("storages.0.options", ["nosuid", "nodev", "mode=1777", "size=67108864"]),
}


@pytest.mark.parametrize(
    ("kind", "container", "change"),
    [pytest.param("CreateContainerRequest", "app", change, id=name) for name, change in CREATE_APP.items()]
    + [pytest.param("CreateContainerRequest", None, change, id=name) for name, change in CREATE_PAUSE.items()]
    + [pytest.param("CreateSandboxRequest", None, change, id=name) for name, change in CREATE_SANDBOX.items()],
)
def test_one_change_is_refused(guest: Engine, kind: str, container: str | None, change: Change) -> None:
    guest.load(pods.policy())
    for ask in pods.honest():
        if ask["kind"] == kind and container_of(ask) == container:
            changed = copy.deepcopy(ask)
            change(changed["request"])
            assert changed != ask, "the change changes nothing"
            assert not allowed(guest, changed)
            assert allowed(guest, ask), "the same without the change"
            return
        assert allowed(guest, ask)
    pytest.fail("the sequence has no such request")


COPIES: Final[dict[str, dict[str, Any]]] = {
    "link at the top": {"path": "NEW-settings", "file_type": "Symlink", "symlink_target": "x"},
    "absolute link": {"path": "NEW-settings/x", "file_type": "Symlink", "symlink_target": "/etc/passwd"},
    "link out of the folder": {"path": "NEW-settings/x", "file_type": "Symlink", "symlink_target": "a/../../x"},
    "link that names its parent": {"path": "NEW-settings/x", "file_type": "Symlink", "symlink_target": ".."},
    "link without a target": {"path": "NEW-settings/x", "file_type": "Symlink", "symlink_target": None},
    "out of the folder": {"path": "NEW-settings/../../x"},
    "empty component": {"path": "NEW-settings//x"},
    "dot": {"path": "NEW-settings/./x"},
    "newline in a name": {"path": "NEW-settings/a\nb"},
    "unknown volume": {"path": "NEW-evil"},
    "tail after a file's name": {"path": "NEW-hosts-anything/at/all"},
    "file with a tail": {"path": "NEW-hosts/x"},
    "folder in a file's place": {"path": "NEW-hosts", "file_type": "Directory"},
    "file in a folder's place": {"path": "NEW-settings"},
    "set-user-ID": {"path": "NEW-settings/x", "file_mode": 0o104755},
    "set-group-ID of a file": {"path": "NEW-settings/x", "file_mode": 0o102755},
    "set-user-ID of a folder": {"path": "NEW-settings", "file_type": "Directory", "file_mode": 0o44755},
    "a device": {"path": "NEW-settings/x", "file_type": "CharacterDevice"},
    "no type": {"path": "NEW-settings/x", "file_type": ""},
    "root file system": {"path": f"/run/kata-containers/{'1' * 64}/rootfs/bin/sh"},
    "elsewhere": {"path": "/etc/passwd"},
    "another folder of the share": {"path": f"{SHARED}/evil/{'1' * 64}-{'a' * 16}-hosts"},
    "short id": {"path": f"{SHARED}/1-{'a' * 16}-hosts"},
    "short random part": {"path": f"{SHARED}/{'1' * 64}-a-hosts"},
    "a file that is a link": {"path": "NEW-hosts", "symlink_target": "/etc/passwd"},
    "very deep": {"path": "NEW-settings/" + "/".join("a" * 20)},
    "long name": {"path": "NEW-settings/" + "a" * 256},
}


@pytest.mark.parametrize("change", COPIES.values(), ids=COPIES)
def test_a_file_elsewhere_or_of_another_kind_is_refused(guest: Engine, change: dict[str, Any]) -> None:
    guest.load(pods.policy())
    honest = {
        "file_type": "Regular",
        "symlink_target": None,
        "file_mode": 0o100644,
        "dir_mode": 0o750,
        "uid": 0,
        "gid": 0,
    }
    new = f"{SHARED}/{'1' * 64}-{'a' * 16}"
    assert guest.ask("CopyFileRequest", {**honest, "path": f"{new}-hosts"})
    assert guest.ask("CopyFileRequest", {**honest, "path": f"{new}-settings/a"})
    request = {**honest, **change}
    assert not guest.ask("CopyFileRequest", {**request, "path": request["path"].replace("NEW", new)})


INTERFACES: Final[dict[str, dict[str, Any]]] = {
    "loopback by name": {"name": "lo"},
    "loopback by device": {"device": "lo"},
    "loopback by hardware address": {"hwAddr": "00:00:00:00:00:00"},
    "no hardware address": {"hwAddr": ""},
    "loopback address": {"IPAddresses": [{"family": 0, "address": "127.0.0.1", "mask": "8"}]},
    "loopback address, another": {"IPAddresses": [{"family": 0, "address": "127.9.9.9", "mask": "32"}]},
    "IPv6 loopback": {"IPAddresses": [{"family": 1, "address": "::1", "mask": "128"}]},
    "IPv6 loopback in full": {"IPAddresses": [{"family": 1, "address": "0:0:0:0:0:0:0:1", "mask": "128"}]},
    "IPv4 in IPv6": {"IPAddresses": [{"family": 1, "address": "::ffff:127.0.0.1", "mask": "128"}]},
    "IPv4 in IPv6 in hex": {"IPAddresses": [{"family": 1, "address": "::ffff:7f00:1", "mask": "128"}]},
    "flags": {"raw_flags": 8},
    "device path": {"devicePath": "/dev/x"},
    "octal address": {"IPAddresses": [{"family": 0, "address": "0177.0.0.1", "mask": "8"}]},
}


@pytest.mark.parametrize("change", INTERFACES.values(), ids=INTERFACES)
def test_the_loopback_interface_is_out_of_reach(guest: Engine, change: dict[str, Any]) -> None:
    guest.load(pods.policy())
    honest = next(ask for ask in pods.honest() if ask["kind"] == "UpdateInterfaceRequest")["request"]
    assert guest.ask("UpdateInterfaceRequest", honest)
    assert not guest.ask("UpdateInterfaceRequest", {"interface": {**honest["interface"], **change}})


@pytest.mark.parametrize(
    "change",
    [
        {"device": "lo"},
        {"dest": "127.0.0.0/8"},
        {"source": "127.0.0.1"},
        {"dest": "::1"},
        {"dest": "::1/128"},
        {"device": ""},
    ],
    ids=str,
)
def test_no_route_leads_to_the_loopback(guest: Engine, change: dict[str, str]) -> None:
    guest.load(pods.policy())
    route = {"dest": "10.0.0.0/8", "gateway": "10.250.0.1", "device": "eth0", "source": "", "scope": 0, "family": 0}
    assert guest.ask("UpdateRoutesRequest", {"routes": {"Routes": [route]}})
    assert not guest.ask("UpdateRoutesRequest", {"routes": {"Routes": [route, {**route, **change}]}})


def test_nothing_starts_out_of_order_twice_or_under_a_used_id(guest: Engine) -> None:
    guest.load(pods.policy())
    sequence = pods.honest()
    by_name = {container_of(ask): ask for ask in sequence if ask["kind"] == "CreateContainerRequest"}
    app = by_name["app"]
    assert not guest.ask("StartContainerRequest", {"container_id": "3" * 64})
    for ask in sequence:
        if container_of(ask) == "first":
            assert not allowed(guest, app), "before its init containers"
        assert allowed(guest, ask)
        if ask["kind"] == "StartContainerRequest":
            assert not allowed(guest, ask), "twice"
        if container_of(ask) == "app":
            assert not allowed(guest, ask), "the same id"
            break
    assert guest.ask("StartContainerRequest", {"container_id": app["request"]["container_id"]})
    assert not allowed(guest, _with_id(app, "4" * 64)), "a second instance"
    assert guest.ask("RemoveContainerRequest", {"container_id": app["request"]["container_id"]})
    assert not allowed(guest, app), "an id after its end"
    assert not guest.ask("StartContainerRequest", {"container_id": app["request"]["container_id"]})
    for name in ("sandbox", "namespace", "sandbox_name", "id:x", "created", "../sandbox"):
        assert not guest.ask("RemoveContainerRequest", {"container_id": name})
    assert not allowed(guest, _with_id(by_name["first"], "5" * 64)), "an init container once the application has run"
    assert not allowed(guest, _with_id(by_name[None], "6" * 64)), "a second sandbox"


def test_two_started_instances_cannot_be_made_by_creating_both_first(guest: Engine) -> None:
    guest.load(pods.policy())
    for ask in pods.honest():
        assert allowed(guest, ask)
        if container_of(ask) == "app":
            break
    twin = _with_id(ask, "4" * 64)
    assert allowed(guest, twin), "of a creation that failed the policy does not learn"
    assert guest.ask("StartContainerRequest", {"container_id": ask["request"]["container_id"]})
    assert not guest.ask("StartContainerRequest", {"container_id": "4" * 64})


OPEN: Final = {
    "DestroySandboxRequest",
    "GetOOMEventRequest",
    "GuestDetailsRequest",
    "OnlineCPUMemRequest",
    "RemoveStaleVirtiofsShareMountsRequest",
}


def test_every_other_request_is_refused(guest: Engine) -> None:
    guest.load(pods.policy())
    defaults = [line.split()[1] for line in rules_text(1).splitlines() if line.startswith("default ")]
    assert len(defaults) > 40
    for kind in [*defaults, "UnknownRequest", "AllowRequestsFailingPolicy"]:
        assert guest.ask(kind, {}) is (kind in OPEN), kind


def test_an_exec_is_refused_for_a_container_that_runs(guest: Engine) -> None:
    guest.load(pods.policy())
    for ask in pods.honest():
        assert allowed(guest, ask)
        if ask["kind"] == "StartContainerRequest":
            id_ = ask["request"]["container_id"]
            for kind in (
                "ExecProcessRequest",
                "WriteStreamRequest",
                "ReadStreamRequest",
                "TtyWinResizeRequest",
                "GetDiagnosticDataRequest",
            ):
                request = {
                    "container_id": id_,
                    "exec_id": id_,
                    "log_type": "termination_log",
                    "process": {"Args": ["sh"]},
                }
                assert not guest.ask(kind, request)


def _with_id(ask: Request, id_: str) -> Request:
    return dict(json.loads(json.dumps(ask).replace(ask["request"]["container_id"], id_)))


@pytest.fixture(scope="module")
def guest() -> Any:
    with Engine(pods.policy()) as engine:
        yield engine
