"""A benchmark takes minutes and adds to the results: asked for help, it must do neither."""

from __future__ import annotations

from pathlib import Path

import pytest

import benchmarks
from superswarm.commands.bench import GUARD

FOLDER = Path(benchmarks.__file__).parent


@pytest.mark.parametrize("path", [p for p in FOLDER.glob("*.py") if GUARD in p.read_text()], ids=lambda p: p.stem)
def test_every_benchmark_reads_its_arguments(path: Path) -> None:
    source = path.read_text()
    assert "argparse.ArgumentParser(" in source
    assert "sys.argv" not in source
