"""Members agree on a manifest and grant a run by sending files, with the commands that they would type."""

from __future__ import annotations

import importlib
import stat
from pathlib import Path

import pytest
import typer.main

from superswarm.attestation.measure import measure_packages
from superswarm.attestation.simulated import SimulatedPlatform
from superswarm.consortium.approval import SignedManifest, approve, parse_chain
from superswarm.consortium.grant import SignedGrant, approve_grant
from superswarm.errors import BadSignature, Error, Fork, Malformed, Misconfigured, Mismatch, NotApproved, Unavailable
from superswarm.io.keystore import load_keys, load_pairing
from superswarm.values import SIMULATED_WARNING
from tests.clinics import NAMES, PASSPHRASE, agree, draft, make_keys, run, settle, sign
from tests.consortia import measurement


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return settle(tmp_path, monkeypatch)


def test_three_members_agree_and_grant_a_run() -> None:
    make_keys(*NAMES)
    draft()
    assert "It needs signatures of 3 of north, south, west." in run("manifest", "check", "m.toml")
    shown = run("manifest", "show", "m.toml")
    assert "member north: North Clinic, contributes data" in shown
    assert f"fingerprint {load_keys(Path('north.keys'), PASSPHRASE).signing.public.digest}" in shown
    assert SIMULATED_WARNING in shown
    said = run("manifest", "combine", *sign(), "--out", "consortium.json")
    approved = approve(parse_chain(Path("consortium.json").read_bytes()))
    assert f"digest {approved.digest}" in said
    assert approved.manifest.name == "Three clinics"
    assert "Bears signatures of north, south, west" in run("manifest", "show", "consortium.json")

    with pytest.raises(Misconfigured, match="has 3 in the manifest"):
        run("grant", "draft", "-c", "consortium.json", "--run", "first", "--rounds", "4")
    run("grant", "draft", "-c", "consortium.json", "--run", "first", "--days", "2")
    with pytest.raises(Unavailable, match="0 members granted"):
        run("grant", "combine", "-c", "consortium.json", "first.grant.json")
    for name in ("north", "west"):
        run("grant", "sign", "first.grant.json", "-c", "consortium.json", "--keys", f"{name}.keys", "--yes")
    parts = ["first.north.grant.json", "first.west.grant.json"]
    with pytest.raises(Unavailable, match="1 members granted the run, and 2 must"):
        run("grant", "combine", "-c", "consortium.json", parts[0])
    said = run("grant", "combine", "-c", "consortium.json", *parts, "--out", "granted.json")
    assert "granted by north, west" in said
    granted = approve_grant(SignedGrant.parse(Path("granted.json").read_bytes()), approved)
    assert (granted.grant.rounds, granted.grant.attempts) == (3, 3)
    assert "2 of 2 signatures" in run("grant", "show", "granted.json", "-c", "consortium.json")


def test_keys_are_three_files_and_only_one_is_public() -> None:
    run("keys", "new", "north", "--name", "North", "--contributes", "data", "--contributes", "model")
    keys = load_keys(Path("north.keys"), PASSPHRASE)
    for name in ("north.keys", "north.pairing"):
        assert stat.S_IMODE(Path(name).stat().st_mode) == 0o600
    assert load_pairing(Path("north.pairing")) == keys.pairing
    public = Path("north.member.toml").read_text()
    assert str(keys.signing.public) in public
    assert keys.signing.seeds not in Path("north.keys").read_bytes()
    shown = run("keys", "show", "north.keys", "--name", "North", "--contributes", "data", "--contributes", "model")
    assert public.strip() in shown
    with pytest.raises(Misconfigured, match="exists already"):
        run("keys", "new", "north", "--name", "North", "--contributes", "data")
    assert load_keys(Path("north.keys"), PASSPHRASE) == keys


def test_nothing_is_written_if_the_keys_would_be_wrong(tmp_path: Path) -> None:
    for words in (["North", "--contributes", "data"], ["north", "--contributes", "gold"]):
        with pytest.raises((Misconfigured, Malformed)):
            run("keys", "new", words[0], "--name", "North", *words[1:])
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_passphrase_signs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    make_keys(*NAMES)
    draft()
    monkeypatch.setenv("SUPERSWARM_PASSPHRASE", "something else")
    with pytest.raises(Misconfigured, match=r"north\.keys: the passphrase is not"):
        run("manifest", "sign", "m.toml", "--keys", "north.keys", "--yes")
    assert not Path("north.keys.signed").exists()


def test_a_simulated_machine_gets_its_credentials() -> None:
    run("keys", "authority", "north.authority")
    said = run("keys", "platform", "north.platform", "--authority", "north.authority")
    assert SIMULATED_WARNING in said
    assert SimulatedPlatform.parse(Path("north.platform").read_bytes())
    assert stat.S_IMODE(Path("north.platform").stat().st_mode) == 0o600


