"""What programs load first: the manifest, the epochs that were seen, and the TEE."""

from __future__ import annotations

from pathlib import Path

import pytest

from superswarm.consortium.approval import ApprovedManifest, approve, chain_to_bytes
from superswarm.errors import Environment, Fork, Malformed, Misconfigured, Rollback
from superswarm.io.consortium import load_manifest, open_tee, remember_epoch
from tests import consortia
from tests.simulator import platform


def epochs(*names: str) -> list[ApprovedManifest]:
    chain = [consortia.sign_all(consortia.manifest())]
    approved = [approve(chain)]
    for name in names:
        chain.append(consortia.sign_all(consortia.successor(approved[-1], name=name), approved[-1]))
        approved.append(approve(chain))
    return approved


def test_a_chain_is_loaded_and_held_against_the_pin(tmp_path: Path) -> None:
    signed = consortia.sign_all(consortia.manifest())
    file = tmp_path / "consortium.json"
    file.write_bytes(chain_to_bytes([signed]))
    assert load_manifest(file, str(signed.manifest.digest)).manifest == signed.manifest
    with pytest.raises(Fork):
        load_manifest(file, consortia.digest("another"))
    with pytest.raises(Environment):
        load_manifest(tmp_path / "missing.json", None)
    (tmp_path / "draft.toml").write_text("format = 1")
    with pytest.raises(Malformed, match=r"draft\.toml: .* `superswarm manifest combine` wrote"):
        load_manifest(tmp_path / "draft.toml", None)


def test_an_older_epoch_is_refused(tmp_path: Path) -> None:
    first, second = epochs("two")
    file = tmp_path / "epochs.json"
    for epoch in (first, second, second):
        remember_epoch(file, epoch)
    with pytest.raises(Rollback):
        remember_epoch(file, first)


def test_a_rival_epoch_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "epochs.json"
    remember_epoch(file, epochs("two")[1])
    for rival in (epochs("rival")[1], epochs("rival", "three")[2]):
        with pytest.raises(Fork):
            remember_epoch(file, rival)


def test_a_simulated_tee_needs_its_credentials(tmp_path: Path) -> None:
    manifest = consortia.approved()
    with pytest.raises(Misconfigured):
        open_tee(manifest, None)
    (tmp_path / "platform").write_bytes(platform("alice").to_bytes())
    assert open_tee(manifest, tmp_path / "platform").platform == "simulated"
