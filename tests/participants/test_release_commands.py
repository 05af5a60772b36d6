"""Contributors release a result with files and commands, and nobody else can."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from participants.commands import result_releases
from superswarm import cli
from superswarm.attestation.evidence import SessionKeys
from superswarm.attestation.serving import ServerChallenge, server_request
from superswarm.attestation.simulated import DevelopmentAuthority, SimulatedTee
from superswarm.consortium.approval import ApprovedManifest, chain_to_bytes, succeed
from superswarm.crypto import passphrase as sealing
from superswarm.crypto.hpke import KemKey
from superswarm.crypto.signing import SigningKey
from superswarm.io.keystore import MemberKeys, save_keys
from superswarm.io.releases import ReleaseLog
from superswarm.io.results import ResultFolder
from superswarm.updates.approvals import Recipient, SignedApproval
from superswarm.updates.card import CARD, CONFIG, WEIGHTS
from superswarm.updates.container import check_signature, read_head
from superswarm.updates.publish import publish
from superswarm.updates.release import release
from superswarm.values import Measurement, MemberId
from tests import consortia

PASSPHRASE = "correct horse battery staple"
SIGNER = consortia.signing_key("aggregator session")
PEOPLE = ("alice", "bob", "carol", "dan")
CODE = Measurement.parse(consortia.measurement("code"))
DAYS = 30


@pytest.fixture(scope="module")
def authority() -> DevelopmentAuthority:
    """Dan's, who serves."""
    return DevelopmentAuthority.create(at=int(time.time()) - 86_400)


@pytest.fixture(scope="module")
def founded(authority: DevelopmentAuthority) -> tuple[ApprovedManifest, list[Any]]:
    """Alice, Bob and Carol bring data; two of them release results to Carol, or to Dan's server."""
    workload = {"platforms": ["simulated"], "measurements": [str(CODE)]}
    dan = consortia.member("dan", "hosting") | {"development_authority": str(authority.spki_digest)}
    signed = consortia.sign_all(
        consortia.manifest(
            *(consortia.member(name, consortia.DATA) for name in PEOPLE[:3]),
            dan,
            workloads={"trainer": workload, "aggregator": workload, "server": workload},
            result={"recipients": ["carol", "bob"], "serving": ["dan"], "approvals": 2},
        )
    )
    return succeed(None, signed), [signed]