def test_signing_asks_first() -> None:
    make_keys(*NAMES)
    draft()
    with pytest.raises(AssertionError, match="Aborted"):
        run("manifest", "sign", "m.toml", "--keys", "north.keys", answer="n\n")
    assert not Path("m.north.signed.json").exists()
    assert not Path("north.keys.signed").exists()
    run("manifest", "sign", "m.toml", "--keys", "north.keys", answer="y\n")
    assert Path("m.north.signed.json").exists()


def test_a_rival_draft_is_not_signed() -> None:
    make_keys(*NAMES)
    draft()
    sign(names=["north"])
    Path("rival.toml").write_text(Path("m.toml").read_text().replace("rounds = 3", "rounds = 300"))
    with pytest.raises(Fork, match="would prove to everybody that its owner cheats"):
        run("manifest", "sign", "rival.toml", "--keys", "north.keys", "--yes")
    assert not Path("rival.north.signed.json").exists()


def test_signatures_on_different_texts_do_not_combine_and_cheats_are_named() -> None:
    make_keys(*NAMES)
    draft()
    Path("rival.toml").write_text(Path("m.toml").read_text().replace("rounds = 3", "rounds = 300"))
    sign(names=["north"])
    sign("rival.toml", names=["south"])
    with pytest.raises(Mismatch, match=r"hold different manifests$"):
        run("manifest", "combine", "m.north.signed.json", "rival.south.signed.json")
    Path("north.keys.signed").unlink()
    sign("rival.toml", names=["north"])
    with pytest.raises(Mismatch, match="north signed both, which proves a fraud"):
        run("manifest", "combine", "m.north.signed.json", "rival.north.signed.json")


def test_who_is_missing_is_said_and_nothing_is_written() -> None:
    make_keys(*NAMES)
    draft()
    files = sign(names=["north", "south"])
    with pytest.raises(Unavailable, match="epoch 1 is not complete yet: it waits for west"):
        run("manifest", "combine", *files, "--out", "consortium.json")
    assert not Path("consortium.json").exists()


def test_signatures_may_also_go_round_in_one_file() -> None:
    make_keys(*NAMES)
    draft()
    sign(names=["north"])
    sign("m.north.signed.json", names=["south"])
    sign("m.south.signed.json", names=["west"])
    run("manifest", "combine", "m.west.signed.json", "--out", "consortium.json")
    assert approve(parse_chain(Path("consortium.json").read_bytes())).signers == NAMES


def test_a_forged_signature_is_named() -> None:
    make_keys(*NAMES, "eve")
    draft()
    files = sign()
    forged = SignedManifest.parse(Path(files[0]).read_bytes())
    other = SignedManifest.parse(Path(files[1]).read_bytes())
    signatures = {next(iter(forged.signatures)): next(iter(other.signatures.values()))}
    Path(files[0]).write_bytes(SignedManifest(forged.manifest, signatures).to_bytes())
    with pytest.raises(BadSignature, match="the signature of north does not hold"):
        run("manifest", "combine", *files)
    with pytest.raises(Misconfigured, match="does not list this key for eve"):
        run("manifest", "sign", "m.toml", "--keys", "eve.keys", "--yes")


def test_keys_of_the_same_name_are_not_the_members_keys(tmp_path: Path) -> None:
    make_keys(*NAMES)
    draft()
    (tmp_path / "other").mkdir()
    run("keys", "new", "north", "--name", "North", "--contributes", "data", "--folder", "other")
    with pytest.raises(Misconfigured, match="does not list this key for north"):
        run("manifest", "sign", "m.toml", "--keys", "other/north.keys", "--yes")


def test_the_next_epoch_needs_the_one_before_and_its_signatures() -> None:
    agree()
    run("manifest", "init", "--after", "consortium.json", "--out", "next.toml")
    Path("next.toml").write_text(Path("next.toml").read_text().replace("rounds = 3", "rounds = 5"))
    with pytest.raises(Misconfigured, match="this is epoch 2: give the consortium's approved file so far"):
        run("manifest", "check", "next.toml")
    said = run("manifest", "check", "next.toml", "--after", "consortium.json")
    assert "owner: jobs touches what it brings" in said
    said = run("manifest", "diff", "consortium.json", "next.toml")
    assert "jobs.adapter.rounds" in said
    assert "Changes jobs" in said
    files = sign("next.toml", ["north", "south"], "--after", "consortium.json")
    with pytest.raises(Unavailable, match="waits for west"):
        run("manifest", "combine", *files, "--after", "consortium.json")
    files = sign("next.toml", ["west"], "--after", "consortium.json") + files
    run("manifest", "combine", *files, "--after", "consortium.json", "--out", "second.json")
    chain = parse_chain(Path("second.json").read_bytes())
    assert approve(chain).manifest.jobs[0].rounds == 5
    assert len(chain) == 2
    with pytest.raises(Misconfigured, match="leave --after away"):
        run("manifest", "check", "m.toml", "--after", "consortium.json")


