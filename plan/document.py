"""The plan: what `morphisms-init` has to attest, fetch and publish.

The webhook (or `morphisms render`) writes it, the sidecar reads it. It travels in the environment of `morphisms-init`,
because a measured agent policy pins a container's environment: with assurance `workload` the guest refuses a container
with a changed plan. `plan.codec` is its form as text.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:  # most plans have none, and a cold start pays for each module
    from kbs.verifier_attest import VerifierAttest

VERSION: Final = 1
ATTEST_VERSION: Final = 2
"""Of a plan with `verifier.attest`: a sidecar of an earlier release refuses it instead of passing over the demand."""
SIMULATED: Final = "simulated"
DATA_HUB: Final = "coco-cdh"
"""Not a source of reports: the guest's own data hub attests and fetches the Vault token. It stands alone."""
EVIDENCE_SOURCES: Final = ("coco-aa", "configfs-tsm", "sev-guest", SIMULATED, DATA_HUB)
AGENTS: Final = ("init", "sidecar")
FILE_MODES: Final = ("0440", "0400")
NO_REACTION: Final = "none"
# What Kubernetes accepts (KEP-4369): printable ASCII without `=`.
_VARIABLE_NAME: Final = re.compile(r"[ -<>-~]+")
_SIGNAL_REACTION: Final = re.compile(r"signal:(SIG[A-Z0-9]{2,10}):([A-Za-z0-9._-]{1,64})")


class PlanError(ValueError):
    """The document is not a plan; the message names the field and never holds a value."""


class Workload(NamedTuple):
    """Who the pod claims to be. The verifier does not trust this: it reads the pod's token."""

    cluster: str
    namespace: str
    service: str
    service_account: str


class EvidenceSource(NamedTuple):
    """One of EVIDENCE_SOURCES, and its address: a URL or a path."""

    name: str
    address: str


class Verifier(NamedTuple):
    """The attestation verifier. `ca` is PEM text, empty for the image's own trust store.

    `role` is the Vault role that the pod requests; the appraisal policy decides. `attest` is what the verifier has to
    prove before the pod sends anything about itself; None demands nothing.
    """

    url: str
    ca: str
    audience: str
    role: str
    attest: VerifierAttest | None = None


class Vault(NamedTuple):
    """Vault or OpenBao. `mounts` gives each KV mount's version, 1 or 2, by name."""

    url: str
    ca: str
    namespace: str
    mounts: tuple[tuple[str, int], ...]


class SecretFile(NamedTuple):
    """A secret published as a file below SECRETS_PATH; without `key` the whole secret as JSON."""

    name: str
    path: str
    file: str
    key: str | None = None
    version: int | None = None
    mode: str | None = None
    template: str | None = None


class EnvVariable(NamedTuple):
    """A variable of one container: either `value`, a text with `${vault:PATH#KEY}` inside, or `path` and `key`.

    In `value`, `$(NAME)` of a NAME in `expand` becomes the container's variable when the container starts.
    """

    container: str
    name: str
    value: str | None = None
    path: str | None = None
    key: str | None = None
    version: int | None = None
    expand: tuple[str, ...] = ()


class EnvFrom(NamedTuple):
    """Every key of the secret becomes a variable of the container."""

    container: str
    path: str
    version: int | None = None


class Plan(NamedTuple):
    """The whole document. `on_change` is `none` or `signal:SIG…:PROCESS`; `file_mode` one of FILE_MODES.

    `reread_seconds`: after what time `agent: sidecar` reads a KV secret again; None leaves it to the sidecar.
    """

    workload: Workload
    evidence: tuple[EvidenceSource, ...]
    verifier: Verifier
    vault: Vault
    secrets: tuple[SecretFile, ...] = ()
    env: tuple[EnvVariable, ...] = ()
    env_from: tuple[EnvFrom, ...] = ()
    agent: str = "init"
    on_change: str = NO_REACTION
    deadline_seconds: int = 60
    file_mode: str = "0440"
    reread_seconds: int | None = None

    @property
    def data_hub(self) -> str:
        """The address of the guest's data hub, where that fetches the Vault token; else empty."""
        (first, *_) = self.evidence
        return first.address if first.name == DATA_HUB else ""

    @property
    def version(self) -> int:
        """Of the document's form: the oldest that can say all of it."""
        return VERSION if self.verifier.attest is None else ATTEST_VERSION


def parse_reaction(on_change: str) -> tuple[str, str] | None:
    """(signal, process name) of `signal:SIG…:PROCESS`, None for `none`; ValueError for anything else."""
    if on_change == NO_REACTION:
        return None
    match = _SIGNAL_REACTION.fullmatch(on_change)
    if match is None:
        raise ValueError("expected none or signal:SIGNAL:PROCESS, such as signal:SIGHUP:nginx")
    return match[1], match[2]


def is_variable_name(name: str) -> bool:
    """Whether Kubernetes, and the exec helper, accept a variable of this name."""
    return _VARIABLE_NAME.fullmatch(name) is not None


def is_relative_file(file: str) -> bool:
    """Whether `file` is a relative path inside the secrets folder, without a part that starts with `..`.

    The publisher's own folders, such as `..data`, start so.
    """
    parts = file.split("/")
    return len(file) <= 255 and "\0" not in file and all(part not in ("", ".") and part[:2] != ".." for part in parts)


def is_file_mode(mode: str) -> bool:
    """Whether `mode` is an octal mode that the owner can read and others cannot use, such as 0440 or 400."""
    return re.fullmatch(r"0?[4-7][0-7]0", mode) is not None
