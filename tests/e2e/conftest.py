"""One deployment for all end-to-end tests: starting it is what takes the time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from superswarm.demo.stage import stage
from tests.e2e.deployment import Deployment, deploy


@pytest.fixture(scope="session")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder: Path = tmp_path_factory.mktemp("deployment")
    with stage(folder / "stage", lambda _: None) as on:
        yield deploy(on)
