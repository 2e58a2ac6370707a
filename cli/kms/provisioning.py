"""Bringing secrets to one verifier: it is attested first, and they go out on that very connection or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from joserfc.jwk import ECKey

from attestation.verifier.secret_file import read_secret_file
from cli.kms.judge import Demand, Judgement, NotAttestedError, judge
from kbs.attested_connection import Address, Connection, UnreachableError
from kbs.messages import WireError
from kbs.provision import (
    MAX_ANSWER_SIZE,
    MAX_SECRET_SIZE,
    PROVISION_PATH,
    ProvisionState,
    SecretName,
    read_provision_error,
    read_provision_state,
    write_provision,
)
from server.files import UnusableInputError

Secrets = tuple[Mapping[SecretName, str], ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one address. `problem`: empty where all secrets were taken or held already."""

    address: str
    judgement: Judgement | None = None
    state: ProvisionState | None = None
    outcomes: Mapping[SecretName, tuple[str, ...]] = field(default_factory=dict)
    problem: str = ""
    is_unreachable: bool = False

    @property
    def ok(self) -> bool:
        """Whether this verifier has all secrets now."""
        return not self.problem

    def lines(self) -> Iterator[str]:
        """For people."""
        if self.judgement is not None:
            yield f"{self.address}: {self.judgement.summary()}"
        for name, words in self.outcomes.items():
            yield f"{self.address}: {name.value}: {', '.join(words)}"
        if self.problem:
            yield f"{self.address}: {self.problem}"
        elif self.state is not None:
            yield f"{self.address}: {_open_or_waiting(self.state)}"

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {
            "address": self.address,
            "attested": self.judgement is not None and self.judgement.accepted,
            "secrets": {name.value: list(words) for name, words in self.outcomes.items()},
            "sealed": None if self.state is None else self.state.sealed,
            "missing": [] if self.state is None else [name.value for name in self.state.missing],
            "problem": self.problem,
        }


_REFUSED: Final = "refused"


def read_secrets(words: Sequence[str]) -> Secrets:
    """`NAME=FILE` of each option, as the messages that carry them: each share but the first has one of its own.

    Each file has mode 0400. Raises ConfigurationError, UnusableInputError.
    """
    known = {name.value: name for name in SecretName}
    first: dict[SecretName, str] = {}
    shares: list[str] = []
    for word in words:
        text, separator, file = word.partition("=")
        if not separator or text not in known:
            raise UnusableInputError(f"--secret: required NAME=FILE with a NAME of {', '.join(known)}")
        name = known[text]
        content = read_secret_file(Path(file), MAX_SECRET_SIZE).strip()
        if not content or not content.isascii():
            raise UnusableInputError(f"{file}: required ASCII text")
        if name in first:
            if name is not SecretName.UNSEAL_SHARE:
                raise UnusableInputError(f"--secret {text}: is given twice; only unseal-share may be")
            shares.append(content.decode())
        else:
            first[name] = content.decode()
    return (first, *({SecretName.UNSEAL_SHARE: share} for share in shares))


def provision(address: Address, ca: str, seconds: float, demand: Demand, key: ECKey, secrets: Secrets) -> Outcome:
    """Attest the verifier at one address, then give it the secrets on the same connection. Raises nothing."""
    shown = str(address)
    try:
        connection = Connection(address, ca, seconds)
    except UnreachableError as error:
        return Outcome(shown, problem=_without(shown, error), is_unreachable=True)
    with connection:
        judgement: Judgement | None = None
        done: dict[SecretName, tuple[str, ...]] = {}
        state: ProvisionState | None = None
        try:
            judgement = judge(connection, demand)
            if not judgement.accepted:
                return Outcome(shown, judgement, problem="nothing was sent: it is not the verifier of the policy")
            for message in secrets:
                state = _give(connection, key, message)
                for name, outcome in state.outcomes.items():
                    done[name] = (*done.get(name, ()), outcome.value)
        except UnreachableError as error:
            return Outcome(shown, judgement, state, done, _without(shown, error), is_unreachable=True)
        except (NotAttestedError, _RefusedError) as error:
            return Outcome(shown, judgement, state, done, str(error))
        return Outcome(shown, judgement, state, done)


class _RefusedError(Exception):
    """The verifier refuses the secrets: one line, none of them in it."""


def _give(connection: Connection, key: ECKey, message: Mapping[SecretName, str]) -> ProvisionState:
    offered = connection.request("GET", PROVISION_PATH, limit=MAX_ANSWER_SIZE)
    nonce = _state(offered.status, offered.body).nonce
    try:
        body = write_provision(key, connection.spki, nonce, message)
    except WireError as error:
        raise _RefusedError(str(error)) from None
    answer = connection.request("POST", PROVISION_PATH, body, limit=MAX_ANSWER_SIZE)
    return _state(answer.status, answer.body)


def _state(status: int, body: bytes) -> ProvisionState:
    if status == 200:
        try:
            return read_provision_state(body)
        except WireError as error:
            raise _RefusedError(f"its answer cannot be read: {error}") from None
    problem = read_provision_error(body)
    if status == 404 and not problem.problem:
        raise _RefusedError("it takes no secrets: its configuration has no section provisioning")
    told = ": ".join(part for part in (problem.problem or f"status {status}", problem.detail) if part)
    shown = f" (correlation id {problem.correlation_id})" if problem.correlation_id else ""
    if status == 503:
        raise UnreachableError(f"it answers {told}{shown}")
    raise _RefusedError(f"{_REFUSED}: {told}{shown}")


def _open_or_waiting(state: ProvisionState) -> str:
    waits = [name.value for name in state.missing]
    unsealing = state.unsealing
    if unsealing is not None and unsealing.sealed:
        waits.append(f"OpenBao sealed, {unsealing.progress} of {unsealing.threshold} shares")
    if waits:
        return f"still sealed: waits for {', '.join(waits)}"
    return "serves guests" if not state.sealed else "still sealed"


def _without(address: str, error: Exception) -> str:
    return str(error).removeprefix(f"{address}: ")
