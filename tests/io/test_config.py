"""Configuration: what wins, what is refused, and what the message says."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import typer
from pydantic import ValidationError
from typer.testing import CliRunner

from coordinator.config import AggregatorConfig, CoordinatorConfig
from participants.config import ParticipantConfig, TrainerConfig
from superswarm.errors import Misconfigured
from superswarm.io.config import Address, Config, load_config
from superswarm.io.example import effective, example
from superswarm.io.options import add_config_command, with_config

ALL = {
    "participant": ParticipantConfig,
    "trainer": TrainerConfig,
    "coordinator": CoordinatorConfig,
    "aggregator": AggregatorConfig,
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "etc" / "coordinator.toml"
    path.parent.mkdir()
    path.write_text('port = 1000\nstate = "here"\nnames = ["relay.example.org"]\n')
    return path


def load(file: Path | None = None, flags: dict[str, object] | None = None, **env: str) -> CoordinatorConfig:
    return load_config(CoordinatorConfig, "coordinator", file, flags, env)


def test_each_source_wins_over_the_one_before(file: Path) -> None:
    port = "SUPERSWARM_COORDINATOR_PORT"
    assert load().port == 8443
    assert load(file).port == 1000
    assert load(file, **{port: "1001"}).port == 1001
    assert load(file, {"port": "1002"}, **{port: "1001"}).port == 1002
    assert load(file, {"port": None}, **{port: "1001"}).port == 1001


def test_the_environment_can_name_the_file(file: Path) -> None:
    assert load(SUPERSWARM_COORDINATOR_CONFIG=str(file)).port == 1000


def test_paths_start_where_they_are_written(file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert load(file).state == file.parent / "here"
    assert load(file, {"state": "there"}).state == Path.cwd() / "there"
    assert load(file, SUPERSWARM_COORDINATOR_STATE="/there").state == Path("/there")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load(file, {"state": "~/relay"}).state == tmp_path / "relay"


@pytest.mark.parametrize(
    ("written", "read"),
    [("./model", "{}/model"), ("../model", "{}/../model"), ("/model", "/model"), ("owner/model", "owner/model")],
)
def test_a_model_is_a_folder_only_where_written_as_one(written: str, read: str, tmp_path: Path) -> None:
    text = example(TrainerConfig, "trainer").replace('# model = "./model"', f'model = "{written}"')
    (tmp_path / "trainer.toml").write_text(text)
    config = load_config(TrainerConfig, "trainer", tmp_path / "trainer.toml", environment={})
    assert config.model is not None
    assert Path(config.model) == Path(read.format(tmp_path))


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("base=./base.sealed", "base={}/base.sealed"),
        ("base=base.sealed", "base={}/base.sealed"),
        ("base=/srv/base.sealed", "base=/srv/base.sealed"),
        ("base=https://example.org/a=b", "base=https://example.org/a=b"),
        ("base=s3://bucket/base", "base=s3://bucket/base"),
        ("nothing", "nothing"),
    ],
)
def test_places_of_assets_start_at_the_files_folder(written: str, read: str, tmp_path: Path) -> None:
    text = example(TrainerConfig, "trainer") + f'asset = ["{written}"]\n'
    (tmp_path / "trainer.toml").write_text(text)
    config = load_config(TrainerConfig, "trainer", tmp_path / "trainer.toml", environment={})
    assert config.asset == (read.format(tmp_path),)


def test_lists_are_separated_by_commas_in_the_environment() -> None:
    names = load(SUPERSWARM_COORDINATOR_NAMES="relay.example.org, 10.0.0.1").names
    assert names == ("relay.example.org", "10.0.0.1")


def test_http_can_be_switched_off() -> None:
    assert load().http == Address("127.0.0.1", 9180)
    assert load(flags={"http": "off"}).http is None


@pytest.mark.parametrize(
    ("flags", "env", "said"),
    [
        ({"port": "70000"}, {}, ["port (from --port)", "less than or equal to 65535"]),
        ({}, {"SUPERSWARM_COORDINATOR_PORT": "x"}, ["port (from SUPERSWARM_COORDINATOR_PORT)", "valid integer"]),
        ({"log_format": "xml"}, {}, ["log_format (from --log-format)", "'human' or 'json'"]),
        ({"http": "nowhere"}, {}, ["http (from --http)", "host:port"]),
        ({}, {"SUPERSWARM_COORDINATOR_PROT": "1"}, ["SUPERSWARM_COORDINATOR_PROT", "settings are host, http"]),
    ],
)
def test_a_fault_names_field_source_and_what_is_allowed(
    flags: dict[str, object], env: dict[str, str], said: list[str]
) -> None:
    with pytest.raises(Misconfigured) as caught:
        load(None, flags, **env)
    for part in said:
        assert part in str(caught.value)


def test_every_fault_is_told_at_once() -> None:
    with pytest.raises(Misconfigured) as caught:
        load_config(AggregatorConfig, "aggregator", None, {"relay": "x"}, {})
    for field in (
        "manifest is missing",
        "SUPERSWARM_AGGREGATOR_RELAY_CA",
        "--superexec-secret",
        "relay (from --relay)",
    ):
        assert field in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"prot = 1\n", "prot"),
        (b"port = \n", "not TOML"),
        (b"\xff\xfe", "not TOML"),
        (b"a = " + b"[" * 5000, "not TOML"),
        (b"#" * (1024 * 1024 + 1), "no configuration file"),
        (None, "No such file"),
    ],
    ids=["unknown field", "broken", "binary", "deep", "large", "absent"],
)
def test_a_bad_file_is_refused(content: bytes | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "coordinator.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Misconfigured, match=said):
        load(path)


def test_an_unknown_flag_is_our_bug() -> None:
    with pytest.raises(TypeError):
        load(None, {"prot": 1})


def test_a_configuration_cannot_change(file: Path) -> None:
    config = load(file)
    with pytest.raises(ValidationError):
        config.port = 1  # type: ignore[misc]


@pytest.mark.parametrize("text", ["host:1", "127.0.0.1:65535", "[::1]:8443", "relay.example.org:443"])
def test_addresses(text: str) -> None:
    assert str(Address.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["host", ":1", "host:", "host:70000", "host:-1", "::1:80", "http://host:1", "a b:1", "host:1\n", "host:٣"]
)
def test_other_texts_are_no_addresses(text: str) -> None:
    with pytest.raises(Misconfigured):
        Address.parse(text)


@pytest.mark.parametrize("program", ALL)
def test_the_example_file_loads_and_explains_every_field(program: str, tmp_path: Path) -> None:
    text = example(ALL[program], program)
    path = tmp_path / "example.toml"
    path.write_text(text)
    config = load_config(ALL[program], program, path, environment={})
    for name, field in ALL[program].model_fields.items():
        assert field.description, name
        assert f"{name} = " in text
    everything = tomllib.loads("\n".join(line.removeprefix("# ") for line in text.splitlines() if " = " in line))
    assert set(everything) == set(ALL[program].model_fields)
    assert load_config(ALL[program], program, None, everything, {}).model_fields_set > config.model_fields_set


def test_the_configuration_in_force_shows_where_each_value_is_from(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUPERSWARM_COORDINATOR_HOST", "0.0.0.0")  # noqa: S104
    shown = effective(CoordinatorConfig, "coordinator", file, {"http": "off"})
    assert f"port = 1000  # {file}" in shown
    assert 'host = "0.0.0.0"  # SUPERSWARM_COORDINATOR_HOST' in shown
    assert "# http is not set  # --http" in shown
    assert 'log_format = "human"  # default' in shown


def up(app: typer.Typer) -> list[Config]:
    seen: list[Config] = []

    @app.command("up")
    @with_config(CoordinatorConfig, "coordinator")
    def command(config: CoordinatorConfig, *, once: bool = False) -> None:
        assert once
        seen.append(config)

    return seen


def test_every_field_is_a_flag(file: Path) -> None:
    app = typer.Typer()
    seen = up(app)
    add_config_command(app, CoordinatorConfig, "coordinator")
    args = ["up", "--once", "--config", str(file), "--port", "7", "--names", "a", "--names", "b"]
    done = CliRunner().invoke(app, args, catch_exceptions=False)
    assert done.exit_code == 0
    (config,) = seen
    assert isinstance(config, CoordinatorConfig)
    assert (config.port, config.names, config.state) == (7, ("a", "b"), file.parent / "here")


def test_help_has_every_word_of_a_setting_and_its_default() -> None:
    app = typer.Typer()

    @app.command("up")
    @with_config(TrainerConfig, "trainer")
    def command(config: TrainerConfig) -> None:
        del config

    shown = " ".join(CliRunner().invoke(app, ["--help"], catch_exceptions=False).output.replace("│", " ").split())
    assert "the node knows its own trainer among all that run the same code. It opens nothing." in shown
    assert "No plaintext is written there. [default: trainer-state]" in shown


def test_config_writes_a_new_file_only(tmp_path: Path) -> None:
    app = typer.Typer()
    up(app)
    add_config_command(app, CoordinatorConfig, "coordinator")
    path = tmp_path / "relay.toml"
    assert CliRunner().invoke(app, ["config", "--out", str(path)]).exit_code == 0
    assert path.read_text() == example(CoordinatorConfig, "coordinator")
    again = CliRunner().invoke(app, ["config", "--out", str(path)])
    assert isinstance(again.exception, Misconfigured)
    assert list(tmp_path.iterdir()) == [path]
