"""The steps one by one: what comes when, and what damage is answered with."""

from __future__ import annotations

from datetime import timedelta

import pytest

from certs.authority import issue_leaf, make_authority
from certs.chain import vouches
from certs.pem import write_certificates
from certs.periods import Periods
from certs.rotation import Change, Publish, Wait
from certs.state import AUTHORITY_SECRET, LEAF_SECRET
from tests.certs.cluster import NAMES, PERIODS, START, Cluster


@pytest.fixture
def cluster() -> Cluster:
    """One that has come to rest, and that every API server knows as it is."""
    cluster = Cluster()
    cluster.settle()
    cluster.pass_time(PERIODS.settle)
    return cluster


def changes(steps: list[object]) -> list[object]:
    return [step for step in steps if not isinstance(step, Wait)]


def test_a_first_install_issues_at_once_and_publishes() -> None:
    cluster = Cluster()
    done = changes(cluster.settle())
    assert done == [Change.MAKE_AUTHORITY, Change.ISSUE_LEAF, Publish("mutating"), Publish("validating")]
    assert all(replica.serving.problem() is None for replica in cluster.replicas)
    assert cluster.distrusted(cluster.live()) == []


def test_at_rest_nothing_is_written(cluster: Cluster) -> None:
    before = dict(cluster.secrets), dict(cluster.bundles)
    assert changes([cluster.step() for _ in range(5)]) == []
    assert (cluster.secrets, cluster.bundles) == before


def test_a_leaf_is_renewed_at_two_thirds_by_the_same_authority(cluster: Cluster) -> None:
    authority = cluster.state().authority
    cluster.pass_time(PERIODS.leaf * 0.59)
    assert changes([cluster.step()]) == []
    cluster.pass_time(PERIODS.leaf * 0.08)
    assert changes(cluster.settle()) == [Change.ISSUE_LEAF]
    assert cluster.state().authority == authority


def test_two_leaves_are_not_due_at_the_same_moment() -> None:
    def first_due() -> timedelta:
        cluster = Cluster()
        cluster.settle()
        begin = cluster.now
        cluster.pass_time(PERIODS.leaf * 0.59)  # before which none is due, as the test above shows
        while not changes([cluster.step()]):
            cluster.pass_time(timedelta(minutes=10))
        return cluster.now - begin

    first = first_due()
    assert any(first_due() != first for _ in range(50))


def test_an_authority_that_is_asked_for_is_replaced_in_order(cluster: Cluster) -> None:
    old = cluster.state().authority.certificate
    cluster.asked = True
    assert changes(cluster.settle()) == [
        Change.MAKE_COMING,
        Publish("mutating"),
        Publish("validating"),
        Change.PROMOTE_COMING,
        Change.ISSUE_LEAF,
    ]
    new = cluster.state()
    assert new.former == (old,)
    assert vouches(new.authority.certificate, new.leaf.certificate)
    assert not cluster.asked


def test_an_authority_is_replaced_before_its_end(cluster: Cluster) -> None:
    old = cluster.state().authority.certificate
    while cluster.state().authority.certificate == old:
        cluster.pass_time(PERIODS.leaf * 0.5)
        cluster.settle()
    assert START + 0.5 * PERIODS.authority < cluster.now < START + 0.7 * PERIODS.authority


def test_the_old_authority_goes_after_the_last_leaf_of_it_has_ended(cluster: Cluster) -> None:
    old_leaf = cluster.state().leaf.certificate
    cluster.asked = True
    cluster.settle()
    old = cluster.state().former[0]
    while cluster.state().former:
        assert all(live.trusts(old) for live in cluster.live())
        cluster.pass_time(timedelta(hours=6))
        cluster.settle()
    assert cluster.now > old_leaf.not_valid_after_utc
    assert not any(live.trusts(old) for live in cluster.live())
    assert cluster.state().former_until is None


def test_asking_again_waits_until_the_first_is_through(cluster: Cluster) -> None:
    cluster.asked = True
    cluster.settle()
    cluster.asked = True
    assert changes(cluster.settle()) == []
    assert cluster.asked


def test_a_stolen_authority_is_taken_out_by_hand_once_nothing_of_it_is_served(cluster: Cluster) -> None:
    stolen = cluster.state().authority.certificate
    cluster.secrets[AUTHORITY_SECRET] = None
    assert cluster.step() is Change.MAKE_AUTHORITY
    cluster.secrets[AUTHORITY_SECRET].pop("former.crt")
    cluster.step()
    assert stolen in cluster.state().former, "replicas are trusted by it still"
    cluster.settle()
    cluster.secrets[AUTHORITY_SECRET].pop("former.crt")
    cluster.settle()
    assert stolen not in cluster.state().live_certificates
    assert not cluster.distrusted(cluster.believed())


