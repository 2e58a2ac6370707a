"""A verifier that starts sealed: real processes over TLS, and those who try to get in before its provisioners."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from joserfc.jwk import ECKey

from attestation.simulator.device import Device
from attestation.simulator.hierarchy import Hierarchy
from attestation.verifier.configuration import load_configuration
from attestation.verifier.handlers import JWKS_PATH
from certs.authority import issue_leaf, make_authority
from certs.pem import Pair
from certs.periods import Periods
from kbs.guest import open_token, read_attest_answer, read_error, token_path, write_auth
from kbs.messages import ATTEST_PATH, AUTH_PATH, ErrorType
from kbs.provision import MAX_PROVISION_SIZE, Outcome, SecretName, Unsealing, write_provision
from server.yaml.strict import ConfigurationError
from tests.attestation.verifier.own_login import make_transit_key, write_app_role
from tests.attestation.verifier.process import Site, Verifier, make_site, policy, verifier
from tests.attestation.verifier.provisioner import Provisioner, provisioning
from tests.attestation.verifier.test_refusals import Guest
from tests.attestation.verifier.tokens import Issuer
from tests.support.raft import raft_openbao
from tests.support.until import until

ROLE_ID, SECRET_ID, SHARE, CA, SIGNING = (
    SecretName.VAULT_ROLE_ID,
    SecretName.VAULT_SECRET_ID,
    SecretName.UNSEAL_SHARE,
    SecretName.TLS_CA_KEY,
    SecretName.SIGNING_KEY,
)
IDS = {ROLE_ID: "canary-role-id", SECRET_ID: "canary-secret-id"}


def authority(*names: str) -> Pair:
    """With `names`, a CA that may sign for these DNS names alone."""
    return make_authority(datetime.now(UTC), Periods(), names)


def text_of(pair: Pair) -> str:
    """As `tls-ca-key` is provisioned."""
    return (pair.certificate_pem + pair.key_pem).decode()


def signing_key() -> str:
    return ECKey.generate_key("P-256").as_pem(private=True).decode()


def sealed_site(
    folder: Path, hierarchy: Hierarchy, issuer: Issuer, key: ECKey, needs: list[SecretName], vault_url: str
) -> Site:
    """A verifier that waits for `needs` of this provisioner."""
    site = make_site(folder, hierarchy, issuer, vault_url)
    site.write_policy("payments", policy())
    site.settings["provisioning"] = provisioning(key, needs=needs)
    if ROLE_ID in needs:
        site.settings["vault"]["login"] = {"provisioned": {}}
    site.settings["signing"] = {"provisioned": True} if SIGNING in needs else {"transit": {"key": "verifier"}}
    return site


@pytest.fixture(scope="module")
def key() -> ECKey:
    """The provisioner's."""
    return ECKey.generate_key("P-256")


Start = Callable[[str], contextlib.AbstractContextManager[Verifier]]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, hierarchy: Hierarchy, issuer: Issuer, key: ECKey) -> Start:
    """Starts a replica of this name: all have one configuration, and their Vault is not there."""

    def replica(name: str) -> contextlib.AbstractContextManager[Verifier]:
        needs = [ROLE_ID, SECRET_ID, SIGNING, CA]
        folder = tmp_path_factory.mktemp(name)
        return verifier(sealed_site(folder, hierarchy, issuer, key, needs, "http://127.0.0.1:1"))

    return replica


@pytest.fixture(scope="module")
def sealed(start: Start) -> Iterator[Verifier]:
    """Tests leave it sealed: none provisions the CA."""
    with start("sealed") as process:
        yield process


@pytest.fixture
def provisioner(sealed: Verifier, key: ECKey) -> Iterator[Provisioner]:
    provisioner = Provisioner(sealed.port, key)
    yield provisioner
    provisioner.close()


