"""The verifier's configuration: one typed YAML file; paths in it are relative to its folder."""

from __future__ import annotations

import re
from datetime import date
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

from joserfc.jwk import ECKey
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator
from pydantic_core import PydanticCustomError

from attestation.pki.kds import DEFAULT_URL
from attestation.verifier.cluster.pod_token import ALGORITHMS, LONGEST_SECONDS, Algorithm
from kbs.endpoint import http_parts
from kbs.messages import WireError
from kbs.provision import SecretName, read_provisioner
from server.yaml.fields import ClusterName, HttpsUrl, HttpUrl
from server.yaml.strict import ConfigurationError, load

_COORDINATE = r"^[A-Za-z0-9_-]{43}$"
_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_MOUNT = r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$"


class Mode(StrEnum):
    """`production` refuses settings for trials: a simulated root, HTTP to Vault or to an API server, keys in files."""

    PRODUCTION = "production"
    DEVELOPMENT = "development"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Jwks(_Section):
    """Where a cluster's token-signing keys are: a file, or the API server's /openid/v1/jwks."""

    file: Path | None = None
    url: HttpUrl | None = None
    ca: Path | None = Field(None, description="PEM; without it the system's store")
    token: Path | None = Field(None, description="file with a bearer token, where the API server requires one")

    @model_validator(mode="after")
    def _one(self) -> Jwks:
        if (self.file is None) == (self.url is None):
            raise PydanticCustomError("jwks", "exactly one of file and url is required")
        return self


class ReadBack(_Section):
    """The API server that pods are looked up at; the token needs `get` on pods, nothing else."""

    url: HttpUrl
    ca: Path | None = None
    token: Path | None = None
    timeoutSeconds: float = Field(3.0, gt=0, le=10)


class TokenReview(_Section):
    """The API server that confirms pod tokens after the local check; its own token needs `create` on tokenreviews."""

    url: HttpUrl
    ca: Path | None = None
    token: Path | None = None
    timeoutSeconds: float = Field(3.0, gt=0, le=10)


class ClusterEntry(_Section):
    """One cluster that pods may come from."""

    name: ClusterName = Field(description="as in the policies' workload.cluster")
    issuer: str = Field(min_length=1, description="the tokens' iss, exactly; clusters may share it")
    audiences: tuple[str, ...] = Field(
        ("morphisms-verifier",),
        min_length=1,
        description="one of them must be in the token; clusters that share the issuer should have an audience each",
    )
    maxTokenSeconds: int = Field(
        LONGEST_SECONDS, ge=600, le=86400, description="longest life of a pod token, from its iat to its exp"
    )
    algorithms: tuple[Algorithm, ...] = Field(ALGORITHMS, min_length=1)
    jwks: Jwks
    readBack: ReadBack | None = Field(
        None,
        description="leave it out only where the API server cannot be reached: without it a token names a service "
        "account, never a Service, and a policy of assurance vm needs an account of its own",
    )
    nodes: Path | None = Field(
        None, description="file NODE: [CHIP_ID, …] in hex; a report's chip must be one of the live pod's node"
    )
    tokenReview: TokenReview | None = Field(None, description="in addition to jwks")


class Certificates(_Section):
    """Endorsements and trust anchors that reports are appraised with; folders and files of PEM or DER."""

    roots: tuple[Path, ...] = Field((), description="AMD's ARKs; their digests are pinned in the code")
    intermediates: tuple[Path, ...] = ()
    crls: tuple[Path, ...] = Field((), description="revocation lists for VCEKs: of …/vcek/v1/PRODUCT/crl")
    vlekCrls: tuple[Path, ...] = Field((), description="revocation lists for VLEKs: of …/vlek/v1/PRODUCT/crl")
    cache: Path | None = Field(None, description="folder for the key service's answers; without it memory only")
    keyService: str | None = Field(DEFAULT_URL, pattern="^https?://", description="null to work offline")
    simulatedRoot: Path | None = Field(
        None, description="root.pem of `morphisms simulated-hardware`; refused in production"
    )


class AppRoleFiles(_Section):
    """Files of mode 0400 with the credentials of AppRole."""

    roleId: Path
    secretId: Path
    mount: str = Field("approle", pattern=_MOUNT, description="of the auth method, without auth/")


class ProvisionedAppRole(_Section):
    """AppRole's two ids as people provision them; they lie in no file."""

    mount: str = Field("approle", pattern=_MOUNT, description="of the auth method, without auth/")


