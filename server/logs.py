"""Structured logs: one JSON object per line on stderr, in the form of `logline`.

No text that we did not write ourselves reaches a line. An exception's text may hold what a request held, so an
exception is its class and where it was raised; a record from a library is its place in the code and, when it has
arguments, its template without them.
"""

import logging
import sys
import threading
from contextvars import ContextVar
from pathlib import PurePath
from types import TracebackType
from typing import Any, TextIO

from logline import format_line

_LOG = logging.getLogger("morphisms")
_FRAMES = 12
_CAUSES = 4
_of_process: dict[str, object] = {}
_correlation_id: ContextVar[str] = ContextVar("correlation_id", default="")


def set_correlation_id(correlation_id: str) -> None:
    """Let every further line of this request carry it: an attestation's correlation id, or an AdmissionReview's uid."""
    _correlation_id.set(correlation_id)


def add_to_every_line(**fields: object) -> None:
    """Let every further line of this process have these fields, such as a worker's number."""
    _of_process.update(fields)


def configure(stream: TextIO | None = None, level: int = logging.INFO) -> None:
    """Send all logging of the process, and every uncaught exception, to `stream` (default stderr)."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JSONFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # No line names the thread or the process, so that no record needs to be told of them.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    # logging prints a record it could not format, exception text included, unless told not to.
    logging.raiseExceptions = False
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: error("thread_failed", exception=args.exc_value)
    sys.unraisablehook = lambda args: error("unraisable", exception=args.exc_value)


def info(event: str, **fields: object) -> None:
    """Log `event`, a stable name in snake_case, with fields that hold no secret."""
    _log(logging.INFO, event, fields)


def warning(event: str, **fields: object) -> None:
    """As `info`, for what an operator should look at."""
    _log(logging.WARNING, event, fields)


def error(event: str, exception: BaseException | None = None, **fields: object) -> None:
    """As `info`, for what failed; of `exception` the class and the stack's places are written, never its text."""
    _log(logging.ERROR, event, fields, exception)


def _log(level: int, event: str, fields: dict[str, object], exception: BaseException | None = None) -> None:
    if not _LOG.isEnabledFor(level):
        return
    # `Logger.log` would look for its caller on the stack, which no line of ours names.
    raised = None if exception is None else (type(exception), exception, exception.__traceback__)
    record = logging.LogRecord(_LOG.name, level, "", 0, event, None, raised)
    record.fields = fields
    _LOG.handle(record)


class JSONFormatter(logging.Formatter):
    """A record as one line: its event's fields, or where a library's record comes from."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {"correlation_id": _correlation_id.get()}
        event = "library"
        if record.name == _LOG.name:
            event = str(record.msg)
        else:
            fields["logger"] = record.name
            fields["where"] = f"{_short(record.pathname)}:{record.lineno}"
            # Without arguments the text may have been formatted already, with anything in it.
            if record.args and isinstance(record.msg, str):
                fields["template"] = record.msg
        own: dict[str, Any] = getattr(record, "fields", {}) | _of_process
        fields |= {name: value for name, value in own.items() if name not in fields}
        if record.exc_info and record.exc_info[1]:
            fields["exception"] = describe(record.exc_info[1])
        return format_line(record.created, record.levelname.lower(), event, fields)


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


def _uncaught(kind: type[BaseException], error_: BaseException, traceback: TracebackType | None) -> None:
    error("uncaught", exception=error_)
