"""`superswarm bench`: repeat a measurement of benchmarks/ on this machine."""

from __future__ import annotations

import ast
import importlib.util
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from superswarm.errors import Environment, Misconfigured
from superswarm.io.console import messages, table

GUARD = '__name__ == "__main__"'  # what tells a benchmark from what benchmarks share
HELP = "--help"
PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}

app = typer.Typer(add_completion=False)


@app.command(context_settings=PASS_ON)
def bench(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="The benchmark. Without it, they are listed.")] = None,
) -> None:
    """Repeat a measurement of benchmarks/ on this machine; further arguments are the benchmark's own.

    `superswarm bench NAME --help` shows those. Results are ratios measured in one run, and are added to
    benchmarks/results with commit and machine.
    """
    if name == HELP:
        typer.echo(context.get_help(), nl=False)
        return
    found = dict(benchmarks())
    if name is None:
        table("", ["benchmark", "what it measures"], sorted(found.items()))
        return
    if name not in found:
        raise Misconfigured(f"no benchmark is called {name[:40]}; there are {', '.join(sorted(found))}")
    if HELP not in context.args:
        messages().print(found[name], markup=False)
    arguments, sys.argv = sys.argv, [name, *context.args]
    try:
        runpy.run_module(f"benchmarks.{name}", run_name="__main__", alter_sys=True)
    finally:
        sys.argv = arguments


def benchmarks() -> Iterator[tuple[str, str]]:
    """Each benchmark's name, and the first line of what it says it measures. Imports none of them."""
    spec = importlib.util.find_spec("benchmarks")
    if spec is None or spec.origin is None:
        raise Environment("the benchmarks are not installed: run this in a clone of the repository")
    for path in sorted(Path(spec.origin).parent.glob("*.py")):
        source = path.read_text(encoding="utf-8")
        if GUARD in source:
            yield path.stem, (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