def test_a_replica_that_was_cut_off_is_trusted_until_its_leaf_ends(cluster: Cluster) -> None:
    lost = cluster.replicas[0]
    lost.connected = False
    cluster.asked = True
    while cluster.now < lost.leaf.certificate.not_valid_after_utc:
        cluster.settle()
        assert cluster.distrusted(cluster.believed()) == []
        cluster.pass_time(timedelta(hours=3))


@pytest.mark.parametrize("name", [AUTHORITY_SECRET, LEAF_SECRET])
@pytest.mark.parametrize("damage", ["deleted", "emptied", "garbage", "no key", "no certificate", "another's key"])
def test_damage_to_a_secret_is_repaired_without_a_moment_of_distrust(cluster: Cluster, name: str, damage: str) -> None:
    hurt(cluster, name, damage)
    for _ in range(12):
        cluster.step()
        assert cluster.distrusted(cluster.believed()) == []
        cluster.pass_time(PERIODS.settle / 3)
    cluster.settle()
    state = cluster.state()
    assert vouches(state.authority.certificate, state.leaf.certificate)
    assert [replica.leaf for replica in cluster.replicas] == [state.leaf] * 2


def hurt(cluster: Cluster, name: str, damage: str) -> None:
    stem = "ca" if name == AUTHORITY_SECRET else "tls"
    data = cluster.secrets[name] or {}
    if damage == "deleted":
        cluster.secrets[name] = None
    elif damage == "emptied":
        cluster.secrets[name] = {}
    elif damage == "garbage":
        data |= {f"{stem}.crt": b"-----BEGIN CERTIFICATE-----\nnonsense", f"{stem}.key": b"\xff\x00"}
    elif damage == "no key":
        data.pop(f"{stem}.key", None)
    elif damage == "no certificate":
        data.pop(f"{stem}.crt", None)
    else:
        data[f"{stem}.key"] = make_authority(cluster.now, PERIODS).key_pem


def test_both_secrets_gone_is_survived_on_what_is_live(cluster: Cluster) -> None:
    old = cluster.state().authority.certificate
    hurt(cluster, AUTHORITY_SECRET, "deleted")
    hurt(cluster, LEAF_SECRET, "deleted")
    while cluster.state().authority is None or old in cluster.state().bundle:
        cluster.step()
        assert cluster.distrusted(cluster.believed()) == []
        cluster.pass_time(timedelta(seconds=20) if cluster.state().leaf is None else timedelta(hours=6))
    assert cluster.now - PERIODS.leaf > cluster.history[0][0]


def test_another_authority_in_the_secret_is_not_sworn_by_at_once(cluster: Cluster) -> None:
    other = make_authority(cluster.now, PERIODS, NAMES)
    cluster.secrets[AUTHORITY_SECRET] = {"ca.crt": other.certificate_pem, "ca.key": other.key_pem}
    for _ in range(12):
        cluster.step()
        assert cluster.distrusted(cluster.believed()) == []
        cluster.pass_time(PERIODS.settle / 3)
    cluster.settle()
    assert vouches(other.certificate, cluster.state().leaf.certificate)


def test_a_planted_leaf_gets_nobody_trusted(cluster: Cluster) -> None:
    """Who can write the leaf's Secret alone must not make the cluster believe a CA of theirs."""
    theirs = make_authority(cluster.now, PERIODS)
    leaf = issue_leaf(theirs, NAMES, cluster.now, PERIODS)
    cluster.secrets[LEAF_SECRET] = {
        "tls.crt": leaf.certificate_pem,
        "tls.key": leaf.key_pem,
        "ca.crt": theirs.certificate_pem,
    }
    cluster.look()
    assert all(replica.leaf.certificate != leaf.certificate for replica in cluster.replicas)
    cluster.settle()
    assert not any(live.trusts(theirs.certificate) for live in cluster.live())
    assert cluster.state().leaf.certificate != leaf.certificate


def test_a_leaf_for_other_names_is_replaced(cluster: Cluster) -> None:
    leaf = issue_leaf(cluster.state().authority, ["hook.other.svc"], cluster.now, PERIODS)
    cluster.secrets[LEAF_SECRET] = {"tls.crt": leaf.certificate_pem, "tls.key": leaf.key_pem}
    assert changes(cluster.settle()) == [Change.ISSUE_LEAF]
    assert cluster.distrusted(cluster.believed()) == []


