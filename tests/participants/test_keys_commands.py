"""Life of a member's keys, with the commands that it would type: rotation, and leaving."""

from __future__ import annotations

import re
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest

from participants.drafting import to_toml
from participants.leaving import remove_members
from superswarm.consortium.approval import ApprovedManifest, approve, parse_chain
from superswarm.errors import Fork, Malformed, Misconfigured, OwnerVeto, Unavailable
from superswarm.io.keystore import load_keys, load_pairing
from superswarm.io.results import ResultFolder
from superswarm.updates.publish import publish
from tests import consortia
from tests.clinics import NAMES, PASSPHRASE, agree, draft, make_keys, run, settle, sign

SIGNER = consortia.signing_key("aggregator session")
BEFORE = ("--after", "consortium.json")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return settle(tmp_path, monkeypatch)


def rotate(name: str = "north", out: str = "new/north.keys") -> str:
    Path(out).parent.mkdir(exist_ok=True)
    return run("keys", "rotate", f"{name}.keys", "--out", out, "-c", "consortium.json")


def draft_next(*words: str) -> str:
    run("manifest", "init", *BEFORE, "--out", "next.toml")
    return run("manifest", "draft", "next.toml", *words)


def combine(*files: str) -> ApprovedManifest:
    run("manifest", "combine", *files, *BEFORE, "--out", "second.json")
    return approve(parse_chain(Path("second.json").read_bytes()))


def seal(manifest: ApprovedManifest, run_name: str) -> Path:
    import numpy as np

    raw = publish(
        {"w": np.ones(8, np.float32)},
        manifest=manifest,
        job=manifest.manifest.jobs[0],
        run=run_name,
        rounds=1,
        signer=SIGNER,
    )
    results = ResultFolder(Path("results"))
    results.store(run_name, raw, SIGNER.public)
    return next(result.path for result in results.results()[0] if result.header.run == run_name)


def test_a_member_rotates_its_keys_from_one_epoch_to_the_next() -> None:
    agree()
    first = approve(parse_chain(Path("consortium.json").read_bytes()))
    said = rotate()
    for step in ("manifest sign next.toml --after consortium.json --keys north.keys", "Keep north.keys"):
        assert step in said
    old, new = load_keys(Path("north.keys"), PASSPHRASE), load_keys(Path("new/north.keys"), PASSPHRASE)
    assert len({old.signing, new.signing}) == len({old.kem, new.kem}) == len({old.pairing, new.pairing}) == 2
    assert load_pairing(Path("new/north.pairing")) == new.pairing
    for secret in ("north.keys", "north.pairing", "north.keys.signed"):
        assert stat.S_IMODE((Path("new") / secret).stat().st_mode) == 0o600

    draft_next("--member", "new/north.member.toml")
    changes = run("manifest", "diff", "consortium.json", "next.toml")
    assert "members.north.signing_key" in changes
    assert "contributes" not in changes, "name, contributions and authority stay"
    files = sign("next.toml", ["north", "south", "west"], *BEFORE)
    with pytest.raises(Unavailable, match="waits for north"):
        run("manifest", "combine", *files, *BEFORE)
    run("manifest", "sign", "next.toml", "--keys", "new/north.keys", "--yes", *BEFORE, "--out", "accepts.signed.json")
    second = combine(*files, "accepts.signed.json")
    assert second.verifying_key("north") == new.signing.public
    assert second.encryption_key("north") == new.kem.public

    older, newer = seal(first, "run-1"), seal(second, "run-2")
    assert run("result", "open", older, "--keys", "north.keys", "--out", "a").strip()
    assert run("result", "open", newer, "--keys", "new/north.keys", "--out", "b").strip()
    for path, keys in ((older, "new/north.keys"), (newer, "north.keys")):
        with pytest.raises(Exception, match="does not open"):
            run("result", "open", path, "--keys", keys, "--out", "c")


def test_old_keys_cannot_sign_for_the_epochs_after_theirs() -> None:
    test_a_member_rotates_its_keys_from_one_epoch_to_the_next()
    run("manifest", "init", "--after", "second.json", "--out", "third.toml")
    with pytest.raises(Misconfigured, match="does not list this key for north"):
        run("manifest", "sign", "third.toml", "--keys", "north.keys", "--yes", "--after", "second.json")
    run("manifest", "sign", "third.toml", "--keys", "new/north.keys", "--yes", "--after", "second.json")


def test_new_keys_remember_what_the_old_ones_signed() -> None:
    """Otherwise a rotation would be a way to sign a rival of what one has signed."""
    agree()
    draft_next()
    sign("next.toml", ["north"], *BEFORE)
    rotate()
    text = Path("next.toml").read_text()
    run("manifest", "init", *BEFORE, "--out", "rival.toml")
    run("manifest", "draft", "rival.toml", "--member", "new/north.member.toml")
    assert Path("rival.toml").read_text() != text
    with pytest.raises(Fork, match="cheats"):
        run("manifest", "sign", "rival.toml", "--keys", "new/north.keys", "--yes", *BEFORE)


