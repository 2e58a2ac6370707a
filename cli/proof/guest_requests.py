"""The requests that a guest agent gets for a pod: a second reading of the sources, which knows nothing of `measured`.

Written from kata-containers 4.1 (Go shim, shared_fs none, guest pull), containerd 2.3 and kubelet 1.36. What is the
host's to choose comes from `random.Random`, so that one pod has many honest sequences.
"""

from __future__ import annotations

import base64
import json
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

Request = dict[str, Any]
"""`{"kind": NAME, "request": OBJECT}`."""

_SHM: Final = "/dev/shm"  # noqa: S108 - a mount of every container
_SHARED: Final = "/run/kata-containers/shared/containers/"
_SANDBOX: Final = "/run/kata-containers/sandbox/"
_PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CAPABILITIES: Final = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
]
_MASKED: Final = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
]
_READ_ONLY: Final = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
_SYSTEM_MOUNTS: Final = (
    ("/proc", "proc", "proc", "nosuid noexec nodev"),
    ("/dev", "tmpfs", "tmpfs", "nosuid strictatime mode=755 size=65536k"),
    ("/dev/pts", "devpts", "devpts", "nosuid noexec newinstance ptmxmode=0666 mode=0620 gid=5"),
    ("/dev/mqueue", "mqueue", "mqueue", "nosuid noexec nodev"),
    ("/sys", "sysfs", "sysfs", "nosuid noexec nodev ro"),
)
_DIR_MODE: Final = 0o20000000750  # Go's own bit for a folder and 0750
_TOKEN_MOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"


@dataclass
class Host:
    """What the host chooses for one pod's life."""

    random: random.Random
    ip: str = "10.250.0.37"
    service_ip: str = "10.96.0.1"
    kata_deploy: bool = True
    """containerd passes the termination message's path and policy on, as kata-deploy configures it."""
    metadata: bool = True
    """Older shims repeat the annotations in the image storage's options."""
    ids: dict[str, str] = field(default_factory=dict)
    disks: dict[str, str] = field(default_factory=dict)

    def id(self) -> str:
        """A container id, as containerd makes them."""
        return f"{self.random.getrandbits(256):064x}"

    def letters(self) -> str:
        """The random part of a copied file's name."""
        return f"{self.random.getrandbits(64):016x}"


def guest_requests(pod: Mapping[str, Any], images: Mapping[str, Mapping[str, Any]], host: Host) -> list[Request]:
    """From the first request to the last, of a pod that starts, runs and ends.

    `images`: configurations by reference.
    """
    return [*start(pod, images, host), *end(pod, host)]


def start(pod: Mapping[str, Any], images: Mapping[str, Mapping[str, Any]], host: Host) -> list[Request]:
    """Until each container runs; ordinary init containers have ended."""
    spec = pod["spec"]
    sandbox = host.ids["/pause"] = host.id()
    requests = [
        *_network(host),
        _sandbox(pod, sandbox),
        _ask("GuestDetails", mem_block_size=True, mem_hotplug_probe=True),
    ]
    requests += [*_pause(pod, sandbox, host), _ask("StartContainer", container_id=sandbox), _ask("GetOOMEvent")]
    requests.append(_ask("WaitProcess", container_id=sandbox, exec_id=sandbox))
    for container in spec.get("initContainers") or []:
        requests += run(pod, container, images, host)
        if container.get("restartPolicy") != "Always":
            requests += stop(container["name"], host)
    for container in spec["containers"]:
        requests += run(pod, container, images, host)
    return requests


def end(pod: Mapping[str, Any], host: Host) -> list[Request]:
    """The end of the containers that run, and of the sandbox."""
    native = [one for one in pod["spec"].get("initContainers") or [] if one.get("restartPolicy") == "Always"]
    requests = [one for container in [*pod["spec"]["containers"], *native] for one in stop(container["name"], host)]
    return [*requests, *stop("/pause", host), _ask("DestroySandbox")]


