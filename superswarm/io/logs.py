"""Logs: an event and its fields, for people or as one JSON object a line, on standard error.

    log = logger(__name__)
    log.info("round closed", round=3, members=5)

Redaction is a net under careful callers: bytes, arrays and long texts show as their size. Other libraries' records
show from warnings upward; in a program that holds plaintext (`confidential`) only their code position shows, since a
library may quote what it works on. Tracebacks show types and positions only.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import warnings
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from enum import Enum
from pathlib import PurePath
from typing import Any, ClassVar, Final, TextIO

from superswarm.errors import Error, Misconfigured
from superswarm.io.crash import printable, redacted
from superswarm.values import Digest, Measurement

TEXT_CHARACTERS: Final = 200  # longer texts show as their length
ITEMS: Final = 32  # of a list or mapping; more show as their number
FOREIGN: Final = (
    "flwr",
    "urllib3",
    "transformers",
    "huggingface_hub",
    "httpx",
    "httpcore",
    "peft",
    "uvicorn",
)
OURS: Final = frozenset({"superswarm", "participants", "coordinator", "benchmarks"})
FIELDS: Final = "superswarm_fields"
WHERE: Final = "superswarm_where"
COLOURS: Final = {"debug": "dim", "info": "", "warning": "yellow", "error": "bold red", "critical": "bold red"}


class Log:
    """A logger of events. The event is a fixed text, everything that varies is a field."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, **fields: object) -> None:
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: object) -> None:
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, **fields: object) -> None:
        self._write(logging.ERROR, event, fields)

    def _write(self, level: int, event: str, fields: dict[str, object]) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, event, extra={FIELDS: fields}, stacklevel=3)


def logger(name: str) -> Log:
    """The log of a module, `logger(__name__)`, or of a program, `logger("trainer")`."""
    return Log(name if name.partition(".")[0] in OURS else f"superswarm.{name}")


