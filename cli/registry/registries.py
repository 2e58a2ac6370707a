"""`registries.yaml`: what image references leave open, and what a registry may be trusted with."""

from __future__ import annotations

import ipaddress
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from cli.registry.errors import RegistryError
from cli.registry.reference import HOST, Reference
from server.files import UnusableInputError, read_bounded
from server.yaml.strict import ConfigurationError, load

_Host = Annotated[str, Field(pattern=rf"^(?:{HOST.pattern})$", max_length=255)]
_NAMESPACE: Final = r"^([a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*)?$"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Registry(_Section):
    """One registry, where it differs from what its name says."""

    host: _Host | None = Field(None, description="serves its images, where that is another than its name")
    namespace: Annotated[str, Field(pattern=_NAMESPACE)] = Field(
        "", description="stands before a repository that is one word"
    )
    credentials: str | None = Field(
        None, max_length=255, description="key of its credentials in docker's configuration, where that is another"
    )
    tokenHosts: tuple[_Host, ...] = Field((), max_length=16, description="other hosts that may get its credentials")
    plainHTTP: bool = Field(False, description="it speaks no TLS; on loopback that is found out")
    ca: str | None = Field(None, description="file with its CA (PEM), beside those that the system trusts")


class Registries(_Section):
    """The whole file."""

    version: Literal[1] = 1
    default: _Host | None = Field(None, description="the registry of references that name none")
    registries: dict[_Host, Registry] = Field({}, max_length=256, description="by the name in references")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one reference's image is served. `name` is the registry's, `schemes` are tried in order."""

    name: str
    host: str
    repository: str
    settings: Registry
    schemes: tuple[str, ...]

    def tls(self) -> ssl.SSLContext:
        """Trusts the system's CAs and the registry's own. Raises UnusableInputError."""
        context = ssl.create_default_context()
        if self.settings.ca is not None:
            path = Path(self.settings.ca).expanduser()
            try:
                context.load_verify_locations(cadata=read_bounded(path).decode("ascii"))
            except (ssl.SSLError, UnicodeDecodeError):
                raise UnusableInputError(f"{path}: is not a certificate in PEM") from None
        return context


def default_path() -> Path:
    """Where the file is looked for when no option names one."""
    folder = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(folder) / "morphisms" / "registries.yaml"


def load_registries(path: str | None, default: str | None) -> Registries:
    """The file, or the one at `default_path` where there is one; `default` takes its default's place.

    Raises UnusableInputError.
    """
    found = Registries()
    if default is not None and not HOST.fullmatch(default):
        raise UnusableInputError("--default-registry: is not a host, such as registry.example or 127.0.0.1:5000")
    if path is not None or default_path().exists():
        try:
            found = load(default_path() if path is None else Path(path), Registries).value
        except ConfigurationError as error:
            raise UnusableInputError("; ".join(error.problems)) from None
    return found if default is None else found.model_copy(update={"default": default})


def endpoint_of(reference: Reference, registries: Registries) -> Endpoint:
    """Where the reference's image is served. Raises RegistryError where nothing says so."""
    name = reference.host or registries.default
    if name is None:
        raise RegistryError("names no registry; write HOST/REPOSITORY, or name one with --default-registry HOST")
    settings = registries.registries.get(name, Registry())
    host = settings.host or name
    repository = reference.repository
    if settings.namespace and "/" not in repository:
        repository = f"{settings.namespace}/{repository}"
    schemes = ("http",) if settings.plainHTTP else ("https", "http") if is_loopback(host) else ("https",)
    return Endpoint(name, host, repository, settings, schemes)


def is_loopback(host: str) -> bool:
    """Whether HOST[:PORT] is this machine."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