def run(
    pod: Mapping[str, Any], container: Mapping[str, Any], images: Mapping[str, Mapping[str, Any]], host: Host
) -> list[Request]:
    """The copies for a container, its creation and its start."""
    id_ = host.ids[container["name"]] = host.id()
    create, copies = _create(pod, container, images[container["image"]], id_, host)
    return [
        *copies,
        create,
        _ask("StatsContainer", container_id=id_),
        _ask("StartContainer", container_id=id_),
        _ask("WaitProcess", container_id=id_, exec_id=id_),
    ]


def stop(name: str, host: Host) -> list[Request]:
    """A container's end."""
    id_ = host.ids[name]
    return [
        _ask("SignalProcess", container_id=id_, exec_id="", signal=15),
        _ask("SignalProcess", container_id=id_, exec_id="", signal=9),
        _ask("RemoveContainer", container_id=id_, timeout=0),
        _ask("RemoveStaleVirtiofsShareMounts"),
    ]


def _ask(kind: str, **request: Any) -> Request:
    return {"kind": f"{kind}Request", "request": request}


def _network(host: Host) -> list[Request]:
    address = {"family": 0, "address": host.ip, "mask": "24"}
    interface = {
        "device": "eth0",
        "name": "eth0",
        "IPAddresses": [address, {"family": 1, "address": "fe80::2000:acff:fe15:4f34", "mask": "64"}],
        "mtu": 1500,
        "hwAddr": "22:00:ac:15:4f:34",
        "devicePath": "",
        "type_": "virtual",
        "raw_flags": 0,
    }
    route = {"dest": "0.0.0.0/0", "gateway": "10.250.0.1", "device": "eth0", "source": "", "scope": 0, "family": 0}
    return [
        _ask("UpdateInterface", interface=interface),
        _ask("UpdateRoutes", routes={"Routes": [{**route, "flags": 0, "mtu": 0}]}),
    ]


def _sandbox(pod: Mapping[str, Any], sandbox: str) -> Request:
    shm = {
        "driver": "ephemeral",
        "driver_options": [],
        "source": "shm",
        "fstype": "tmpfs",
        "options": ["noexec", "nosuid", "nodev", "mode=1777", "size=67108864"],
        "mount_point": f"{_SANDBOX}shm",
        "fs_group": None,
        "shared": False,
    }
    return _ask(
        "CreateSandbox",
        hostname=_hostname(pod),
        dns=["search svc.cluster.local", "nameserver 10.250.0.1", ""],
        storages=[shm],
        sandbox_pidns=False,
        sandbox_id=sandbox,
        guest_hook_path="",
        kernel_modules=[],
    )


def _hostname(pod: Mapping[str, Any]) -> str:
    return str(pod["spec"].get("hostname") or pod["metadata"]["name"])


def _pause(pod: Mapping[str, Any], sandbox: str, host: Host) -> list[Request]:
    annotations = {
        **_common_annotations(pod, sandbox, sandbox),
        "io.kubernetes.cri.container-type": "sandbox",
        "io.katacontainers.pkg.oci.container_type": "pod_sandbox",
        "io.kubernetes.cri.sandbox-log-directory": f"/var/log/pods/{pod['metadata']['name']}",
        "io.kubernetes.cri.sandbox-cpu-period": "100000",
        "io.kubernetes.cri.sandbox-cpu-quota": "50000",
        "io.kubernetes.cri.sandbox-cpu-shares": "25",
        "io.kubernetes.cri.sandbox-memory": "134217728",
        "io.kubernetes.cri.podsandbox.image-name": "registry.example/pause:3.10",
        "nerdctl/network-namespace": "/run/netns/cni-0c1e51c5",
    }
    copy = _copy(sandbox, "resolv.conf", host)
    mounts = [*_system_mounts(), _bind(_SHM, f"{_SANDBOX}shm", "rbind")]
    mounts.append(_bind("/etc/resolv.conf", copy["request"]["path"], "rbind", "ro", "nosuid", "nodev", "noexec"))
    process = _process(
        ["/pause"], [_PATH], "/", {"UID": 65535, "GID": 65535, "AdditionalGids": [65535]}, _CAPABILITIES, True
    )
    sysctls = {"net.ipv4.ping_group_range": "0 2147483647", "net.ipv4.ip_unprivileged_port_start": "0"}
    oci = _oci(process, sandbox, True, _hostname(pod), mounts, annotations, sysctls)
    return [copy, _container_request(sandbox, oci, [_image("pause", sandbox, annotations, host)])]


