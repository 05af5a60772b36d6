"""Where an exception was raised, without its text: an exception may quote the data that it choked on."""

from __future__ import annotations

import traceback


def place(error: BaseException) -> str:
    """An exception's type and its innermost frames, as `Type at inner:12 < outer:34`."""
    frames = traceback.extract_tb(error.__traceback__)
    where = " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames[-5:]))
    return f"{type(error).__name__} at {where}"