class OwnLogin(_Section):
    """How the verifier itself logs in; its token is renewed, and replaced when renewal ends."""

    tokenFile: Path | None = Field(None, description="mode 0400; read again when replaced, e.g. by Vault Agent")
    appRole: AppRoleFiles | None = None
    provisioned: ProvisionedAppRole | None = Field(
        None, description="needs vault-role-id and vault-secret-id under provisioning.needs"
    )
    namespace: str = Field("", pattern=rf"{_MOUNT}|^$")

    @model_validator(mode="after")
    def _one(self) -> OwnLogin:
        if [self.tokenFile, self.appRole, self.provisioned].count(None) != 2:
            raise PydanticCustomError("login", "exactly one of tokenFile, appRole and provisioned is required")
        return self


class VaultServer(_Section):
    """Vault or OpenBao, and the bound_issuer and bound_audiences of its jwt auth mounts."""

    url: HttpUrl
    ca: Path | None = None
    issuer: str = Field("morphisms-verifier", min_length=1)
    audience: str = Field("vault", min_length=1)
    login: OwnLogin | None = Field(None, description="for the verifier's own requests: signing.transit, policyVault")
    timeoutSeconds: float = Field(5.0, gt=0, le=15)


class Transit(_Section):
    """A key of type ecdsa-p256 in Vault's transit engine."""

    mount: str = Field("transit", pattern=_MOUNT)
    key: str = Field(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")


class Signing(_Section):
    """ES256 keys: in Vault, made in this process, provisioned, or in files."""

    keys: Annotated[tuple[Path, ...], Field(max_length=4)] = Field(
        (), description="PEM, mode 0400; the first signs, the others are listed in jwks.json during a rotation"
    )
    transit: Transit | None = Field(
        None, description="its newest version signs, all from min_decryption_version on are listed; needs vault.login"
    )

    generated: Literal[True] | None = Field(
        None,
        description="a key made in this process's memory; of one replica, because Vault fetches jwks.json of one",
    )
    provisioned: Literal[True] | None = Field(None, description="needs signing-key under provisioning.needs")

    @model_validator(mode="after")
    def _one(self) -> Signing:
        if [bool(self.keys), self.transit is not None, bool(self.generated), bool(self.provisioned)].count(True) != 1:
            raise PydanticCustomError("signing", "exactly one of keys, transit, generated and provisioned is required")
        return self


class Provisioner(_Section):
    """A public key as JWK; its holder may provision secrets."""

    kty: Literal["EC"]
    crv: Literal["P-256"]
    x: str = Field(pattern=_COORDINATE)
    y: str = Field(pattern=_COORDINATE)

    @model_validator(mode="after")
    def _point(self) -> Provisioner:
        try:
            self.key()
        except WireError as error:
            raise PydanticCustomError("provisioner", "is not a point on P-256") from error
        return self

    def key(self) -> ECKey:
        """The public key."""
        return read_provisioner(self.model_dump())


class ReplicaReferences(_Section):
    """Whose signed reference values name replicas too, such as those of the next image during an update."""

    signer: Provisioner
    minSerial: int = Field(ge=0, le=(1 << 53) - 1)


class Provisioning(_Section):
    """A verifier in a guest: it starts without secrets, and makes the key of its TLS certificate itself."""

    provisioners: tuple[Provisioner, ...] = Field(min_length=1, max_length=16)
    needs: tuple[SecretName, ...] = Field(
        min_length=1, description="until all of them have come, the verifier is sealed and serves no guest"
    )
    names: tuple[str, ...] = Field(
        min_length=1, max_length=16, description="DNS names and IP addresses of the verifier's TLS certificate"
    )
    vaultPort: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="where guests reach the OpenBao beside the verifier, by the verifier's TLS, once it is unsealed",
    )

    peers: tuple[HttpsUrl, ...] = Field(
        (),
        max_length=8,
        description="other replicas, such as the URL of a headless Service; a sealed one gets the secrets of an "
        "unsealed one after both have proven themselves",
    )
    chipIds: tuple[Annotated[str, Field(pattern="^[0-9a-f]{128}$")], ...] = Field(
        (), max_length=256, description="CHIP_IDs of the machines that replicas run on; without it none gets secrets"
    )
    references: ReplicaReferences | None = Field(
        None, description="without it a replica is what this guest's own report says"
    )

    @model_validator(mode="after")
    def _sound(self) -> Provisioning:
        if len(set(self.needs)) != len(self.needs):
            raise PydanticCustomError("needs", "needs: a name is listed twice")
        if unusable := [name for name in self.names if not _NAME.fullmatch(name) and not _is_address(name)]:
            raise PydanticCustomError("names", f"names: entry {self.names.index(unusable[0]) + 1} is not a DNS name")
        return self


