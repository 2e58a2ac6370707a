"""Pod tokens: whose pod, by which cluster's key; keys rotate, and unknown ids cost one request a minute."""

from __future__ import annotations

import base64
import hmac
import json
import time
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from attestation.errors import PeerError
from attestation.verifier.cluster.jwks import KeySet, parse_jwks
from attestation.verifier.cluster.pod_token import ALGORITHMS, PodTokens, TrustedCluster
from attestation.verifier.reasons import Reason, RefusedError
from tests.attestation.verifier.tokens import AUDIENCE, ISSUER, UID, Issuer

PROD, STAGE = Issuer("prod-1"), Issuer("stage-1")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Api:
    """A cluster's JWKS endpoint; counts questions."""

    def __init__(self, *issuers: Issuer) -> None:
        self.issuers = issuers
        self.asked = 0
        self.problem = ""

    async def __call__(self) -> bytes:
        self.asked += 1
        if self.problem:
            raise PeerError(self.problem)
        keys = [{**each.key.as_dict(private=False), "kid": each.kid, "use": "sig"} for each in self.issuers]
        return json.dumps({"keys": keys}).encode()


def cluster(name: str, api: Api, clock: Clock | None = None, **changes: Any) -> TrustedCluster:
    values: dict[str, Any] = {"issuer": ISSUER, "audiences": frozenset({AUDIENCE}), "algorithms": frozenset(ALGORITHMS)}
    return TrustedCluster(name, keys=KeySet(api, clock or Clock()), **(values | changes))


async def reason(tokens: PodTokens, token: str) -> Reason:
    with pytest.raises(RefusedError) as caught:
        await tokens.identify(token)
    assert token not in str(caught.value)
    return caught.value.reason


def two_clusters(**changes: Any) -> PodTokens:
    return PodTokens([cluster("prod", Api(PROD), **changes), cluster("stage", Api(STAGE), **changes)], time.time)


async def test_clusters_with_the_same_issuer_are_told_apart_by_their_keys() -> None:
    tokens = two_clusters()
    pods = [await tokens.identify(issuer.token()) for issuer in (PROD, STAGE)]
    assert [pod.cluster for pod in pods] == ["prod", "stage"]
    assert (pods[0].namespace, pods[0].service_account, pods[0].pod_name, pods[0].pod_uid) == (
        "shop",
        "default",
        "payments-1",
        UID,
    )
    assert pods[0].service is None
    assert "k8s_service" not in pods[0].claims()


async def test_of_two_clusters_that_list_one_key_the_audience_decides() -> None:
    clock = Clock()
    prod = cluster("prod", Api(PROD), clock, audiences=frozenset({"for/prod"}))
    copy = cluster("copy", Api(PROD), clock, audiences=frozenset({"for/copy", "both"}))
    tokens = PodTokens([copy, prod], time.time)
    for audience, name in (("for/prod", "prod"), ("for/copy", "copy")):
        assert (await tokens.identify(PROD.token(audience=audience))).cluster == name
    assert await reason(tokens, PROD.token(audience="other")) is Reason.TOKEN_AUDIENCE
    assert tokens.shared_keys() == 1


async def test_two_clusters_that_list_one_key_and_take_one_audience_are_told_to_wait() -> None:
    tokens = PodTokens([cluster("prod", Api(PROD)), cluster("copy", Api(PROD))], time.time)
    assert await reason(tokens, PROD.token()) is Reason.TOKEN_AMBIGUOUS
    assert Reason.TOKEN_AMBIGUOUS.is_retryable


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"expires_in": 3600}, None),
        ({"expires_in": 3601}, Reason.TOKEN_TOO_LONG),
        ({"iat": None}, Reason.TOKEN_MALFORMED),
        ({"iat": "now"}, Reason.TOKEN_MALFORMED),
        ({"iat": 0}, Reason.TOKEN_TOO_LONG),
        ({"iat": -(10**12)}, Reason.TOKEN_TOO_LONG),
    ],
)
async def test_a_tokens_life_is_bounded_from_its_issue(changes: dict[str, Any], expected: Reason | None) -> None:
    tokens = PodTokens([cluster("prod", Api(PROD), longest_seconds=3600)], time.time)
    if expected is None:
        assert (await tokens.identify(PROD.token(**changes))).cluster == "prod"
    else:
        assert await reason(tokens, PROD.token(**changes)) is expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"expires_in": -6}, Reason.TOKEN_EXPIRED),
        ({"nbf": 32503680000}, Reason.TOKEN_NOT_YET_VALID),
        ({"exp": None}, Reason.TOKEN_MALFORMED),
        ({"exp": "tomorrow"}, Reason.TOKEN_MALFORMED),
        ({"exp": 1e400}, Reason.TOKEN_MALFORMED),
        ({"exp": True}, Reason.TOKEN_MALFORMED),
        ({"iss": "https://other"}, Reason.TOKEN_ISSUER),
        ({"iss": None}, Reason.TOKEN_ISSUER),
        ({"aud": None}, Reason.TOKEN_AUDIENCE),
        ({"aud": ["vault", 1]}, Reason.TOKEN_AUDIENCE),
        ({"sub": "system:serviceaccount:shop:admin"}, Reason.TOKEN_MALFORMED),
        ({"kubernetes.io": None}, Reason.TOKEN_MALFORMED),
        ({"kubernetes.io": "shop"}, Reason.TOKEN_MALFORMED),
        ({"kubernetes.io": {"namespace": "shop", "serviceaccount": {"name": "default"}}}, Reason.TOKEN_UNBOUND),
    ],
)
async def test_a_token_is_refused_for_each_claim_that_does_not_hold(changes: Any, expected: Reason) -> None:
    assert await reason(two_clusters(), PROD.token(**changes)) is expected


