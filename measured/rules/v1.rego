# Guest policy of Morphisms, rules version 1: what kata-agent 4.x may do for the one pod that `measured` describes.
# Whatever no rule allows is refused. The rules print nothing, because a refusal repeats prints to the host.
package agent_policy

import future.keywords.every
import future.keywords.if
import future.keywords.in

default AddARPNeighborsRequest := false
default AddSwapPathRequest := false
default AddSwapRequest := false
default AllowRequestsFailingPolicy := false
default CloseStdinRequest := false
default CopyFileRequest := false
default CreateContainerRequest := false
default CreateSandboxRequest := false
default DestroySandboxRequest := true
default ExecProcessRequest := false
default GetDiagnosticDataRequest := false
default GetIPTablesRequest := false
default GetMetricsRequest := false
default GetOOMEventRequest := true
default GuestDetailsRequest := true
default ListInterfacesRequest := false
default ListRoutesRequest := false
default MemAgentCompactConfig := false
default MemAgentCompactConfigRequest := false
default MemAgentMemcgConfig := false
default MemAgentMemcgConfigRequest := false
default MemHotplugByProbeRequest := false
default OnlineCPUMemRequest := true
default PauseContainerRequest := false
default PullImageRequest := false
default ReadStreamRequest := false
default RemoveContainerRequest := false
default RemoveStaleVirtiofsShareMountsRequest := true
default ReseedRandomDevRequest := false
default ResizeVolumeRequest := false
default ResumeContainerRequest := false
default SetGuestDateTimeRequest := false
default SetIPTablesRequest := false
default SetPolicyRequest := false
default SignalProcessRequest := false
default StartContainerRequest := false
default StartTracingRequest := false
default StatsContainerRequest := false
default StopTracingRequest := false
default TtyWinResizeRequest := false
default UpdateContainerRequest := false
default UpdateEphemeralMountsRequest := false
default UpdateInterfaceRequest := false
default UpdateRoutesRequest := false
default VolumeStatsRequest := false
default WaitProcessRequest := false
default WriteStreamRequest := false

# State. Keys: `sandbox` {name, uid, id, hostname}; `id:ID` {name, phase: created | started | removed}, for ever;
# `live:NAME` the id of NAME's started container; `started:NAME`; `disk:VOLUME` and `source:PATH` of a disk.

state := data.pstate

set_state(key, value) := {"op": "add", "path": concat("", ["/pstate/", replace(replace(key, "~", "~0"), "/", "~1")]), "value": value}

unset_state(key) := {"op": "remove", "path": concat("", ["/pstate/", replace(replace(key, "~", "~0"), "/", "~1")])}

id_key(id) := concat("", ["id:", id])

live_key(name) := concat("", ["live:", name])

started_key(name) := concat("", ["started:", name])

# Texts of any length: lines of a policy are bounded, so a long text is {"join": its pieces}.

text(value) := value if is_string(value)

text(value) := concat("", value.join) if is_object(value)

texts(values) := [text(value) | some value in values]

is_empty(value) if is_null(value)

is_empty(value) if count(value) == 0

is_id(id) if regex.match(`\A[0-9a-f]{64}\z`, id)

# No component steps out of its folder.
is_inside(path) if {
  every part in split(path, "/") {
    not part in {"", ".", ".."}
    count(part) <= 255
    not regex.match(`[\x00-\x1f\x7f]`, part)
  }
}

# Sandbox.

CreateSandboxRequest := {"allowed": true, "ops": [set_state("created", true)]} if {
  not state.created
  input.sandbox_pidns == false
  input.guest_hook_path == ""
  is_empty(input.kernel_modules)
  every storage in input.storages {
    storage.driver == "ephemeral"
    is_empty(storage.driver_options)
    storage.source == "shm"
    storage.fstype == "tmpfs"
    {option | some option in storage.options} == {"noexec", "nosuid", "nodev", "mode=1777", "size=67108864"}
    storage.mount_point == "/run/kata-containers/sandbox/shm"
    is_null(storage.fs_group)
    storage.shared == false
  }
  count(input.storages) <= 1
}

# Containers.

