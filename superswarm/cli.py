"""The `superswarm` command: mounts the groups of the programs lazily."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    raise SystemExit("no commands are mounted yet")