def _create(
    pod: Mapping[str, Any], container: Mapping[str, Any], image: Mapping[str, Any], id_: str, host: Host
) -> tuple[Request, list[Request]]:
    spec, security = pod["spec"], container.get("securityContext") or {}
    annotations = {
        **_common_annotations(pod, host.ids["/pause"], id_),
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.container-name": container["name"],
        "io.kubernetes.cri.image-name": container["image"],
        "io.katacontainers.pkg.oci.container_type": "pod_container",
    }
    path = container.get("terminationMessagePath") or "/dev/termination-log"
    if host.kata_deploy:
        annotations["io.kubernetes.container.terminationMessagePath"] = path
        policy = container.get("terminationMessagePolicy") or "File"
        annotations["io.kubernetes.container.terminationMessagePolicy"] = policy
    read_only = bool(security.get("readOnlyRootFilesystem"))
    mounts, storages, copies = _volumes(pod, container, id_, host)
    root = "ro" if read_only else "rw"
    for destination, access in (
        ("/etc/hosts", "rw"),
        (path, "rw"),
        ("/etc/hostname", root),
        ("/etc/resolv.conf", root),
    ):
        copy = _copy(id_, destination.rsplit("/", 1)[-1], host, 0o100666 if destination == path else 0o100644)
        copies.append(copy)
        mounts.append(_bind(destination, copy["request"]["path"], "rbind", "rprivate", access))
    taken = {mount["destination"] for mount in mounts}
    if _SHM not in taken:
        mounts.append(_bind(_SHM, f"{_SANDBOX}shm", "rbind"))
    process = _process(
        _args(container, image),
        _env(pod, container, image, host),
        container.get("workingDir") or image.get("WorkingDir") or "/",
        _user(spec.get("securityContext") or {}, security, image),
        _kept_capabilities(security.get("capabilities") or {}),
        security.get("allowPrivilegeEscalation") is False,
    )
    cgroup = {"destination": "/sys/fs/cgroup", "source": "cgroup", "type_": "cgroup"}
    options = ["nosuid", "noexec", "nodev", "relatime", "ro"]
    options += host.random.choice(([], ["nsdelegate"], ["nsdelegate", "memory_recursiveprot"]))
    mounts = [*_system_mounts(), {**cgroup, "options": options}, *mounts]
    oci = _oci(process, id_, read_only, "", mounts, annotations, {})
    storages.insert(0, _image(container["image"], id_, annotations, host))
    return _container_request(id_, oci, storages), copies


def _container_request(id_: str, oci: dict[str, Any], storages: list[dict[str, Any]]) -> Request:
    return _ask(
        "CreateContainer",
        container_id=id_,
        exec_id=id_,
        string_user=None,
        devices=[],
        storages=storages,
        OCI=oci,
        sandbox_pidns=False,
        shared_mounts=[],
        stdin_port=0,
        stdout_port=0,
        stderr_port=0,
    )


