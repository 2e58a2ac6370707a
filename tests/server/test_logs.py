import asyncio
import gc
import io
import json
import logging
import re
import subprocess
import sys

import pytest

from server import logs
from server.messages import Response

SECRET = "hunter2"


@pytest.fixture
def stream():
    """Where the logs of a test go; the logging of the rest is put back."""
    gc.collect()  # what other tests left behind says so now, and not among a test's own lines
    root, hooks = logging.getLogger(), (sys.excepthook, sys.unraisablehook)
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    logs.configure(stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    sys.excepthook, sys.unraisablehook = hooks


def lines(stream: io.StringIO) -> list[dict]:
    assert SECRET not in stream.getvalue()
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_one_event_a_line(stream):
    logs.info("started", port=1, note="two\nlines", time="not mine")
    (line,) = lines(stream)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {"level": "info", "event": "started", "port": 1, "note": "two\nlines"}


def test_an_exception_is_class_and_place_never_text(stream):
    try:
        try:
            raise KeyError(SECRET)
        except KeyError as cause:
            raise ValueError(SECRET) from cause
    except ValueError as error:
        logs.error("failed", exception=error, given=error)
    (line,) = lines(stream)
    assert [link["class"] for link in line["exception"]] == ["builtins.ValueError", "builtins.KeyError"]
    assert re.fullmatch(r"tests/server/test_logs.py:\d+ test_an_exc\w+", line["exception"][0]["stack"][-1])
    assert line["given"] == "<ValueError>"


def test_a_library_is_heard_without_what_it_was_given(stream):
    logging.getLogger("library").warning("failed for %s", SECRET)
    logging.getLogger("library").warning(f"failed for {SECRET}")
    logging.getLogger("library").warning("wrong %d", SECRET)
    first, second, _ = lines(stream)
    assert (first["template"], "template" in second) == ("failed for %s", False)
    assert first["where"].startswith("tests/server/test_logs.py:")


async def test_the_request_id_is_the_requests_own(stream, serve, connect):
    async def handler(body, info):
        logs.set_correlation_id(body.decode())
        await asyncio.sleep(0)
        logs.info("seen", body_was=body.decode())
        raise ValueError(SECRET)

    service = await serve({("POST", "/x"): handler})
    clients = [await connect(service.address) for _ in range(8)]
    answers = await asyncio.gather(*(c.request("POST", "/x", f"uid-{n}".encode()) for n, c in enumerate(clients)))
    assert {(answer.status, answer.body) for answer in answers} == {(500, b"failed\n")}
    seen = [line for line in lines(stream) if line["event"] == "seen"]
    assert sorted(line["correlation_id"] for line in seen) == [f"uid-{n}" for n in range(8)]
    assert all(line["correlation_id"] == line["body_was"] for line in seen)
    assert sum(line["event"] == "handler_failed" and "correlation_id" in line for line in lines(stream)) == 8


async def test_a_hostile_request_leaves_no_trace_of_its_text(stream, serve, connect):
    async def handler(body, info):
        return Response(200, body)

    service = await serve({("POST", "/x"): handler})
    for raw in (
        f"{SECRET} {SECRET}\r\n\r\n",
        f"GET /x HTTP/1.1\r\n{SECRET}\r\n\r\n",
        f"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{SECRET}\r\n",
    ):
        client = await connect(service.address)
        await client.send(raw.encode())
        answer = await client.receive()
        assert answer.status == 400
        assert SECRET.encode() not in answer.body
    assert any(line["event"] == "bad_request" for line in lines(stream))


def test_what_nobody_caught_is_a_line_too():
    program = (
        "from server import logs; import threading; logs.configure()\n"
        "def fail(): raise ValueError('hunter' + '2')\n"
        "t = threading.Thread(target=fail); t.start(); t.join()\n"
        "fail()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert SECRET not in done.stderr
    assert [json.loads(line)["event"] for line in done.stderr.splitlines()] == ["thread_failed", "uncaught"]
