"""The `superswarm` command: mounts the groups of the programs lazily, and ends every one of them the same way.

Importing this module, and printing help, loads nothing heavy: a group's module is imported when it is called.
"""

from __future__ import annotations

import importlib
import inspect
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Annotated, Any, NoReturn

import click
import typer
from typer.core import TyperGroup

from superswarm import __version__
from superswarm.errors import Error, Misconfigured
from superswarm.values import PROTOCOL_VERSION

MEMBERS, OPERATORS, EVERYBODY = "For members", "For operators", "For everybody"


@dataclass(frozen=True, slots=True)
class Group:
    """One line of `superswarm --help`, and the module whose `app` it stands for."""

    module: str
    help: str
    panel: str
    extra: str = ""  # the optional dependencies that it needs, as pip knows them


def _member(name: str, help_: str) -> Group:
    return Group(f"participants.commands.{name}", help_, MEMBERS, "participant")


def _operator(name: str, help_: str) -> Group:
    return Group(f"coordinator.commands.{name}", help_, OPERATORS, "coordinator")


GROUPS = {
    "keys": _member("keys", "Make a member's keys and show their public halves."),
    "manifest": _member("manifest", "Draft, check, show, sign and combine manifests."),
    "grant": _member("grant", "Write and sign run grants."),
    "model": _member("model", "Check a base model's folder and print its digest."),
    "asset": _member("asset", "Seal datasets and base models, and look into sealed ones."),
    "broker": _member("broker", "Hold asset keys, and release them to attested TEEs."),
    "participant": _member("participant", "Run the node, on the member's own premises."),
    "trainer": _member("trainer", "Run the trainer, in a TEE."),
    "result": _member("result", "List, release, open and merge the adapters that runs produced."),
    "coordinator": _operator("coordinator", "Run the relay, which carries ciphertext."),
    "aggregator": _operator("aggregator", "Run the aggregator, in a TEE."),
    "run": _operator("run", "Start and stop runs that the members granted."),
    "status": _operator("status", "Show what the relay knows of members and runs."),
    "demo": Group("superswarm.commands.demo", "Play a whole consortium on this machine.", EVERYBODY, "all"),
    "doctor": Group("superswarm.commands.doctor", "Check this machine, and say what to do.", EVERYBODY),
    "measure": Group("superswarm.commands.measure", "Compute measurements for the manifest.", EVERYBODY),
    "attest": Group("superswarm.commands.attest", "Make and judge attestation evidence.", EVERYBODY),
    "collateral": Group("superswarm.commands.collateral", "Fetch what endorses evidence.", EVERYBODY),
    "bench": Group("superswarm.commands.bench", "Repeat the measurements of benchmarks/.", EVERYBODY, "all"),
}

OURS = {"superswarm", "participants", "coordinator", "benchmarks"}
WHO_MUST_ACT = {
    2: "change the command or the configuration",
    3: "whoever made this file or message must act",
    4: "the consortium must act: this can be an attack",
    5: "act on this machine",
    6: "wait, or ask the others",
    7: "upgrade one side",
}


class LazyCommand(click.Command):
    """Stands for a group in `--help`; becomes the group when it is called."""

    def __init__(self, name: str, group: Group) -> None:
        super().__init__(name, help=group.help)
        self.group = group
        self.rich_help_panel = group.panel

    def load(self) -> click.Command:
        """Import the group's module. Raises Misconfigured where an optional dependency is missing."""
        try:
            module = importlib.import_module(self.group.module)
        except ModuleNotFoundError as error:
            raise missing_dependency(error, self.group) from None
        command = typer.main.get_command(module.app)
        command.name = self.name
        _reflow(command)
        return command

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        return self.load().make_context(info_name, args, parent=parent, **extra)


def _reflow(command: click.Command) -> None:
    """Join each paragraph of help texts to one line, which rich then wraps at the terminal's width."""
    if command.help:
        paragraphs = inspect.cleandoc(command.help).split("\n\n")
        command.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    if isinstance(command, click.Group):
        for below in command.commands.values():
            _reflow(below)


class LazyGroup(TyperGroup):
    """The top of the command line, made from GROUPS."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(GROUPS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        group = GROUPS.get(cmd_name)
        return None if group is None else LazyCommand(cmd_name, group)


def missing_dependency(error: ModuleNotFoundError, group: Group) -> Exception:
    """Say which extra brings a missing package; a module of our own that is missing is our bug."""
    package = (error.name or "").partition(".")[0]
    if package in OURS or not package:
        return error
    extra = f"[{group.extra}]" if group.extra else ""
    return Misconfigured(f"this command needs {package}, which is not installed: pip install 'superswarm{extra}'")


app = typer.Typer(cls=LazyGroup, no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it so
    if wanted:
        typer.echo(f"superswarm {__version__} (protocol {PROTOCOL_VERSION})")
        raise typer.Exit


@app.callback()
def root(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
    json_logs: Annotated[
        bool, typer.Option("--json-logs", help="Log one JSON object a line; also SUPERSWARM_LOG_FORMAT=json.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Log more, and show where a failure happened. Never shows values.")
    ] = False,
) -> None:
    """Fine-tune one adapter together; nobody sees what the others bring.

    Members run a node and a trainer, the operator a relay and an aggregator.
    Try [bold]superswarm demo[/bold] first. Each command explains itself with --help.
    """
    del version
    if json_logs:  # by the environment, so that the programs which a command starts log alike
        os.environ["SUPERSWARM_LOG_FORMAT"] = "json"
    if debug:
        os.environ["SUPERSWARM_DEBUG"] = "1"


def main() -> NoReturn:
    """Run the command line and end the process."""
    from superswarm.io import confine, crash

    crash.install_hooks()
    confine.confine()
    raise SystemExit(run(sys.argv[1:]))


def run(args: Sequence[str]) -> int:
    """Run one command to its end; return the exit code that says who must act."""
    try:
        with _stoppable():
            code = typer.main.get_command(app).main(args=list(args), prog_name="superswarm", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        from typer.rich_utils import rich_format_error

        rich_format_error(error)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt) as error:
        if isinstance(error, click.Abort) and error.__cause__ is None:  # a question that was not answered with yes
            sys.stderr.write("superswarm: not done\n")
        return 130
    except Exception as error:
        return _fail(error, args)


def _fail(error: Exception, args: Sequence[str]) -> int:
    """Report a failure in one message and return its exit code."""
    from superswarm.io import crash

    name = next((arg for arg in args if arg in GROUPS), "superswarm")
    if isinstance(error, ModuleNotFoundError) and name in GROUPS:
        error = missing_dependency(error, GROUPS[name])
    known = error if isinstance(error, Error) else crash.machine_fault(error)
    if known is None:
        crash.report(error, name)
        return 1
    note = f"{known.code}: {WHO_MUST_ACT.get(known.exit_code, 'see above')}"
    crash.say(str(known), note=note, code=known.code, exit_code=known.exit_code)
    if os.environ.get("SUPERSWARM_DEBUG"):
        sys.stderr.write(crash.redacted(error))
    return known.exit_code


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let `kill` and a closing terminal unwind like Ctrl-C does, so that cleanup runs and no process stays behind."""

    def stop(number: int, _frame: FrameType | None) -> None:
        with suppress(OSError):  # a closed terminal
            sys.stderr.write("superswarm: stopping\n")
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
