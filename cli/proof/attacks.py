"""What a hostile host can ask in place of one honest request, a change at a time.

The list follows the attacks on Kata's generated policies that are public: GHSA-q49m-57vm-c8cc, CVE-2026-41326, and the
issues of kata-containers and its kin on images, variables, mounts and state.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, Final

from cli.proof.guest_requests import Request

Change = Callable[[dict[str, Any]], None]

_SHARED: Final = "/run/kata-containers/shared/containers"
_DISKS: Final = "/run/kata-containers/sandbox/storage/"
_OTHER: Final = f"registry.example/evil@sha256:{'0123456789abcdef' * 4}"
_CRI: Final = "io.kubernetes.cri"
_CREATE: Final = "CreateContainerRequest"


def attacks(ask: Request) -> Iterator[tuple[str, Request]]:
    """Each attack in the request's place, with its name. All have to be refused, at any time before the request."""
    kind, request = ask["kind"], ask["request"]
    for name, change in _changes(kind, request):
        changed = copy.deepcopy(request)
        change(changed)
        if changed != request:
            yield name, {"kind": kind, "request": changed}


def refused_requests(container: str) -> Iterator[tuple[str, Request]]:
    """Requests that are refused whatever the pod is, once this container (its id) runs."""
    request = {"container_id": container, "exec_id": container, "process": {"Args": ["sh"]}, "log_type": "journal"}
    for kind in _NEVER:
        yield f"request: {kind}", {"kind": kind, "request": request}
    for name in ("sandbox", "namespace", "sandbox_name", "created", "../sandbox", "f" * 64):
        for kind in ("StartContainerRequest", "RemoveContainerRequest"):
            yield f"state: {kind} of {name[:12]}", {"kind": kind, "request": {"container_id": name}}
    for name, change in _COPIES.items():
        path = change["path"].replace("NEW", f"{_SHARED}/{container}-{'a' * 16}")
        yield f"copy: {name}", {"kind": "CopyFileRequest", "request": {**_COPY, **change, "path": path}}


_NEVER: Final = (
    "SetPolicyRequest",
    "ExecProcessRequest",
    "WriteStreamRequest",
    "CloseStdinRequest",
    "TtyWinResizeRequest",
    "UpdateEphemeralMountsRequest",
    "UpdateContainerRequest",
    "PauseContainerRequest",
    "ResumeContainerRequest",
    "MemAgentMemcgConfig",
    "MemAgentCompactConfig",
    "MemHotplugByProbeRequest",
    "AddSwapRequest",
    "AddSwapPathRequest",
    "ResizeVolumeRequest",
    "VolumeStatsRequest",
    "GetMetricsRequest",
    "ListInterfacesRequest",
    "ListRoutesRequest",
    "GetIPTablesRequest",
    "SetIPTablesRequest",
    "PullImageRequest",
    "StartTracingRequest",
    "StopTracingRequest",
    "SetGuestDateTimeRequest",
    "ReseedRandomDevRequest",
    "GetDiagnosticDataRequest",
    "CreateSandboxRequest",
    "AllowRequestsFailingPolicy",
    "UnknownRequest",
)
_COPY: Final = {
    "file_type": "Regular",
    "symlink_target": None,
    "file_mode": 0o100644,
    "dir_mode": 0o750,
    "uid": 0,
    "gid": 0,
}
_COPIES: Final[dict[str, dict[str, Any]]] = {
    "link at the top": {"path": "NEW-hosts", "file_type": "Symlink", "symlink_target": "x"},
    "file that is a link": {"path": "NEW-hosts", "symlink_target": "/etc/passwd"},
    "out of the folder": {"path": "NEW-hosts/../../x"},
    "tail after a file's name": {"path": "NEW-hosts-anything/at/all"},
    "file with a tail": {"path": "NEW-hosts/x"},
    "folder in a file's place": {"path": "NEW-hosts", "file_type": "Directory"},
    "set-user-ID": {"path": "NEW-hosts", "file_mode": 0o104755},
    "set-group-ID": {"path": "NEW-hosts", "file_mode": 0o102755},
    "device": {"path": "NEW-hosts", "file_type": "CharacterDevice"},
    "unknown volume": {"path": "NEW-not-a-volume-of-the-pod"},
    "another folder of the share": {"path": f"{_SHARED}/evil/{'1' * 64}-{'a' * 16}-hosts"},
    "short id": {"path": f"{_SHARED}/1-{'a' * 16}-hosts"},
    "root file system": {"path": f"/run/kata-containers/{'1' * 64}/rootfs/bin/sh"},
    "elsewhere": {"path": "/etc/passwd"},
}


