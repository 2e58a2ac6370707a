"""Engines that evaluate a guest's policy as its agent does: a program, or the Python binding of regorus.

State lies under `data.pstate`, and the JSON patches that rules answer with change it, whether the request succeeds
later or not. The binding knows more builtins than an agent; our rules text is tried in an agent's own set by CI.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
from collections.abc import Iterator
from typing import IO, Any, Final, Protocol, cast

from server.files import UnusableInputError

VARIABLE: Final = "MORPHISMS_POLICY_ENGINE"
_EMPTY: Final = '{"pstate": {}}'


# An agent takes a builtin's error for undefined; the binding ends the evaluation. In the other form nothing errs.
_LENIENT: Final = "is_empty(value) if count(value) == 0"
_STRICT: Final = "is_empty(value) if { not is_null(value); count(value) == 0 }"


def for_the_binding(policy: str) -> str:
    """The policy with one rule in a form that means the same to the binding as to an agent."""
    return policy.replace(_LENIENT, _STRICT)


class Engine(Protocol):
    """One guest's policy and its state."""

    name: str

    def load(self, policy: str) -> None:
        """Begin anew with this policy. Raises UnusableInputError."""

    def ask(self, kind: str, request: dict[str, Any]) -> bool:
        """Whether the guest would carry the request out."""


@contextlib.contextmanager
def found_engine(program: str | None) -> Iterator[Engine | None]:
    """The named program, that of the environment, or the binding; None where there is none."""
    path = program or os.environ.get(VARIABLE)
    if path:
        try:
            # The program is the caller's own, and gets no argument.
            process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
        except OSError as error:
            raise UnusableInputError(f"{path}: {error.strerror}") from None
        with process:
            yield _Program(path, process)
        return
    try:
        binding = importlib.import_module("regorus")
    except ImportError:
        yield None
    else:
        yield Binding(binding)


class _Program:
    """Speaks one JSON message a line: `{"policy": TEXT}`, `{"kind": NAME, "request": OBJECT}`."""

    def __init__(self, path: str, process: subprocess.Popen[str]) -> None:
        self.name = path
        self._to, self._from = cast(IO[str], process.stdin), cast(IO[str], process.stdout)

    def load(self, policy: str) -> None:
        """See `Engine.load`."""
        if self._exchange({"policy": policy}) != {"loaded": True}:
            raise UnusableInputError(f"{self.name}: cannot load the policy")

    def ask(self, kind: str, request: dict[str, Any]) -> bool:
        """See `Engine.ask`."""
        return self._exchange({"kind": kind, "request": request}).get("allowed") is True

    def _exchange(self, message: dict[str, Any]) -> dict[str, Any]:
        try:
            self._to.write(json.dumps(message) + "\n")
            self._to.flush()
            answer = json.loads(self._from.readline())
        except (OSError, ValueError):
            answer = None
        if not isinstance(answer, dict):
            raise UnusableInputError(f"{self.name}: does not answer as a policy engine does")
        return answer


class Binding:
    """The Python binding (`celine-regorus`)."""

    name = "regorus"

    def __init__(self, binding: Any) -> None:
        self._new = binding.Engine
        self._engine = self._new()
        self._state: dict[str, Any] = {}

    def load(self, policy: str) -> None:
        """See `Engine.load`."""
        self._engine, self._state = self._new(), {}
        self._engine.add_data_json(_EMPTY)
        try:
            self._engine.add_policy("agent_policy", for_the_binding(policy))
        except Exception:
            raise UnusableInputError(f"{self.name}: cannot load the policy") from None

    def ask(self, kind: str, request: dict[str, Any]) -> bool:
        """See `Engine.ask`. An evaluation that fails is a refusal."""
        self._engine.set_input_json(json.dumps(request))
        try:
            answer = json.loads(self._engine.eval_rule_as_json(f"data.agent_policy.{kind}"))
        except Exception:
            return False
        if not isinstance(answer, dict):
            return answer is True
        if answer.get("allowed") is True and answer.get("ops"):
            for operation in answer["ops"]:
                self._apply(operation)
            self._engine.clear_data()
            self._engine.add_data_json(json.dumps({"pstate": self._state}))
        return answer.get("allowed") is True

    def _apply(self, operation: dict[str, Any]) -> None:
        """Our rules set and unset members of the state, and nothing else."""
        key = str(operation["path"]).removeprefix("/pstate/").replace("~1", "/").replace("~0", "~")
        if operation["op"] == "add":
            self._state[key] = operation["value"]
        else:
            del self._state[key]
