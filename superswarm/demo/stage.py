"""The stage: runs the real commands for every party of a demo, each with a folder and a passphrase of its own."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from superswarm.errors import Environment, Error, Unavailable
from superswarm.io.processes import Child, Children, spawn

COMMAND = (sys.executable, "-m", "superswarm")
COMMAND_SECONDS = 120.0
WORK_SECONDS = 12 * 3600.0  # for commands that train or score
READY_SECONDS = 300.0


class StepFailed(Error):
    """A command of the demo failed; its exit code is passed on."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # this one error speaks for another program


@dataclass
class Stage:
    """All parties of a demo. `show` prints each command; programs stop when the stage closes."""

    folder: Path
    show: Callable[[str], None]
    threads: int = 1
    children: Children = field(default_factory=Children)
    _passphrases: dict[str, str] = field(default_factory=dict)

    def home(self, party: str) -> Path:
        """A party's folder, for its owner only."""
        path = self.folder / party
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path

    def environment(self, party: str) -> dict[str, str]:
        """A party's environment: its own passphrase, no hub, and as many threads as it may use."""
        passphrase = self._passphrases.setdefault(party, secrets.token_urlsafe(24))
        ours = {
            "SUPERSWARM_PASSPHRASE": passphrase,
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": str(self.threads),
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        return {**os.environ, **ours}

    def run(self, party: str, *args: str | Path, seconds: float = COMMAND_SECONDS) -> str:
        """Run one command as this party, in its folder; its standard output.

        Raises StepFailed if it fails, Unavailable if it takes longer than `seconds`.
        """
        words = [str(arg) for arg in args]
        self.show(f"{party:>10} $ superswarm {' '.join(words)}")
        try:
            done = subprocess.run(
                [*COMMAND, *words],
                cwd=self.home(party),
                env=self.environment(party),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Unavailable(f"superswarm {' '.join(words)}\nis not done after {seconds:.0f} s") from None
        if done.returncode != 0:
            last = "\n".join(done.stderr.strip().splitlines()[-6:])
            raise StepFailed(f"superswarm {' '.join(words)}\n{last}", done.returncode)
        return done.stdout

    def start(self, party: str, *args: str | Path) -> Program:
        """Start one long-running program as this party; its log is JSON lines in its folder."""
        words = [str(arg) for arg in args]
        self.show(f"{party:>10} $ superswarm {' '.join(words)} &")
        log = self.home(party) / f"{words[0]}.log"
        environment = self.environment(party) | {"SUPERSWARM_LOG_FORMAT": "json"}
        written = log.stat().st_size if log.exists() else 0  # by the program's earlier life
        child = spawn(
            [*COMMAND, *words],
            name=f"{party}/{words[0]}",
            log=log,
            environment=environment,
            folder=self.home(party),
        )
        return Program(self.children.add(child), log, written)

    def check(self) -> None:
        """Raise StepFailed if a program has ended."""
        for child in self.children.ended():
            raise StepFailed(f"{child.name} ended with exit code {child.exit_code}", child.exit_code or 1)


@dataclass
class Program:
    """A running program and its log."""

    child: Child
    log: Path
    _read: int = 0

    def news(self) -> Iterator[dict[str, Any]]:
        """Log entries that were written since the last call."""
        if not self.log.exists():
            return
        with self.log.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # a line of a library that knows no JSON
            if isinstance(entry, dict):
                yield entry

    def last_words(self) -> str:
        """The end of the log, for people."""
        lines = self.log.read_text(errors="replace").strip().splitlines() if self.log.exists() else []
        return "\n".join(lines[-5:])

    def wait_until(self, event: str, seconds: float = READY_SECONDS) -> None:
        """Wait for an event in the log. StepFailed if the program ends first, Unavailable if it takes too long."""
        end = time.monotonic() + seconds
        while True:
            if any(entry.get("event") == event for entry in self.news()):
                return
            if not self.child.running:
                code = self.child.exit_code or 1
                raise StepFailed(f"{self.child.name} ended:\n{self.last_words()}", code if code > 0 else 1)
            if time.monotonic() > end:
                raise Unavailable(f"{self.child.name} is not ready after {seconds:.0f} s:\n{self.last_words()}")
            time.sleep(0.1)


@contextmanager
def stage(folder: Path, show: Callable[[str], None], *, threads: int = 1) -> Iterator[Stage]:
    """Open a stage in an empty folder; every program that it started is stopped at the end, whatever happens."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise Environment(f"{folder} is not empty: name a new folder, or remove it")
    except OSError as error:
        raise Environment(f"cannot use {folder}: {error.strerror}") from None
    with Children() as children:
        yield Stage(folder.resolve(), show, threads, children)
