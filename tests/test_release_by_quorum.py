"""A whole run whose result nobody opens until two of three contributors approve."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from coordinator.flower import GridMailroom
from coordinator.publisher import SealedPublisher
from superswarm.errors import CannotOpen, NotApproved
from superswarm.io.releases import ReleaseLog
from superswarm.io.results import ResultFolder, open_result, vouched_signer, write_opened
from superswarm.updates.adapter import AdapterSpec, decode_adapter
from superswarm.updates.approvals import Recipient, SignedApproval
from superswarm.updates.card import WEIGHTS
from superswarm.updates.release import hold_share, member_recipient, open_released
from superswarm.values import MemberId
from tests import consortia
from tests.simulator import NOW, SimulatedConsortium


class Quorum(SimulatedConsortium):
    """Nodes with folders on disk, and an aggregator that seals."""

    def __init__(self, folder: Path, *names: str) -> None:
        super().__init__(*names, result={"recipients": ["bob"], "approvals": 2})
        self.folder = folder
        self.folders = {name: ResultFolder(folder / name) for name in self.names}
        self.nodes = {name: self.node(name, results=self.folders[name]) for name in self.names}

    def train(self) -> None:
        self.published = SealedPublisher(self.folder / "operator")
        with self.grid() as grid:
            self.aggregator(GridMailroom(grid)).run()

    def sealed(self, name: str) -> Path:
        (found,) = self.folders[name].results()[0]
        return found.path

    def approve(self, name: str) -> SignedApproval:
        """As `superswarm result approve` does."""
        path, member = self.sealed(name), MemberId(name)
        with path.open("rb") as src:
            held = hold_share(
                src, self.manifest, member, consortia.kem_key(name), expected_signer=vouched_signer(path)
            )
        to = member_recipient(self.manifest, MemberId("bob"))
        log = ReleaseLog(self.folder / f"{name}.keys")
        return log.approve(held, to, consortia.signing_key(name), at=NOW)


def test_a_run_whose_result_is_released_by_quorum(tmp_path: Path) -> None:
    consortium = Quorum(tmp_path)
    consortium.train()
    delivered = consortium.diary("aggregator").of("result delivered")[0]
    assert (delivered["to"], delivered["missing"]) == (["alice", "bob", "carol"], [])
    path, kem = consortium.sealed("bob"), consortia.kem_key("bob")
    signer = vouched_signer(path)
    bob = MemberId("bob")
    with pytest.raises(CannotOpen, match="2 contributors must approve"):
        open_result(path, kem, bob, tmp_path / "early", expected_signer=signer)

    def opened(*approvals: SignedApproval) -> Path:
        out = tmp_path / "adapter"
        write_opened(
            path,
            out,
            lambda src: open_released(
                src, consortium.manifest, approvals, Recipient(bob), kem, expected_signer=signer
            ),
        )
        return out

    alice, carol = consortium.approve("alice"), consortium.approve("carol")
    with pytest.raises(NotApproved):
        opened(alice)
    assert not (tmp_path / "adapter").exists()
    raw = (opened(alice, carol) / WEIGHTS).read_bytes()
    expected = consortium.expected()
    adapter = decode_adapter(raw, AdapterSpec.of(expected))
    for name, value in expected.items():
        np.testing.assert_allclose(adapter[name], value, rtol=1e-6, atol=1e-6)


def test_what_the_operator_keeps_opens_for_nobody_alone(tmp_path: Path) -> None:
    """The operator's copy, with the keys of any one member."""
    consortium = Quorum(tmp_path)
    consortium.train()
    raw = next((tmp_path / "operator").glob("*.result")).read_bytes()
    for name in consortium.names:
        held = hold_share(
            io.BytesIO(raw), consortium.manifest, MemberId(name), consortia.kem_key(name), expected_signer=None
        )
        with pytest.raises(CannotOpen):
            held.header.open_key(MemberId(name), consortia.kem_key(name))
