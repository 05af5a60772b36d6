"""The simulated measurement changes with every file of the packages, and with nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

import coordinator
import participants
import superswarm
from superswarm.attestation.measure import measure_folders, measure_packages
from superswarm.commands.measure import app
from superswarm.errors import Environment

PACKAGES = [Path(str(package.__file__)).parent for package in (superswarm, participants, coordinator)]


@pytest.fixture
def copies(tmp_path: Path) -> list[Path]:
    return [Path(shutil.copytree(folder, tmp_path / "elsewhere" / folder.name)) for folder in PACKAGES]


def test_a_copy_elsewhere_measures_the_same(copies: list[Path]) -> None:
    assert measure_folders(copies) == measure_packages() == measure_folders(reversed(copies))


def edit_a_line(folder: Path) -> None:
    path = folder / "errors.py"
    path.write_text(path.read_text().replace("exit_code = 4", "exit_code = 0"))


def append_a_blank(folder: Path) -> None:
    with (folder / "values.py").open("a") as file:
        file.write("\n")


def add_a_file(folder: Path) -> None:
    (folder / "sitecustomize.py").touch()


def add_a_compiled_file(folder: Path) -> None:
    """Python runs such a file when there is no source beside it."""
    (folder / "backdoor.pyc").write_bytes(b"code")


def remove_a_file(folder: Path) -> None:
    (folder / "py.typed").unlink(missing_ok=True)
    (folder / "attestation" / "der.py").unlink()


def rename_a_file(folder: Path) -> None:
    (folder / "wire.py").rename(folder / "wires.py")


def swap_two_files(folder: Path) -> None:
    first, second = folder / "wire.py", folder / "values.py"
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)


@pytest.mark.parametrize(
    "change",
    [edit_a_line, append_a_blank, add_a_file, add_a_compiled_file, remove_a_file, rename_a_file, swap_two_files],
)
def test_every_change_of_the_code_changes_the_measurement(change: Callable[[Path], None], copies: list[Path]) -> None:
    change(copies[0])
    assert measure_folders(copies) != measure_packages()


def test_caches_do_not_count(copies: list[Path]) -> None:
    cache = copies[1] / "__pycache__"
    cache.mkdir(exist_ok=True)
    (cache / "x.cpython-311.pyc").write_bytes(b"cache")
    assert measure_folders(copies) == measure_packages()


def test_file_boundaries_count(tmp_path: Path) -> None:
    """The same bytes under another division into names and contents."""
    results = set()
    for name, content in (("ab", b"c"), ("a", b"bc"), ("abc", b"")):
        folder = tmp_path / name / "package"
        folder.mkdir(parents=True)
        (folder / name).write_bytes(content)
        results.add(measure_folders([folder]))
    assert len(results) == 3


def test_links_are_refused(copies: list[Path]) -> None:
    (copies[0] / "more").symlink_to("/etc")
    with pytest.raises(Environment):
        measure_folders(copies)


def test_the_command_prints_what_a_manifest_lists() -> None:
    result = CliRunner().invoke(app, ["--simulated"])
    assert result.exit_code == 0
    assert f'measurements = ["{measure_packages()}"]' in result.output
    assert "protects nothing" in result.output
    quiet = CliRunner().invoke(app, ["--simulated", "--quiet"])
    assert quiet.output.strip() == str(measure_packages())