def _changes(kind: str, request: dict[str, Any]) -> Iterator[tuple[str, Change]]:
    if kind == "UpdateInterfaceRequest":
        for name, value in (("name", "lo"), ("device", "lo"), ("hwAddr", "00:00:00:00:00:00"), ("raw_flags", 8)):
            yield f"interface: {name}", _set("interface", name, value=value)
        for address in ("127.0.0.1", "::1", "::ffff:127.0.0.1"):
            yield f"interface: {address}", _set("interface", "IPAddresses", value=[{"address": address, "mask": "8"}])
    elif kind == "UpdateRoutesRequest":
        for name, value in (("device", "lo"), ("dest", "127.0.0.0/8"), ("dest", "::1"), ("source", "127.0.0.1")):
            yield f"route: {name} {value}", _set("routes", "Routes", 0, name, value=value)
    elif kind == "CreateSandboxRequest":
        yield "sandbox: shared process ids", _set("sandbox_pidns", value=True)
        yield "sandbox: guest hooks", _set("guest_hook_path", value="/x")
        yield "sandbox: kernel module", _set("kernel_modules", value=[{"name": "x"}])
        yield "sandbox: parked storage", _more("storages", value={**request["storages"][0], "mount_point": "/x"})
        yield "sandbox: shm elsewhere", _set("storages", 0, "mount_point", value="/etc")
    elif kind == _CREATE:
        yield from _of_any_container(request)
        is_pause = request["OCI"]["Annotations"][f"{_CRI}.container-type"] == "sandbox"
        yield from _of_pause() if is_pause else _of_a_container(request)


def _of_any_container(request: dict[str, Any]) -> Iterator[tuple[str, Change]]:
    oci = request["OCI"]
    yield "image: none, root from copied files", _copied_root
    yield "image: none", _set("storages", value=[])
    yield "image: two", _more("storages", value=request["storages"][0])
    yield "image: mounted elsewhere", _set("storages", 0, "mount_point", value="/run/kata-containers/other/rootfs")
    yield "image: options say another type", _relabelled
    yield "image: beside verity layers", _more("storages", value={"driver": "blk", "options": ["layer=x"]})
    yield "root: elsewhere", _set("OCI", "Root", "Path", value="/")
    yield "root: elsewhere, with its image", _moved_root
    yield "root: the other access", _set("OCI", "Root", "Readonly", value=not oci["Root"]["Readonly"])
    yield "args: one more", _more("OCI", "Process", "Args", value="--debug")
    yield "args: other program", _set("OCI", "Process", "Args", value=["/bin/sh"])
    yield "cwd", _set("OCI", "Process", "Cwd", value="/proc")
    yield "user: a name", _set("OCI", "Process", "User", "Username", value="root")
    yield "user: a string", _set("string_user", value={"uid": "root"})
    for place in ("Bounding", "Effective", "Permitted", "Ambient", "Inheritable"):
        yield f"capabilities: {place}", _more("OCI", "Process", "Capabilities", place, value="CAP_SYS_ADMIN")
    privileges = oci["Process"]["NoNewPrivileges"]
    yield "no new privileges", _set("OCI", "Process", "NoNewPrivileges", value=not privileges)
    yield "terminal", _set("OCI", "Process", "Terminal", value=True)
    for stream in ("stdin", "stdout", "stderr"):
        yield f"port of {stream}", _set(f"{stream}_port", value=1)
    yield "hooks", _set("OCI", "Hooks", value={"Prestart": [{"Path": "/x"}]})
    yield "masked path over the application", _more("OCI", "Linux", "MaskedPaths", value="/entrypoint.sh")
    yield "masked paths: none", _set("OCI", "Linux", "MaskedPaths", value=[])
    yield "read-only paths: none", _set("OCI", "Linux", "ReadonlyPaths", value=[])
    yield "namespace: cgroup", _more("OCI", "Linux", "Namespaces", value={"Type": "cgroup", "Path": "/x"})
    yield "namespace: none", _set("OCI", "Linux", "Namespaces", value=[])
    yield "namespace: shared process ids", _set("sandbox_pidns", value=True)
    yield "device", _more("OCI", "Linux", "Devices", value={"Path": "/dev/mem"})
    yield "device of the agent", _more("devices", value={"id": "x"})
    yield "shared mount", _more("shared_mounts", value={"name": "x"})
    yield "sysctl", _set("OCI", "Linux", "Sysctl", value={"kernel.core_pattern": "|/x"})
    yield "seccomp", _set("OCI", "Linux", "Seccomp", value={"DefaultAction": "allow"})
    yield "host name", _set("OCI", "Hostname", value="other")
    yield "annotation: CDI device", _annotation("cdi.k8s.io/x", "y")
    yield "annotation: unknown of the runtime", _annotation(f"{_CRI}.x", "y")
    for name in ("sandbox-namespace", "sandbox-id", "sandbox-name"):
        value = oci["Annotations"][f"{_CRI}.{name}"]
        yield f"annotation: {name} with a prefix", _annotation(f"{_CRI}.{name}", f"evil-{value}")
        yield f"annotation: {name} with a suffix", _annotation(f"{_CRI}.{name}", f"{value}-evil")
        yield f"annotation: {name} and a newline", _annotation(f"{_CRI}.{name}", f"{value}\n")
    yield "id: too short", _ids("1")
    yield "id: with a path", _ids("../x")
    yield "id: exec id differs", _set("exec_id", value="1" * 64)
    yield from _of_mounts(oci["Mounts"])


