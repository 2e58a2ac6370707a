"""Runs a command against a stand-in of an API server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cli.main import main
from tests.cli.audit.found import PASSWORD
from tests.cli.live.stand_in import StandIn, serving
from tests.support.done import Done

Run = Callable[..., Done]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """`run(CLUSTER, COMMAND, word, …)`, which may print no value of the cluster."""

    def call(cluster: StandIn, *words: str) -> Done:
        with serving(cluster, tmp_path) as kubeconfig:
            code = main([words[0], "--kubeconfig", str(kubeconfig), *words[1:]])
        done = Done(code, *capsys.readouterr())
        assert PASSWORD not in done.out + done.err
        return done

    return call
