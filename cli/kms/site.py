"""What a verifier runs with, from the operator's own files: the digests that its report has to bind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from attestation.verifier.configuration import VerifierConfiguration, load_configuration
from attestation.verifier.digests import configuration_digest, policies_digest
from attestation.verifier.policies.load import load_policies
from kbs.attested import DIGEST_SIZE
from kbs.base64url import decode
from server.files import UnusableInputError, read_bounded


def digest_of_configuration(word: str, root: Path | None) -> bytes:
    """Of a verifier's configuration file, or the digest itself as a verifier logs it.

    `root`: the folder that stands for the guest's `/` where the configuration names files by absolute paths.
    Raises ConfigurationError, UnusableInputError.
    """
    try:
        return decode(word, DIGEST_SIZE)
    except ValueError:
        pass
    path = Path(word)
    return configuration_digest(load_configuration(path), _reader(path.absolute().parent, root))


def digest_of_policies(policies: Path, guests: Path, configuration: VerifierConfiguration | None) -> bytes:
    """Of the two folders. Without `configuration`, for clusters that all have `readBack`.

    Raises ConfigurationError, UnusableInputError.
    """
    for folder in (policies, guests):
        if not folder.is_dir():
            raise UnusableInputError(f"{folder}: not a folder")
    clusters: Mapping[str, bool] = _AnyCluster()
    if configuration is not None:
        clusters = {each.name: each.readBack is not None for each in configuration.clusters}
    return policies_digest(load_policies(policies, guests, clusters).value)


def _reader(folder: Path, root: Path | None) -> Callable[[Path], bytes]:
    def read(path: Path) -> bytes:
        if root is None or path.is_relative_to(folder):
            return read_bounded(path)
        return read_bounded(root / path.relative_to("/"))

    return read


class _AnyCluster(Mapping[str, bool]):
    """Knows every cluster, and that its pods are looked up."""

    def __getitem__(self, name: str) -> bool:
        return True

    def __contains__(self, name: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0