def _of_pause() -> Iterator[tuple[str, Change]]:
    yield "pause: an image of the host's choice", _set("storages", 0, "source", value=_OTHER)
    yield "pause: a variable", _more("OCI", "Process", "Env", value="LD_PRELOAD=/x.so")
    yield "pause: says container", _annotation(f"{_CRI}.container-type", "container")
    yield "pause: name of a container", _annotation(f"{_CRI}.container-name", "app")


def _of_a_container(request: dict[str, Any]) -> Iterator[tuple[str, Change]]:
    process, annotations = request["OCI"]["Process"], request["OCI"]["Annotations"]
    source = request["storages"][0]["source"]
    yield "image: source swapped", _set("storages", 0, "source", value=_OTHER)
    yield "image: same tag, other digest", _set("storages", 0, "source", value=f"{source[:-64]}{'0' * 64}")
    yield "image: by tag only", _set("storages", 0, "source", value=source.partition("@")[0])
    yield "image: two digests", _set("storages", 0, "source", value=f"{_OTHER}@{source.partition('@')[2]}")
    yield "image: annotation swapped", _annotation(f"{_CRI}.image-name", _OTHER)
    yield "annotation: says sandbox", _annotation(f"{_CRI}.container-type", "sandbox")
    name = annotations[f"{_CRI}.container-name"]
    yield "annotation: name with a suffix", _annotation(f"{_CRI}.container-name", f"{name}-evil")
    for field in ("UID", "GID"):
        yield f"user: {field}", _set("OCI", "Process", "User", field, value=process["User"][field] + 1)
    yield "user: one more group", _more("OCI", "Process", "User", "AdditionalGids", value=27)
    for index, entry in enumerate(process["Env"]):
        variable, _, value = entry.partition("=")
        yield f"env: {variable} left out", _without("Env", index)
        yield f"env: {variable} and a newline", _set("OCI", "Process", "Env", index, value=f"{entry}\n")
        yield (
            f"env: {variable} that is a command",
            _set("OCI", "Process", "Env", index, value=f"{variable}=$(id){value}"),
        )
        yield f"env: {variable} twice", _more("OCI", "Process", "Env", value=entry)
        other = process["Env"][index - 1]
        yield f"env: another in the place of {variable}", _set("OCI", "Process", "Env", index, value=other)
    for entry in ("LD_PRELOAD=/x.so", "FOO_SERVICE_PORT_X=1", "TERM=xterm", "AZURE_TENANT_ID=x"):
        yield f"env: {entry}", _more("OCI", "Process", "Env", value=entry)


