"""`superswarm bench` finds benchmarks and hands them their arguments."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from superswarm import cli


@pytest.fixture(autouse=True)
def _benchmarks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package of its own in place of ours, whose results would change."""
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "shared.py").write_text('"""What benchmarks share."""\n')
    (folder / "probe.py").write_text(
        '"""What a probe costs.\n\nMore."""\nimport sys\nif __name__ == "__main__":\n    print("ran", sys.argv)\n'
    )
    (folder / "broken.py").write_text('"""Broken."""\nif __name__ == "__main__":\n    import not_installed_at_all\n')
    for module in [name for name in sys.modules if name.partition(".")[0] == "benchmarks"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for module in [name for name in sys.modules if name.partition(".")[0] == "benchmarks"]:
        del sys.modules[module]


def test_benchmarks_are_listed_without_running(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["bench"]) == 0
    shown = capsys.readouterr().out
    assert "What a probe costs." in shown
    assert "shared" not in shown
    assert "ran" not in shown


def test_a_benchmark_gets_its_own_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    before = list(sys.argv)
    assert cli.run(["bench", "probe", "--steps", "3", "x"]) == 0
    assert "'--steps', '3', 'x']" in capsys.readouterr().out
    assert sys.argv == before


def test_an_unknown_benchmark_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["bench", "nothing"]) == 2
    assert "broken, probe" in capsys.readouterr().err


def test_a_benchmark_that_lacks_a_package_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["bench", "broken"]) == 2
    assert "not_installed_at_all" in capsys.readouterr().err


def test_a_benchmarks_own_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["bench", "probe", "--help"]) == 0
    assert "'--help']" in capsys.readouterr().out
    assert cli.run(["bench", "--help"]) == 0
    assert "Usage: superswarm bench" in capsys.readouterr().out
