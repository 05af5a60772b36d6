"""Linux calls about memory that Python lacks: keep it out of other processes, of core files and of swap.

Each says whether it took effect, and the caller decides what follows; on another system none does.
"""

from __future__ import annotations

import ctypes
import resource
import sys
from functools import cache
from pathlib import Path
from typing import Final

PR_GET_DUMPABLE: Final = 3  # linux/prctl.h
PR_SET_DUMPABLE: Final = 4
MCL_CURRENT: Final = 1  # linux/mman.h
MCL_FUTURE: Final = 2
MCL_ONFAULT: Final = 4
PROT_READ: Final = 1
MAP_SHARED: Final = 1
MADV_DONTDUMP: Final = 16
CAP_IPC_LOCK: Final = 14  # linux/capability.h
FAILED: Final = ctypes.c_void_p(-1).value  # what mmap returns


def set_undumpable() -> bool:
    """Let no other process of this user read this one's memory, and the kernel write none of it to a core file.

    Besides ptrace, /proc/PID/mem and all kinds of core dumps, sockets included, it closes /proc/PID/fd to others. A
    program that is executed from here starts dumpable again (prctl(2), PR_SET_DUMPABLE).
    """
    return sys.platform == "linux" and bool(_libc().prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0)


def is_dumpable() -> bool:
    """Whether other processes of this user may read this one's memory."""
    return sys.platform != "linux" or bool(_libc().prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) != 0)


def may_lock_everything() -> bool:
    """Whether `lock_everything` would hold: RLIMIT_MEMLOCK is unlimited, or this process has CAP_IPC_LOCK."""
    if sys.platform != "linux":
        return False
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return limit == resource.RLIM_INFINITY or _has_capability(CAP_IPC_LOCK)


def lock_everything() -> bool:
    """Keep all memory of this process, now and later, out of swap. Pages are locked when they are first touched.

    Not even tried under a finite RLIMIT_MEMLOCK: address space counts whole, so later allocations would fail.
    """
    return may_lock_everything() and bool(_libc().mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) == 0)


class Pin:
    """A read-only mapping of a whole file, locked in memory and left out of core files until `release`."""

    def __init__(self, address: int, size: int) -> None:
        self._address: int | None = address
        self._size = size

    def release(self) -> None:
        """Unlock and unmap it. Twice does no harm."""
        if self._address is not None:
            _libc().munmap(self._address, self._size)
            self._address = None


def pin(handle: int, size: int) -> Pin | None:
    """Map and lock a file of `size` bytes (> 0) that is open for reading; None where the limit does not allow it."""
    libc = _libc()
    address = libc.mmap(None, size, PROT_READ, MAP_SHARED, handle, 0)
    if address == FAILED:
        return None
    libc.madvise(address, size, MADV_DONTDUMP)  # advice: it is no failure where the kernel does not take it
    if libc.mlock(address, size) != 0:
        libc.munmap(address, size)
        return None
    return Pin(address, size)


def _has_capability(number: int) -> bool:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return False
    effective = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), "0")
    return bool(int(effective, 16) >> number & 1)


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    libc.mmap.restype = pointer
    libc.mmap.argtypes = [pointer, size, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    libc.munmap.argtypes = libc.mlock.argtypes = [pointer, size]
    libc.madvise.argtypes = [pointer, size, ctypes.c_int]
    return libc