def test_rotation_overwrites_nothing_and_needs_the_current_keys() -> None:
    agree()
    rotate()
    kept = Path("new/north.keys").read_bytes()
    with pytest.raises(Misconfigured, match="exists already"):
        rotate()
    with pytest.raises(Misconfigured, match="exists already"):
        rotate("south", "north.keys")
    assert Path("new/north.keys").read_bytes() == kept
    with pytest.raises(Misconfigured, match="lists another key for north"):
        run("keys", "rotate", "new/north.keys", "--out", "newer.keys", "-c", "consortium.json")
    make_keys("east")
    with pytest.raises(Misconfigured, match="east is no member"):
        rotate("east", "newer.keys")
    Path("south.keys.signed").write_bytes(b"")
    with pytest.raises(Malformed, match="so restore it"):
        rotate("south", "newer.keys")
    assert not Path("newer.keys").exists()


# --- leaving -------------------------------------------------------------------------------------------------------


def test_a_member_leaves() -> None:
    agree()
    said = draft_next("--without", "west")
    for change in ("west is no member any more", "result.recipients: without west"):
        assert change in said
    checked = run("manifest", "check", "next.toml", *BEFORE)
    assert "is a valid manifest" in checked
    second = combine(*sign("next.toml", ["north", "south"], *BEFORE))
    assert [m.id for m in second.manifest.members] == ["north", "south"]
    assert second.manifest.result.recipients == ("north", "south")
    run("grant", "draft", "-c", "second.json", "--run", "first")
    with pytest.raises(Misconfigured, match="west"):
        run("grant", "sign", "first.grant.json", "-c", "second.json", "--keys", "west.keys", "--yes")


def test_quorums_fit_who_is_left() -> None:
    agree()
    run("manifest", "init", *BEFORE, "--out", "next.toml")
    text = Path("next.toml").read_text()
    Path("next.toml").write_text(re.sub(r"^(members|quorum) = 2$", r"\1 = 3", text, flags=re.MULTILINE))
    said = run("manifest", "draft", "next.toml", "--without", "west")
    assert "quorum.members: 3 → 2 of 2" in said
    assert "is a valid manifest" in run("manifest", "check", "next.toml", *BEFORE)


def owned() -> None:
    """West owns the base model besides its data."""
    make_keys(*NAMES)
    draft(**{"model-owner": "west"})
    run("manifest", "combine", *sign(), "--out", "consortium.json")


def test_who_owns_an_asset_leaves_only_by_its_own_signature() -> None:
    owned()
    with pytest.raises(Misconfigured, match="west owns base"):
        draft_next("--without", "west")
    said = run("manifest", "draft", "next.toml", "--without", "west", "--drop-assets")
    assert "assets: base leaves with its owner" in said
    assert "adapter trains on base, which leaves" in said
    with pytest.raises(Malformed):
        run("manifest", "check", "next.toml", *BEFORE)
    asset = {"name": "other", "kind": "model", "owner": "public", "digest": consortia.digest("o"), "source": "hub"}
    data = tomllib.loads(Path("next.toml").read_text())
    data["jobs"][0]["base_model"] = "other"
    Path("next.toml").write_text(to_toml(data | {"assets": [asset]}))
    files = sign("next.toml", ["north", "south"], *BEFORE)
    with pytest.raises((Unavailable, OwnerVeto), match="west"):
        run("manifest", "combine", *files, *BEFORE)
    assert len(combine(*files, *sign("next.toml", ["west"], *BEFORE)).manifest.members) == 2


def three(**changes: Any) -> str:
    data = consortia.manifest_data(**changes)
    return "# Epoch 2\n# of this consortium\n" + to_toml(data)


def test_every_place_that_names_it_is_said() -> None:
    workload = consortia.manifest_data()["workloads"]["trainer"]
    base = consortia.manifest_data()["assets"][0]
    release = {"members": ["carol", "bob"], "not_after": "2030-01-01", "times": 3}
    text = three(
        workloads={"trainer": workload, "aggregator": workload, "server": workload},
        assets=[
            base,
            base | {"name": "sealed", "owner": "alice", "release": release},
            base | {"name": "mine", "owner": "carol"},
        ],
        result={"recipients": ["carol", "bob"], "serving": ["carol"], "approvals": 3},
        aggregation=consortia.manifest_data()["aggregation"] | {"minimum_cohort": 3},
    )
    changed, notes = remove_members(text, ["carol"], drop_assets=True)
    data = tomllib.loads(changed)
    assert changed.startswith("# Epoch 2\n# of this consortium\n")
    assert [m["id"] for m in data["members"]] == ["alice", "bob"]
    assert data["result"] == {"recipients": ["bob"], "serving": [], "approvals": 2}
    assert data["assets"][1]["release"]["members"] == ["bob"]
    assert [a["name"] for a in data["assets"]] == ["base", "sealed"]
    assert "server" not in data["workloads"]
    assert data["aggregation"]["minimum_cohort"] == 2
    assert len(notes) == 8
    again, notes = remove_members(changed, ["bob"], drop_assets=False)
    assert "released to nobody" in "\n".join(notes)
    assert tomllib.loads(again)["assets"][1]["release"]["members"] == []
    assert "nobody gets the result any more" in "\n".join(notes)


def test_who_cannot_leave() -> None:
    with pytest.raises(Misconfigured, match="eve is no member"):
        remove_members(three(), ["eve"], drop_assets=False)
    with pytest.raises(Misconfigured, match="alice is the only member"):
        remove_members(three(), ["carol", "bob", "alice"], drop_assets=False)