def test_a_sealed_verifier_serves_probes_and_provisioning_alone(sealed: Verifier, provisioner: Provisioner) -> None:
    for method, path, body in (
        ("POST", AUTH_PATH, write_auth()),
        ("POST", ATTEST_PATH, b"x" * 1000),
        ("GET", token_path(), None),
        ("GET", JWKS_PATH, None),
    ):
        answer = provisioner.call(method, path, body)
        assert answer.status == 503, path
        assert read_error(answer.body).problem == ErrorType.SEALED, path
    assert provisioner.call("GET", "/healthz").status == 200
    ready = provisioner.call("GET", "/readyz")
    assert ready.status == 503
    assert b"[-]provisioning: sealed: waits for " in ready.body
    assert b"morphisms_sealed 1.0" in provisioner.call("GET", "/metrics").body
    (line, *_) = sealed.events("sealed")
    assert line["waits_for"] == ["vault-role-id", "vault-secret-id", "signing-key", "tls-ca-key"]


def test_no_core_dump_would_put_what_it_holds_on_a_disk(sealed: Verifier) -> None:
    limits = Path(f"/proc/{sealed.process.pid}/limits").read_text()
    (line,) = [line for line in limits.splitlines() if line.startswith("Max core file size")]
    assert line.split()[4:6] == ["0", "0"]


def test_its_certificate_is_its_own(provisioner: Provisioner) -> None:
    certificate = provisioner.certificate
    certificate.verify_directly_issued_by(certificate)
    assert CA in provisioner.state().missing


def stranger(provisioner: Provisioner, _other: Provisioner) -> bytes:
    mallory = ECKey.generate_key("P-256")
    return write_provision(mallory, provisioner.spki, provisioner.state().nonce, IDS)


def another_connection(provisioner: Provisioner, other: Provisioner) -> bytes:
    """As it was made for a second replica, with its nonce."""
    return other.text(IDS)


def another_nonce(provisioner: Provisioner, other: Provisioner) -> bytes:
    return write_provision(provisioner.key, provisioner.spki, other.state().nonce, IDS)


def made_up_nonce(provisioner: Provisioner, _other: Provisioner) -> bytes:
    return write_provision(provisioner.key, provisioner.spki, "A" * 43 + "=", IDS)


def unneeded(provisioner: Provisioner, _other: Provisioner) -> bytes:
    return provisioner.text({SHARE: "canary-share-0123456789abcdef"})


def swapped(provisioner: Provisioner, _other: Provisioner) -> bytes:
    """The CA's key under the name of the signing key, and the other way round."""
    return provisioner.text({SIGNING: text_of(authority()), CA: signing_key()})


def half_a_ca(provisioner: Provisioner, _other: Provisioner) -> bytes:
    return provisioner.text({CA: authority().key_pem.decode()})


def a_leaf(provisioner: Provisioner, _other: Provisioner) -> bytes:
    return provisioner.text({CA: text_of(issue_leaf(authority(), ["a.example"], datetime.now(UTC), Periods()))})


def a_ca_for_other_names(provisioner: Provisioner, _other: Provisioner) -> bytes:
    """No client would accept a leaf below it, and it could not be replaced."""
    return provisioner.text({CA: text_of(authority("other.example"))})


def an_expired_ca(provisioner: Provisioner, _other: Provisioner) -> bytes:
    old = make_authority(datetime.now(UTC) - timedelta(days=2), Periods(authority=timedelta(days=1)))
    return provisioner.text({CA: text_of(old)})


def two_words(provisioner: Provisioner, _other: Provisioner) -> bytes:
    return provisioner.text({ROLE_ID: "canary-role\r\nX-Vault-Token: x"})


@pytest.mark.parametrize(
    ("attack", "status", "problem"),
    [
        (stranger, 401, "ProvisionerUnknown"),
        (another_connection, 409, "ProvisionConnection"),
        (another_nonce, 409, "ProvisionNonce"),
        (made_up_nonce, 409, "ProvisionNonce"),
        (unneeded, 409, "ProvisionNotNeeded"),
        (swapped, 409, "ProvisionUnusable"),
        (half_a_ca, 409, "ProvisionUnusable"),
        (a_leaf, 409, "ProvisionUnusable"),
        (a_ca_for_other_names, 409, "ProvisionUnusable"),
        (an_expired_ca, 409, "ProvisionUnusable"),
        (two_words, 409, "ProvisionUnusable"),
        (lambda *_: b"not.a.jws", 401, "ProvisionerUnknown"),
        (lambda *_: b"{}", 400, "InvalidRequest"),
    ],
)
def test_it_takes_nothing_from(
    provisioner: Provisioner,
    other_replica: Provisioner,
    attack: Callable[[Provisioner, Provisioner], bytes],
    status: int,
    problem: str,
) -> None:
    before = provisioner.state().missing
    assert provisioner.refused(attack(provisioner, other_replica)) == (status, problem)
    assert provisioner.state().missing == before


