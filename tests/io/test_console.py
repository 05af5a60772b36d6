"""What people see: results on standard output, remarks on standard error, and no markup from strangers."""

from __future__ import annotations

import pytest

from superswarm.io import console
from superswarm.values import SIMULATED_WARNING


def test_results_and_remarks_go_to_different_streams(capsys: pytest.CaptureFixture[str]) -> None:
    console.output().print("result")
    console.messages().print("remark")
    assert capsys.readouterr() == ("result\n", "remark\n")


def test_simulation_is_said_where_somebody_will_see_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    console.warn_simulated()
    assert [record.message for record in caplog.records] == [SIMULATED_WARNING]
    monkeypatch.setattr(type(console.messages()), "is_terminal", True)
    console.warn_simulated()
    words = [word for word in capsys.readouterr().err.split() if word.isascii()]
    assert " ".join(words) == SIMULATED_WARNING


def test_a_table_shows_cells_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    console.table("Losses", ["member", "loss"], [["[red]north[/red]", 1.5], ["south", 0.00123]])
    shown = capsys.readouterr().out
    assert "[red]north[/red]" in shown
    assert "1.500" in shown
    assert "0.00123" in shown


@pytest.mark.parametrize(("count", "shown"), [(9, "9 B"), (1536, "1.5 KiB"), (2**26, "64.0 MiB"), (2**41, "2.0 TiB")])
def test_sizes(count: int, shown: str) -> None:
    assert console.size(count) == shown


@pytest.mark.parametrize(("seconds", "shown"), [(0.2, "0 s"), (75, "1 min 15 s"), (3600 * 5 + 120, "5 h 2 min")])
def test_durations(seconds: float, shown: str) -> None:
    assert console.duration(seconds) == shown
