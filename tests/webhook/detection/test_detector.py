"""The detectors together: harmless values clear a suspicious name, and hostile input costs bounded time."""

from __future__ import annotations

import sys
import time

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tests.webhook.detection.ordinary import ORDINARY
from tests.webhook.detection.samples import SAMPLES
from webhook.detection import DETECTORS, Allow, Detection, Detector
from webhook.detection.detector import MAX_SEARCHED

_NAMED = Detection("name", "name")
_SECRETS = [each for samples in SAMPLES.values() for each in samples]


@pytest.mark.parametrize(("name", "value"), ORDINARY, ids=lambda text: text[:40])
def test_ordinary_variables_are_not_detected(name: str, value: str) -> None:
    assert Detector().find(name, value) is None


@pytest.mark.parametrize(
    "value",
    [
        *("", " ", "vault:secret/db#password", "vault:secret/db#password@2", "${vault:secret/db#password}"),
        *(
            "${vault:secret/db#user}:${vault:secret/db#password}",
            "$(OTHER)",
            "$(A)$(B)",
            "${OTHER}",
            ">>vault:secret/db#k",
        ),
        *(
            "true",
            "False",
            "no",
            "off",
            "none",
            "null",
            "required",
            "0",
            "42",
            "-1",
            "0.5",
            "10Mi",
            "64KB",
            "30s",
            "1h30m",
        ),
        *(
            "250ms",
            "PT15M",
            "P1D",
            "/run/secrets/db",
            "./secrets/db",
            "/a" * 2000,
            "~/.pgpass",
            "/etc/tls/tls.key",
            "conf/db.yaml",
        ),
        *(
            "https://vault.vault.svc:8200",
            "unix:///run/agent.sock",
            "vault.vault.svc",
            "db.shop.svc.cluster.local:5432",
        ),
        *("localhost:8080", "10.0.0.1", "10.0.0.1:8200", "arn:aws:secretsmanager:eu-central-1:1:secret:db"),
        *("<password>", "{{ .Values.password }}", "%PASSWORD%", "*****", "xxxxx", "...", "redacted", '"true"', "'42'"),
    ],
)
def test_a_harmless_value_clears_a_suspicious_name(value: str) -> None:
    assert Detector().find("DB_PASSWORD", value) is None


@pytest.mark.parametrize(
    "value",
    [
        *(
            "hunter2",
            "p4ss",
            "tok-1",
            "changeit",
            "correct horse battery staple",
            "12345abc",
            "pa$$word",
            "Tr0ub4dor&3",
        ),
        *(
            "prefix-${vault:secret/db#password}",
            "vaulted",
            "on1",
            "hunter.two",
            "admin:12345",
            "a" * 2000,
            "5ecret/word",
        ),
        "https://hooks.example.com/?token=hunter2",
    ],
)
def test_any_other_value_of_a_suspicious_name_is_detected(value: str) -> None:
    assert Detector().find("DB_PASSWORD", value) == _NAMED


def test_the_format_is_reported_before_the_name() -> None:
    assert Detector().find("GITHUB_TOKEN", SAMPLES["github-token"][0]) == Detection("value", "github-token")


@given(st.text(max_size=80), st.text(max_size=700))
@example("DB_PASSWORD", "hunter2\ud800")
@example("\ud800_TOKEN", "\ud800" * 40)
def test_any_text_gives_a_known_detection_or_none(name: str, value: str) -> None:
    allow = Allow(names=("x*",), values_sha256=("0" * 64,))
    for detector in (Detector(), Detector(allow)):
        found = detector.find(name, value)
        assert found is None or (found.kind in {"name", "value", "entropy"} and found.detector in DETECTORS)


@given(st.text(max_size=40), st.sampled_from(_SECRETS), st.text(max_size=40))
def test_a_detection_does_not_depend_on_the_secret(before: str, secret: str, after: str) -> None:
    """Detections come from a set that is fixed before any value is seen, so none can hold a part of a value."""
    assume("$" not in before and not before.startswith(("vault:", ">>vault:")))
    found = Detector().find("DB_PASSWORD", f"{before} {secret} {after}")
    assert found is not None
    assert repr(found) == f"Detection(kind={found.kind!r}, detector={found.detector!r})"
    assert found.detector in DETECTORS


