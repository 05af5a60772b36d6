"""What a node vouched for, on disk: one aggregator a run attempt, also after a restart."""

from __future__ import annotations

from pathlib import Path

from superswarm.consortium.documents import dump_json, load_json, require_fields
from superswarm.errors import Malformed, SecondAggregator
from superswarm.io.files import SECRET, locked, read_bytes, write_bytes
from superswarm.values import LIMITS, Digest

FORMAT = "superswarm-vouches/1"
WHAT = "record of vouches"


class DurableVouchRecord:
    """A file with the newest attempt of each run and the aggregator's session keys in it.

    Older attempts need no entry: they are refused for being older.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def claim(self, run: str, attempt: int, session: Digest) -> None:
        """Record, on disk before it returns. SecondAggregator for a rival of this attempt, or for an older one."""
        with locked(self._file):
            runs = self._read()
            newest, holder = runs.get(run, (0, ""))
            if attempt < newest:
                raise SecondAggregator(f"attempt {newest} of {run} has begun; attempt {attempt} is over")
            if attempt == newest and holder != str(session):
                raise SecondAggregator(f"another aggregator was vouched for in attempt {attempt} of {run}")
            if attempt > newest:
                runs[run] = attempt, str(session)
                entries = {name: [number, keys] for name, (number, keys) in runs.items()}
                write_bytes(self._file, dump_json({"format": FORMAT, "runs": entries}), mode=SECRET, replace=True)

    def _read(self) -> dict[str, tuple[int, str]]:
        if not self._file.exists():
            return {}
        data = load_json(read_bytes(self._file, limit=LIMITS.document_bytes), WHAT)
        require_fields(data, WHAT, FORMAT, {"runs"})
        runs: dict[str, tuple[int, str]] = {}
        for name, entry in data["runs"].items() if isinstance(data["runs"], dict) else ():
            match entry:
                case [int(attempt), str(session)]:
                    runs[name] = attempt, session
                case _:
                    raise Malformed(f"{self._file}: an entry of the {WHAT} cannot be read; restore it from a backup")
        return runs