CreateContainerRequest := {"allowed": true, "ops": [
  set_state("sandbox", {
    "name": input.OCI.Annotations["io.kubernetes.cri.sandbox-name"],
    "uid": input.OCI.Annotations["io.kubernetes.cri.sandbox-uid"],
    "id": input.container_id,
  }),
  set_state(id_key(input.container_id), {"name": "/pause", "phase": "created"}),
]} if {
  input.OCI.Annotations["io.kubernetes.cri.container-type"] == "sandbox"
  not state.sandbox
  is_ordinary_create
  is_pause
}

CreateContainerRequest := {"allowed": true, "ops": array.concat(
  [set_state(id_key(input.container_id), {"name": container.name, "phase": "created"})],
  disk_ops(container),
)} if {
  input.OCI.Annotations["io.kubernetes.cri.container-type"] == "container"
  is_ordinary_create
  some container in measured.containers
  container.name == input.OCI.Annotations["io.kubernetes.cri.container-name"]
  is_container(container)
}

# What holds for each container, pause among them.
is_ordinary_create if {
  is_id(input.container_id)
  input.exec_id == input.container_id
  not state[id_key(input.container_id)]
  is_null(input.string_user)
  is_empty(input.devices)
  is_empty(input.shared_mounts)
  input.sandbox_pidns == false
  input.stdin_port == 0
  input.stdout_port == 0
  input.stderr_port == 0
  oci := input.OCI
  is_empty(oci.Hooks)
  is_empty(oci.Solaris)
  is_empty(oci.Windows)
  oci.Root.Path == concat("", ["/run/kata-containers/", input.container_id, "/rootfs"])
  process := oci.Process
  process.Terminal == false
  is_empty(process.ConsoleSize)
  process.SelinuxLabel == ""
  process.User.Username == ""
  is_confined(oci.Linux)
}