def test_a_bundle_somebody_changed_is_put_right(cluster: Cluster) -> None:
    for pem in (b"", b"nonsense", make_authority(cluster.now, PERIODS).certificate_pem):
        cluster.set_bundles({"validating": [cluster.bundles["validating"][0], pem]})
        assert changes(cluster.settle()) == [Publish("validating")]


def test_what_cannot_be_published_holds_up_no_renewal(cluster: Cluster) -> None:
    cluster.refusing = {"mutating"}
    cluster.set_bundles({"mutating": [b"", b""]})
    assert cluster.step() == Publish("mutating")
    cluster.pass_time(PERIODS.leaf * 0.7)
    assert cluster.step() == Change.ISSUE_LEAF


def test_a_switch_waits_for_a_configuration_that_cannot_be_published(cluster: Cluster) -> None:
    cluster.refusing = {"validating"}
    cluster.asked = True
    for _ in range(20):
        cluster.step()
        cluster.pass_time(PERIODS.settle)
    assert Change.PROMOTE_COMING not in cluster.taken
    assert cluster.distrusted(cluster.believed()) == []
    cluster.refusing = set()
    cluster.settle()
    assert Change.PROMOTE_COMING in cluster.taken


def test_a_bundle_reverted_while_a_switch_settles_begins_the_wait_again(cluster: Cluster) -> None:
    before = dict(cluster.bundles)
    cluster.asked = True
    for _ in range(4):
        cluster.step()
    cluster.pass_time(PERIODS.settle * 0.9)
    cluster.set_bundles(before)
    cluster.step()
    cluster.step()
    cluster.pass_time(PERIODS.settle * 0.5)
    assert isinstance(cluster.step(), Wait)
    assert Change.PROMOTE_COMING not in cluster.taken


@pytest.mark.parametrize("jump", [timedelta(days=days) for days in (-4000, -30, -1, 1, 30, 200, 400, 40_000)])
def test_a_clock_that_jumped_and_came_back_makes_few_changes(cluster: Cluster, jump: timedelta) -> None:
    taken = len(changes(cluster.taken))
    for _ in range(2):
        cluster.now += jump
        cluster.settle()
        cluster.now -= jump
        cluster.settle()
    assert changes([cluster.step()]) == []
    assert len(changes(cluster.taken)) - taken < 40


def test_a_damaged_coming_authority_is_made_anew(cluster: Cluster) -> None:
    cluster.asked = True
    cluster.step()
    cluster.secrets[AUTHORITY_SECRET]["next.key"] = b"garbage"
    assert Change.MAKE_COMING in cluster.settle()
    assert cluster.distrusted(cluster.believed()) == []


def test_a_limit_that_is_no_time_is_set_anew(cluster: Cluster) -> None:
    cluster.asked = True
    cluster.settle()
    for limit in (b"whenever", b"2999-01-01T00:00:00Z", b"2030-01-01T00:00:00"):
        cluster.secrets[AUTHORITY_SECRET]["former.until"] = limit
        assert changes(cluster.settle()) == [Change.LIMIT_FORMER]
    assert write_certificates(cluster.state().former) == cluster.secrets[AUTHORITY_SECRET]["former.crt"]


def test_a_leaf_that_ends_with_its_authority_is_not_renewed_for_nothing(cluster: Cluster) -> None:
    """Replacing the CA may be held up until its end; a new leaf would end just then too, and so would the next."""
    short = Periods(leaf=PERIODS.leaf, authority=timedelta(days=1), settle=PERIODS.settle)
    authority = make_authority(cluster.now, short, NAMES)
    cluster.secrets[AUTHORITY_SECRET] = {"ca.crt": authority.certificate_pem, "ca.key": authority.key_pem}
    while cluster.state().leaf.certificate.issuer != authority.certificate.subject:
        cluster.step()
        cluster.pass_time(PERIODS.settle)
    assert cluster.state().leaf.certificate.not_valid_after_utc == authority.certificate.not_valid_after_utc
    cluster.refusing = {"mutating", "validating"}
    cluster.taken.clear()
    while cluster.now < authority.certificate.not_valid_after_utc - PERIODS.settle:
        cluster.step()
        cluster.pass_time(timedelta(minutes=10))
    assert Change.ISSUE_LEAF not in cluster.taken
