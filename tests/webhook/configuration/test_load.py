"""The loader checks ids in the configuration file as well as keys."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from certs.authority import make_authority
from certs.periods import Periods
from server.yaml.strict import ConfigurationError
from webhook.configuration.model import Configuration
from webhook.configuration_file import load_configuration, without_effect
from webhook.rules import BY_ID, HELD_BY_GUARD


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("rules: {secrets/plaintext-evn: {audit: deny}}", "unknown rule secrets/plaintext-evn, did you mean"),
        ("plaintext: {detectors: [stripe-keys]}", "unknown detector stripe-keys, did you mean stripe-key?"),
        ("defaultProfile: kata", "unknown profile kata; known are kata-snp, kms, peer-pod, system"),
        ("clutser: prod", "unknown key clutser, did you mean cluster?"),
        ("sidecar: {imge: x}", "unknown key imge, did you mean image?"),
        ("version: 2", "version"),
    ],
)
def test_an_unknown_id_is_reported_with_the_nearest_known_one(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as raised:
        load_configuration(path)
    assert problem in str(raised.value)


def test_the_digest_covers_the_parsed_configuration(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("version: 1\n")
    before = load_configuration(path).digest
    path.write_text("# a comment\ncluster: cluster\n")
    assert load_configuration(path).digest == before
    path.write_text("cluster: prod\n")
    assert load_configuration(path).digest != before


@pytest.mark.parametrize(
    ("namespaces", "default", "allowed"),
    [
        ({}, "kata-snp", {"kata-snp"}),
        ({"other": {"profiles": ["peer-pod"]}}, "kata-snp", {"kata-snp"}),
        ({"shop": {}}, "kata-snp", {"kata-snp"}),
        ({"shop": {"profiles": ["peer-pod"]}}, "kata-snp", {"kata-snp", "peer-pod"}),
        ({"shop": {"profile": "peer-pod"}}, "peer-pod", {"peer-pod"}),
        ({"shop": {"profile": "system", "profiles": ["kata-snp"]}}, "system", {"kata-snp", "system"}),
    ],
)
def test_a_namespace_may_use_its_default_profile_and_those_listed(
    namespaces: dict[str, dict[str, object]], default: str, allowed: set[str]
) -> None:
    """However the other profiles attest: an author's annotation chooses none that the operator did not list."""
    lab = {
        "name": "lab",
        "isolation": "pod-vm",
        "runtimeClasses": ["kata-lab"],
        "evidence": [{"source": "coco-aa", "address": "http://127.0.0.1:8006"}],
    }
    configuration = Configuration.model_validate({"profiles": [lab], "namespaces": namespaces})
    assert configuration.default_profile_of("shop") == default
    assert configuration.profiles_allowed_in("shop") == allowed


def _exceptions(tmp_path: Path, *entries: dict[str, Any]) -> Path:
    """A file whose exceptions are right but for what the entries change (None removes)."""
    right = {
        "namespace": "shop",
        "service": "payments",
        "rules": ["secrets/plaintext-env"],
        "reason": "SEC-123",
        "expires": "2027-01-31",
    }
    merged = [{key: value for key, value in (right | entry).items() if value is not None} for entry in entries]
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"exceptions": merged}))
    return path


