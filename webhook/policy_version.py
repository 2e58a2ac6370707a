"""Policy versions: which release's rules deny. An upgrade alone denies nothing that complied with the release before.

A rule says since which release it denies, and so does a wider reach of one. Until the configuration's `policy` names
that release, what is newer is recorded.
"""

from __future__ import annotations

from typing import Final

RELEASES: tuple[str, ...] = ("0.1",)
"""The releases whose policies differ, in order; a release without a new rule or reach is not among them."""

FIRST: Final = RELEASES[0]
"""The policy of a configuration that names none: it was written before there was another."""


def current() -> str:
    """The newest policy that this release knows."""
    return RELEASES[-1]


def known() -> str:
    """The policies that this release knows, for a message."""
    return ", ".join(RELEASES)


def is_known(policy: str) -> bool:
    """Whether this release knows the policy."""
    return policy in RELEASES


def denies(since: str, policy: str) -> bool:
    """Whether what denies since one release does so under the policy of another."""
    return RELEASES.index(since) <= RELEASES.index(policy)
