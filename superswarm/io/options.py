"""Command-line options made from a configuration model, so that every field can be given as a flag.

@app.command("up")
@with_config(TrainerConfig, "trainer")
def up(config: TrainerConfig) -> None: ...
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import typer
from pydantic.fields import FieldInfo

from superswarm.io.config import Config, ConfigT, env_name, is_list, is_path, load_config, meaning
from superswarm.io.example import effective, example
from superswarm.io.files import write_bytes

R = TypeVar("R")


def with_config(model: type[ConfigT], program: str) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Give a command one flag per field of `model` and `--config`; call it with the loaded configuration."""

    def decorate(command: Callable[..., R]) -> Callable[..., R]:
        def wrapper(**given: Any) -> R:
            flags = {name: None if (value := given.pop(name)) == [] else value for name in model.model_fields}
            config = load_config(model, program, given.pop("config_file"), flags)
            return command(config, **given)

        hints = get_type_hints(command, include_extras=True)
        own = list(inspect.signature(command).parameters.values())[1:]
        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters = [p.replace(annotation=hints[p.name], kind=keyword) for p in own]
        parameters.append(inspect.Parameter("config_file", keyword, default=None, annotation=_file(program)))
        parameters += [
            inspect.Parameter(name, keyword, default=None, annotation=_option(name, field, program))
            for name, field in model.model_fields.items()
        ]
        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
        wrapper.__name__ = command.__name__
        wrapper.__doc__ = command.__doc__
        return wrapper

    return decorate


def _panel(program: str) -> str:
    return f"Configuration (or {env_name(program, '<FIELD>')}, or in the file)"


def _file(program: str) -> Any:
    option = typer.Option(
        "--config",
        help=f"The TOML file; `superswarm {program} config` writes one to begin with.",
        metavar="FILE",
        show_default=False,
        rich_help_panel=_panel(program),
    )
    return Annotated[Path | None, option]


def _option(name: str, field: FieldInfo, program: str) -> Any:
    kind: Any = list[str] | None if is_list(field) else str | None
    option = typer.Option(
        f"--{name.replace('_', '-')}",
        help=meaning(field) + _default(field),
        metavar=_metavar(field),
        show_default=False,
        rich_help_panel=_panel(program),
    )
    return Annotated[kind, option]


def _default(field: FieldInfo) -> str:
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    if default is None or default == ():
        return ""
    return f" \\[default: {', '.join(default) if isinstance(default, tuple) else default}]"


def _metavar(field: FieldInfo) -> str:
    choices = [c for part in (field.annotation, *get_args(field.annotation)) for c in get_args(part)]
    if get_origin(field.annotation) is not None and choices and all(isinstance(c, str) for c in choices):
        return "|".join(choices)
    if is_path(field):
        return "PATH"
    return "NUMBER" if field.annotation is int else "TEXT"


def add_config_command(app: typer.Typer, model: type[Config], program: str) -> None:
    """Give a program's group its `config` command."""

    @app.command("config")
    def config(
        *,
        out: Annotated[Path | None, typer.Option(help="Write the commented example to this new file.")] = None,
        show: Annotated[bool, typer.Option("--show", help="Show the configuration in force instead.")] = False,
        file: Annotated[Path | None, typer.Option("--config", help="With --show: the file to read.")] = None,
    ) -> None:
        """Write a commented configuration file, or show the one in force and where each value is from."""
        if show:
            typer.echo(effective(model, program, file, {}), nl=False)
        elif out is not None:
            write_bytes(out, example(model, program).encode())
            typer.echo(f"wrote {out}: fill it in, then run: superswarm {program} up --config {out}")
        else:
            typer.echo(example(model, program), nl=False)
