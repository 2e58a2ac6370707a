"""The plan alone: the wanted state against answers of Vault, in shapes that only some servers or histories have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cli.vault_setup.plan import (
    Change,
    Current,
    Desired,
    Keys,
    Mount,
    SetupError,
    check_distinct,
    left,
    plan,
    policy_text,
)
from tests.attestation.verifier.process import write_signing_key

DESIRED = Desired("jwt-prod", ("knative",), "morphisms-verifier", "vault", Keys(url="https://v.example/jwks"))
MOUNT = Mount("jwt", "auth_jwt_12ab")


def held(desired: Desired = DESIRED, **role: Any) -> Current:
    """All of it there, the role's fields changed."""
    config, _, last = plan(desired, Current(mount=MOUNT))
    text = policy_text(desired, MOUNT.accessor)
    return Current(MOUNT, config.body, text, {"knative": {**last.body, **role}})


def role_change(**changes: Any) -> Change | None:
    changed = plan(DESIRED, held(**changes))
    assert len(changed) <= 1
    return changed[0] if changed else None


def test_a_production_role_refuses_simulated_guests() -> None:
    role = plan(DESIRED, Current())[-1]
    assert role.body["bound_claims"] == {"assurance": ["vm", "workload"], "simulated": ["false"]}
    trying = plan(replace(DESIRED, is_production=False), Current())[-1]
    assert "simulated" not in trying.body["bound_claims"]


def test_the_role_is_written_last() -> None:
    paths = [change.path for change in plan(DESIRED, Current())]
    policy = "sys/policies/acl/knative-jwt-prod"
    assert paths == ["sys/auth/jwt-prod", "auth/jwt-prod/config", policy, "auth/jwt-prod/role/knative"]


def test_the_policy_uses_the_mounts_accessor() -> None:
    metadata = "{{identity.entity.aliases.auth_jwt_12ab.metadata.%s}}"
    path = "/".join(["secret/data/knative", *(metadata % name for name in ("cluster", "namespace", "service")), "*"])
    assert policy_text(DESIRED, MOUNT.accessor) == f'path "{path}" {{\n  capabilities = ["read"]\n}}\n'
    # A mount that was made anew has another accessor.
    (change,) = plan(DESIRED, replace(held(), mount=Mount("jwt", "auth_jwt_new")))
    assert change.path == "sys/policies/acl/knative-jwt-prod"


@pytest.mark.parametrize(
    "role",
    [
        {},
        {"bound_claims": {"assurance": "workload", "simulated": "false"}},
        {"bound_claims": {"assurance": ["workload", "vm"], "simulated": ["false"]}},
        {"token_policies": ["knative-jwt-prod"], "token_num_uses": 3, "token_bound_cidrs": ["10.0.0.0/8"]},
        {
            "bound_claims": {"assurance": ["vm"], "simulated": ["false"], "namespace": ["shop-*"]},
            "bound_claims_type": "glob",
        },
        {"bound_claims": {"assurance": ["none"], "simulated": ["false"]}},
        {"bound_claims": {"assurance": ["*"], "simulated": ["false"]}},  # a star is a pattern in a glob alone
        {"token_ttl": 60, "token_explicit_max_ttl": 600},
        {"clock_skew_leeway": -1},
        {"clock_skew_leeway": 2},
    ],
    ids=["same", "text", "order", "others", "glob", "none", "star", "shorter", "no-skew", "less-skew"],
)
def test_a_role_that_is_as_strict_stays(role: dict[str, Any]) -> None:
    assert role_change(**role) is None


@pytest.mark.parametrize(
    "role",
    [
        {"bound_claims": {"assurance": ["vm", "workload"]}},
        {"bound_claims": {"assurance": [], "simulated": ["false"]}},
        {"bound_claims_type": ""},
        {"bound_claims": None},
        {"bound_audiences": None},
        {"bound_audiences": ["vault", "other"]},
        {"claim_mappings": {"cluster": "cluster", "namespace": "namespace", "k8s_pod_name": "service"}},
        {"user_claim": "jti"},
        {"clock_skew_leeway": 0},
        {"clock_skew_leeway": 6},
        {"token_ttl": 601},
        {"token_period": 60},
        {"token_type": "batch"},
        {"token_type": "default"},
        {"token_policies": ["knative-jwt-prod", "admin"]},
        {"token_explicit_max_ttl": 0},
        {"role_type": "oidc"},
    ],
    ids=str,
)
def test_a_weaker_role_is_changed(role: dict[str, Any]) -> None:
    change = role_change(**role)
    assert change is not None
    wanted = plan(DESIRED, Current())[-1].body
    assert {name: change.body[name] for name in role} == {name: wanted[name] for name in role}


