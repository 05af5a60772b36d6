"""Configuration: one TOML file per program, then the environment, then flags; what comes later wins.

A program's fields are a frozen pydantic model. Field `relay_ca` of program `trainer` is `relay_ca` in the file,
`SUPERSWARM_TRAINER_RELAY_CA` in the environment and `--relay-ca` on the command line. A name that no field has is
refused wherever it stands, since a setting that is silently ignored is a fault that nobody finds.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from superswarm.errors import Misconfigured

FILE_BYTES = 1024 * 1024
SCHEME = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]+)(?:://|::)", re.IGNORECASE)
"""How an address begins, which tells it from a path."""
HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9a-fA-F:.]+\]")


class PathLike:
    """Marks a text field that may name a folder: it does where it begins with `/`, `./`, `../` or `~`."""


class NamedPlaces:
    """Marks a list of texts NAME=PLACE, where a place without a scheme (`https://`, `s3://`) is a path."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen or connect: `host:port`, with an IPv6 host in brackets."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `host:port`; Misconfigured otherwise."""
        host, _, port = text.rpartition(":")
        if not HOST.fullmatch(host) or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65_535:
            raise Misconfigured("an address is written host:port, such as localhost:8443 or [::1]:8443")
        return cls(host.strip("[]"), int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return self.host in {"localhost", "::1"} or self.host.startswith("127.")


def _address(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return Address.parse(value)
    except Misconfigured as error:
        raise ValueError(str(error)) from None


RelayAt = Annotated[Address, BeforeValidator(_address)]
BrokerAt = Annotated[Address | None, BeforeValidator(lambda value: None if value == "embedded" else _address(value))]
ListenAt = Annotated[Address | None, BeforeValidator(lambda value: None if value == "off" else _address(value))]
LogFormat = Literal["human", "json"]


class Config(BaseModel):
    """Base of every program's configuration: frozen, and closed to unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


ConfigT = TypeVar("ConfigT", bound=Config)


@dataclass(frozen=True, slots=True)
class Setting:
    """One value as it was given, and where: what an error message points at."""

    value: object
    source: str


def load_config(
    model: type[ConfigT],
    program: str,
    file: Path | None = None,
    flags: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
) -> ConfigT:
    """Build a program's configuration from file, environment and flags. Raises Misconfigured naming every fault.

    A flag whose value is None was not given. Without `file`, `SUPERSWARM_<PROGRAM>_CONFIG` may name one. Relative
    paths in a file start at the file's folder; those of flags and environment at the working directory.
    """
    settings = gather(model, program, file, flags, environment)
    try:
        return model.model_validate({name: setting.value for name, setting in settings.items()})
    except ValidationError as error:
        raise Misconfigured(_explain(error, model, program, settings)) from None


def gather(
    model: type[Config],
    program: str,
    file: Path | None = None,
    flags: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Setting]:
    """Every field that was given, with the source that wins."""
    environment = os.environ if environment is None else environment
    prefix = env_name(program, "")
    if file is None and (named := environment.get(prefix + "CONFIG")):
        file = Path(named)
    settings = _from_file(model, file) if file is not None else {}
    for variable, text in environment.items():
        name = variable.removeprefix(prefix).lower()
        if not variable.startswith(prefix) or variable == prefix + "CONFIG":
            continue
        if name not in model.model_fields:
            raise Misconfigured(f"the environment variable {variable} names no setting; {_allowed(model)}")
        value = (
            [part.strip() for part in text.split(",") if part.strip()] if is_list(model.model_fields[name]) else text
        )
        settings[name] = Setting(_resolve(model, name, value, Path.cwd()), variable)
    for name, given in (flags or {}).items():
        if name not in model.model_fields:
            raise TypeError(f"{model.__name__} has no field {name}")  # our bug
        if given is not None:
            settings[name] = Setting(_resolve(model, name, given, Path.cwd()), f"--{name.replace('_', '-')}")
    return settings


def env_name(program: str, field: str) -> str:
    """The environment variable of a program's field."""
    return f"SUPERSWARM_{program}_{field}".upper().replace("-", "_")


def _from_file(model: type[Config], file: Path) -> dict[str, Setting]:
    try:
        with file.open("rb") as stream:
            raw = stream.read(FILE_BYTES + 1)
        if len(raw) > FILE_BYTES:
            raise Misconfigured(f"{file} has over {FILE_BYTES} bytes: it is no configuration file")
        data = tomllib.loads(raw.decode())
    except OSError as error:
        raise Misconfigured(f"cannot read the configuration file {file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Misconfigured(f"{file} is not TOML: {error}") from None
    if unknown := sorted(set(data) - set(model.model_fields)):
        raise Misconfigured(f"{file} sets {', '.join(unknown[:8])}, which is no setting; {_allowed(model)}")
    base = file.absolute().parent
    return {name: Setting(_resolve(model, name, value, base), str(file)) for name, value in data.items()}


def _resolve(model: type[Config], name: str, value: object, base: Path) -> object:
    """Make a path absolute, from where it was written; leave everything else as it is."""
    field = model.model_fields[name]
    if isinstance(value, list | tuple) and any(isinstance(mark, NamedPlaces) for mark in field.metadata):
        return [_resolve_place(place, base) for place in value]
    if not isinstance(value, str | Path) or not (is_path(field) or _looks_like_path(field, value)):
        return value
    if not str(value).strip():
        return value
    try:
        return type(value)(base / Path(value).expanduser())
    except RuntimeError:
        raise Misconfigured(f"{name}: ~ stands for a home directory, and this user has none") from None


def _resolve_place(setting: object, base: Path) -> object:
    name, equals, place = setting.partition("=") if isinstance(setting, str) else ("", "", "")
    if not equals or not place or SCHEME.match(place):
        return setting
    return f"{name}={base / place}"


def _looks_like_path(field: FieldInfo, value: str | Path) -> bool:
    marked = any(isinstance(mark, PathLike) for mark in field.metadata)
    return marked and (str(value) in {".", ".."} or str(value).startswith(("/", "./", "../", "~")))


def is_path(field: FieldInfo) -> bool:
    """Whether a field holds a path."""
    return field.annotation is Path or Path in get_args(field.annotation)


def is_list(field: FieldInfo) -> bool:
    """Whether a field holds several texts."""
    return get_origin(field.annotation) is tuple


def meaning(field: FieldInfo) -> str:
    """What a field is for, as one line: its description is wrapped for a file."""
    return " ".join((field.description or "").split())


def _allowed(model: type[Config]) -> str:
    return f"the settings are {', '.join(sorted(model.model_fields))}"


def _explain(error: ValidationError, model: type[Config], program: str, settings: Mapping[str, Setting]) -> str:
    lines = [f"the configuration of {program} has faults:"]
    for fault in error.errors(include_url=False, include_input=False, include_context=False):
        name = str(fault["loc"][0]) if fault["loc"] else ""
        what = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "missing":
            ways = f"{name} in the file, {env_name(program, name)} or --{name.replace('_', '-')}"
            lines.append(f"  {name} is missing: set {ways}. {meaning(model.model_fields[name])}".rstrip())
        elif name in settings:
            lines.append(f"  {name} (from {settings[name].source}): {what[:1].lower()}{what[1:]}")
        else:
            lines.append(f"  {what}")
    return "\n".join(lines)