@pytest.fixture(scope="module")
def other_replica(start: Start, key: ECKey) -> Iterator[Provisioner]:
    """The same provisioner, at a second replica."""
    with start("second") as process:
        provisioner = Provisioner(process.port, key)
        yield provisioner
        provisioner.close()


def test_a_body_without_end_is_refused(provisioner: Provisioner) -> None:
    assert provisioner.send(b"a" * (MAX_PROVISION_SIZE + 1)).status == 413


def test_a_text_is_good_once_and_a_value_stays(sealed: Verifier, provisioner: Provisioner) -> None:
    """The other tests need it sealed, and it is: no CA comes."""
    text = provisioner.text(IDS)
    assert provisioner.send(text).status == 200
    assert provisioner.refused(text) == (409, "ProvisionNonce")
    assert provisioner.provision(IDS).outcomes == {ROLE_ID: Outcome.UNCHANGED, SECRET_ID: Outcome.UNCHANGED}
    other = {**IDS, SECRET_ID: "canary-other", SIGNING: signing_key()}
    assert provisioner.refused(provisioner.text(other)) == (409, "ProvisionOtherValue")
    state = provisioner.state()
    assert (state.sealed, state.missing) == (True, (SIGNING, CA)), "all of them or none"
    said = sealed.log_path.read_text() + provisioner.call("GET", "/metrics").body.decode()
    assert "canary" not in said
    assert "provisioned" in said


def test_from_shares_to_a_guests_login(
    tmp_path: Path, hierarchy: Hierarchy, issuer: Issuer, device: Device, key: ECKey
) -> None:
    """Two provisioners, an OpenBao that two of three shares unseal, and a transit key: nothing lies in a file."""
    second = ECKey.generate_key("P-256")
    folder = tmp_path / "openbao"
    folder.mkdir()
    with raft_openbao(folder, shares=3, threshold=2) as bao:
        ids = write_app_role(bao, tmp_path, "verifier")
        make_transit_key(bao, "verifier")
        bao.trust([bao.done("GET", "transit/keys/verifier")["data"]["keys"]["1"]["public_key"]])
        bao.seal()
        role_id, secret_id = ids["roleId"].read_text(), ids["secretId"].read_text()
        ca = authority()
        (tmp_path / "site").mkdir()
        site = sealed_site(tmp_path / "site", hierarchy, issuer, key, [ROLE_ID, SECRET_ID, SHARE, CA], bao.url)
        site.settings["vault"]["ca"] = str(bao.ca_path)
        site.settings["provisioning"] = provisioning(key, second, needs=[ROLE_ID, SECRET_ID, SHARE, CA])
        with verifier(site) as process:
            first = Provisioner(process.port, key)
            state = first.provision({ROLE_ID: f"{role_id}\n", SECRET_ID: secret_id, SHARE: bao.shares[0]})
            assert (state.sealed, state.missing) == (True, (CA, SHARE))
            until(lambda: first.state().unsealing == Unsealing(True, 1, 2))
            assert first.provision({SHARE: bao.shares[0]}).outcomes == {SHARE: Outcome.UNCHANGED}
            until(lambda: first.state().unsealing == Unsealing(True, 1, 2))
            wrong = "0" * len(bao.shares[1])
            assert first.refused(first.text({SHARE: wrong})) == (409, "ProvisionUnusable")
            until(lambda: first.state().unsealing == Unsealing(True, 0, 2))  # OpenBao begins anew after a wrong share
            first.provision({SHARE: bao.shares[0]})

            other = Provisioner(process.port, second)
            state = other.provision({SHARE: bao.shares[2], CA: text_of(ca)})
            assert state.outcomes == {SHARE: Outcome.TAKEN, CA: Outcome.TAKEN}
            assert (state.sealed, state.missing) == (False, ())
            until(lambda: first.call("GET", "/readyz").status == 200)
            assert len(process.events("unsealed")) == 1

            # The connection from before keeps its certificate; a new one shows a leaf below the CA.
            assert first.provision({SHARE: bao.shares[1]}).outcomes == {SHARE: Outcome.UNCHANGED}
            below = Provisioner(process.port, key, ca.certificate_pem.decode())
            assert below.spki != first.spki

            (site.folder / "ca.crt").write_bytes(ca.certificate_pem)
            guest = Guest(process.client(), device, issuer.token())
            bearer = read_attest_answer(guest.attest().body)
            answer = guest.client.token(bearer)
            assert open_token(answer.body, guest.key, guest.nonce).token

            bao.seal()
            until(lambda: first.state().unsealing == Unsealing(True, 0, 2))
            assert not first.state().sealed, "a verifier that was unsealed keeps what it holds"
            guest = Guest(process.client(), device, issuer.token())
            answer = guest.client.token(read_attest_answer(guest.attest().body))
            assert (answer.status, answer.error.problem) == (503, ErrorType.VAULT_SEALED)
            for share in bao.shares[1:]:
                first.provision({SHARE: share})
            until(lambda: (found := first.state().unsealing) is not None and not found.sealed)

            metrics = first.call("GET", "/metrics").body.decode()
            verdicts = json.dumps(site.records())
        told = process.log_path.read_text() + metrics + verdicts
        keys = [line for line in ca.key_pem.decode().splitlines() if "-" not in line]
        for secret in (role_id, secret_id, *bao.shares, *keys):
            assert secret not in told
        assert "correlation_id" in told


