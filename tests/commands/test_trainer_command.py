"""`superswarm trainer up` says what is wrong with its configuration before anything is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from superswarm.consortium.approval import chain_to_bytes
from tests import consortia


def test_a_member_that_trains_nothing_is_told_who_does(tmp_path: Path) -> None:
    (tmp_path / "consortium.json").write_bytes(chain_to_bytes([consortia.sign_all(consortia.manifest())]))
    given = {
        "member": "nobody",
        "manifest": "consortium.json",
        "pairing": "nobody.pairing",
        "relay": "localhost:1",
        "relay-ca": "relay-ca.crt",
        "supernode-key": "nobody.key",
    }
    words = [word for name, value in given.items() for word in (f"--{name}", value)]
    done = subprocess.run(
        [sys.executable, "-m", "superswarm", "trainer", "up", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    assert "nobody trains nothing under this manifest: members that contribute data are" in done.stderr
