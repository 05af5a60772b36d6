"""Logs: one event a line, and nothing in them that carries data."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from superswarm.errors import BadSignature, Misconfigured
from superswarm.io import logs
from superswarm.io.clocks import ManualClock
from superswarm.io.progress import progress
from superswarm.values import Digest, Role

CANARY = "the patient's name is Canary"
log = logs.logger("superswarm.probe")


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    show = warnings.showwarning
    yield
    warnings.showwarning = show
    root.handlers[:], root.level = before
    for name in logs.FOREIGN:
        taken = logging.getLogger(name)
        if isinstance(taken, logs.ForeignLogger):
            taken.__class__ = logging.Logger
            taken.propagate = True


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("trainer", log_format="json")
    log.info("round closed", round=3, members=["north", "south"], loss=float("nan"))
    (entry,) = lines(capsys)
    assert set(entry) == {"ts", "level", "program", "event", "fields"}
    assert (entry["level"], entry["program"], entry["event"]) == ("info", "trainer", "round closed")
    assert entry["fields"] == {"round": 3, "members": ["north", "south"], "loss": "nan"}


def test_a_program_may_log_under_its_own_name(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("trainer", log_format="json", confidential=True)
    logs.logger("trainer").info("ready")
    assert [entry["event"] for entry in lines(capsys)] == ["ready"]


def test_people_get_a_line_with_fields(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("trainer")
    log.warning("round closed", round=3, loss=0.123456789)
    assert capsys.readouterr().err.endswith(" trainer  WARNING: round closed  round=3 loss=0.123457\n")


def test_the_environment_wins(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("SUPERSWARM_LOG_FORMAT", "json")
    logs.setup("trainer", log_format="human")
    log.info("x")
    assert lines(capsys)[0]["event"] == "x"
    monkeypatch.setenv("SUPERSWARM_LOG_FORMAT", "xml")
    with pytest.raises(Misconfigured):
        logs.setup("trainer")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (CANARY.encode(), "<28 bytes>"),
        (memoryview(b"1234"), "<4 bytes>"),
        (np.zeros((3, 4), np.float32), "<float32 array 3x4>"),
        (CANARY * 10, "<text of 280 characters>"),
        (ValueError(CANARY), "ValueError"),
        (BadSignature(CANARY), "BadSignature"),
        (object(), "<object>"),
        ([CANARY.encode()] * 33, "<33 items>"),
        ({"key": CANARY.encode()}, {"key": "<28 bytes>"}),
        (Digest.of(b""), str(Digest.of(b""))),
        (Role.TRAINER, "trainer"),
        (Path("/model"), "/model"),
        ("a\x1b[2Jb\nc", "a\N{REPLACEMENT CHARACTER}[2Jb\\nc"),
        (True, True),
        (None, None),
    ],
)
@pytest.mark.parametrize("log_format", ["json", "human"])
def test_what_can_carry_data_shows_as_its_size(
    value: object, shown: object, log_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert logs.safe(value) == shown
    logs.setup("trainer", log_format=log_format)
    log.error("event", value=value)
    assert "Canary" not in capsys.readouterr().err


def test_a_trace_has_positions_and_no_text(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("trainer", log_format="json")
    try:
        {}[CANARY]
    except KeyError:
        logging.getLogger("some.library").exception("failed")
    (entry,) = lines(capsys)
    assert "test_a_trace_has_positions" in entry["fields"]["exception"]
    assert "Canary" not in json.dumps(entry)


def test_libraries_are_heard_from_warnings_upward(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("relay", log_format="json")
    logging.getLogger("some.library").info("chatter")
    logging.getLogger("some.library").warning("a %s thing", "bad")
    assert [entry["event"] for entry in lines(capsys)] == ["a bad thing"]


def test_a_confidential_program_withholds_what_libraries_say(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("trainer", log_format="json", confidential=True)
    logging.getLogger("some.library").warning("cannot tokenise %s", CANARY)
    logging.getLogger("transformers.probe").error(CANARY)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(CANARY, UserWarning, stacklevel=1)
    seen = lines(capsys)
    assert [entry["fields"]["library"] for entry in seen] == ["some.library", "transformers.probe", "py.warnings"]
    assert all(entry["event"] == "a library's message, withheld" for entry in seen)
    assert all("test_logs.py" in entry["fields"]["where"] for entry in seen)
    assert "Canary" not in json.dumps(seen)


def test_a_library_is_not_ours_for_a_name_that_begins_alike(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("trainer", confidential=True)
    logging.getLogger("superswarm_evil").warning(CANARY)
    assert "Canary" not in capsys.readouterr().err


def test_our_own_plain_records_are_redacted_like_fields(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("trainer", log_format="json", confidential=True)
    ours = logging.getLogger("participants.probe")
    ours.warning("a task failed: %s after %d tries", KeyError(CANARY), 3)
    ours.warning("100%")
    assert [entry["event"] for entry in lines(capsys)] == ["a task failed: KeyError after 3 tries", "100%"]


@pytest.mark.parametrize("name", ["flwr", "transformers"])
def test_a_library_that_sets_up_its_own_printing_is_taken_over(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("trainer", log_format="json")
    theirs = logging.getLogger(name)
    handler = logging.StreamHandler()
    theirs.addHandler(handler)
    theirs.setLevel(logging.DEBUG)
    theirs.propagate = False
    theirs.info("chatter")
    theirs.error("once")
    assert [entry["event"] for entry in lines(capsys)] == ["once"]


def test_setup_again_replaces_and_does_not_double(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("trainer", log_format="json")
    logs.setup("trainer", log_format="json")
    log.info("once")
    assert len(lines(capsys)) == 1


def test_debug_shows_on_request_only(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("trainer", log_format="json")
    log.debug("detail")
    monkeypatch.setenv("SUPERSWARM_DEBUG", "1")
    logs.setup("trainer", log_format="json")
    log.debug("detail")
    assert len(lines(capsys)) == 1


def test_long_work_says_how_far_it_is_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("trainer", log_format="json")
    clock = ManualClock()
    with progress("training", 200, clock=clock) as bar:
        for _ in range(200):
            clock.advance(0.5)
            bar.advance()
    said = lines(capsys)
    assert len(said) == 9  # every 10 of 100 seconds, and not at the end
    assert said[0]["event"] == "training"
    assert said[0]["fields"] == {"done": "20 steps", "of": "200 steps", "left": "1 min 30 s"}