def _common_annotations(pod: Mapping[str, Any], sandbox: str, id_: str) -> dict[str, str]:
    metadata = pod["metadata"]
    own = {
        key: value for key, value in (metadata.get("annotations") or {}).items() if key.startswith("io.katacontainers.")
    }
    own.pop("io.katacontainers.config.hypervisor.cc_init_data", None)
    return {
        **own,
        "io.kubernetes.cri.sandbox-id": sandbox,
        "io.kubernetes.cri.sandbox-name": metadata["name"],
        "io.kubernetes.cri.sandbox-namespace": metadata["namespace"],
        "io.kubernetes.cri.sandbox-uid": metadata["uid"],
        "io.katacontainers.pkg.oci.bundle_path": f"/run/containerd/io.containerd.runtime.v2.task/k8s.io/{id_}",
    }


def _image(reference: str, id_: str, annotations: Mapping[str, str], host: Host) -> dict[str, Any]:
    metadata = json.dumps({"metadata": dict(annotations)}, separators=(",", ":"))
    return {
        "driver": "image_guest_pull",
        "driver_options": [f"image_guest_pull={metadata}"] if host.metadata else [],
        "source": reference,
        "fstype": "overlay",
        "options": [],
        "mount_point": f"/run/kata-containers/{id_}/rootfs",
        "fs_group": None,
        "shared": False,
    }


def _process(
    args: list[str], env: list[str], cwd: str, user: dict[str, Any], capabilities: list[str], no_new_privileges: bool
) -> dict[str, Any]:
    return {
        "Terminal": False,
        "ConsoleSize": None,
        "User": {**user, "Username": ""},
        "Args": args,
        "Env": env,
        "Cwd": cwd,
        "Capabilities": {
            "Bounding": capabilities,
            "Effective": capabilities,
            "Inheritable": [],
            "Permitted": capabilities,
            "Ambient": [],
        },
        "Rlimits": [],
        "NoNewPrivileges": no_new_privileges,
        "ApparmorProfile": "",
        "OOMScoreAdj": 998,
        "SelinuxLabel": "",
    }


def _oci(
    process: dict[str, Any],
    id_: str,
    read_only: bool,
    hostname: str,
    mounts: list[dict[str, Any]],
    annotations: dict[str, str],
    sysctls: dict[str, str],
) -> dict[str, Any]:
    cpu = {"Shares": 10, "Quota": 0, "Period": 0, "RealtimeRuntime": 0, "RealtimePeriod": 0, "Cpus": "", "Mems": ""}
    resources: dict[str, Any] = {
        "Devices": [],
        "Memory": None,
        "CPU": cpu,
        "Pids": None,
        "BlockIO": None,
        "HugepageLimits": [],
        "Network": None,
    }
    return {
        "Version": "1.3.0",
        "Process": process,
        "Root": {"Path": f"/run/kata-containers/{id_}/rootfs", "Readonly": read_only},
        "Hostname": hostname,
        "Mounts": mounts,
        "Hooks": None,
        "Annotations": annotations,
        "Linux": {
            "UIDMappings": [],
            "GIDMappings": [],
            "Sysctl": sysctls,
            "Resources": resources,
            "CgroupsPath": f"/kubepods/burstable/{id_}",
            "Namespaces": [{"Type": kind, "Path": ""} for kind in ("ipc", "uts", "mount")],
            "Devices": [],
            "Seccomp": None,
            "RootfsPropagation": "",
            "MaskedPaths": list(_MASKED),
            "ReadonlyPaths": list(_READ_ONLY),
            "MountLabel": "",
            "IntelRdt": None,
        },
        "Solaris": None,
        "Windows": None,
    }


def _system_mounts() -> list[dict[str, Any]]:
    return [
        {"destination": destination, "source": source, "type_": kind, "options": options.split()}
        for destination, source, kind, options in _SYSTEM_MOUNTS
    ]


def _bind(destination: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "source": source, "type_": "bind", "options": list(options)}


