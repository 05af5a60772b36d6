"""The bundle (FAB) that Flower wants of every run. Ours holds no code.

Flower reads its pyproject.toml only; nothing of ours unpacks it. If some executor of Flower's own ever ran it, it
would find no module to import, and fail.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

from flwr import __version__ as flwr_version

from superswarm import __version__

EPOCH = (1980, 1, 1, 0, 0, 0)  # the same bytes each time, so the relay stores one bundle


def inert_bundle(config: Mapping[str, str]) -> bytes:
    """A bundle without code, which lets a run override these keys (Flower refuses others)."""
    keys = "\n".join(f'{key} = ""' for key in sorted(config))
    project = f"""
[project]
name = "superswarm"
version = "{__version__}"
description = "Carries no code: superswarm's executors run only what is installed."
license = {{ file = "LICENSE" }}
dependencies = ["flwr>={flwr_version}"]

[tool.flwr.app]
publisher = "superswarm"
fab-format-version = 1
flwr-version-target = "{flwr_version}"

[tool.flwr.app.components]
serverapp = "nothing_to_run:app"
clientapp = "nothing_to_run:app"

[tool.flwr.app.config]
{keys}
"""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, text in (("pyproject.toml", project), ("LICENSE", "Apache-2.0\n")):
            bundle.writestr(zipfile.ZipInfo(name, EPOCH), text)
    return out.getvalue()
