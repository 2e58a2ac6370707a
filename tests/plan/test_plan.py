"""plan.document and plan.codec: what webhook and sidecar agree on, to the byte."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from kbs.reference_values import GuestReference, TcbFloor
from kbs.verifier_attest import (
    KmsGuest,
    PlainReferences,
    SignedReferences,
    SignerKey,
    VerifierAttest,
    write_verifier_attest,
)
from plan.codec import MAX_BYTES, read_plan, write_plan
from plan.document import (
    EnvFrom,
    EnvVariable,
    EvidenceSource,
    Plan,
    PlanError,
    SecretFile,
    Vault,
    Verifier,
    Workload,
    is_file_mode,
    is_relative_file,
    parse_reaction,
)

PLAN = Plan(
    workload=Workload("prod", "shop", "payments", "default"),
    evidence=(EvidenceSource("coco-aa", "http://127.0.0.1:8006"),),
    verifier=Verifier("https://verifier", "", "morphisms-verifier", "default"),
    vault=Vault("https://vault:8200", "", "", (("secret", 2),)),
    secrets=(SecretFile("db", "secret/shop/db", "db", "password", 2, "0400", "{{ password }}"),),
    env=(
        EnvVariable("app", "DSN", value="u:${vault:secret/shop/db#password}@h"),
        EnvVariable("app", "KEY", path="secret/shop/db", key="k"),
    ),
    env_from=(EnvFrom("app", "secret/shop/all", 3),),
)

SIGNER = SignerKey("A" * 43, "B" * 43)
BY_SIGNER = VerifierAttest(SignedReferences(SIGNER, 3), frozenset({b"c" * 64}))
_FLOOR = TcbFloor(3, 0, 8, 115)
BY_VALUES = VerifierAttest(
    PlainReferences(
        KmsGuest(
            GuestReference(
                "verifier", "Milan", frozenset({b"m" * 48}), _FLOOR, _FLOOR, _FLOOR, host_data=frozenset({b"h" * 32})
            )
        ),
        frozenset({b"c" * 32}),
    )
)

_texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
_names = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=8)
_versions = st.one_of(st.none(), st.integers(1, 2**31 - 1))
_containers = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,8}[a-z0-9])?", fullmatch=True)
_optional = st.one_of(st.none(), _texts)
_secrets = st.builds(
    SecretFile,
    name=_texts,
    path=_texts,
    file=st.sampled_from(["db", "conf.d/db", "ü"]),
    key=_optional,
    version=_versions,
    mode=st.sampled_from([None, "0440", "400", "0600"]),
    template=_optional,
)
_expand = st.lists(st.from_regex(r"[ -<>-~]{1,6}", fullmatch=True), max_size=3, unique=True).map(tuple)
_env = st.one_of(
    st.builds(partial(EnvVariable, path=None, key=None, version=None), _containers, _texts, _texts, expand=_expand),
    st.builds(
        partial(EnvVariable, value=None, expand=()), _containers, _texts, path=_texts, key=_texts, version=_versions
    ),
)
plans = st.builds(
    Plan,
    workload=st.builds(Workload, _texts, _texts, _texts, _texts),
    evidence=st.lists(
        st.builds(EvidenceSource, st.sampled_from(["coco-aa", "sev-guest"]), _texts), min_size=1, max_size=2
    ).map(tuple),
    verifier=st.builds(Verifier, _texts, _texts, _texts, _texts, st.sampled_from([None, BY_SIGNER, BY_VALUES])),
    vault=st.builds(
        Vault,
        _texts,
        _texts,
        _texts,
        st.dictionaries(_names, st.integers(1, 2), max_size=3).map(lambda mounts: tuple(sorted(mounts.items()))),
    ),
    secrets=st.lists(_secrets, max_size=2).map(tuple),
    env=st.lists(_env, max_size=2).map(tuple),
    env_from=st.lists(st.builds(EnvFrom, _containers, _texts, _versions), max_size=2).map(tuple),
    agent=st.sampled_from(["init", "sidecar"]),
    on_change=st.sampled_from(["none", "signal:SIGHUP:nginx"]),
    deadline_seconds=st.integers(1, 3600),
    file_mode=st.sampled_from(["0440", "0400"]),
    reread_seconds=st.one_of(st.none(), st.integers(1, 86400)),
)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(plans)
def test_what_is_written_is_read(plan: Plan) -> None:
    assert read_plan(write_plan(plan)) == plan


@settings(max_examples=300, derandomize=True, deadline=None)
@given(plans)
def test_the_text_is_canonical_json_without_a_dollar(plan: Plan) -> None:
    text = write_plan(plan)
    assert "$" not in text
    assert text == rfc8785.dumps(json.loads(text)).decode().replace("$", "\\u0024")


def test_the_wire_form() -> None:
    assert write_plan(PLAN._replace(secrets=(), env=PLAN.env[:1])) == (
        '{"agent":"init","deadlineSeconds":60,'
        '"env":[{"container":"app","name":"DSN","value":"u:\\u0024{vault:secret/shop/db#password}@h"}],'
        '"envFrom":[{"container":"app","path":"secret/shop/all","version":3}],'
        '"evidence":[{"address":"http://127.0.0.1:8006","name":"coco-aa"}],'
        '"fileMode":"0440","onChange":"none","secrets":[],'
        '"vault":{"ca":"","mounts":{"secret":2},"namespace":"","url":"https://vault:8200"},'
        '"verifier":{"audience":"morphisms-verifier","ca":"","role":"default","url":"https://verifier"},'
        '"version":1,'
        '"workload":{"cluster":"prod","namespace":"shop","service":"payments","serviceAccount":"default"}}'
    )


def _edited(**members: Any) -> str:
    """A canonical text with members replaced; ... removes one."""
    document = {**json.loads(write_plan(PLAN)), **members}
    document = {name: value for name, value in document.items() if value is not ...}
    return rfc8785.dumps(document).decode().replace("$", "\\u0024")


_VAULT = {"ca": "", "mounts": {}, "namespace": "", "url": ""}
_INLINE = {"container": "a", "name": "b", "value": "v"}
_AGENT = {"name": "coco-aa", "address": "http://127.0.0.1:8006"}
_HUB = {"name": "coco-cdh", "address": "http://127.0.0.1:8006"}
_FILE = {"name": "a", "path": "p", "file": "a"}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (
            {"version": 3},
            "plan.version: this sidecar reads versions 1 and 2; use the sidecar image that the webhook names",
        ),
        ({"version": 2}, "plan.verifier.attest: missing in a plan of version 2"),
        ({"version": True}, "plan.version: this sidecar reads versions 1 and 2"),
        ({"version": ...}, "plan.version: this sidecar reads versions 1 and 2"),
        ({"extra": 1}, "plan: holds 1 unknown member"),
        ({"agent": ...}, "plan.agent: missing"),
        ({"agent": "daemon"}, "plan.agent: not one of init, sidecar"),
        ({"agent": None}, "plan.agent: not text"),
        ({"fileMode": "0444"}, "plan.fileMode: not one of 0440, 0400"),
        ({"deadlineSeconds": 0}, "plan.deadlineSeconds: not between 1 and 3600"),
        ({"deadlineSeconds": True}, "plan.deadlineSeconds: not an integer"),
        ({"rereadSeconds": 0}, "plan.rereadSeconds: not between 1 and 86400"),
        ({"rereadSeconds": None}, "plan.rereadSeconds: not an integer"),
        ({"onChange": "signal:9:nginx"}, "plan.onChange: expected none or signal:SIGNAL:PROCESS"),
        ({"evidence": []}, "plan.evidence: empty; name a source"),
        ({"evidence": [{"name": "tdx", "address": ""}]}, r"plan.evidence\[0\].name: not one of"),
        ({"evidence": [_HUB, _AGENT]}, "plan.evidence: coco-cdh stands alone"),
        ({"evidence": [_AGENT, _HUB]}, "plan.evidence: coco-cdh stands alone"),
        ({"evidence": [_HUB, _HUB]}, "plan.evidence: coco-cdh stands alone"),
        ({"evidence": [_HUB], "agent": "sidecar"}, "plan.agent: coco-cdh needs init"),
        ({"workload": []}, "plan.workload: not an object"),
        ({"workload": {}}, "plan.workload.cluster: missing"),
        ({"vault": {**_VAULT, "mounts": {"secret": 3}}}, "plan.vault.mounts.secret: not between 1 and 2"),
        ({"secrets": [{**_FILE, "odd": 1}]}, r"plan.secrets\[0\]: holds 1 unknown member"),
        ({"secrets": [{**_FILE, "file": "../x"}]}, r"plan.secrets\[0\].file: not a relative path"),
        ({"secrets": [{**_FILE, "mode": "0644"}]}, r"plan.secrets\[0\].mode: not an octal mode"),
        ({"secrets": [{**_FILE, "version": 0}]}, r"plan.secrets\[0\].version: not between"),
        ({"secrets": [None]}, r"plan.secrets\[0\]: not an object"),
        ({"env": [{"container": "a", "name": "b"}]}, r"plan.env\[0\]: needs either value, or path and key"),
        ({"env": [{"container": "a", "name": "b", "path": "p"}]}, r"plan.env\[0\]: needs either value, or path and"),
        (
            {"env": [{"container": "a", "name": "b", "value": "v", "path": "p", "key": "k"}]},
            r"plan.env\[0\]: needs either value, or path and key",
        ),
        ({"env": [{**_INLINE, "expand": "A"}]}, r"plan.env\[0\].expand: not a list"),
        ({"env": [{**_INLINE, "expand": []}]}, r"plan.env\[0\].expand: not a list of variables' names"),
        ({"env": [{**_INLINE, "expand": ["A", 1]}]}, r"plan.env\[0\].expand: not a list of variables' names"),
        ({"env": [{**_INLINE, "expand": ["A=B"]}]}, r"plan.env\[0\].expand: not a list of variables' names"),
        ({"env": [{**_INLINE, "expand": ["A", "A"]}]}, r"plan.env\[0\].expand: names a variable twice"),
        (
            {"env": [{"container": "a", "name": "b", "path": "p", "key": "k", "expand": ["A"]}]},
            r"plan.env\[0\].expand: only a value expands",
        ),
        ({"envFrom": [{"container": "a", "path": "p", "key": "k"}]}, r"plan.envFrom\[0\]: holds 1 unknown member"),
    ],
)
def test_the_reader_is_strict(members: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        read_plan(_edited(**members))


def _attesting(attest: VerifierAttest = BY_SIGNER, **changes: Any) -> Plan:
    return PLAN._replace(verifier=PLAN.verifier._replace(attest=attest), **changes)


def test_a_plan_that_demands_the_verifiers_proof_is_of_version_2() -> None:
    """So a sidecar that does not know the demand refuses the plan."""
    text = write_plan(_attesting())
    assert json.loads(text)["version"] == 2
    assert json.loads(write_plan(PLAN))["version"] == 1
    without = json.loads(text) | {"version": 1}
    del without["verifier"]["attest"]
    assert rfc8785.dumps(without).decode().replace("$", "\\u0024") == write_plan(PLAN)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"version": 1}, "plan.verifier.attest: not a member of a plan of version 1"),
        ({"attest": None}, "plan.verifier.attest: not an object"),
        ({"attest": {}}, "plan.verifier.attest.product: missing"),
        ({"attest": {"minSerial": 3}}, "plan.verifier.attest.product: missing|unknown member"),
        ({"attest": {"signer": {}, "minSerial": 3}}, "signer.kty: missing"),
        ({"attest": {**write_verifier_attest(BY_SIGNER), "extra": 1}}, "plan.verifier.attest: unknown member 'extra'"),
        ({"attest": {**write_verifier_attest(BY_SIGNER), "minSerial": True}}, "minSerial: not a whole number"),
        ({"attest": {**write_verifier_attest(BY_VALUES), "vmpl": [0, 0]}}, "vmpl: has an entry twice"),
        ({"attest": {**write_verifier_attest(BY_VALUES), "hostData": ["00" * 32]}}, "a guest without initdata"),
        ({"attest": {**write_verifier_attest(BY_VALUES), "vmpl": [1, 0]}}, "not in canonical form"),
    ],
)
def test_the_demand_is_read_strictly(members: dict[str, Any], message: str) -> None:
    document = json.loads(write_plan(_attesting()))
    if "attest" in members:
        document["verifier"]["attest"] = members["attest"]
    else:
        document |= members
    with pytest.raises(PlanError, match=message):
        read_plan(rfc8785.dumps(document).decode().replace("$", "\\u0024"))


def test_a_simulated_verifier_counts_only_for_a_simulated_guest() -> None:
    attest = BY_SIGNER._replace(simulated_root="-----BEGIN CERTIFICATE-----")
    simulated = EvidenceSource("simulated", "http://127.0.0.1:1")
    assert read_plan(write_plan(_attesting(attest, evidence=(simulated,)))).verifier.attest == attest
    for evidence in (PLAN.evidence, (simulated, *PLAN.evidence)):
        with pytest.raises(PlanError, match="simulatedRoot: only where every source of evidence is simulated"):
            read_plan(write_plan(_attesting(attest, evidence=evidence)))


def test_a_data_hub_attests_no_verifier_so_a_plan_cannot_demand_it() -> None:
    alone = (EvidenceSource("coco-cdh", "http://127.0.0.1:8006"),)
    assert read_plan(write_plan(PLAN._replace(evidence=alone, agent="init"))).data_hub == alone[0].address
    assert PLAN.data_hub == ""
    with pytest.raises(PlanError, match=r"plan\.verifier\.attest: not with coco-cdh"):
        read_plan(write_plan(_attesting(evidence=alone, agent="init")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "plan: not JSON"),
        ("[" * 60_000, "plan: not JSON"),
        ("1" * 60_000, "plan: not JSON"),
        ("[]", "plan: not a JSON object"),
        ('{"version":1,"version":1}', "plan: a member appears twice"),
        ('{"version":1.0}', "plan: holds a number that is not an integer"),
        ('{"version":NaN}', "plan: holds a number that is not an integer"),
        (write_plan(PLAN) + " ", "plan: not in canonical form"),
        (write_plan(PLAN).replace("\\u0024", "$"), "plan: not in canonical form"),
        (
            write_plan(PLAN).replace('"agent":"init",', "").replace('"env":', '"agent":"init","env":'),
            "not in canonical",
        ),
        (write_plan(PLAN).replace("payments", "\\u0070ayments"), "plan: not in canonical form"),
        (write_plan(PLAN).replace("payments", "\ud800"), "plan: "),
        ("x" * (MAX_BYTES + 1), "plan: longer than 65536 bytes"),
        ("ü" * (MAX_BYTES // 2 + 1), "plan: longer than 65536 bytes"),
    ],
)
def test_only_the_canonical_text_is_a_plan(text: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        read_plan(text)


def test_the_limit_is_exact() -> None:
    def sized(length: int) -> Plan:
        return PLAN._replace(secrets=(PLAN.secrets[0]._replace(template="x" * length),))

    room = MAX_BYTES - len(write_plan(sized(0)))
    assert read_plan(write_plan(sized(room))) == sized(room)
    with pytest.raises(PlanError, match="65537 bytes, at most 65536 are allowed; name fewer or shorter secrets"):
        write_plan(sized(room + 1))


def test_text_that_utf8_cannot_carry() -> None:
    with pytest.raises(PlanError, match="not valid Unicode"):
        write_plan(PLAN._replace(agent="\ud800"))


def test_errors_hold_no_value() -> None:
    for members in ({"agent": "kanarie"}, {"onChange": "kanarie"}, {"fileMode": "kanarie"}, {"version": "kanarie"}):
        with pytest.raises(PlanError) as caught:
            read_plan(_edited(**members))
        assert "kanarie" not in str(caught.value)


def test_reactions() -> None:
    assert parse_reaction("none") is None
    assert parse_reaction("signal:SIGHUP:nginx") == ("SIGHUP", "nginx")
    for text in ("", "signal", "signal:HUP:nginx", "signal:SIGHUP:", "signal:SIGHUP:a b", "signal:SIGHUP:nginx\n"):
        with pytest.raises(ValueError, match="expected none or signal:SIGNAL:PROCESS"):
            parse_reaction(text)


@pytest.mark.parametrize("file", ["a", "a/b", ".hidden", "a..b", "x" * 255])
def test_files_inside(file: str) -> None:
    assert is_relative_file(file)


@pytest.mark.parametrize("file", ["", "/a", "a/", "a//b", "..", "a/../b", ".", "..data", "a/..x", "a\0b", "x" * 256])
def test_files_outside(file: str) -> None:
    assert not is_relative_file(file)


@pytest.mark.parametrize("mode", ["0440", "440", "0400", "0600", "0770"])
def test_modes(mode: str) -> None:
    assert is_file_mode(mode)


@pytest.mark.parametrize("mode", ["0444", "0044", "0240", "4440", "", "0o440", "440\n", "04400"])
def test_bad_modes(mode: str) -> None:
    assert not is_file_mode(mode)
