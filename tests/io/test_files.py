"""Files are written whole or not at all, and the machine's faults are said in our errors."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from superswarm.errors import DiskFull, Environment, Misconfigured, TooLarge
from superswarm.io.files import SECRET, locked, read_bytes, write_bytes


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_secret_is_for_its_owner_only_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_bytes(tmp_path / "key", b"secret", mode=SECRET)
    finally:
        os.umask(before)
    assert mode(tmp_path / "key") == 0o600


def test_an_existing_file_is_replaced_only_on_demand(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"first")
    with pytest.raises(Misconfigured, match="exists already"):
        write_bytes(path, b"second")
    assert path.read_bytes() == b"first"
    write_bytes(path, b"third", replace=True)
    assert path.read_bytes() == b"third"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFull):
        write_bytes(path, b"new", replace=True)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_read_or_written_is_the_machines_fault(tmp_path: Path) -> None:
    with pytest.raises(Environment, match="No such file"):
        read_bytes(tmp_path / "absent", limit=10)
    with pytest.raises(Environment, match="directory"):
        read_bytes(tmp_path, limit=10)
    with pytest.raises(Environment):
        write_bytes(tmp_path / "absent" / "file", b"")


def test_reading_stops_at_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 11)
    assert read_bytes(path, limit=11) == b"x" * 11
    with pytest.raises(TooLarge):
        read_bytes(path, limit=10)
    with pytest.raises(TooLarge):
        read_bytes(Path("/dev/zero"), limit=1000)


def test_one_process_at_a_time_holds_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "record"
    order: list[str] = []
    inside = threading.Event()

    def second() -> None:
        inside.wait()
        with locked(path):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with locked(path):
        inside.set()
        thread.join(timeout=0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