def test_a_change_is_shown_down_to_the_last_digit() -> None:
    """Two measurements that begin alike, as an attacker would choose them."""
    make_keys(*NAMES)
    draft()
    one = measurement("code")
    Path("other.toml").write_text(
        Path("m.toml").read_text().replace(one, one[:-1] + ("0" if one[-1] != "0" else "1"))
    )
    said = run("manifest", "diff", "m.toml", "other.toml").replace("\n", "")
    assert "workloads.trainer.measur" in said
    assert "Changes workloads" in said


def test_a_member_joins_and_another_changes_its_keys(tmp_path: Path) -> None:
    agree()
    make_keys("east")
    (tmp_path / "new").mkdir()
    authority = run("keys", "authority", "north.authority", "--show").strip()
    run("keys", "new", "north", "--name", "North Clinic", "--contributes", "data", "--authority", authority,
        "--folder", "new")  # fmt: skip
    run("manifest", "init", "--after", "consortium.json", "--out", "next.toml")
    run("manifest", "draft", "next.toml", "--member", "east.member.toml", "--member", "new/north.member.toml")
    said = run("manifest", "check", "next.toml", "--after", "consortium.json")
    assert "its own entry changes" in said
    assert "joins: signs with the key that this manifest gives it" in said
    before = ("--after", "consortium.json")
    files = sign("next.toml", ["north", "south"], *before)
    with pytest.raises(Unavailable, match="it waits for north, east"):
        run("manifest", "combine", *files, *before)
    run("manifest", "sign", "next.toml", "--keys", "east.keys", "--yes", *before)
    run("manifest", "sign", "next.toml", "--keys", "new/north.keys", "--yes", *before)
    files += ["next.east.accepts.signed.json", "next.north.accepts.signed.json"]
    run("manifest", "combine", *files, *before, "--out", "second.json")
    approved = approve(parse_chain(Path("second.json").read_bytes()))
    assert approved.verifying_key("north") == load_keys(Path("new/north.keys"), PASSPHRASE).signing.public
    assert [m.id for m in approved.manifest.members] == ["north", "south", "west", "east"]
    assert approved.manifest.quorum.run == 3


def test_an_unfinished_consortium_is_no_base_for_anything() -> None:
    make_keys(*NAMES)
    draft()
    sign(names=["north"])
    for words in (
        ["manifest", "init", "--after", "m.north.signed.json"],
        ["grant", "draft", "-c", "m.north.signed.json", "--run", "first"],
    ):
        with pytest.raises(NotApproved, match=r"m\.north\.signed\.json: south must sign"):
            run(*words)


def test_a_grant_of_another_consortium_is_not_signed() -> None:
    agree()
    run("grant", "draft", "-c", "consortium.json", "--run", "first")
    Path("first.grant.json").write_text(Path("first.grant.json").read_text().replace('"epoch":1', '"epoch":2'))
    with pytest.raises(Error, match="another manifest"):
        run("grant", "sign", "first.grant.json", "-c", "consortium.json", "--keys", "north.keys", "--yes")


def test_an_open_template_is_refused_by_what_is_missing() -> None:
    run("manifest", "init", "--scenario", "duo", "--out", "m.toml")
    with pytest.raises(Malformed, match="the manifest is not filled in yet"):
        run("manifest", "check", "m.toml")
    with pytest.raises(Misconfigured, match="exists already"):
        run("manifest", "init", "--scenario", "solo", "--out", "m.toml")
    with pytest.raises(Misconfigured, match="either --scenario"):
        run("manifest", "init")


def test_the_installed_code_is_measured_for_simulated_manifests_only() -> None:
    for attestation in ("simulated", "real"):
        run("manifest", "init", "--scenario", "solo", "--attestation", attestation, "--out", f"{attestation}.toml")
    run("manifest", "draft", "simulated.toml", "--measurement", "this")
    assert str(measure_packages()) in Path("simulated.toml").read_text()
    with pytest.raises(Misconfigured, match="proves nothing to real hardware"):
        run("manifest", "draft", "real.toml", "--measurement", "this")


def test_names_are_shown_as_they_are_and_drive_nothing() -> None:
    make_keys(*NAMES)
    draft(name="[red]Clinics[/red] [link=x]")
    assert "[red]Clinics[/red] [link=x]" in run("manifest", "show", "m.toml")


def test_files_that_are_no_manifests_are_refused_with_their_name(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(b"\x00\xff")
    (tmp_path / "x.json").write_bytes(b'{"format": 1}')
    for name in ("x.toml", "x.json"):
        with pytest.raises(Malformed, match=name.replace(".", r"\.")):
            run("manifest", "show", name)


@pytest.mark.parametrize("group", ["keys", "manifest", "grant"])
def test_every_command_explains_itself(group: str) -> None:
    app = importlib.import_module(f"participants.commands.{group}").app
    command = typer.main.get_command(app)
    assert command.help
    for name, one in command.commands.items():  # type: ignore[attr-defined]
        assert one.help, name
        text = run(group, name, "--help")
        for parameter in one.params:
            if parameter.param_type_name == "option":
                assert parameter.help, f"{group} {name} {parameter.name}"
        assert "Usage" in text
