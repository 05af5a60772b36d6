"""Configuration files for people: a commented one to begin with, and the one in force with its sources."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from superswarm.io.config import Config, env_name, gather, load_config


def example(model: type[Config], program: str) -> str:
    """A complete file with every field explained; what may stay at its default is commented out."""
    lines = [
        f"# Configuration of `superswarm {program} up --config FILE`.",
        f"# A flag wins over the environment ({env_name(program, '<FIELD>')}), which wins over this file.",
        "# Relative paths start at this file's folder.",
        "",
    ]
    for name, field in model.model_fields.items():
        lines += [f"# {line}" for line in (field.description or name).splitlines()]
        if field.is_required():
            lines += [f"{name} = {_toml((field.examples or [''])[0])}", ""]
        else:
            default = field.get_default(call_default_factory=True)
            shown = default if default not in (None, ()) else (field.examples or [""])[0]
            lines += [f"# {name} = {_toml(shown)}", ""]
    return "\n".join(lines)


def _toml(value: object) -> str:
    """One value as TOML: text, numbers, booleans and lists of text are all that a configuration holds."""
    match value:
        case bool() | int() | float():
            return str(value).lower()
        case list() | tuple():
            return f"[{', '.join(_toml(item) for item in value)}]"
        case _:
            return json.dumps(str(value), ensure_ascii=False)


def effective(model: type[Config], program: str, file: Path | None, flags: Mapping[str, object]) -> str:
    """The configuration in force, one field a line, each with the source that won."""
    config = load_config(model, program, file, flags)
    settings = gather(model, program, file, flags)
    lines = []
    for name in model.model_fields:
        value = getattr(config, name)
        line = f"# {name} is not set" if value is None else f"{name} = {_toml(value)}"
        lines.append(f"{line}  # {settings[name].source if name in settings else 'default'}")
    return "\n".join(lines) + "\n"
