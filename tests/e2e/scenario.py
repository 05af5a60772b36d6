"""Plays a page of docs/scenarios/ as its readers would: each block by the party that its heading names, in bash."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from superswarm.demo.stage import Program, Stage
from superswarm.io.flowerenv import free_loopback_ports

PAGES = Path(__file__).parents[2] / "docs" / "scenarios"
BLOCK = re.compile(r"^```sh (?P<party>[a-z-]+)\n(?P<lines>.*?)^```$", re.MULTILINE | re.DOTALL)
PORT = "8443"
COMMAND_SECONDS = 300.0


@dataclass
class Scenario:
    """A page being played. `programs` has those that it started, by party and command."""

    stage: Stage
    page: str
    programs: dict[tuple[str, str], Program] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self._port,) = free_loopback_ports(1)
        self.stage.home("shared")
        shim = self.stage.folder / "bin" / "superswarm"
        shim.parent.mkdir()
        shim.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m superswarm "$@"\n')
        shim.chmod(0o755)

    def play(self) -> None:
        """Type every block, in the page's order."""
        blocks = list(BLOCK.finditer((PAGES / f"{self.page}.md").read_text()))
        for block in blocks:
            self.stage.home(block["party"])
        for block in blocks:
            for command in commands(block["lines"].replace(f":{PORT}", f":{self._port}")):
                if command.endswith("&"):
                    self._start(block["party"], shlex.split(command.removesuffix("&"))[1:])
                else:
                    self.type(block["party"], command)

    def type(self, party: str, command: str) -> str:
        """One command in the party's folder; its standard output. Fails with what it said."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=self.stage.home(party),
            env=self._environment(party),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{party} $ {command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def _environment(self, party: str) -> dict[str, str]:
        environment = self.stage.environment(party)
        path = os.pathsep.join([str(self.stage.folder / "bin"), environment["PATH"]])
        return environment | {"PATH": path}

    def _start(self, party: str, words: list[str]) -> None:
        if words[0] == "coordinator":
            words += ["--port", str(self._port), "--http", "off"]
        program = self.stage.start(party, *words)
        program.wait_until("ready", COMMAND_SECONDS)
        self.programs[party, words[0]] = program


def commands(block: str) -> Iterator[str]:
    """The commands of a block, each with its continued lines; comments left away."""
    for line in block.replace("\\\n", " ").splitlines():
        if line.strip() and not line.startswith("#"):
            yield line.strip()
