"""The command line: light to start, and every end of a command says who must act."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer

from superswarm import __version__, cli
from superswarm.errors import DiskFull, Error, Misconfigured, PortTaken, Untrusted

HEAVY = ("torch", "flwr", "transformers", "peft", "numpy", "pydantic", "cryptography", "prometheus_client")
CANARY = "the patient's name is Canary"


@pytest.fixture(autouse=True)
def _own_crash_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPERSWARM_CRASH_DIR", str(tmp_path / "crashes"))
    monkeypatch.setattr(os, "environ", os.environ.copy())  # options of `superswarm` write there


def mount(monkeypatch: pytest.MonkeyPatch, module: str, source: str, folder: Path, **group: str) -> None:
    """Make `superswarm probe` a command whose module has this source."""
    (folder / f"{module}.py").write_text("import typer\napp = typer.Typer()\n" + source)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setitem(cli.GROUPS, "probe", cli.Group(module, "probe", cli.EVERYBODY, **group))
    monkeypatch.delitem(sys.modules, module, raising=False)


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    """Run a command that ends with `error`; return the exit code."""
    probe = typer.Typer()

    @probe.command()
    def command() -> None:
        raise error

    monkeypatch.setattr(cli.LazyCommand, "load", lambda _self: typer.main.get_command(probe))
    return cli.run(["doctor"])


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from superswarm import cli; status = cli.run(['--help']);"
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    for name in cli.GROUPS:
        assert f" {name} " in done.stdout


def test_help_is_grouped_by_user(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.index(cli.MEMBERS) < shown.index(" keys ") < shown.index(cli.OPERATORS)
    assert shown.index(cli.OPERATORS) < shown.index(" coordinator ") < shown.index(cli.EVERYBODY)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out == f"superswarm {__version__} (protocol 1)\n"


def test_a_command_is_mounted_with_its_subcommands(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = (
        "@app.callback()\ndef group(): 'A group.'\n"
        "@app.command()\ndef hello(name: str): print('hello', name)\n"
        "@app.command()\ndef seven(): raise typer.Exit(7)\n"
    )
    mount(monkeypatch, "mounted_probe", source, tmp_path)
    assert cli.run(["probe", "hello", "you"]) == 0
    assert capsys.readouterr().out == "hello you\n"
    assert cli.run(["probe", "seven"]) == 7
    assert cli.run(["probe", "--help"]) == 0
    assert "superswarm probe" in capsys.readouterr().out


@pytest.mark.parametrize("args", [["nonsense"], ["--nonsense"], ["doctor", "--nonsense"], ["doctor", "extra"]])
def test_a_mistyped_command_ends_with_2(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(args) == 2
    assert args[-1] in capsys.readouterr().err


@pytest.mark.parametrize("late", [False, True], ids=["at import", "when called"])
def test_a_missing_optional_dependency_names_the_extra(
    late: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "import flwr_that_is_not_installed.app"
    source = f"@app.command()\ndef go():\n    {line}\n" if late else f"{line}\n@app.command()\ndef go(): pass\n"
    mount(monkeypatch, f"missing_probe_{late}", source, tmp_path, extra="coordinator")
    assert cli.run(["probe"]) == 2
    shown = capsys.readouterr().err
    assert "flwr_that_is_not_installed" in shown
    assert "pip install 'superswarm[coordinator]'" in shown


def test_a_missing_module_of_our_own_is_our_bug(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mount(monkeypatch, "broken_probe", "import superswarm.no_such_module\n", tmp_path)
    assert cli.run(["probe"]) == 1
    assert "bug" in capsys.readouterr().err


def all_errors() -> list[type[Error]]:
    found: list[type[Error]] = []
    queue = [Error]
    while queue:
        found += (below := queue.pop().__subclasses__())
        queue += below
    return [kind for kind in found if kind.__module__ == "superswarm.errors" and kind.__init__ is Error.__init__]


@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.__name__)
def test_our_errors_end_with_their_code_and_one_message(
    kind: type[Error], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert raising(monkeypatch, kind("what is wrong")) == kind.exit_code
    shown = capsys.readouterr().err
    assert shown.startswith("superswarm: what is wrong\n")
    assert kind.__name__ in shown
    assert "Traceback" not in shown


def test_a_message_cannot_drive_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(monkeypatch, Untrusted("a member named \x1b]0;owned\x07"))
    assert "\x1b" not in capsys.readouterr().err


def test_failures_are_json_where_logs_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SUPERSWARM_LOG_FORMAT", "json")
    assert raising(monkeypatch, Misconfigured("no such thing")) == 2
    shown = json.loads(capsys.readouterr().err)
    assert (shown["event"], shown["fields"]) == ("no such thing", {"code": "Misconfigured", "exit_code": 2})


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, DiskFull), (errno.EADDRINUSE, PortTaken), (errno.EACCES, Error)]
)
def test_faults_of_the_machine_are_not_called_bugs(
    number: int, kind: type[Error], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert raising(monkeypatch, OSError(number, os.strerror(number), "/some/file")) == 5
    shown = capsys.readouterr().err
    assert "bug" not in shown
    if kind is not Error:
        assert kind.__name__ in shown


def test_a_bug_leaves_no_secret_on_terminal_or_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def train(secret: str) -> None:
        try:
            {}[secret]
        except KeyError as inner:
            raise ExceptionGroup(CANARY, [ValueError(secret), TypeError(secret)]) from inner

    with pytest.raises(ExceptionGroup) as caught:
        train(CANARY)
    monkeypatch.setenv("SUPERSWARM_DEBUG", "1")
    assert raising(monkeypatch, caught.value) == 1
    shown = capsys.readouterr().err
    (crash,) = (tmp_path / "crashes").iterdir()
    kept = crash.read_text()
    assert str(crash) in shown
    assert "Canary" not in shown + kept
    assert "train" in kept
    assert "KeyError (text withheld)" in kept
    assert "builtins.TypeError (text withheld)" in kept
    assert crash.stat().st_mode & 0o777 == 0o600


def test_crash_files_do_not_pile_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "crashes").mkdir()
    for number in range(40):
        (tmp_path / "crashes" / f"crash-2000{number:02}.txt").write_text("old")
    raising(monkeypatch, ValueError("x"))
    capsys.readouterr()
    assert len(list((tmp_path / "crashes").iterdir())) == 20


def test_a_bug_is_reported_where_nothing_can_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SUPERSWARM_CRASH_DIR", str(tmp_path / "file" / "below"))
    assert raising(monkeypatch, ValueError(CANARY)) == 1
    shown = capsys.readouterr().err
    assert "builtins.ValueError (text withheld)" in shown
    assert "Canary" not in shown


def test_interrupts_end_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    assert raising(monkeypatch, KeyboardInterrupt()) == 130


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=["ctrl-c", "kill", "hup"],
)
def test_signals_run_cleanup(number: signal.Signals, code: int, tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text(
        "import typer, time\napp = typer.Typer()\n@app.command()\ndef go():\n"
        "    try:\n        print('ready', flush=True); time.sleep(60)\n"
        "    finally:\n        print('cleaned', flush=True)\n"
    )
    script = (
        "from superswarm import cli; cli.GROUPS['probe'] = cli.Group('sleeper', '', ''); import sys;"
        "sys.argv[1:] = ['probe']; cli.main()"
    )
    paths = os.pathsep.join([str(tmp_path), str(Path(cli.__file__).parents[1])])
    program = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": paths}
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    program.send_signal(number)
    assert program.stdout.read() == "cleaned\n"
    assert program.wait(10) == code


def test_a_thread_that_fails_quotes_nothing(tmp_path: Path) -> None:
    script = (
        "import threading; from superswarm.io import crash; crash.install_hooks()\n"
        f"def work(): raise ValueError({CANARY!r})\n"
        "t = threading.Thread(target=work); t.start(); t.join()\n"
        f"raise RuntimeError({CANARY!r})\n"
    )
    (tmp_path / "script.py").write_text(script)
    env = os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py"], capture_output=True, text=True, env=env, check=False
    )
    assert "Canary" not in done.stderr
    assert "ValueError (text withheld)" in done.stderr
    assert "RuntimeError (text withheld)" in done.stderr


def test_a_question_that_is_denied_says_that_nothing_was_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert raising(monkeypatch, click.Abort()) == 130
    assert capsys.readouterr().err == "superswarm: not done\n"


def commands(command: click.Command, *path: str) -> Iterator[list[str]]:
    """Every command and group, by what one types to reach it."""
    yield list(path)
    if isinstance(command, cli.LazyCommand):
        command = command.load()
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from commands(below, *path, name)


@pytest.mark.parametrize("name", cli.GROUPS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for path in commands(cli.LazyCommand(name, cli.GROUPS[name]), name):
        assert cli.run([*path, "--help"]) == 0, path
        shown = capsys.readouterr().out
        assert "--help" in shown, path
        assert "--install-completion" not in shown, f"{path} would install completion for another program"


def test_help_wraps_at_the_terminals_width(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = "@app.command()\ndef go():\n    'Go.\\n\\nA paragraph\\nof two lines.\\n\\nAnd another.'\n"
    mount(monkeypatch, "wrapped_probe", source, tmp_path)
    assert cli.run(["probe", "--help"]) == 0
    assert " A paragraph of two lines. " in capsys.readouterr().out


def test_help_shows_what_stands_in_brackets(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["model", "digest", "--help"]) == 0
    assert "[@revision][/file.gguf]" in "".join(capsys.readouterr().out.split("\n"))
