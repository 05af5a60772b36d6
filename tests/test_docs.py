"""The documents say what is there: links lead somewhere, named tests exist, and commands are commands."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer

from superswarm import cli

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
LINK = re.compile(r"\[[^\]]*\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)")
TEST = re.compile(r"`((?:[a-z0-9_]+/)*test_[a-z_]+\.py)?(?:::(test_[a-z0-9_]+))?`")
COMMAND = re.compile(r"^superswarm (?:[^\n\\]|\\\n)*$", re.MULTILINE)
SHELL = re.compile(r"\s*(?:>\s*\S+|&)\s*$")
SPAN = re.compile(r"`superswarm ([a-z]+)(?: ([a-z]+))?[^`]*`")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert broken == []


def named_tests() -> Iterator[tuple[str, str]]:
    """Every test that the threat model names; `::test_x` alone is of the file named before it."""
    file = ""
    for path, test in TEST.findall((ROOT / "docs/threat-model.md").read_text()):
        file = path or file
        if path or test:
            yield file, test


@pytest.mark.parametrize(("file", "test"), list(named_tests()), ids=lambda value: value or "any")
def test_the_attacks_of_the_threat_model_are_played(file: str, test: str) -> None:
    source = (ROOT / "tests" / file).read_text()
    assert f"def {test}(" in source if test else "def test_" in source


def shown_commands() -> list[str]:
    """What pages tell readers to type, without what is the shell's: `> file` and `&` at the end."""
    found = {line.replace("\\\n", " ") for page in PAGES for line in COMMAND.findall(page.read_text())}
    return sorted(SHELL.sub("", line) for line in found)


@pytest.mark.parametrize("line", shown_commands())
def test_shown_commands_parse(line: str) -> None:
    """Groups, subcommands and options exist; the files that they name need not."""
    context = typer.main.get_command(cli.app).make_context("superswarm", shlex.split(line, comments=True)[1:])
    while isinstance(context.command, click.Group) and (rest := [*context._protected_args, *context.args]):
        name, command, args = context.command.resolve_command(context, rest)
        if isinstance(command, cli.LazyCommand):
            _require_module(command.group.module)
        assert command is not None
        try:
            context = command.make_context(name, args, parent=context)
        except click.BadParameter as error:
            assert "exist" in error.message  # noqa: PT017 - a file that a reader will have
            return


def _require_module(module: str) -> None:
    if importlib.util.find_spec(module.rpartition(".")[0]) is None or importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not part of this version")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_in_the_text_are_groups(page: Path) -> None:
    groups = {group for group, _ in SPAN.findall(page.read_text())} - {"command"}
    assert groups <= set(cli.GROUPS)


def test_every_group_is_documented() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    assert [group for group in cli.GROUPS if f"superswarm {group}" not in text and f"`{group}`" not in text] == []