def _of_mounts(mounts: list[dict[str, Any]]) -> Iterator[tuple[str, Change]]:
    binds = [index for index, one in enumerate(mounts) if one["type_"] == "bind"]
    for index, one in enumerate(mounts):
        where = one["destination"]
        yield f"mount: {where} left out", _without("Mounts", index)
        yield f"mount: {where} twice", _more("OCI", "Mounts", value=one)
        yield f"mount: {where} with another option", _more("OCI", "Mounts", index, "options", value="exec")
        yield f"mount: {where} of a relative source", _mount(index, source="x")
        yield f"mount: {where} by a detour", _mount(index, source=f"{one['source']}/../../../..")
        yield f"mount: {where} of the guest's root", _mount(index, source="/")
        if one["type_"] == "bind":
            flipped = [{"ro": "rw", "rw": "ro"}.get(option, option) for option in one["options"]]
            yield f"mount: {where} with the other access", _mount(index, options=flipped)
            yield f"mount: {where} shared", _mount(index, options=[*one["options"][:-1], "rshared"])
        else:
            yield f"mount: {where} as a bind", _mount(index, type_="bind", options=["rbind", "rprivate", "rw"])
    for first, second in pairwise(binds):
        if all(mounts[index]["source"].startswith(_DISKS) for index in (first, second)):
            continue  # two fresh disks, of which none is known before
        names = f"{mounts[first]['destination']} and {mounts[second]['destination']}"
        yield f"mount: {names} exchanged", _exchanged(first, second)
    for source in ("/", f"{_SHARED}/{'1' * 64}-{'a' * 16}-x"):
        added = {"destination": "/x", "source": source, "type_": "bind", "options": ["rbind", "rprivate", "rw"]}
        yield f"mount: one more of {source[:9]}", _more("OCI", "Mounts", value=added)


def _at(request: dict[str, Any], path: tuple[Any, ...]) -> Any:
    target: Any = request
    for step in path:
        target = target[step]
    return target


def _set(*path: Any, value: Any) -> Change:
    def apply(request: dict[str, Any]) -> None:
        _at(request, path[:-1])[path[-1]] = copy.deepcopy(value)

    return apply


def _more(*path: Any, value: Any) -> Change:
    def apply(request: dict[str, Any]) -> None:
        _at(request, path).append(copy.deepcopy(value))

    return apply


def _without(member: str, index: int) -> Change:
    def apply(request: dict[str, Any]) -> None:
        oci = request["OCI"]
        del (oci["Mounts"] if member == "Mounts" else oci["Process"]["Env"])[index]

    return apply


def _annotation(key: str, value: str) -> Change:
    return _set("OCI", "Annotations", key, value=value)


def _mount(index: int, **fields: Any) -> Change:
    def apply(request: dict[str, Any]) -> None:
        request["OCI"]["Mounts"][index].update(fields)

    return apply


def _exchanged(first: int, second: int) -> Change:
    """Two mounts show each other's content."""

    def apply(request: dict[str, Any]) -> None:
        mounts = request["OCI"]["Mounts"]
        mounts[first]["source"], mounts[second]["source"] = mounts[second]["source"], mounts[first]["source"]

    return apply


def _ids(value: str) -> Change:
    def apply(request: dict[str, Any]) -> None:
        request["container_id"] = request["exec_id"] = value

    return apply


def _copied_root(request: dict[str, Any]) -> None:
    """The root file system is a tree that CopyFile wrote, and no image is pulled."""
    tree = f"{_SHARED}/{'1' * 64}-{'a' * 16}-x/run/kata-containers/y/rootfs"
    request["OCI"]["Root"]["Path"] = tree
    request["storages"] = [one for one in request["storages"] if one["driver"] != "image_guest_pull"]


def _moved_root(request: dict[str, Any]) -> None:
    request["OCI"]["Root"]["Path"] = request["storages"][0]["mount_point"] = "/run/kata-containers/other/rootfs"


def _relabelled(request: dict[str, Any]) -> None:
    """The image's storage says the other type: the guest runs its own pause image for a sandbox."""
    options = request["storages"][0]["driver_options"]
    if options:
        prefix, _, text = options[0].partition("=")
        metadata = json.loads(text)
        key = f"{_CRI}.container-type"
        is_sandbox = metadata["metadata"][key] == "sandbox"
        metadata["metadata"][key] = "container" if is_sandbox else "sandbox"
        options[0] = f"{prefix}={json.dumps(metadata)}"
