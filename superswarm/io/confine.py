"""What a program has in memory stays there: no core file, no other process, and where allowed no swap holds it.

Against processes of the same user and against what outlives this process. Whoever runs the kernel reads memory all
the same: that takes a TEE.
"""

from __future__ import annotations

import resource

from superswarm.errors import Environment
from superswarm.io import linux
from superswarm.io.logs import Log

LOCKING = "let the program lock its memory: LimitMEMLOCK=infinity (systemd), --ulimit memlock=-1 (docker)"


def confine() -> None:
    """Keep this process's memory out of core files, and from debuggers and other processes of its user.

    A limit of 1 byte for core files and not 0: where cores are piped to a program, Linux looks at the limit for this
    value only (fs/coredump.c). No core fits into it either, and programs started from here inherit it. That the
    process cannot be dumped holds for cores that go to sockets too.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    linux.set_undumpable()


def hold_plaintext(log: Log) -> None:
    """Confine a program that will hold plaintext, and lock its memory; warn where that is not allowed.

    Raises Environment where other processes of its user could still read it.
    """
    confine()
    if linux.is_dumpable():
        raise Environment("other processes could read this program's memory: Linux must allow PR_SET_DUMPABLE")
    if not linux.lock_everything():
        log.warning("memory can be swapped out", do=f"swap off, or {LOCKING}")
