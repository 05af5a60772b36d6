"""Runs a command that the kernel kills when its parent ends: `tether.py PARENT_PID COMMAND ...`.

Executed as a plain file by `processes.spawn`, so it imports only the standard library. PR_SET_PDEATHSIG survives the
exec (prctl(2)); the parent is checked afterwards, since it may have ended before the call. Linux only; elsewhere the
command just runs.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(argv: list[str]) -> None:
    """Tie this process to its parent, then become the command."""
    parent, command = int(argv[0]), argv[1:]
    if sys.platform == "linux":
        if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl")
        if os.getppid() != parent:
            raise SystemExit(1)
    os.execvp(command[0], command)  # noqa: S606 - the whole point


if __name__ == "__main__":
    main(sys.argv[1:])