@given(st.from_regex(r"[ -~]{0,300}", fullmatch=True))
def test_a_reference_inside_a_text_adds_no_detection(text: str) -> None:
    """A reference inserted between blanks adds no detection by value."""
    found = Detector().find("SOME_URL", text)
    if found is None:
        assert Detector().find("SOME_URL", text + " ${vault:secret/db#password}") is None


def test_the_detector_keeps_no_value() -> None:
    detector = Detector()
    for name in ("SETTING", "DB_PASSWORD", "MAPS_KEY"):
        for secret in _SECRETS:
            value = "".join([secret, " "])
            before = sys.getrefcount(value)
            detector.find(name, value)
            assert sys.getrefcount(value) == before


def test_the_cache_of_names_is_bounded() -> None:
    detector = Detector()
    long = "X" * 5000 + "_PASSWORD"
    before = sys.getrefcount(long)
    assert detector.find(long, "hunter2") == _NAMED
    assert sys.getrefcount(long) == before
    short = "".join(["DB_", "PASSWORD"])
    before = sys.getrefcount(short)
    detector.find(short, "hunter2")
    assert sys.getrefcount(short) > before
    for number in range(10_000):
        detector.find(f"NAME_{number}", "x")
    assert sys.getrefcount(short) == before


_UNITS = [
    *(
        "a",
        "A",
        "/a..",
        "eyJ",
        "eyJ-",
        "eyJa.eyJa.",
        "a:",
        "://",
        "x://u:",
        "Bearer ",
        "Basic ",
        "password",
        "password=",
    ),
    *(
        "d=",
        "Password = ",
        '"password":"',
        '"auth":"',
        "@tcp(",
        "a@tcp(",
        "a:b@tcp(",
        "AKIA",
        "sk-",
        "sk-a-",
        "ghs_",
        "s.",
    ),
    *(
        "${vault:",
        "$(A)",
        "$(",
        "${",
        "{{",
        "0:AA",
        "000000:AA",
        "LS0tLS1CRUdJTi",
        ".atlasv1.",
        "-----BEGIN RSA ",
        "a-",
    ),
    *(
        "aaaaaaaaaaaaaaaaaaa ",
        "aaaaaaaaaaaaaaaaaaaaa ",
        "AccountKey=",
        "\ud800",
        "é",
        "\x00",
        "<",
        "xX0",
        "password: ",
        "\npassword: a",
        "\n- a-password: ",
        "\ntoken: a",
        "a.b-c_",
        "sig=",
        "?sig=a",
        "1//0",
        "/api/webhooks/",
        "/api/webhooks/11111111111111111/",
        "FlyV1 fm2_",
        "client-key-data: ",
        "glc_",
        "dp.pt.",
        "1.",
        "1h",
        "a/",
    ),
]


@pytest.mark.parametrize("unit", _UNITS)
def test_a_hostile_value_takes_bounded_time(unit: str) -> None:
    """A megabyte takes 9 ms at most where it was measured; a pattern that backtracks would take minutes."""
    detector = Detector()
    megabyte = (unit * (1_000_000 // len(unit)))[:1_000_000]
    for name in ("SETTING", "DB_PASSWORD", "MAPS_KEY"):
        for value in (megabyte, megabyte + "!", megabyte[:MAX_SEARCHED], megabyte[:500], megabyte[:1000] + "!"):
            start = time.process_time()
            detector.find(name, value)
            assert time.process_time() - start < 0.25


@pytest.mark.parametrize("unit", ["A", "aA", "Aa", "A1", "_", "PASSWORD_", "é"])
def test_a_hostile_name_takes_bounded_time(unit: str) -> None:
    for allow in (Allow(), Allow(names=("*a*b*c*d*",))):
        start = time.process_time()
        Detector(allow).find(unit * 300_000, "hunter2")
        assert time.process_time() - start < 0.25


def test_only_the_head_of_a_long_value_is_searched() -> None:
    secret = SAMPLES["google-api-key"][0]
    assert Detector().find("SETTING", secret + " " + "x " * MAX_SEARCHED) is not None
    assert Detector().find("SETTING", "x " * MAX_SEARCHED + secret) is None