def test_a_wide_pattern_does_not_count_as_a_narrower_claim() -> None:
    change = role_change(bound_claims={"assurance": ["*"], "namespace": ["shop-*"]}, bound_claims_type="glob")
    assert change is not None
    wanted = {"assurance": ["vm", "workload"], "simulated": ["false"], "namespace": ["shop-*"]}
    assert (change.body["bound_claims"], change.body["bound_claims_type"]) == (wanted, "glob")


@pytest.mark.parametrize(
    ("kind", "assurance", "wanted"),
    [
        ("glob", ["work*"], ["workload"]),
        ("glob", ["*load", "x*"], ["workload"]),
        ("glob", ["*"], ["vm", "workload"]),
        ("glob", ["v?"], ["v?"]),
        ("glob", ["none*"], ["none*"]),
        ("string", ["work*"], ["work*"]),
        ("string", ["workload", "none"], ["workload"]),
        ("string", ["none"], ["none"]),
    ],
)
@pytest.mark.parametrize("others", [{}, {"token_type": "batch"}])
def test_no_value_is_allowed_that_the_role_did_not_allow(
    kind: str, assurance: list[str], wanted: list[str], others: dict[str, Any]
) -> None:
    change = role_change(
        bound_claims={"assurance": assurance, "simulated": ["false"]}, bound_claims_type=kind, **others
    )
    if change is None:
        assert (wanted, others) == (assurance, {})
    else:
        assert set(change.body["bound_claims"]["assurance"]) == set(wanted)


def test_each_setting_that_stays_is_shown_with_its_effect() -> None:
    role = {"groups_claim": "service", "token_num_uses": 3, "bound_claims": {"assurance": ["vm"], "namespace": ["a"]}}
    (text,) = ["\n".join(left(DESIRED, held(**role)))]
    assert "groups_claim stays as it is: a login also gets the policies of the identity groups" in text
    assert "token_num_uses stays as it is: it narrows the role" in text
    assert "bound_claims.assurance stays narrower than" in text
    assert "bound_claims.namespace stays as it is" in text
    assert left(DESIRED, held()) == ()
    assert "no login of the verifier meets it" in left(DESIRED, held(bound_claims={"assurance": ["x"]}))[0]


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("bound_issuer", "", "morphisms-verifier"),
        ("jwt_supported_algs", ["ES256", "RS256"], ["ES256"]),
        ("jwt_supported_algs", [], ["ES256"]),
        ("jwks_url", "https://other.example/jwks", "https://v.example/jwks"),
        ("jwt_validation_pubkeys", ["not a key"], []),
    ],
)
def test_a_config_that_differs_is_changed(name: str, value: Any, wanted: Any) -> None:
    current = held()
    (change,) = plan(DESIRED, replace(current, config={**(current.config or {}), name: value}))
    assert (change.path, change.body[name]) == ("auth/jwt-prod/config", wanted)


def test_the_order_of_keys_does_not_matter(tmp_path: Path) -> None:
    pems = tuple(write_signing_key(tmp_path / name) for name in "abc")
    with_keys = replace(DESIRED, keys=Keys(pems))
    assert plan(with_keys, held(replace(with_keys, keys=Keys(pems[::-1])))) == ()
    assert len(plan(with_keys, held(replace(with_keys, keys=Keys(pems[1:]))))) == 1


@pytest.mark.parametrize(
    ("current", "text"),
    [
        (Current(mount=Mount("oidc", "auth_oidc_1")), "is of type oidc, required jwt"),
        (replace(held(), config={"oidc_discovery_url": "https://idp.example"}), "takes logins of an OIDC provider"),
        (replace(held(), mount=Mount("jwt", "a}}/*")), "an accessor that no policy could name"),
    ],
    ids=["type", "oidc", "accessor"],
)
def test_another_owners_mount_is_refused(current: Current, text: str) -> None:
    with pytest.raises(SetupError, match=text):
        plan(DESIRED, current)


def test_a_jwks_ca_is_shown_as_its_digest() -> None:
    ca = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    with_ca = replace(DESIRED, keys=replace(DESIRED.keys, ca_pem=ca))
    (change,) = plan(with_ca, held())
    assert change.after[0].startswith("jwks_ca_pem: 1 certificate(s), SHA-256 ")
    assert "AAAA" not in "".join(change.lines())
    assert change.body["jwks_ca_pem"] == ca
    # Vault gives it back without the last newline.
    assert plan(with_ca, held(replace(with_ca, keys=replace(with_ca.keys, ca_pem=ca.strip())))) == ()


def test_names_of_policies_collide_within_a_namespace_alone() -> None:
    check_distinct([replace(DESIRED, mount="a/b"), replace(DESIRED, mount="a-b", namespace="team")])
    with pytest.raises(SetupError, match="would share policy knative-a-b"):
        check_distinct([replace(DESIRED, mount="a/b"), replace(DESIRED, mount="A-b")])
