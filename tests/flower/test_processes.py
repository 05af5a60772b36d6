"""Children end with their parent, whichever way it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from superswarm.errors import Environment
from superswarm.io.processes import Children, spawn, stop_on_signals

PATIENT = "import time; print('up', flush=True); time.sleep(60)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {PATIENT}"


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def wait_for(path: Path, text: str = "up") -> None:
    end = time.monotonic() + 20
    while text not in (path.read_text() if path.exists() else ""):
        assert time.monotonic() < end
        time.sleep(0.01)


def gone(pid: int, seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.01)
    return False


def test_a_child_is_asked_to_stop(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with spawn(python(PATIENT), name="child", log=log) as child:
        wait_for(log)
        assert child.running
        assert os.getpgid(child.pid) == child.pid  # Ctrl-C in a terminal does not reach it
    assert child.exit_code == -signal.SIGTERM
    assert log.stat().st_mode & 0o077 == 0


def test_a_child_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    child = spawn(python(STUBBORN), name="child", log=tmp_path / "log")
    wait_for(tmp_path / "log")
    child.stop(grace=0.1)
    assert child.exit_code == -signal.SIGKILL


def test_what_a_child_left_behind_is_killed_too(tmp_path: Path) -> None:
    code = (
        f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {PATIENT!r}]); print(p.pid, flush=True)"
    )
    log = tmp_path / "log"
    child = spawn(python(code), name="child", log=log)
    wait_for(log)
    grandchild = int(log.read_text().split()[0])
    child.stop()
    assert gone(grandchild)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's death signal is Linux's")
def test_a_child_dies_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    code = f"""
import sys, time
from pathlib import Path
from superswarm.io.processes import spawn
child = spawn([sys.executable, "-c", {PATIENT!r}], name="child", log=Path({str(tmp_path / "log")!r}))
print(child.pid, flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen(python(code), stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    wait_for(tmp_path / "log")
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert gone(child)


def test_children_share_one_grace_period(tmp_path: Path) -> None:
    logs = [tmp_path / f"log{n}" for n in range(3)]
    began = 0.0
    with Children() as children:
        for log in logs:
            children.add(spawn(python(STUBBORN), name=log.name, log=log))
        for log in logs:
            wait_for(log)
        began = time.monotonic()
        children.stop(grace=0.3)
        assert len(children.ended()) == 3
    assert time.monotonic() - began < 2


def test_a_command_that_is_missing_ends_at_once(tmp_path: Path) -> None:
    with spawn(["/no/such/command"], name="child", log=tmp_path / "log") as child:
        assert child.wait(10) not in (None, 0)


def test_a_log_that_cannot_be_written_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(Environment, match="cannot write"):
        spawn(python(""), name="child", log=tmp_path / "missing" / "log")


def test_signals_set_an_event_once_and_then_interrupt() -> None:
    with stop_on_signals() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
