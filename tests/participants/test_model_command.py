"""`superswarm model digest`."""

from __future__ import annotations

from pathlib import Path

import pytest

from participants.models import model_digest
from superswarm import cli
from tests.tiny import tiny_model


def test_digest_is_all_that_standard_output_gets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny_model(tmp_path / "model")
    assert cli.run(["model", "digest", str(folder)]) == 0
    shown = capsys.readouterr()
    assert shown.out == f"{model_digest(folder)}\n"
    assert "model.safetensors" in shown.err


@pytest.mark.parametrize(("file", "code"), [("pytorch_model.bin", 3), (None, 2)])
def test_refusals_have_their_exit_codes(tmp_path: Path, file: str | None, code: int) -> None:
    folder = tmp_path / "model"
    if file is not None:
        folder.mkdir()
        (folder / file).touch()
    assert cli.run(["model", "digest", str(folder), "--offline"]) == code
