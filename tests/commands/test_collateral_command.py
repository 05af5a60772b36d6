"""`superswarm collateral show` tells an empty folder from good collateral."""

from __future__ import annotations

from pathlib import Path

import pytest

from superswarm import cli


def test_an_empty_folder_is_no_collateral(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["collateral", "show", str(tmp_path)]) == 2
    assert "holds no collateral" in capsys.readouterr().err