_NODE_AGENT = {"service": None, "owner": "DaemonSet/node-agent"}


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"rules": ["secrets/plaintext-evn"]}, "exceptions[0].rules: unknown rule secrets/plaintext-evn, did you mean"),
        ({"rules": []}, "exceptions"),
        ({"rules": ["images/digest", "images/digest"]}, "names a rule twice"),
        (
            {"rules": ["secrets/references"]},
            "no exception covers secrets/references: injection depends on it",
        ),
        ({"rules": ["placement/runtime-class"]}, "the guard injection-present holds it too"),
        ({"rules": ["images/replaced"]}, "it is about changes of a running pod"),
        ({"rules": ["isolation/knative-labels"]}, "exceptions themselves depend on it"),
        ({"rules": ["isolation/key-server"]}, "exceptions themselves depend on it"),
        ({"namespace": "morphisms-kms"}, "holds what all secrets depend on, and has no exceptions"),
        ({"rules": ["isolation/exec"]}, "list their group in execGroups"),
        ({"service": None}, "name exactly one of service and owner"),
        ({"owner": "DaemonSet/node-agent"}, "name exactly one of service and owner"),
        ({"service": "*"}, "no patterns"),
        ({"namespace": "shop*"}, "no patterns"),
        (_NODE_AGENT | {"owner": "Pod/app"}, "not KIND/NAME, such as DaemonSet/node-agent; the kinds are CronJob, "),
        (_NODE_AGENT | {"owner": "DaemonSet/*"}, "not KIND/NAME"),
        (_NODE_AGENT | {"owner": "node-agent"}, "not KIND/NAME"),
        (_NODE_AGENT | {"owner": "DaemonSet/node-agent\n"}, "not KIND/NAME"),
        ({"reason": " "}, "not one line that says why"),
        ({"reason": "a\nb"}, "not one line that says why"),
        ({"reason": None}, "reason"),
        ({"expires": None}, "expires"),
        ({"expires": "31.01.2027"}, "not a date such as 2027-01-31"),
        ({"expires": "2027-02-30"}, "not a date such as 2027-01-31"),
        ({"expires": "2027-01-31T12:00:00"}, "not a date such as 2027-01-31"),
        ({"expires": "0001-01-01T00:00:00+14:00"}, "not a date such as 2027-01-31"),
        ({"expires": 1801353600}, "not a date such as 2027-01-31"),
        ({"expires": "never"}, "not a date such as 2027-01-31"),
    ],
)
def test_an_exception_that_cannot_be_meant_is_refused_with_what_to_write(
    tmp_path: Path, entry: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load_configuration(_exceptions(tmp_path, entry))
    assert problem in str(raised.value)
    assert "DaemonSet/*" not in str(raised.value)


def test_two_entries_for_one_rule_of_one_workload_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"exceptions\[1\] covers the same rule .* exceptions\[0\]"):
        load_configuration(_exceptions(tmp_path, {}, {"expires": "2028-01-01"}))
    load_configuration(_exceptions(tmp_path, {}, {"rules": ["images/digest"]}, {"namespace": "other"}, _NODE_AGENT))


def test_every_rule_that_injection_needs_or_the_guard_holds_is_refused(tmp_path: Path) -> None:
    for rule in BY_ID.values():
        path = _exceptions(tmp_path, {"rules": [rule.id]})
        if rule.needed_for_injection or rule.id in HELD_BY_GUARD:
            with pytest.raises(ConfigurationError, match=f"no exception covers {rule.id}"):
                load_configuration(path)


def test_an_unquoted_date_is_read_as_the_quoted_one(tmp_path: Path) -> None:
    path = _exceptions(tmp_path, {})
    quoted = load_configuration(path)
    path.write_text(path.read_text().replace("'", ""))
    assert load_configuration(path).digest == quoted.digest
    assert quoted.value.exceptions[0].expires == datetime(2027, 1, 31, tzinfo=UTC)


def test_an_exception_that_has_ended_is_named_and_does_not_keep_a_server_from_starting(tmp_path: Path) -> None:
    entry = {"expires": "2027-01-31T01:00:00+01:00"}
    configuration = load_configuration(_exceptions(tmp_path, entry, {"rules": ["images/digest"]} | _NODE_AGENT)).value
    ends = datetime(2027, 1, 31, tzinfo=UTC)
    assert list(without_effect(configuration, ends - timedelta(seconds=1))) == []
    assert list(without_effect(configuration, ends)) == [
        f"exceptions[{place}]: the exception of {workload} in namespace shop expired at 2027-01-31T00:00:00Z and has no"
        " effect; remove it, or write a later date"
        for place, workload in enumerate(("Service/payments", "DaemonSet/node-agent"))
    ]


CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
{}
-----END CERTIFICATE-----
"""


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"verifier": {"url": "http://verifier.example"}}, "such as https://vault.example:8200"),
        ({"vault": {"url": "vault.example:8200"}}, "config.yaml:2: vault.url: is not of the form https://HOST[:PORT]"),
        ({"vault": {"url": "https://vault.example:82000"}}, "vault.url: is not of the form"),
        ({"vault": {"url": "https://u:hunter2@vault.example"}}, "vault.url: is not of the form"),
        ({"vault": {"url": "https://vault.example/?token=hunter2"}}, "vault.url: is not of the form"),
        ({"vault": {"url": "https://vault.example hunter2"}}, "vault.url: is not of the form"),
        ({"vault": {"url": "https://väult.example"}}, "vault.url: is not of the form"),
        ({"vault": {"url": ""}}, "vault.url: is not of the form"),
        ({"vault": {"url": "https://vault.example..:8200"}}, "vault.url: is not of the form"),
        ({"vault": {"url": "https://.vault.example"}}, "vault.url: is not of the form"),
        ({"vault": {"url": "https://vault..example"}}, "vault.url: is not of the form"),
        ({"vault": {"url": f"https://{'a' * 64}.example"}}, "vault.url: is not of the form"),
        ({"vault": {"url": "https://vault.example:0"}}, "vault.url: is not of the form"),
        ({"vault": {"ca": "hunter2"}}, "vault.ca: holds no certificate as PEM; write PEM, such as the output of"),
        ({"vault": {"ca": CERTIFICATE.format("aHVudGVyMg==")}}, "vault.ca: holds a certificate that cannot be read"),
        (
            {"verifier": {"ca": "-----BEGIN EC PRIVATE KEY-----\nhunter2\n-----END EC PRIVATE KEY-----\n"}},
            "verifier.ca: holds a private key, which would reach every pod",
        ),
        ({"cluster": "prod.eu"}, "cluster: is not a name of at most 63 lower-case letters and digits"),
        ({"cluster": "Prod"}, "such as prod-eu"),
        ({"cluster": "prod/eu"}, "such as prod-eu"),
        ({"cluster": "prod\n"}, "such as prod-eu"),
        ({"cluster": "p" * 64}, "such as prod-eu"),
    ],
)
def test_what_would_fail_in_a_guest_is_refused_where_it_is_configured(
    tmp_path: Path, section: dict[str, Any], problem: str
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(section, allow_unicode=True))
    with pytest.raises(ConfigurationError) as raised:
        load_configuration(path)
    assert problem in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_usable_urls_and_ca_texts_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    certificate = make_authority(datetime.now(UTC), Periods()).certificate_pem.decode()
    for url in ("https://vault.example.:8200", "https://[::1]:8200/prefix/", "https://10.0.0.1", "HTTPS://vault"):
        for text in (certificate, f"\ufeff# für alle\n{certificate}# zweite\n{certificate}", ""):
            section = {"cluster": "prod-eu1", "vault": {"url": url, "ca": text}, "verifier": {"url": url, "ca": text}}
            path.write_text(yaml.safe_dump(section, allow_unicode=True))
            assert load_configuration(path).value.vault.ca == text


def test_the_key_servers_namespace_has_its_own_profile_alone() -> None:
    """Whatever the default is, and without an entry of its own."""
    configuration = Configuration.model_validate(
        {"defaultProfile": "peer-pod", "namespaces": {"shop": {"profiles": ["system"]}}}
    )
    assert configuration.default_profile_of("morphisms-kms") == "kms"
    assert configuration.profiles_allowed_in("morphisms-kms") == {"kms"}
    assert not configuration.profile_by_name["kms"].injects


_KMS = {"name": "kms", "isolation": "pod-vm", "runtimeClasses": ["kata-lab"], "handlers": ["kata-lab"]}


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"defaultProfile": "kms"}, "profile kms is for namespace morphisms-kms alone; remove it elsewhere"),
        ({"namespaces": {"shop": {"profile": "kms"}}}, "profile kms is for namespace morphisms-kms alone"),
        (
            {"namespaces": {"shop": {"profiles": ["kata-snp", "kms"]}}},
            "profile kms is for namespace morphisms-kms alone",
        ),
        ({"namespaces": {"morphisms-kms": {"profile": "system"}}}, "its pods use profile kms alone; remove the entry"),
        ({"namespaces": {"morphisms-kms": {"profiles": ["kms", "kata-snp"]}}}, "its pods use profile kms alone"),
        ({"profiles": [{**_KMS, "isolation": "node-vm"}]}, "profile kms needs isolation: pod-vm and runtimeClasses"),
        ({"profiles": [{**_KMS, "runtimeClasses": []}]}, "profile kms needs isolation: pod-vm and runtimeClasses"),
        (
            {"profiles": [{**_KMS, "evidence": [{"source": "coco-aa", "address": "http://127.0.0.1:8006"}]}]},
            "takes no evidence: the verifier attests itself",
        ),
    ],
)
def test_a_looser_key_server_is_refused_where_it_is_configured(
    tmp_path: Path, section: dict[str, Any], problem: str
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(section))
    with pytest.raises(ConfigurationError) as raised:
        load_configuration(path)
    assert problem in str(raised.value)


def test_the_key_servers_profile_may_name_the_clusters_own_runtime_class(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"profiles": [_KMS], "namespaces": {"morphisms-kms": {"profile": "kms"}}}))
    assert load_configuration(path).value.profile_by_name["kms"].runtimeClasses == ("kata-lab",)