async def test_leeway_is_five_seconds() -> None:
    now = int(time.time())
    tokens = PodTokens([cluster("prod", Api(PROD))], lambda: now)
    for within, beyond, expected in (
        ({"exp": now - 4}, {"exp": now - 6}, Reason.TOKEN_EXPIRED),
        ({"nbf": now + 4}, {"nbf": now + 6}, Reason.TOKEN_NOT_YET_VALID),
    ):
        changes: dict[str, Any] = {"iat": now, "nbf": now, "exp": now + 60}
        assert (await tokens.identify(PROD.token(**changes | within))).cluster == "prod"
        assert await reason(tokens, PROD.token(**changes | beyond)) is expected


async def test_an_audience_may_stand_alone() -> None:
    assert (await two_clusters().identify(PROD.token(aud=AUDIENCE))).cluster == "prod"


async def test_an_algorithm_that_is_not_allowed_is_refused() -> None:
    tokens = two_clusters(algorithms=frozenset({"ES256"}))
    assert await reason(tokens, PROD.token()) is Reason.TOKEN_MALFORMED


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


async def test_a_public_key_is_nobodys_hmac_secret_and_none_is_no_signature() -> None:
    claims = json.loads(base64.urlsafe_b64decode(PROD.token().split(".")[1] + "=="))
    payload = PROD.token().split(".")[1]
    for algorithm, mac in (("HS256", hmac.digest), ("none", lambda *_: b"")):
        head = encoded(json.dumps({"alg": algorithm, "kid": "prod-1"}).encode())
        forged = encoded(mac(PROD.key.as_pem(private=False), f"{head}.{payload}".encode(), "sha256"))
        assert await reason(two_clusters(), f"{head}.{payload}.{forged}") is Reason.TOKEN_MALFORMED
    # An EC signature under an RSA key's id.
    key = ECKey.generate_key("P-256")
    other = jwt.encode({"alg": "ES256", "kid": "prod-1"}, claims, key, algorithms=["ES256"])
    assert await reason(two_clusters(), other) is Reason.TOKEN_SIGNATURE


async def test_a_header_that_demands_an_extension_is_refused() -> None:
    head = encoded(json.dumps({"alg": "RS256", "kid": "prod-1", "crit": ["b64"], "b64": False}).encode())
    _, payload, signature = PROD.token().split(".")
    assert await reason(two_clusters(), f"{head}.{payload}.{signature}") is Reason.TOKEN_MALFORMED


async def test_one_flipped_bit_anywhere_is_refused() -> None:
    tokens = two_clusters()
    token = PROD.token()
    for at in range(0, len(token), 37):
        if token[at] != ".":
            flipped = token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
            with pytest.raises(RefusedError):
                await tokens.identify(flipped)


async def test_a_new_key_is_fetched_every_ten_seconds_at_most_and_meanwhile_the_guest_may_come_again() -> None:
    clock, api = Clock(), Api(PROD)
    tokens = PodTokens([cluster("prod", api, clock)], time.time)
    await tokens.identify(PROD.token())
    rotated = Issuer("prod-2")
    api.issuers = (PROD, rotated)
    for _ in range(5):
        assert await reason(tokens, rotated.token()) is Reason.TOKEN_KEY_UNKNOWN
    assert api.asked == 1
    clock.now += 11
    assert (await tokens.identify(rotated.token())).cluster == "prod"
    assert (await tokens.identify(PROD.token())).cluster == "prod"
    assert api.asked == 2


async def test_a_withdrawn_key_stops_counting_after_ten_minutes() -> None:
    clock, api = Clock(), Api(PROD)
    tokens = PodTokens([cluster("prod", api, clock)], time.time)
    await tokens.identify(PROD.token())
    api.issuers = (Issuer("prod-2"),)
    clock.now += 601
    assert await reason(tokens, PROD.token()) is Reason.TOKEN_SIGNATURE


async def test_without_the_api_server_known_keys_count_for_an_hour() -> None:
    clock, api = Clock(), Api(PROD)
    tokens = PodTokens([cluster("prod", api, clock)], time.time)
    await tokens.identify(PROD.token())
    api.problem = "cannot be reached"
    clock.now += 3599
    assert (await tokens.identify(PROD.token())).cluster == "prod"
    clock.now += 2
    assert await reason(tokens, PROD.token()) is Reason.KEYS_UNAVAILABLE
    api.problem = ""
    clock.now += 6
    assert (await tokens.identify(PROD.token())).cluster == "prod"


async def test_before_the_first_answer_it_is_unavailable_not_refused() -> None:
    api = Api(PROD)
    api.problem = "cannot be reached"
    assert await reason(PodTokens([cluster("prod", api)], time.time), PROD.token()) is Reason.KEYS_UNAVAILABLE


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys":{}}',
        b'{"keys":[]}',
        b'{"keys":[1,{"kid":"a"},{"kid":"a","kty":"RSA"},{"kid":"a","kty":"EC","crv":"P-256","x":"","y":""}]}',
        b'{"keys":[{"kid":"a","kty":"oct","k":"c2VjcmV0"}]}',
        b"[" * 100_000,
        b" " * 300_000,
    ],
)
def test_what_is_no_jwks_is_an_error(data: bytes) -> None:
    with pytest.raises(PeerError):
        parse_jwks(data)