def safe(value: object) -> Any:
    """A field as it may be shown: plain values as they are, anything that can carry data as its size or type."""
    match value:
        case None | bool() | int() | float():
            return value if not isinstance(value, float) or math.isfinite(value) else str(value)  # JSON has no NaN
        case Enum():
            return safe(value.value)
        case Digest() | Measurement() | PurePath():
            return safe(str(value))
        case str():
            fits = len(value) <= TEXT_CHARACTERS
            return printable(value).replace("\n", r"\n") if fits else f"<text of {len(value)} characters>"
        case bytes() | bytearray() | memoryview():
            return f"<{len(value)} bytes>"
        case BaseException():
            return value.code if isinstance(value, Error) else type(value).__name__
        case Mapping() if len(value) <= ITEMS:
            return {str(safe(key)): safe(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset() if len(value) <= ITEMS:
            return [safe(item) for item in value]
        case Mapping() | list() | tuple() | set() | frozenset():
            return f"<{len(value)} items>"
        case _ if hasattr(value, "shape") and hasattr(value, "dtype"):
            return f"<{value.dtype} array {'x'.join(str(side) for side in value.shape)}>"
        case _:
            return f"<{type(value).__name__}>"


def entry(record: logging.LogRecord, program: str, *, confidential: bool) -> dict[str, Any]:
    """A record as what may be shown of it: ts, level, program, event, fields."""
    stamp = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    fields: dict[str, Any]
    if record.name.partition(".")[0] in OURS:
        event, fields = safe(_message(record)), safe(getattr(record, FIELDS, {}))
    elif confidential:
        event = "a library's message, withheld"
        where = getattr(record, WHERE, f"{record.filename}:{record.lineno}")
        fields = {"library": record.name, "where": where}
    else:
        event, fields = safe(_library_message(record)), {"library": record.name}
    if record.exc_info and record.exc_info[1] is not None:
        fields = {**fields, "exception": redacted(record.exc_info[1])}
    level = record.levelname.lower()
    return {"ts": stamp, "level": level, "program": program, "event": event, "fields": fields}


def _message(record: logging.LogRecord) -> str:
    """Our own record's text, its arguments redacted like fields."""
    arguments = tuple(safe(one) for one in record.args) if isinstance(record.args, tuple) else ()
    try:
        return str(record.msg) % arguments if arguments else str(record.msg)
    except (TypeError, ValueError):  # a number was expected where bytes or a text became their size
        return str(record.msg)


def _library_message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):  # a library's format does not fit its arguments
        return str(record.msg)


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def __init__(self, program: str, *, confidential: bool) -> None:
        super().__init__()
        self._program, self._confidential = program, confidential

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(entry(record, self._program, confidential=self._confidential), allow_nan=False)


class HumanFormatter(JsonFormatter):
    """`12:03:07 trainer  round closed  round=3 members=5`."""

    def format(self, record: logging.LogRecord) -> str:
        shown = entry(record, self._program, confidential=self._confidential)
        fields = dict(shown["fields"])
        trace = fields.pop("exception", "")
        level = "" if shown["level"] in {"info", "debug"} else f"{shown['level'].upper()}: "
        pairs = " ".join(f"{key}={_plain(value)}" for key, value in fields.items())
        line = f"{shown['ts'][11:19]} {self._program}  {level}{shown['event']}{'  ' + pairs if pairs else ''}"
        return f"{line}\n{trace}".rstrip()


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    plain = isinstance(value, str) and not set(value) & set(' ="')
    return str(value) if plain else json.dumps(value, ensure_ascii=False)


class _Handler(logging.Handler):
    """Writes to standard error, as the stream is at that moment; in colour on a terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError, ValueError):  # a log that nobody reads any more must not end the program
            self._write(self.format(record), record.levelname.lower())

    def _write(self, line: str, level: str) -> None:
        if type(self.formatter) is HumanFormatter and sys.stderr.isatty():
            from rich.text import Text

            from superswarm.io.console import messages

            messages().print(Text(line, style=COLOURS.get(level, "")))
        else:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()


class ForeignLogger(logging.Logger):
    """A library's logger that neither prints by itself nor says less than warnings."""

    loud: ClassVar[int] = logging.WARNING

    def addHandler(self, hdlr: logging.Handler) -> None:  # noqa: N802 - logging's name
        """Ignore the library's handler: the program decides where logs go."""

    def setLevel(self, level: int | str) -> None:  # noqa: N802
        """Keep the program's level."""
        super().setLevel(self.loud)

    @property
    def propagate(self) -> bool:
        return True

    @propagate.setter
    def propagate(self, value: bool) -> None:
        """Keep handing records on."""


def setup(program: str, *, log_format: str = "human", confidential: bool = False, level: int | None = None) -> None:
    """Send this process's logs to standard error. SUPERSWARM_LOG_FORMAT wins over `log_format`.

    Call it before libraries are imported or after: both quieten them.
    """
    chosen = os.environ.get("SUPERSWARM_LOG_FORMAT") or log_format
    if chosen not in {"human", "json"}:
        raise Misconfigured("SUPERSWARM_LOG_FORMAT is human or json")
    formatter = (JsonFormatter if chosen == "json" else HumanFormatter)(program, confidential=confidential)
    handler = _Handler()
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    if level is None:
        level = logging.DEBUG if os.environ.get("SUPERSWARM_DEBUG") else logging.INFO
    for name in OURS:
        logging.getLogger(name).setLevel(level)
    quiet_libraries()
    warnings.showwarning = _show_warning


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Log what Python's `warnings` would print, with the place that the warning names."""
    del file, line
    where = "/".join(PurePath(filename).parts[-2:])
    text = f"{category.__name__}: {message}"
    logging.getLogger("py.warnings").warning("%s", text, extra={WHERE: f"{where}:{lineno}"})


def quiet_libraries() -> None:
    """Take over the loggers of the libraries that set up their own."""
    for name in FOREIGN:
        taken = logging.getLogger(name)
        taken.handlers.clear()
        taken.__dict__.pop("propagate", None)
        taken.__class__ = ForeignLogger
        taken.setLevel(logging.WARNING)
