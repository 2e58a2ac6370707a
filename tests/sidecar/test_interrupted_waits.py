"""A request to stop that arrives between an instruction and the system call after it interrupts nothing by itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sidecar.reasons import Reason
from tests.support.paths import ROOT

# CPython's own handler runs in the thread that got the signal and only notes it: a signal to another thread leaves the
# main thread in the state that the race leaves it in, at every try.
_LOSE_THE_SIGNAL = """
import signal, socket, ssl, sys, threading, time
from sidecar.shutdown import ShutdownSignal, StoppedError

def wait_for_an_answer():
    near, far = socket.socketpair()
    near.settimeout(600)
    near.recv(1)

def wait_for_a_handshake():
    near, far = socket.socketpair()
    near.settimeout(600)
    ssl._create_unverified_context().wrap_socket(near)

def wait_for_a_thread():
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    threading.enumerate()[-1].join(600)

def lose_the_signal():
    while not waiting:
        time.sleep(0.01)
    time.sleep(0.2)
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
    time.sleep(600)

waiting = []
waits = {
    "pause": lambda: time.sleep(600), "answer": wait_for_an_answer,
    "handshake": wait_for_a_handshake, "thread": wait_for_a_thread,
}
shutdown = ShutdownSignal()
shutdown.listen()
threading.Thread(target=lose_the_signal, daemon=True).start()
try:
    with shutdown.interruptible():
        waiting.append(True)
        waits[sys.argv[1]]()
except StoppedError as error:
    print(error.reason)
"""


@pytest.mark.parametrize("wait", ["pause", "answer", "handshake", "thread"])
def test_a_signal_that_interrupted_nothing_ends_the_wait_all_the_same(wait: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _LOSE_THE_SIGNAL, wait],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert ended.stdout.strip() == Reason.STOPPED, ended.stderr
