"""Structured logs: one JSON object a line on stderr.

No text that we did not write ourselves reaches a line. An exception's text may hold what a request held, so an
exception is its class and where it was raised; a record from a library is its place in the code and, when it has
arguments, its template without them.
"""

import json
import logging
import sys
import threading
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import PurePath
from types import TracebackType
from typing import Any, TextIO

_LOG = logging.getLogger("morphisms")
_FRAMES = 12
_CAUSES = 4
_request_id: ContextVar[str] = ContextVar("request_id", default="")


def set_request_id(request_id: str) -> None:
    """Let every further line of this request carry `request_id` (an AdmissionReview's uid, a correlation id)."""
    _request_id.set(request_id)


def configure(stream: TextIO | None = None, level: int = logging.INFO) -> None:
    """Send all logging of the process, and what nobody caught, to `stream` (default stderr)."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JSONFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # logging prints a record it could not format, exception text included, unless told not to.
    logging.raiseExceptions = False
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: error("thread_failed", exception=args.exc_value)
    sys.unraisablehook = lambda args: error("unraisable", exception=args.exc_value)


def info(event: str, **fields: object) -> None:
    """Log `event`, a stable name in snake_case, with fields that hold no secret."""
    _LOG.info(event, extra={"fields": fields})


def warning(event: str, **fields: object) -> None:
    """As `info`, for what somebody should look at."""
    _LOG.warning(event, extra={"fields": fields})


def error(event: str, exception: BaseException | None = None, **fields: object) -> None:
    """As `info`, for what failed; of `exception` the class and the stack's places are written, never its text."""
    _LOG.error(event, extra={"fields": fields}, exc_info=exception)


class JSONFormatter(logging.Formatter):
    """A record as one JSON line: ts (RFC 3339, UTC, milliseconds), level, event, request, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {
            "ts": stamp.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
        }
        if record.name == _LOG.name:
            line["event"] = record.msg
        else:
            line["event"] = "library"
            line["logger"] = record.name
            line["where"] = f"{_short(record.pathname)}:{record.lineno}"
            # Without arguments the text may have been formatted already, with anything in it.
            if record.args and isinstance(record.msg, str):
                line["template"] = record.msg
        if request_id := _request_id.get():
            line["request"] = request_id
        fields: dict[str, Any] = getattr(record, "fields", {})
        line |= {key: value for key, value in fields.items() if key not in line}
        if record.exc_info and record.exc_info[1]:
            line["exception"] = describe(record.exc_info[1])
        return json.dumps(line, separators=(",", ":"), default=_plain)


def describe(error: BaseException) -> list[dict[str, object]]:
    """An exception and its causes, outermost first: class and innermost places, no text."""
    chain: list[dict[str, object]] = []
    current: BaseException | None = error
    while current is not None and len(chain) < _CAUSES:
        kind = type(current)
        chain.append({"class": f"{kind.__module__}.{kind.__qualname__}", "stack": _places(current.__traceback__)})
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return chain


def _places(traceback: TracebackType | None) -> list[str]:
    places = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        places.append(f"{_short(code.co_filename)}:{traceback.tb_lineno} {code.co_name}")
        traceback = traceback.tb_next
    return places[-_FRAMES:]


def _short(path: str) -> str:
    return "/".join(PurePath(path).parts[-3:])


def _plain(value: object) -> str:
    return str(value) if isinstance(value, PurePath) else f"<{type(value).__name__}>"


def _uncaught(kind: type[BaseException], error_: BaseException, traceback: TracebackType | None) -> None:
    error("uncaught", exception=error_)