class PolicyVault(_Section):
    """One secret of a KV engine, version 2, with the keys `policies` and `guests`."""

    mount: str = Field("secret", pattern=_MOUNT)
    path: str = Field(pattern=_MOUNT, description="of the secret, below the mount")


class AttestSource(_Section):
    """One evidence source of the verifier's own guest, as for pods."""

    source: Literal["coco-aa", "configfs-tsm", "sev-guest", "simulated"] = Field(
        description="the interface that returns the report; simulated is refused in production"
    )
    address: str = Field(min_length=1, description="a URL for coco-aa and simulated, else a path")

    @property
    def name(self) -> str:
        """As `attestation.evidence.order` calls it."""
        return self.source


class Attest(_Section):
    """How the verifier proves itself to pods (`POST /attested`)."""

    sources: tuple[AttestSource, ...] = Field(min_length=1, max_length=4, description="tried in this order")
    references: Path | None = Field(
        None, description="file with the signed reference values that pods get, as `morphisms kms references` writes it"
    )


class Exemption(_Section):
    """A rule of production that does not hold here, until a day; see docs/verifier.md, "What each key is worth"."""

    id: Literal["key-files"]
    reason: str = Field(min_length=1, max_length=500, pattern=r"\S", description="for the people who decide it again")
    expires: date = Field(description='the last day, such as "2027-03-31"; at most a year ahead')


class PerSource(_Section):
    """Attestations from one address (IPv6: one /64) before anything is verified; behind a proxy that is the proxy's."""

    burst: int = Field(1000, ge=1, le=1_000_000)
    perSecond: float = Field(200.0, gt=0, le=1_000_000)


class Explain(_Section):
    """Records kept for `morphisms explain`, newest last; the oldest go when the bound is reached."""

    folder: Path | None = None
    megabytes: int = Field(64, ge=1, le=4096)


class VerifierConfiguration(_Section):
    """`morphisms verifier --config`."""

    mode: Mode = Mode.PRODUCTION
    clusters: tuple[ClusterEntry, ...] = Field(min_length=1, max_length=64)
    policies: Path = Field(Path("policies"), description="folder of appraisal policies, one per file")
    guests: Path = Field(Path("guests"), description="folder of guest reference values, each file NAME: {…}")
    policyVault: PolicyVault | None = Field(
        None, description="policies and guests from Vault in place of the two folders; needs vault.login"
    )
    certificates: Certificates = Certificates()
    vault: VaultServer
    signing: Signing
    provisioning: Provisioning | None = Field(None, description="for a verifier in a guest of its own")
    attest: Attest | None = Field(
        None, description="the verifier's own evidence; without it only pods that do not demand it can attest here"
    )
    explain: Explain = Explain()
    perSource: PerSource = PerSource()
    exceptions: tuple[Exemption, ...] = Field(
        (), max_length=1, description="what production accepts all the same: key-files, for keys in files"
    )

    _written: VerifierConfiguration | None = PrivateAttr(None)

    @property
    def written(self) -> VerifierConfiguration:
        """The configuration with the paths as they stand in the file."""
        return self if self._written is None else self._written

    @model_validator(mode="before")
    @classmethod
    def _removed(cls, data: Any) -> Any:
        if isinstance(data, dict) and "session" in data:
            raise PydanticCustomError(
                "session", "session is no longer a key: remove it and the file that it names; processes share no key"
            )
        return data

    @model_validator(mode="after")
    def _one_source(self) -> VerifierConfiguration:
        if self.policyVault is not None and self.model_fields_set & {"policies", "guests"}:
            raise PydanticCustomError("policies", "policyVault takes the place of policies and guests; keep one")
        return self


def load_configuration(path: Path) -> VerifierConfiguration:
    """The configuration with absolute paths. Raises ConfigurationError, also for what production does not allow."""
    written = load(path, VerifierConfiguration).value
    configuration = _absolute(written, path.absolute().parent)
    configuration._written = written
    problems = [f"{path}: {problem}" for problem in _problems(configuration)]
    if problems:
        raise ConfigurationError(problems)
    return configuration


