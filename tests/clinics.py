"""Members' commands in tests, as three clinics type them: every file lies in the current folder."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from superswarm.crypto import passphrase as sealing
from superswarm.errors import Error
from superswarm.values import SIMULATED_WARNING
from tests.consortia import digest, measurement

PASSPHRASE = "correct horse battery"
NAMES = ("north", "south", "west")


def settle(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everybody's files in one folder; a cheap derivation, since its cost is tested elsewhere."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SUPERSWARM_PASSPHRASE", PASSPHRASE)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(sealing, "LOG_N", 4)
    return folder


def run(*words: object, answer: str | None = None) -> str:
    """Run a command; return what it printed, or raise what it raised."""
    group, *args = [str(word) for word in words]
    app = importlib.import_module(f"participants.commands.{group}").app
    result = CliRunner().invoke(app, args, input=answer)
    if isinstance(result.exception, Error):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def make_keys(*names: str) -> None:
    for name in names:
        assert SIMULATED_WARNING in run("keys", "authority", f"{name}.authority")
        run(
            "keys", "new", name, "--name", f"{name.title()} Clinic", "--contributes", "data",
            "--authority", run("keys", "authority", f"{name}.authority", "--show").strip(),
        )  # fmt: skip


def draft(file: str = "m.toml", names: Sequence[str] = NAMES, **changes: str) -> None:
    run("manifest", "init", "--scenario", "consortium", "--out", file)
    options = {
        "name": "Three clinics",
        "coordinator": "Operator",
        "coordinator-authority": digest("operator"),
        "measurement": measurement("code"),
        "model-digest": digest("base"),
        "model-source": "hub/base",
    } | changes
    words = [word for key, value in options.items() for word in (f"--{key}", value)]
    people = [word for name in names for word in ("--member", f"{name}.member.toml", "--recipient", name)]
    run("manifest", "draft", file, *words, *people)


def sign(file: str = "m.toml", names: Sequence[str] = NAMES, *more: object) -> list[str]:
    for name in names:
        run("manifest", "sign", file, "--keys", f"{name}.keys", "--yes", *more)
    return [f"{file.partition('.')[0]}.{name}.signed.json" for name in names]


def agree() -> None:
    make_keys(*NAMES)
    draft()
    run("manifest", "combine", *sign(), "--out", "consortium.json")