def _copy(
    id_: str, base: str, host: Host, mode: int = 0o100644, kind: str = "Regular", target: str | None = None
) -> Request:
    return _ask(
        "CopyFile",
        path=f"{_SHARED}{id_}-{host.letters()}-{base}",
        file_type=kind,
        symlink_target=target,
        file_size=100,
        file_mode=mode,
        dir_mode=_DIR_MODE,
        uid=0,
        gid=0,
        offset=0,
    )


def _volumes(
    pod: Mapping[str, Any], container: Mapping[str, Any], id_: str, host: Host
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[Request]]:
    """Mounts, storages and copies of the container's volumes, the service account's token among them."""
    spec = pod["spec"]
    volumes = {volume["name"]: volume for volume in spec.get("volumes") or []}
    group = (spec.get("securityContext") or {}).get("fsGroup")
    mounts: list[dict[str, Any]] = []
    storages: dict[str, dict[str, Any]] = {}
    copies: list[Request] = []
    wanted = list(container.get("volumeMounts") or [])
    if spec.get("automountServiceAccountToken") is not False and _TOKEN_MOUNT not in {
        one["mountPath"] for one in wanted
    }:
        wanted.append({"name": "", "mountPath": _TOKEN_MOUNT})
        volumes[""] = {"name": "", "projected": {}}
    for mount in wanted:
        volume, destination = volumes[mount["name"]], mount["mountPath"]
        access = "ro" if mount.get("readOnly") else "rw"
        if "emptyDir" not in volume:
            base = destination.rsplit("/", 1)[-1]
            folder = _copy(id_, base, host, 0o42777, "Directory")
            copies += [folder, *_content(folder, host)]
            # A persistent volume's files are copied as well, and nothing is copied back.
            copied = access if "persistentVolumeClaim" in volume else "ro"
            mounts.append(_bind(destination, folder["request"]["path"], "rbind", "rprivate", copied))
        elif (volume["emptyDir"] or {}).get("medium") == "Memory":
            source = f"{_SANDBOX}ephemeral/{volume['name']}"
            storages[source] = _memory(source, group)
            mounts.append(_bind(destination, source, "rbind", "rprivate", access))
        else:
            address = host.disks.setdefault(volume["name"], f"0:{len(host.disks)}")
            source = f"{_SANDBOX}storage/{base64.urlsafe_b64encode(address.encode()).decode()}"
            storages[source] = _disk(source, address, group)
            mounts.append(_bind(destination, source, "rbind", "rprivate", access))
    return mounts, list(storages.values()), copies


def _memory(path: str, group: int | None) -> dict[str, Any]:
    return {
        "driver": "ephemeral",
        "driver_options": [],
        "source": "tmpfs",
        "fstype": "tmpfs",
        "options": [] if group is None else [f"fsgid={group}"],
        "mount_point": path,
        "fs_group": None,
        "shared": False,
    }


def _disk(path: str, address: str, group: int | None) -> dict[str, Any]:
    return {
        "driver": "scsi",
        "driver_options": ["encryption_key=ephemeral", "create_filesystem"],
        "source": address,
        "fstype": "ext4",
        "options": [],
        "mount_point": path,
        "fs_group": None if group is None else {"group_id": group, "group_change_policy": 0},
        "shared": True,
    }


def _content(folder: Request, host: Host) -> list[Request]:
    """An atomically written volume: the folder of a time, a file in it, and the two links."""
    path, time = folder["request"]["path"], "..2026_11_26_15_03_26.2629956077"
    entries = (
        (f"{time}", "Directory", None, 0o42755),
        (f"{time}/file", "Regular", None, 0o100640),
        ("..data", "Symlink", time, 0o120777),
        ("file", "Symlink", "..data/file", 0o120777),
    )
    copies = [_copy("", "", host, mode, kind, target) for _, kind, target, mode in entries]
    for copy, (name, *_) in zip(copies, entries, strict=True):
        copy["request"]["path"] = f"{path}/{name}"
    return copies


