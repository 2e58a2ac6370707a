"""`aa.toml` and `cdh.toml` of an initdata document: whom the guest's own agents call, which images they may pull."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_CDH_SOCKET: Final = "unix:///run/confidential-containers/cdh.sock"


@dataclass(frozen=True, slots=True)
class KeyBroker:
    """The verifier: its URL and, as PEM text, the certificate that signed its own; empty for public ones."""

    url: str
    certificate: str


def attestation_agent(broker: KeyBroker) -> str:
    """`aa.toml`: with it, no address of the kernel's command line counts."""
    lines = ["[token_configs.kbs]", f"url = {_text(broker.url)}"]
    if broker.certificate:
        lines.append(f"cert = {_text(broker.certificate)}")
    return "\n".join(lines) + "\n"


def data_hub(broker: KeyBroker, repositories: Iterable[str]) -> str:
    """`cdh.toml`. Images of other repositories are refused: a second lock beside the policy's digests."""
    accepted = {name: [{"type": "insecureAcceptAnything"}] for name in sorted(set(repositories))}
    policy = {"default": [{"type": "reject"}], "transports": {"docker": accepted}}
    lines = [f"socket = {_text(_CDH_SOCKET)}", "", "[kbc]", 'name = "cc_kbc"', f"url = {_text(broker.url)}"]
    if broker.certificate:
        lines.append(f"kbs_cert = {_text(broker.certificate)}")
    text = json.dumps(policy, separators=(",", ":"), sort_keys=True)
    return "\n".join([*lines, "", "[image]", f"image_security_policy = {_text(text)}", ""])


def repository_of(reference: str) -> str:
    """The repository in an image reference, without tag and digest."""
    name = reference.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}"


def _text(value: str) -> str:
    """A TOML basic string on one line. JSON's escapes are TOML's but for DEL, which JSON leaves."""
    return json.dumps(value).replace("\x7f", "\\u007f")
