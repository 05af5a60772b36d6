"""The environment of Flower's processes: offline, silent, and with a home of their own."""

from __future__ import annotations

import os
from pathlib import Path

from superswarm.errors import PortTaken


def flower_environment(home: Path) -> dict[str, str]:
    """Our environment, with Flower's telemetry, update check and package installation off."""
    return os.environ | {
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "UV_OFFLINE": "1",
        "PIP_NO_INDEX": "1",
        "PYTHONUNBUFFERED": "1",
    }


def require_free_port(host: str, port: int, *, hint: str) -> None:
    """Fail early, and by name, where another process listens."""
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortTaken(f"cannot listen on {host}:{port} ({error.strerror}): {hint}") from None


def free_loopback_port() -> int:
    """A port that was free a moment ago."""
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
