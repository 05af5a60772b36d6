"""How a SuperNode takes its place back: by what its folder remembers, and only if the relay agrees."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from flwr.proto.fleet_pb2 import ActivateNodeRequest, ActivateNodeResponse
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatResponse

from participants.supernode_child import patient

REFUSED = httpx.HTTPStatusError("", request=httpx.Request("POST", "https://relay"), response=httpx.Response(401))


class Fleet:
    """Flower's client: a relay that gives the id 7, and answers heartbeats as a test says."""

    answer: Any = SendNodeHeartbeatResponse(success=True)

    def __init__(self) -> None:
        self._client = SimpleNamespace(headers={})
        self.calls: list[str] = []

    def ActivateNode(self, request: Any) -> ActivateNodeResponse:  # noqa: N802
        self.calls.append("activate")
        return ActivateNodeResponse(node_id=7)

    def SendNodeHeartbeat(self, request: Any) -> SendNodeHeartbeatResponse:  # noqa: N802
        self.calls.append(f"heartbeat of {request.node.node_id}")
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def activate(file: Path | None, answer: Any = Fleet.answer) -> tuple[int, list[str]]:
    fleet = patient(Fleet, file)()
    fleet.answer = answer
    return fleet.ActivateNode(ActivateNodeRequest(heartbeat_interval=30)).node_id, fleet.calls


def test_one_that_comes_back_goes_on_where_it_was(tmp_path: Path) -> None:
    file = tmp_path / "node-id"
    assert activate(file) == (7, ["activate"])
    assert file.read_text() == "7"
    file.write_text("5")
    assert activate(file) == (5, ["heartbeat of 5"])


@pytest.mark.parametrize("answer", [SendNodeHeartbeatResponse(success=False), REFUSED, httpx.ConnectError("")])
def test_where_the_relay_knows_no_such_place_it_asks_for_one(tmp_path: Path, answer: Any) -> None:
    """The relay began anew, or the folder is of another relay or key."""
    file = tmp_path / "node-id"
    file.write_text("5")
    assert activate(file, answer) == (7, ["heartbeat of 5", "activate"])
    assert file.read_text() == "7"


def test_a_file_that_is_no_number_is_no_place(tmp_path: Path) -> None:
    file = tmp_path / "node-id"
    file.write_text("not a number")
    assert activate(file) == (7, ["activate"])
    assert activate(None) == (7, ["activate"])