@pytest.fixture
def folder(
    tmp_path: Path, founded: tuple[ApprovedManifest, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> ApprovedManifest:
    """Everybody's files in the current folder: keys, the consortium's file, and one sealed result."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SUPERSWARM_PASSPHRASE", PASSPHRASE)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sealing, "LOG_N", 4)
    for name in PEOPLE:
        keys = MemberKeys(MemberId(name), consortia.signing_key(name), consortia.kem_key(name), b"p" * 32)
        save_keys(Path(f"{name}.keys"), keys, PASSPHRASE)
    manifest, chain = founded
    Path("consortium.json").write_bytes(chain_to_bytes(chain))
    seal(manifest, "r")
    return manifest


def seal(manifest: ApprovedManifest, name: str, run: str = "run-1") -> bytes:
    job = manifest.manifest.jobs[0]
    raw = publish({"w": np.ones(8, np.float32)}, manifest=manifest, job=job, run=run, rounds=2, signer=SIGNER)
    before = set(Path("results").glob("*.result"))
    kept = Path("consortium.json").read_bytes()
    ResultFolder(Path("results"), kept).store(run, raw, SIGNER.public)
    (stored,) = set(Path("results").glob("*.result")) - before
    stored.rename(stored.with_name(f"{name}.result"))
    for suffix in (".signer", ".consortium"):
        stored.with_suffix(suffix).rename(stored.with_name(f"{name}{suffix}"))
    return raw


def run(*args: str) -> int:
    return cli.run(["result", *args])


def approve(name: str, to: str = "carol", *more: str, file: str = "results/r.result") -> int:
    arguments = ["--keys", f"{name}.keys", "-c", "consortium.json", "--recipient", to, "--yes"]
    return run("approve", file, *arguments, *more)


def open_as(name: str, *approvals: str, file: str = "results/r.result", out: str = "adapter") -> int:
    named = [word for path in approvals for word in ("--approval", path)]
    return run("open", file, "--keys", f"{name}.keys", "-c", "consortium.json", "--out", out, *named)


FROM_ALICE, FROM_BOB = "r.alice.carol.approval.json", "r.bob.carol.approval.json"


@pytest.mark.usefixtures("folder")
def test_two_contributors_release_a_result_to_a_third(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list") == 0
    assert "2 of alice, bob, carol" in capsys.readouterr().out
    assert approve("alice") == 0
    shown = capsys.readouterr()
    assert "run-1" in shown.out
    assert "carol" in shown.out
    assert approve("bob") == 0
    assert open_as("carol", FROM_ALICE) == 4
    assert not Path("adapter").exists()
    assert open_as("carol", FROM_ALICE, FROM_BOB) == 0
    assert sorted(path.name for path in Path("adapter").iterdir()) == sorted([CARD, CONFIG, WEIGHTS])
    capsys.readouterr()
    assert run("releases", "--keys", "alice.keys") == 0
    logged = capsys.readouterr().out
    assert "run-1" in logged
    assert "carol" in logged
    assert run("releases", "--keys", "alice.keys", "--json") == 0
    line = json.loads(capsys.readouterr().out)
    assert line["digest"] == SignedApproval.parse(Path(FROM_ALICE).read_bytes()).approval.entry
    assert run("list", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert (listed["approvals"], listed["contributors"]) == (2, ["alice", "bob", "carol"])


@pytest.mark.usefixtures("folder")
def test_the_node_kept_what_its_member_needs() -> None:
    """No other file is named: the signer and the consortium's epochs lie beside the result."""
    Path("consortium.json").unlink()
    for name in ("alice", "bob"):
        arguments = ["--keys", f"{name}.keys", "--recipient", "carol", "--yes"]
        assert run("approve", "results/r.result", *arguments, "--out", f"{name}.approval") == 0
    arguments = ["--approval", "alice.approval", "--approval", "bob.approval", "--out", "adapter"]
    assert run("open", "results/r.result", "--keys", "carol.keys", *arguments) == 0
    Path("results/r.consortium").unlink()
    assert run("open", "results/r.result", "--keys", "carol.keys", *arguments[:-1], "other") == 2


@pytest.mark.usefixtures("folder")
def test_what_is_missing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert open_as("carol") == 2
    assert "superswarm result approve" in capsys.readouterr().err
    assert approve("alice") == 0
    assert approve("alice") == 2, "an approval is not overwritten"
    assert len(ReleaseLog(Path("alice.keys")).entries()) == 1
    assert run("releases", "--keys", "bob.keys") == 0
    assert "nothing was released" in capsys.readouterr().err


@pytest.mark.usefixtures("folder")
def test_approvals_for_somebody_else_open_nothing() -> None:
    """Bob is a recipient too, and takes the files that were made for Carol."""
    assert approve("alice") == 0
    assert approve("bob") == 0
    assert open_as("bob", FROM_ALICE, FROM_BOB) == 4
    assert approve("bob", "bob") == 0
    assert open_as("bob", "r.bob.bob.approval.json", FROM_ALICE) == 4
    assert not Path("adapter").exists()


def test_approvals_for_another_result_open_nothing(folder: ApprovedManifest) -> None:
    seal(folder, "other")
    assert approve("alice", file="results/other.result") == 0
    assert approve("bob") == 0
    assert open_as("carol", "other.alice.carol.approval.json", FROM_BOB) == 4


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("name", "to"), [("alice", "alice"), ("alice", "dan"), ("dan", "carol"), ("alice", "eve")])
def test_who_may_not_receive_or_release(name: str, to: str) -> None:
    assert approve(name, to) == 4
    assert list(Path().glob("*.approval.json")) == []
    assert not Path(f"{name}.keys.releases").exists()


@pytest.mark.usefixtures("folder")
def test_a_forged_approval_is_refused() -> None:
    """Carol writes Bob's approval herself, from Alice's."""
    assert approve("alice") == 0
    forged = json.loads(Path(FROM_ALICE).read_bytes())
    forged["approval"] |= {"contributor": "bob", "index": 2}
    Path(FROM_BOB).write_text(json.dumps(forged))
    assert open_as("carol", FROM_ALICE, FROM_BOB) == 4
    assert open_as("carol", FROM_ALICE, FROM_ALICE) == 4


@pytest.mark.usefixtures("folder")
def test_it_asks_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("typer.confirm", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    arguments = ["--keys", "alice.keys", "-c", "consortium.json", "--recipient", "carol"]
    assert run("approve", "results/r.result", *arguments) != 0
    assert not Path(FROM_ALICE).exists()
    assert not Path("alice.keys.releases").exists()


@pytest.mark.usefixtures("folder")
def test_killed_between_log_and_approval(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever happens, there is no approval that the log does not have."""

    def killed(*_: object, **__: object) -> None:
        assert len(ReleaseLog(Path("alice.keys")).entries()) == 1
        raise KeyboardInterrupt

    monkeypatch.setattr(result_releases.common, "write_out", killed)
    assert approve("alice") != 0
    assert not Path(FROM_ALICE).exists()
    assert [entry.recipient for entry in ReleaseLog(Path("alice.keys")).entries()] == ["carol"]


@pytest.mark.usefixtures("folder")
def test_an_aggregator_that_no_node_vouched_for_is_not_approved() -> None:
    shutil.copy("results/r.result", "mailed.result")
    assert approve("alice", file="mailed.result") == 2
    assert approve("alice", "carol", "--signer", "results/r.signer", file="mailed.result") == 0
    Path("other.signer").write_text(f"{consortia.public_key('another session')}\n")
    assert approve("bob", "carol", "--signer", "other.signer", file="mailed.result") == 4


def next_epoch(current: ApprovedManifest, chain: list[Any], **changes: Any) -> ApprovedManifest:
    signed = consortia.sign_all(consortia.successor(current, **changes), current)
    Path("consortium.json").write_bytes(chain_to_bytes([*chain, signed]))
    return succeed(current, signed)


def test_a_result_is_released_under_its_own_epoch(
    folder: ApprovedManifest, founded: tuple[ApprovedManifest, list[Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Carol receives nothing any more under epoch 2: contributors are told, and decide."""
    result = folder.manifest.to_data()["result"] | {"recipients": ["bob"]}
    following = next_epoch(folder, founded[1], result=result)
    assert approve("alice") == 0
    assert "carol may have no results under the current epoch 2" in capsys.readouterr().out
    assert approve("bob") == 0
    assert open_as("carol", FROM_ALICE, FROM_BOB) == 0
    seal(following, "later")
    assert approve("alice", file="results/later.result") == 4
    assert open_as("carol", FROM_ALICE, FROM_BOB, file="results/later.result", out="other") == 4


def test_an_older_file_of_the_consortium_is_not_enough(
    folder: ApprovedManifest, founded: tuple[ApprovedManifest, list[Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    following = next_epoch(folder, founded[1], name="Renamed")
    Path("consortium.json").write_bytes(chain_to_bytes(founded[1]))
    seal(following, "later")
    assert approve("alice", file="results/later.result") == 2
    assert "epoch 2 is needed" in capsys.readouterr().err


def test_rotated_keys_release_no_older_result(folder: ApprovedManifest, capsys: pytest.CaptureFixture[str]) -> None:
    """The share is sealed to the old key, and the old key speaks for that epoch."""
    save_keys(Path("new.keys"), MemberKeys.generate("alice"), PASSPHRASE)
    assert run(
        "approve", "results/r.result", "--keys", "new.keys", "-c", "consortium.json", "--recipient", "carol", "--yes"
    ) == 2  # fmt: skip
    assert "use the key file that belongs to that epoch" in capsys.readouterr().err


# --- servers -------------------------------------------------------------------------------------------------------

KEM, SIGNING = KemKey.generate(), SigningKey.generate()
KEYS = SessionKeys(kem=KEM.public, signing=SIGNING.public)


@pytest.fixture
def ask(folder: ApprovedManifest, authority: DevelopmentAuthority) -> Callable[..., None]:
    """Dan's server answers the challenges in these files."""
    tee = SimulatedTee(authority.issue(at=int(time.time()) - 3600, valid_days=DAYS), CODE)

    def make(*files: str) -> None:
        nonces = [ServerChallenge.parse(Path(file).read_bytes()).raw for file in files]
        request = server_request(
            tee, folder, run="run-1", member=MemberId("dan"), keys=KEYS, nonces=nonces, pairing_key=b"p" * 32
        )
        Path("server.request").write_bytes(request.to_bytes())

    return make


def for_server(name: str) -> int:
    arguments = ["--keys", f"{name}.keys", "-c", "consortium.json", "--server-request", "server.vouched", "--yes"]
    return run("approve", "results/r.result", *arguments)


def vouch() -> int:
    arguments = ["--keys", "dan.keys", "-c", "consortium.json", "--server-request", "server.request", "--yes"]
    return run("vouch", "results/r.result", *arguments, "--force")


def challenge(*names: str) -> list[str]:
    for name in names:
        assert run("challenge", "results/r.result", "--keys", f"{name}.keys", "--force") == 0
    return [f"r.{name}.challenge.json" for name in names]


def test_contributors_release_a_result_to_an_attested_server(
    folder: ApprovedManifest, ask: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    ask(*challenge("alice", "bob", "dan"))
    assert vouch() == 0
    assert for_server("alice") == 0
    assert str(KEYS.digest) in capsys.readouterr().out.replace("\n", "")
    assert for_server("bob") == 0
    with Path("results/r.result").open("rb") as src:
        head = read_head(src)
        digest = check_signature(src, head, SIGNER.public)
    approvals = [SignedApproval.parse(Path(f"r.{name}.dan.server.json").read_bytes()) for name in ("alice", "bob")]
    to = Recipient(MemberId("dan"), KEYS.digest)
    assert len(release(head, digest, folder, approvals, to, KEM)) == 32
    assert ReleaseLog(Path("bob.keys")).entries()[0].server == str(KEYS.digest)
    assert open_as("dan", "r.alice.dan.server.json", "r.bob.dan.server.json") == 4


def test_a_challenge_is_answered_once(ask: Callable[..., None]) -> None:
    ask(*challenge("alice", "dan"))
    assert vouch() == 0
    assert for_server("alice") == 0
    Path("r.alice.dan.server.json").unlink()
    assert for_server("alice") == 4
    assert vouch() == 4
    assert len(ReleaseLog(Path("alice.keys")).entries()) == 1


def test_evidence_that_answers_nobody_is_refused(ask: Callable[..., None]) -> None:
    """Bob gave no challenge, or one for another result."""
    ask(*challenge("alice", "dan"))
    assert vouch() == 0
    assert for_server("bob") == 4


def test_a_server_whose_member_did_not_vouch_gets_nothing(ask: Callable[..., None]) -> None:
    ask(*challenge("alice", "dan"))
    shutil.copy("server.request", "server.vouched")
    assert for_server("alice") == 3
    assert not Path("alice.keys.releases").exists()