def test_provisioned_keys_sign_and_generated_ones_too(
    tmp_path: Path, hierarchy: Hierarchy, issuer: Issuer, key: ECKey
) -> None:
    site = sealed_site(tmp_path, hierarchy, issuer, key, [SIGNING], "http://127.0.0.1:1")
    signing = ECKey.generate_key("P-256")
    with verifier(site) as process:
        provisioner = Provisioner(process.port, key)
        provisioner.provision({SIGNING: signing.as_pem(private=True).decode()})
        (listed,) = json.loads(provisioner.call("GET", JWKS_PATH).body)["keys"]
        assert listed["kid"] == signing.thumbprint()
        assert "d" not in listed
    del site.settings["provisioning"]
    site.settings["signing"] = {"generated": True}
    kids = set()
    for _ in range(2):
        with verifier(site) as process:
            (listed,) = json.loads(process.client().call("GET", JWKS_PATH).body)["keys"]
            kids.add(listed["kid"])
            assert "d" not in listed
    assert len(kids) == 2, "each process makes its own"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"needs": []}, "needs"),
        ({"needs": ["vault-token"]}, "needs"),
        ({"needs": ["signing-key", "signing-key"]}, "a name is listed twice"),
        ({"provisioners": []}, "provisioners"),
        ({"names": ["*.example"]}, "names: entry 1 is not a DNS name"),
        ({"needs": ["vault-role-id"]}, "signing.provisioned: needs signing-key under provisioning.needs"),
        ({"needs": ["signing-key", "unseal-share"]}, "must be on 127.0.0.1 or [::1]"),
        ({"needs": ["signing-key", "vault-secret-id"]}, "vault-secret-id is used by vault.login.provisioned alone"),
    ],
    ids=str,
)
def test_a_section_that_cannot_work_is_refused(
    tmp_path: Path, hierarchy: Hierarchy, issuer: Issuer, key: ECKey, change: dict[str, object], problem: str
) -> None:
    site = sealed_site(tmp_path, hierarchy, issuer, key, [SIGNING], "http://vault.example:8200")
    site.settings["provisioning"] |= change
    with pytest.raises(ConfigurationError, match=re.escape(problem)):
        load_configuration(site.write())


def test_a_private_key_is_no_provisioner(tmp_path: Path, hierarchy: Hierarchy, issuer: Issuer, key: ECKey) -> None:
    site = sealed_site(tmp_path, hierarchy, issuer, key, [SIGNING], "http://vault.example:8200")
    site.settings["provisioning"]["provisioners"] = [dict(key.as_dict(private=True))]
    with pytest.raises(ConfigurationError, match="unknown key d") as caught:
        load_configuration(site.write())
    assert str(key.as_dict(private=True)["d"]) not in str(caught.value)
