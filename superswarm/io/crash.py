"""How a program ends when something failed: one message for people, and never a secret.

An exception of a library can quote what it choked on (a training text, a key), so its text goes nowhere: not to the
terminal, not to a log, not to disk. Of a bug, only the types and code positions are kept.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import sys
import threading
import time
import traceback
from pathlib import Path

from superswarm import __version__
from superswarm.errors import DiskFull, Environment, Error, PortTaken

KEPT = 20  # crash files; a program that restarts for ever must not fill the disk
OF_THE_MACHINE = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR, errno.EIO}


def redacted(error: BaseException) -> str:
    """A traceback of types and code positions only, causes first. Our own errors keep their text."""
    lines = []
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        lines.append(redacted(cause) + "then:\n")
    if isinstance(error, BaseExceptionGroup):
        lines += [redacted(one) + "and:\n" for one in error.exceptions]
    for frame, line in traceback.walk_tb(error.__traceback__):
        code = frame.f_code
        lines.append(f"  {code.co_filename}:{line} in {code.co_qualname}\n")
    kind = type(error)
    text = f": {printable(str(error))}" if isinstance(error, Error) else " (text withheld)"
    lines.append(f"{kind.__module__}.{kind.__qualname__}{text}\n")
    return "".join(lines)


def printable(text: str) -> str:
    """Text without control characters, which could drive a terminal; line breaks stay."""
    return "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text)


def say(message: str, *, note: str = "", **fields: object) -> None:
    """Write one failure to standard error: for people, or as one JSON object where logs are JSON."""
    if os.environ.get("SUPERSWARM_LOG_FORMAT") == "json":
        entry = {
            "ts": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "level": "error",
            "program": "superswarm",
            "event": printable(message),
            "fields": fields,
        }
        sys.stderr.write(json.dumps(entry) + "\n")
        return
    sys.stderr.write(f"superswarm: {printable(message)}\n" + (f"  ({printable(note)})\n" if note else ""))


def machine_fault(error: BaseException) -> Error | None:
    """The error of ours that an OSError stands for, where the machine is at fault and not our code."""
    if not isinstance(error, OSError) or error.errno is None:
        return None
    where = f": {error.filename}" if error.filename else ""
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return DiskFull(f"no disk space is left{where}")
        case errno.EADDRINUSE:
            return PortTaken("another process listens on a port that this program needs")
        case code if code in OF_THE_MACHINE and error.filename:
            return Environment(f"{os.strerror(code)}{where}")
        case _:
            return None


def report(error: BaseException, command: str) -> Path | None:
    """Report a bug of ours: keep its redacted traceback in a file, and say where."""
    details = (
        f"superswarm {__version__}, {command}, Python {platform.python_version()}, {platform.platform()}\n"
        "Types and code positions only: no variables, and no texts of other libraries' exceptions.\n\n"
        f"{redacted(error)}"
    )
    path = _keep(details)
    where = f"details are in {path}" if path else "details could not be written and follow"
    say(f"this is a bug in superswarm ({type(error).__name__}); {where}.", note="please report it with that text")
    if path is None or os.environ.get("SUPERSWARM_DEBUG"):
        sys.stderr.write(details)
    return path


def folder() -> Path:
    """Where crash files go: SUPERSWARM_CRASH_DIR, or the user's state directory (XDG base directories)."""
    if named := os.environ.get("SUPERSWARM_CRASH_DIR"):
        return Path(named)
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "superswarm" / "crashes"


def _keep(details: str) -> Path | None:
    try:
        where = folder()
        where.mkdir(parents=True, exist_ok=True, mode=0o700)
        for old in sorted(where.glob("crash-*.txt"))[: -KEPT + 1]:
            old.unlink(missing_ok=True)
        path = where / f"crash-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}.txt"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(details)
    except (OSError, RuntimeError):  # RuntimeError: there is no home directory
        return None
    return path


def install_hooks() -> None:
    """Redact what Python itself prints of an exception in a thread or a destructor."""

    def in_thread(hook: threading.ExceptHookArgs) -> None:
        if hook.exc_value is not None and not isinstance(hook.exc_value, SystemExit):
            name = hook.thread.name if hook.thread else "?"
            sys.stderr.write(f"superswarm: the thread {name} failed\n{redacted(hook.exc_value)}")

    def in_destructor(hook: sys.UnraisableHookArgs) -> None:
        if hook.exc_value is not None:
            sys.stderr.write(f"superswarm: a cleanup failed\n{redacted(hook.exc_value)}")

    def at_top(_kind: type[BaseException], error: BaseException, _trace: object) -> None:
        sys.stderr.write(redacted(error))

    threading.excepthook = in_thread
    sys.unraisablehook = in_destructor
    sys.excepthook = at_top