def _problems(configuration: VerifierConfiguration) -> list[str]:
    names = [cluster.name for cluster in configuration.clusters]
    problems = [f"clusters: {name} is listed twice" for name in sorted(set(names)) if names.count(name) > 1]
    problems += [
        f"clusters.{cluster.name}.nodes: needs readBack, which says on which node a pod runs"
        for cluster in configuration.clusters
        if cluster.nodes is not None and cluster.readBack is None
    ]
    if configuration.signing.transit is not None and configuration.vault.login is None:
        problems.append("signing.transit: needs vault.login")
    if configuration.policyVault is not None and configuration.vault.login is None:
        problems.append("policyVault: needs vault.login")
    problems += _provisioning_problems(configuration)
    if configuration.mode is not Mode.PRODUCTION:
        return problems
    if configuration.certificates.simulatedRoot is not None:
        problems.append("certificates.simulatedRoot: simulated evidence proves nothing; not with mode: production")
    if configuration.attest is not None and any(each.source == "simulated" for each in configuration.attest.sources):
        problems.append("attest.sources: simulated evidence proves nothing; not with mode: production")
    urls = {
        # What stays in this machine's memory needs no TLS.
        "vault.url": "" if is_loopback(configuration.vault.url) else configuration.vault.url,
        # Over HTTP anybody on the way may withhold a revocation list, or give the one for the other kind of leaf.
        "certificates.keyService": configuration.certificates.keyService or "",
    }
    for cluster in configuration.clusters:
        urls[f"clusters.{cluster.name}.jwks.url"] = cluster.jwks.url or ""
        urls[f"clusters.{cluster.name}.readBack.url"] = cluster.readBack.url if cluster.readBack else ""
        urls[f"clusters.{cluster.name}.tokenReview.url"] = cluster.tokenReview.url if cluster.tokenReview else ""
    problems += [
        f"{where}: not HTTPS; not with mode: production" for where, url in urls.items() if url.startswith("http:")
    ]
    return problems


def _provisioning_problems(configuration: VerifierConfiguration) -> list[str]:
    """Each secret that is used must be listed, and each that is listed must be used."""
    provisioning = configuration.provisioning
    needs = () if provisioning is None else provisioning.needs
    login = configuration.vault.login
    own = login is not None and login.provisioned is not None
    users = {
        SecretName.VAULT_ROLE_ID: (own, "vault.login.provisioned"),
        SecretName.VAULT_SECRET_ID: (own, "vault.login.provisioned"),
        SecretName.SIGNING_KEY: (bool(configuration.signing.provisioned), "signing.provisioned"),
    }
    problems = []
    for name, (is_used, where) in users.items():
        if is_used and name not in needs:
            problems.append(f"{where}: needs {name.value} under provisioning.needs")
        if not is_used and name in needs:
            problems.append(f"provisioning.needs: {name.value} is used by {where} alone, which is not set")
    if SecretName.UNSEAL_SHARE in needs and not is_loopback(configuration.vault.url):
        problems.append(
            "provisioning.needs: unseal-share goes to an OpenBao beside the verifier alone; vault.url must be on "
            "127.0.0.1 or [::1], such as http://127.0.0.1:8200"
        )
    if provisioning is not None and provisioning.peers:
        missing = {"attest": configuration.attest is None, "provisioning.chipIds": not provisioning.chipIds}
        problems += [f"provisioning.peers: needs {name}" for name, is_missing in missing.items() if is_missing]
        if configuration.signing.generated:
            problems.append(
                "signing.generated: each replica would sign with a key of its own; use signing.transit or "
                "signing.provisioned with provisioning.peers"
            )
    if provisioning is not None and provisioning.vaultPort is not None:
        if SecretName.UNSEAL_SHARE not in needs or SecretName.TLS_CA_KEY not in needs:
            problems.append("provisioning.vaultPort: needs unseal-share and tls-ca-key under provisioning.needs")
        elif not configuration.vault.url.startswith("http://"):
            problems.append("provisioning.vaultPort: needs a vault.url without TLS, such as http://127.0.0.1:8200")
    return problems


def is_loopback(url: str) -> bool:
    """Whether the URL's host is a loopback address, written as one: `localhost` is what a resolver says it is."""
    return _is_address(host := http_parts(url)[0]) and ip_address(host).is_loopback


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _absolute(section: VerifierConfiguration, folder: Path) -> VerifierConfiguration:
    def resolve(value: object) -> object:
        if isinstance(value, Path):
            return folder / value
        if isinstance(value, tuple):
            return tuple(map(resolve, value))
        if isinstance(value, BaseModel):
            return value.model_copy(update={name: resolve(getattr(value, name)) for name in type(value).model_fields})
        return value

    resolved = resolve(section)
    if not isinstance(resolved, VerifierConfiguration):
        raise AssertionError
    return resolved