def _user(pod: Mapping[str, Any], own: Mapping[str, Any], image: Mapping[str, Any]) -> dict[str, Any]:
    image_uid = int((image.get("User") or "0").split(":")[0])
    uid = next(value for value in (own.get("runAsUser"), pod.get("runAsUser"), image_uid) if value is not None)
    gid = next(value for value in (own.get("runAsGroup"), pod.get("runAsGroup"), 0) if value is not None)
    groups = [gid]
    for extra in (pod.get("fsGroup"), *(pod.get("supplementalGroups") or [])):
        if extra is not None and extra not in groups:
            groups.append(extra)
    return {"UID": uid, "GID": gid, "AdditionalGids": groups}


def _kept_capabilities(change: Mapping[str, Any]) -> list[str]:
    kept = [] if "ALL" in (change.get("drop") or []) else list(_CAPABILITIES)
    kept = [name for name in kept if name.removeprefix("CAP_") not in (change.get("drop") or [])]
    return kept + [f"CAP_{name}" for name in change.get("add") or [] if f"CAP_{name}" not in kept]


def _values(pod: Mapping[str, Any], container: Mapping[str, Any], host: Host) -> dict[str, str]:
    """The pod's own variables, in order, as the kubelet resolves them."""
    fields = {
        "metadata.name": pod["metadata"]["name"],
        "metadata.namespace": pod["metadata"]["namespace"],
        "metadata.uid": pod["metadata"]["uid"],
        "status.podIP": host.ip,
        "status.hostIP": "10.250.0.1",
        "spec.serviceAccountName": pod["spec"].get("serviceAccountName") or "default",
        "spec.nodeName": "node-1",
    }
    values: dict[str, str] = {}
    for entry in container.get("env") or []:
        source = entry.get("valueFrom")
        values[entry["name"]] = (
            fields[source["fieldRef"]["fieldPath"]] if source else _expanded(entry.get("value") or "", values)
        )
    return values


def _expanded(text: str, values: Mapping[str, str]) -> str:
    def one(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return values.get(match[1], match[0])

    return re.sub(r"\$\$|\$\(([^)]*)\)", one, text)


def _env(pod: Mapping[str, Any], container: Mapping[str, Any], image: Mapping[str, Any], host: Host) -> list[str]:
    own = _values(pod, container, host)
    from_image = dict(entry.split("=", 1) for entry in image.get("Env") or [_PATH])
    from_image.setdefault("PATH", _PATH.removeprefix("PATH="))
    if "PATH" in own:
        from_image["PATH"] = own["PATH"]
    pods = [f"{name}={value}" for name, value in own.items() if name != "PATH"]
    services = [
        f"KUBERNETES_SERVICE_HOST={host.service_ip}",
        "KUBERNETES_SERVICE_PORT=443",
        "KUBERNETES_SERVICE_PORT_HTTPS=443",
        f"KUBERNETES_PORT=tcp://{host.service_ip}:443",
        f"KUBERNETES_PORT_443_TCP=tcp://{host.service_ip}:443",
        "KUBERNETES_PORT_443_TCP_PROTO=tcp",
        "KUBERNETES_PORT_443_TCP_PORT=443",
        f"KUBERNETES_PORT_443_TCP_ADDR={host.service_ip}",
    ]
    host.random.shuffle(pods)
    host.random.shuffle(services)
    images = [f"{name}={value}" for name, value in from_image.items()]
    return [*images, f"HOSTNAME={_hostname(pod)}", *pods, *services]


def _args(container: Mapping[str, Any], image: Mapping[str, Any]) -> list[str]:
    values = {entry["name"]: entry.get("value") or "" for entry in container.get("env") or []}
    command = [_expanded(word, values) for word in container.get("command") or []]
    args = [_expanded(word, values) for word in container.get("args") or []]
    if command:
        return command + args
    return [*(image.get("Entrypoint") or []), *(args or image.get("Cmd") or [])]