is_confined(linux) if {
  is_empty(linux.UIDMappings)
  is_empty(linux.GIDMappings)
  is_empty(linux.Devices)
  is_empty(linux.Seccomp)
  is_empty(linux.IntelRdt)
  linux.RootfsPropagation == ""
  linux.MountLabel == ""
  is_empty(linux.Resources.Devices)
  is_empty(linux.Resources.Pids)
  is_empty(linux.Resources.BlockIO)
  is_empty(linux.Resources.Network)
  is_empty(linux.Resources.HugepageLimits)
  count(linux.Namespaces) == 3
  {[namespace.Type, namespace.Path] | some namespace in linux.Namespaces} == {["ipc", ""], ["uts", ""], ["mount", ""]}
  masks(linux.MaskedPaths, {
    "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
    "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
  })
  masks(linux.ReadonlyPaths, {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"})
}

# A mask elsewhere would hide an application's files.
masks(paths, required) if {
  found := {path | some path in paths}
  count(required - found) == 0
  every path in found {
    regex.match(`\A/(proc|sys)/[A-Za-z0-9._/:-]+\z`, path)
    is_inside(substring(path, 1, -1))
  }
}

is_pause if {
  oci := input.OCI
  has_annotations({
    "io.kubernetes.cri.container-type", "io.katacontainers.pkg.oci.container_type", "io.katacontainers.pkg.oci.bundle_path",
    "io.kubernetes.cri.sandbox-id", "io.kubernetes.cri.sandbox-name", "io.kubernetes.cri.sandbox-namespace",
    "io.kubernetes.cri.sandbox-uid",
  }, {
    "io.kubernetes.cri.sandbox-log-directory", "io.kubernetes.cri.sandbox-cpu-period",
    "io.kubernetes.cri.sandbox-cpu-quota", "io.kubernetes.cri.sandbox-cpu-shares", "io.kubernetes.cri.sandbox-memory",
    "io.kubernetes.cri.podsandbox.image-name", "nerdctl/network-namespace",
  })
  annotations := oci.Annotations
  annotations["io.katacontainers.pkg.oci.container_type"] == "pod_sandbox"
  annotations["io.kubernetes.cri.sandbox-id"] == input.container_id
  is_pod_name(annotations["io.kubernetes.cri.sandbox-name"])
  oci.Hostname == hostname(annotations["io.kubernetes.cri.sandbox-name"])
  oci.Process.Args == ["/pause"]
  every entry in oci.Process.Env { entry == default_path }
  count(oci.Process.Env) <= 1
  oci.Process.Cwd == "/"
  oci.Process.NoNewPrivileges == true
  has_capabilities(default_capabilities)
  oci.Root.Readonly == true
  has_sysctls
  is_pause_image
  has_mounts(sandbox_mounts)
}

# The guest runs the pause image of its own root file system, whatever the source says.
is_pause_image if {
  count(input.storages) == 1
  storage := input.storages[0]
  storage.source == "pause"
  is_image_storage(storage)
}

is_container(container) if {
  oci := input.OCI
  has_annotations({
    "io.kubernetes.cri.container-type", "io.kubernetes.cri.container-name", "io.kubernetes.cri.image-name",
    "io.katacontainers.pkg.oci.container_type", "io.katacontainers.pkg.oci.bundle_path", "io.kubernetes.cri.sandbox-id",
    "io.kubernetes.cri.sandbox-name", "io.kubernetes.cri.sandbox-namespace", "io.kubernetes.cri.sandbox-uid",
  }, {
    "io.kubernetes.container.terminationMessagePath", "io.kubernetes.container.terminationMessagePolicy",
  })
  annotations := oci.Annotations
  annotations["io.katacontainers.pkg.oci.container_type"] == "pod_container"
  annotations["io.kubernetes.cri.sandbox-id"] == state.sandbox.id
  annotations["io.kubernetes.cri.sandbox-name"] == state.sandbox.name
  annotations["io.kubernetes.cri.sandbox-uid"] == state.sandbox.uid
  has_termination(container, annotations)
  oci.Hostname == ""
  is_next(container)
  has_process(container)
  oci.Root.Readonly == container.readOnly
  has_sysctls
  has_image(container)
  has_storages(container)
  has_mounts(expected_mounts(container))
}

# Each container comes after the init containers before it have started, and there is one of a name at a time. (Of a
# create that failed the policy does not learn, so only started containers count.)
is_next(container) if {
  not state[live_key(container.name)]
  every earlier in container.after { state[started_key(earlier)] }
  not init_is_over(container)
}

# An ordinary init container runs again only as long as no container that waits for it has started.
init_is_over(container) if {
  container.kind == "init"
  some later in measured.containers
  container.name in later.after
  state[started_key(later.name)]
}

# The runtime's own keys and those of Kata's that the pod carries, as they were measured.
has_annotations(required, optional) if {
  annotations := input.OCI.Annotations
  keys := {key | some key, _ in annotations}
  count(required - keys) == 0
  every key in (keys - required) - optional {
    text(measured.annotations[key]) == annotations[key]
  }
  annotations["io.kubernetes.cri.sandbox-namespace"] == measured.namespace
}

has_termination(container, annotations) if {
  object.get(annotations, "io.kubernetes.container.terminationMessagePath", text(container.termination.path)) == text(container.termination.path)
  object.get(annotations, "io.kubernetes.container.terminationMessagePolicy", container.termination.policy) == container.termination.policy
}

is_pod_name(name) if name == measured.pod.name

is_pod_name(name) if regex.match(concat("", [`\A`, text(measured.pod.pattern), `\z`]), name)

hostname(_) := measured.pod.hostname if measured.pod.hostname != ""

hostname(name) := name if measured.pod.hostname == ""

has_process(container) if {
  process := input.OCI.Process
  process.Args == texts(container.args)
  process.Cwd == text(container.cwd)
  process.NoNewPrivileges == container.noNewPrivileges
  has_capabilities({capability | some capability in container.capabilities})
  has_user(container.user)
  has_environment(container)
}

has_user(user) if {
  process := input.OCI.Process
  process.User.UID == user.uid
  process.User.GID == user.gid
  {gid | some gid in process.User.AdditionalGids} == {gid | some gid in user.groups}
  count(process.User.AdditionalGids) == count(user.groups)
}

has_capabilities(expected) if {
  capabilities := input.OCI.Process.Capabilities
  every kind in ["Bounding", "Effective", "Permitted"] {
    {capability | some capability in capabilities[kind]} == expected
    count(capabilities[kind]) == count(expected)
  }
  is_empty(capabilities.Inheritable)
  is_empty(capabilities.Ambient)
}

default_capabilities := {
  "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
  "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

# For pause the names are of the pod, for the others Kata passes none.
has_sysctls if {
  every name, value in input.OCI.Linux.Sysctl {
    [name, value] in {["net.ipv4.ping_group_range", "0 2147483647"], ["net.ipv4.ip_unprivileged_port_start", "0"]}
  }
}

# Environment: each expected variable once, in any order, and nothing else.

default_path := "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

has_environment(container) if {
  entries := input.OCI.Process.Env
  exact := {concat("=", [name, text(value)]) | some name, value in container.env}
  every entry in entries { is_entry(entry, exact, container) }
  names := {split(entry, "=")[0] | some entry in entries}
  count(names) == count(entries)
  count(entries) == ((count(exact) + count(container.envOfHost)) + count(service_variables)) + 1
}

is_entry(entry, exact, _) if entry in exact

is_entry(entry, _, _) if entry == concat("=", ["HOSTNAME", hostname(state.sandbox.name)])

is_entry(entry, _, container) if {
  some name, source in container.envOfHost
  startswith(entry, concat("", [name, "="]))
  is_from_host(source, substring(entry, count(name) + 1, -1))
}

is_entry(entry, _, _) if {
  some name, pattern in service_variables
  startswith(entry, concat("", [name, "="]))
  regex.match(pattern, substring(entry, count(name) + 1, -1))
}

is_from_host("metadata.name", value) if value == state.sandbox.name

is_from_host("metadata.uid", value) if value == state.sandbox.uid

is_from_host(source, value) if {
  source in {"status.podIP", "status.hostIP"}
  regex.match(`\A[0-9a-f.:]{2,45}\z`, value)
}

is_from_host(source, value) if {
  source in {"status.podIPs", "status.hostIPs"}
  regex.match(`\A[0-9a-f.:]{2,45}(,[0-9a-f.:]{2,45})?\z`, value)
}

is_from_host("spec.nodeName", value) if {
  count(value) <= 253
  regex.match(`\A[a-z0-9.-]+\z`, value)
}

service_variables := {
  "KUBERNETES_SERVICE_HOST": `\A[0-9a-f.:]{2,45}\z`,
  "KUBERNETES_SERVICE_PORT": `\A[0-9]{1,5}\z`,
  "KUBERNETES_SERVICE_PORT_HTTPS": `\A[0-9]{1,5}\z`,
  "KUBERNETES_PORT": `\Atcp://[0-9a-f.:\[\]]{2,47}:[0-9]{1,5}\z`,
  "KUBERNETES_PORT_443_TCP": `\Atcp://[0-9a-f.:\[\]]{2,47}:443\z`,
  "KUBERNETES_PORT_443_TCP_PROTO": `\Atcp\z`,
  "KUBERNETES_PORT_443_TCP_PORT": `\A443\z`,
  "KUBERNETES_PORT_443_TCP_ADDR": `\A[0-9a-f.:]{2,45}\z`,
}

# Images: guest-components pull what `source` names and check it against the digest.

has_image(container) if {
  pulls := [storage | some storage in input.storages; storage.driver == "image_guest_pull"]
  count(pulls) == 1
  is_image_storage(pulls[0])
  has_digest(pulls[0].source, container.image.digest)
  has_digest(input.OCI.Annotations["io.kubernetes.cri.image-name"], container.image.digest)
}

has_digest(reference, digest) if {
  parts := split(reference, "@")
  count(parts) == 2
  parts[1] == digest
}

is_image_storage(storage) if {
  storage.driver == "image_guest_pull"
  storage.fstype == "overlay"
  is_empty(storage.options)
  storage.mount_point == input.OCI.Root.Path
  is_null(storage.fs_group)
  storage.shared == false
  is_image_metadata(storage.driver_options)
}

# The agent takes from the metadata whether the container is pause.
is_image_metadata(options) if is_empty(options)

is_image_metadata(options) if {
  count(options) == 1
  prefix := "image_guest_pull="
  startswith(options[0], prefix)
  metadata := json.unmarshal(substring(options[0], count(prefix), -1)).metadata
  metadata["io.kubernetes.cri.container-type"] == input.OCI.Annotations["io.kubernetes.cri.container-type"]
}

# Volumes. A storage that the sandbox knows already is skipped by the agent, so a container may bring those of its own
# volumes and no other.

has_storages(container) if {
  others := [storage | some storage in input.storages; storage.driver != "image_guest_pull"]
  memory := {storage.mount_point | some storage in others; is_memory_storage(storage)}
  memory == {memory_path(mount.volume) | some mount in container.mounts; mount.from == "memory"}
  disks := {storage.mount_point | some storage in others; is_disk_storage(storage)}
  count(disks) == count({mount.volume | some mount in container.mounts; mount.from == "disk"})
  count(others) == count(memory) + count(disks)
  count(disk_bindings) == count(disks)
  every binding in disk_bindings { is_disk_of(binding) }
}

memory_path(volume) := concat("", ["/run/kata-containers/sandbox/ephemeral/", volume])

is_memory_storage(storage) if {
  storage.driver == "ephemeral"
  is_empty(storage.driver_options)
  storage.source == "tmpfs"
  storage.fstype == "tmpfs"
  storage.options == memory_options
  is_null(storage.fs_group)
  storage.shared == false
}

memory_options := [] if is_null(measured.pod.fsGroup)

memory_options := [sprintf("fsgid=%d", [measured.pod.fsGroup])] if not is_null(measured.pod.fsGroup)

# A disk is made and encrypted in the guest, with a key that nobody else has. Which of the host's block devices carries
# it does not matter, as long as two volumes are never one.
is_disk_storage(storage) if {
  storage.driver in {"blk", "scsi"}
  {option | some option in storage.driver_options} == {"encryption_key=ephemeral", "create_filesystem"}
  storage.fstype == "ext4"
  is_empty(storage.options)
  storage.shared == true
  storage.mount_point in disk_paths(storage.source)
  has_disk_group(storage.fs_group)
}

disk_paths(source) := {concat("", ["/run/kata-containers/sandbox/storage/", name]) |
  some name in {base64url.encode(source), base64url.encode_no_pad(source)}
}

has_disk_group(group) if {
  is_null(measured.pod.fsGroup)
  is_null(group)
}

has_disk_group(group) if group.group_id == measured.pod.fsGroup

disk_bindings := {[mount.volume, path] |
  some container in measured.containers
  container.name == input.OCI.Annotations["io.kubernetes.cri.container-name"]
  some destination, mount in container.mounts
  mount.from == "disk"
  some found in input.OCI.Mounts
  found.destination == destination
  path := found.source
}

is_disk_of(binding) if {
  [volume, path] := binding
  object.get(state, concat("", ["disk:", volume]), path) == path
  object.get(state, concat("", ["source:", path]), volume) == volume
  count([other | some other in disk_bindings; other[1] == path]) == 1
}

disk_ops(_) := [op |
  some binding in disk_bindings
  some op in [
    set_state(concat("", ["disk:", binding[0]]), binding[1]),
    set_state(concat("", ["source:", binding[1]]), binding[0]),
  ]
]

# Mounts: each expected destination once, and nothing else.

has_mounts(expected) if {
  mounts := input.OCI.Mounts
  destinations := {mount.destination | some mount in mounts}
  count(destinations) == count(mounts)
  count(destinations) == count(expected)
  every mount in mounts { is_mount(mount, expected[mount.destination]) }
}

is_mount(mount, expected) if {
  expected.from == "system"
  mount.type_ == expected.type
  mount.source == expected.source
  is_options(mount.options, expected)
}

is_mount(mount, expected) if {
  expected.from == "shm"
  mount.type_ == "bind"
  mount.source == "/run/kata-containers/sandbox/shm"
  mount.options == ["rbind"]
}

is_mount(mount, expected) if {
  expected.from == "memory"
  is_bind(mount, expected)
  mount.source == memory_path(expected.volume)
}

is_mount(mount, expected) if {
  expected.from == "disk"
  is_bind(mount, expected)
  some storage in input.storages
  is_disk_storage(storage)
  mount.source == storage.mount_point
}

is_mount(mount, expected) if {
  expected.from == "copied"
  is_bind(mount, expected)
  is_copied(mount.source, mount.destination)
}

is_mount(mount, expected) if {
  expected.from == "pause"
  mount.type_ == "bind"
  {option | some option in mount.options} == {"rbind", "ro", "nosuid", "nodev", "noexec"}
  is_copied(mount.source, mount.destination)
}

is_bind(mount, expected) if {
  mount.type_ == "bind"
  {option | some option in mount.options} == {"rbind", "rprivate", expected.access}
  count(mount.options) == 3
}

is_options(options, expected) if {
  found := {option | some option in options}
  count(found) == count(options)
  required := {option | some option in expected.options}
  count(required - found) == 0
  count((found - required) - {option | some option in expected.optional}) == 0
}

# The file or folder that the host copied for this container and this destination.
is_copied(source, destination) if {
  parts := split(source, "/")
  folder := concat("/", array.slice(parts, 0, count(parts) - 1))
  folder in copy_folders
  base := split(destination, "/")
  last := parts[count(parts) - 1]
  random := substring(last, 65, 16)
  regex.match(`\A[0-9a-z]{16}\z`, random)
  last == concat("-", [input.container_id, random, base[count(base) - 1]])
}

copy_folders := {
  "/run/kata-containers/shared/containers", "/run/kata-containers/shared/containers/passthrough",
  "/run/kata-containers/shared/containers/watchable",
}

system_mounts := {
  "/proc": {"from": "system", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"], "optional": []},
  "/dev": {
    "from": "system", "type": "tmpfs", "source": "tmpfs",
    "options": ["nosuid", "strictatime", "mode=755", "size=65536k"], "optional": [],
  },
  "/dev/pts": {
    "from": "system", "type": "devpts", "source": "devpts",
    "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"], "optional": [],
  },
  "/dev/mqueue": {"from": "system", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"], "optional": []},
  "/sys": {"from": "system", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"], "optional": []},
}

sandbox_mounts := object.union(system_mounts, {"/dev/shm": {"from": "shm"}, "/etc/resolv.conf": {"from": "pause"}})

# A volume of the container's own takes the place of what the kubelet or the runtime would mount there.
expected_mounts(container) := object.union_n([system_mounts, runtime_mounts(container), container.mounts])

runtime_mounts(container) := {
  "/sys/fs/cgroup": {
    "from": "system", "type": "cgroup", "source": "cgroup",
    "options": ["nosuid", "noexec", "nodev", "relatime", "ro"], "optional": ["nsdelegate", "memory_recursiveprot"],
  },
  "/dev/shm": {"from": "shm"},
  "/etc/hosts": {"from": "copied", "access": "rw"},
  "/etc/hostname": {"from": "copied", "access": root_access(container)},
  "/etc/resolv.conf": {"from": "copied", "access": root_access(container)},
  text(container.termination.path): {"from": "copied", "access": "rw"},
}

root_access(container) := "ro" if container.readOnly

root_access(container) := "rw" if not container.readOnly

# The life of a container.

StartContainerRequest := {"allowed": true, "ops": [
  set_state(id_key(input.container_id), {"name": name, "phase": "started"}),
  set_state(live_key(name), input.container_id),
  set_state(started_key(name), true),
]} if {
  state[id_key(input.container_id)].phase == "created"
  name := state[id_key(input.container_id)].name
  not state[live_key(name)]
}

RemoveContainerRequest := {"allowed": true, "ops": array.concat(
  [set_state(id_key(input.container_id), {"name": name, "phase": "removed"})],
  end_ops(name),
)} if {
  name := state[id_key(input.container_id)].name
}

end_ops(name) := [unset_state(live_key(name))] if state[live_key(name)] == input.container_id

end_ops(name) := [] if not state[live_key(name)] == input.container_id

SignalProcessRequest if state[id_key(input.container_id)]

StatsContainerRequest if state[id_key(input.container_id)]

WaitProcessRequest if state[id_key(input.container_id)]

ReadStreamRequest if named(input.container_id).readLogs

GetDiagnosticDataRequest if {
  input.log_type == "termination_log"
  named(input.container_id).readTermination
}

named(id) := container if {
  some container in measured.containers
  container.name == state[id_key(id)].name
}

# Files that the host copies: their content is the host's, their place is not.

CopyFileRequest if {
  parts := split(input.path, "/")
  some folder in copy_folders
  depth := count(split(folder, "/"))
  array.slice(parts, 0, depth) == split(folder, "/")
  regex.match(`\A[0-9a-f]{64}-[0-9a-z]{16}-`, parts[depth])
  base := substring(parts[depth], 82, -1)
  tail := array.slice(parts, depth + 1, count(parts))
  is_copy(base, tail)
}

is_copy(base, tail) if {
  count(tail) == 0
  base in copied_files
  input.file_type == "Regular"
  is_plain_file
}

is_copy(base, tail) if {
  base in copied_folders
  count(tail) == 0
  is_folder
}

is_copy(base, tail) if {
  base in copied_folders
  count(tail) > 0
  count(tail) <= 16
  is_inside(concat("/", tail))
  is_content
}

is_content if is_folder

is_content if {
  input.file_type == "Regular"
  is_plain_file
}

is_content if {
  input.file_type == "Symlink"
  not is_empty(input.symlink_target)
  is_inside(input.symlink_target)
}

# Neither set-user-ID nor set-group-ID; of a folder, which inherits its group from kubelet's, the first alone.
is_plain_file if {
  is_empty(input.symlink_target)
  bits.and(input.file_mode, 3072) == 0
}

is_folder if {
  input.file_type == "Directory"
  is_empty(input.symlink_target)
  bits.and(input.file_mode, 2048) == 0
}

copied_files := {"hosts", "hostname", "resolv.conf"} | {base |
  some container in measured.containers
  parts := split(text(container.termination.path), "/")
  base := parts[count(parts) - 1]
}

copied_folders := {base |
  some container in measured.containers
  some destination, mount in container.mounts
  mount.from == "copied"
  parts := split(destination, "/")
  base := parts[count(parts) - 1]
}

# Network: the loopback interface, over which the pod's containers speak, is not the host's.

UpdateInterfaceRequest if {
  interface := input.interface
  is_outer(interface.name)
  is_outer(interface.device)
  interface.devicePath == ""
  regex.match(`\A([0-9a-f]{2}:){5}[0-9a-f]{2}\z`, lower(interface.hwAddr))
  interface.hwAddr != "00:00:00:00:00:00"
  interface.raw_flags in {0, 128}
  every address in interface.IPAddresses { is_outer_address(address.address) }
}

UpdateRoutesRequest if {
  every route in input.routes.Routes {
    is_outer(route.device)
    is_outer_address(route.dest)
    is_outer_address(route.source)
  }
}

AddARPNeighborsRequest if {
  every neighbor in input.neighbors.ARPNeighbors {
    is_outer(neighbor.device)
    is_outer_address(object.get(object.get(neighbor, "toIPAddress", {}), "address", ""))
  }
}

is_outer(device) if {
  device != "lo"
  regex.match(`\A[A-Za-z0-9][A-Za-z0-9._-]{0,14}\z`, device)
}

# Empty, or an address with or without a prefix length, other than 127.0.0.0/8, ::1 and IPv4 in IPv6.
is_outer_address(address) if address == ""

is_outer_address(address) if regex.match(`\A([0-9]|[1-9][0-9]|1[01][0-9]|12[0-689]|1[3-9][0-9]|2[0-9]{2})(\.[0-9]{1,3}){3}(/[0-9]{1,2})?\z`, address)

is_outer_address(address) if {
  regex.match(`\A[0-9A-Fa-f:]{2,39}(/[0-9]{1,3})?\z`, address)
  contains(address, ":")
  not regex.match(`\A[0:]*:0*1(/[0-9]+)?\z`, address)
  not regex.match(`\A[0:]*:[fF]{4}:`, address)
}
