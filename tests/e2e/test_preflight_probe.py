"""`morphisms preflight --probe`, whole: its Job's container is run, and asks a real verifier and a real OpenBao.

The Job's controller and the kubelet are stood in for; what the container prints is what the command reads as the log.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final

import pytest
import yaml

from tests.attestation.verifier.process import Site, Verifier
from tests.attestation.verifier.tokens import AUDIENCE, ISSUER
from tests.cli.audit.found import deployment
from tests.cli.live.conftest import Run
from tests.cli.live.conftest import run as run
from tests.cli.live.job_runner import JOBS, RealJobRunner, probed_namespace
from tests.cli.live.stand_in import ready
from tests.support.certificates import make_pair
from tests.support.raft import RaftOpenBao
from webhook.scanner.probes.published import Check

Json = dict[str, Any]
Probed = Callable[..., dict[str, tuple[str, str]]]

_GOOD: Final = {check.value: "ok" for check in Check}
_OTHER_CA: Final = make_pair()[0].decode()


@pytest.fixture
def probed(run: Run, site: Site, verifier_process: Verifier, bao: RaftOpenBao) -> Probed:
    """State and text of each line about what only the cluster reaches; `changes` by section of the configuration."""

    def probe(issuer: str = ISSUER, keys: tuple[str, ...] = ("prod-1",), **changes: Any) -> dict[str, tuple[str, str]]:
        url, ca = f"https://127.0.0.1:{verifier_process.port}", (site.folder / "ca.crt").read_text()
        configuration = {
            "version": 1,
            "cluster": changes.get("cluster", "prod"),
            "verifier": {"url": url, "ca": ca, "audience": AUDIENCE, **changes.get("verifier", {})},
            "vault": {"url": bao.url, "ca": bao.ca, **changes.get("vault", {})},
        }
        text = yaml.safe_dump(configuration)
        runner = RealJobRunner.on(ready())
        cluster = probed_namespace(runner, text, "audit", deployment("shop", "web"), issuer=issuer, keys=keys)
        done = run(cluster, "preflight", "shop", "--probe", "-o", "json", "--allow-unevaluated")
        # The Job was made, and is gone.
        assert [path for path, _ in cluster.deleted] == [f"{JOBS}/{cluster.name}"]
        lines = json.loads(done.out)["lines"]
        found = {each["check"]: (each["state"], each["text"]) for each in lines if each["check"] in _GOOD}
        assert (done.code == 1) == any(state == "failed" for state, _ in found.values()), done.out
        assert found.keys() == _GOOD.keys()
        return found

    return probe


@contextmanager
def _sealed(bao: RaftOpenBao) -> Any:
    bao.seal()
    try:
        yield
    finally:
        bao.unseal()


def _undisturbed(bao: RaftOpenBao) -> AbstractContextManager[None]:
    return nullcontext()


_VERIFIER_UNKNOWN: Final = {"cluster-name": "not-evaluated", "key-set": "not-evaluated"}


@pytest.mark.parametrize(
    ("arguments", "during", "states", "check", "says"),
    [
        pytest.param({}, _undisturbed, {}, Check.VAULT, "Vault answers unsealed", id="all is well"),
        pytest.param(
            {"verifier": {"ca": _OTHER_CA}},
            _undisturbed,
            {"verifier": "failed", **_VERIFIER_UNKNOWN},
            Check.VERIFIER,
            "verifier.ca does not vouch",
            id="another CA for the verifier",
        ),
        pytest.param(
            {"vault": {"ca": _OTHER_CA}},
            _undisturbed,
            {"vault": "failed"},
            Check.VAULT,
            "vault.ca does not vouch",
            id="another CA for Vault",
        ),
        pytest.param(
            {"cluster": "staging"},
            _undisturbed,
            {"cluster-name": "failed", "key-set": "not-evaluated"},
            Check.CLUSTER_NAME,
            "no cluster of this name",
            id="another cluster name",
        ),
        pytest.param(
            {"issuer": "https://oidc.example"},
            _undisturbed,
            {"cluster-name": "failed"},
            Check.CLUSTER_NAME,
            "another issuer",
            id="another issuer",
        ),
        pytest.param(
            {"keys": ("prod-1", "rotated")},
            _undisturbed,
            {"key-set": "failed"},
            Check.KEY_SET,
            "lacks 1 of the cluster's 2 token keys",
            id="a key set from before a rotation",
        ),
        pytest.param({}, _sealed, {"vault": "failed"}, Check.VAULT, "Vault is sealed; unseal it", id="a sealed Vault"),
    ],
)
def test_an_operator_reads_each_fault_in_its_own_line_and_in_no_other(
    probed: Probed,
    bao: RaftOpenBao,
    arguments: Json,
    during: Callable[[RaftOpenBao], AbstractContextManager[None]],
    states: Json,
    check: Check,
    says: str,
) -> None:
    with during(bao):
        found = probed(**arguments)
    assert {name: state for name, (state, _) in found.items()} == {**_GOOD, **states}
    assert says in found[check.value][1]
