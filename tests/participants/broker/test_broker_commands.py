"""An owner's broker by its commands: keys in, offers, the log, a withdrawal, backup, restore, another passphrase."""

from __future__ import annotations

import os
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from participants.broker.opening import node_broker, service_broker
from participants.config import BrokerConfig, ParticipantConfig
from participants.key_desk import BrokerApi
from superswarm.assets.key import PURPOSE
from superswarm.consortium.approval import ApprovedManifest, chain_to_bytes
from superswarm.errors import Malformed, Misconfigured, Mismatch, ReleaseRefused, Rollback
from superswarm.io.flowerenv import free_loopback_ports
from superswarm.io.keystore import seal_file
from superswarm.io.processes import spawn
from superswarm.values import SIMULATED_WARNING
from tests import consortia
from tests.clinics import PASSPHRASE, run, settle
from tests.releases import (
    BASE,
    BASE_KEY,
    BOB,
    NOTES,
    NOTES_KEY,
    Session,
    agreed,
    ask,
    asset_key,
    manifest_of,
    refused,
)

AT = 1_800_000_000


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("time.time", lambda: float(AT))
    settled = settle(tmp_path, monkeypatch)
    for name, key in (("base", asset_key()), ("notes", asset_key(NOTES, NOTES_KEY, "dataset"))):
        seal_file(tmp_path / f"{name}.assetkey", key.to_bytes(), PASSPHRASE, purpose=PURPOSE)
    write(agreed())
    return settled


def write(manifest: ApprovedManifest, name: str = "consortium.json") -> str:
    Path(name).write_bytes(chain_to_bytes([consortia.sign_all(manifest.manifest)]))
    return name


def stock() -> None:
    assert str(BASE) in run("broker", "add", "base.assetkey")
    run("broker", "offer", "base", "--manifest", "consortium.json", "--yes")


@contextmanager
def node(**changes: object) -> Iterator[BrokerApi]:
    """The broker as Alice's node opens it."""
    given = {
        "member": "alice",
        "manifest": "consortium.json",
        "keys": "alice.keys",
        "relay": "localhost:8443",
        "relay_ca": "relay-ca.crt",
        "supernode_key": "supernode.key",
    }
    config = ParticipantConfig.model_validate(given | changes)
    with node_broker(config, agreed(), PASSPHRASE, lambda *_, **__: None) as broker:
        assert broker is not None
        yield broker


def test_an_owner_adds_and_offers_a_key_and_its_node_releases_it() -> None:
    assert SIMULATED_WARNING in run("broker", "add", "base.assetkey")
    with node() as broker, refused("not-offered"):
        ask(broker, Session())
    shown = run("broker", "offer", "base", "--manifest", "consortium.json", answer="y\n")
    for word in ("alice, bob, carol", "2027-01-31", "2 times to each member", str(agreed().digest)):
        assert word in shown
    with node() as broker:
        assert ask(broker, Session()) == BASE_KEY
    assert "bob 1" in run("broker", "status")
    log = run("broker", "log")
    for word in ("add", "offer", "release", "bob", "run-1, attempt 1"):
        assert word in log
    lines = run("broker", "log", "--json").splitlines()
    assert len(lines) == 3  # a challenge that is not given is no decision
    assert '"event":"release"' in lines[-1]


def test_what_asset_seal_writes_is_what_a_vault_takes() -> None:
    Path("records.jsonl").write_text('{"prompt": "p", "completion": "c"}\n' * 20)
    words = ["--kind", "dataset", "--owner", "alice", "--version", "2026", "--out", "r.sealed", "--key", "r.assetkey"]
    run("asset", "seal", "records.jsonl", *words)
    said = run("broker", "add", "r.assetkey")
    assert "a dataset of alice, version 2026" in said
    assert SIMULATED_WARNING not in said
    with pytest.raises(Misconfigured, match="already"):
        run("broker", "add", "r.assetkey")


def test_without_a_yes_nothing_is_offered() -> None:
    run("broker", "add", "base.assetkey")
    with pytest.raises(AssertionError, match="Aborted"):
        run("broker", "offer", "base", "--manifest", "consortium.json", answer="n\n")
    assert "nothing" in run("broker", "status")


def test_what_the_manifest_does_not_have_is_not_offered() -> None:
    run("broker", "add", "base.assetkey")
    with pytest.raises(Misconfigured, match="no sealed asset other; it has base, notes"):
        run("broker", "offer", "other", "--manifest", "consortium.json", "--yes")
    with pytest.raises(Misconfigured, match="add it first"):
        run("broker", "offer", "notes", "--manifest", "consortium.json", "--yes")
    bobs = manifest_of(consortia_asset("base", "bob"))
    with pytest.raises(Mismatch):
        run("broker", "offer", "base", "--manifest", write(bobs, "bobs.json"), "--yes")


def consortia_asset(name: str, owner: str) -> dict[str, object]:
    from tests.releases import sealed

    return sealed(name, owner=owner)


def test_a_withdrawal_says_what_it_cannot_undo() -> None:
    stock()
    with node() as broker:
        ask(broker, Session())
        said = run("broker", "withdraw", "base", answer="y\n")
        assert "cannot be taken back" in said
        assert "stay known to the TEEs" in said
        with refused("not-offered"):
            ask(broker, Session())
    with pytest.raises(Misconfigured, match="no assets called base"):
        run("broker", "withdraw", "base", "--yes")
    run("broker", "offer", "base", "--manifest", "consortium.json", "--yes")
    run("broker", "withdraw", str(BASE), "--manifest", "consortium.json", "--yes")


def test_a_lost_machine_is_restored_and_charges_what_it_forgot() -> None:
    stock()
    run("broker", "backup", "backup")
    with node() as broker:
        ask(broker, Session())
        ask(broker, Session())
    Path("vault").rename("lost")
    said = run("broker", "restore", "backup", "--manifest", "consortium.json", answer="y\n")
    assert "missing: up to 2. Releases among them: 2." in said
    with node() as broker, refused("not-offered"):
        ask(broker, Session())
    run("broker", "offer", "base", "--manifest", "consortium.json", "--yes")
    with node() as broker, refused("used-up"):
        ask(broker, Session())
    assert "2 releases missing" in run("broker", "log")


def test_an_old_copy_in_place_of_the_vault_is_noticed_and_mended() -> None:
    stock()
    copy = {file.name: file.read_bytes() for file in Path("vault").iterdir()}
    with node() as broker:
        ask(broker, Session())
    for name, raw in copy.items():
        (Path("vault") / name).write_bytes(raw)
    with pytest.raises(Rollback, match="superswarm broker restore"), node():
        pass
    assert "missing: up to 1." in run("broker", "restore", "--yes")
    with node():
        pass
    assert "Nothing is missing" in run("broker", "restore")


def test_a_lost_witness_needs_a_word_that_says_so() -> None:
    stock()
    Path("state/broker-head.json").unlink()
    with pytest.raises(Rollback), node():
        pass
    with pytest.raises(Misconfigured, match="--witness-lost"):
        run("broker", "restore", "--yes")
    assert "all releases count as used up" in run("broker", "restore", "--witness-lost", "--yes")
    run("broker", "offer", "base", "--manifest", "consortium.json", "--yes")
    with node() as broker, refused("used-up"):
        ask(broker, Session())


def test_a_vault_may_open_with_a_key_file_and_then_another() -> None:
    run("broker", "add", "base.assetkey", "--vault-key-file", "vault.key")
    run("broker", "offer", "base", "--manifest", "consortium.json", "--yes", "--vault-key-file", "vault.key")
    with pytest.raises(Misconfigured, match="opens with a key file"), node():
        pass
    with node(vault_key_file="vault.key") as broker:
        ask(broker, Session())
    run("broker", "rekey", "--vault-key-file", "vault.key", "--new-key-file", "second.key")
    with pytest.raises(Misconfigured), node(vault_key_file="vault.key"):
        pass
    with node(vault_key_file="second.key") as broker:
        assert ask(broker, Session()) == BASE_KEY


def test_a_vault_may_have_a_passphrase_of_its_own() -> None:
    Path("other").write_text("another passphrase\n")
    run("broker", "add", "base.assetkey", "--passphrase-file", "other", "--asset-passphrase-file", asset_file())
    with pytest.raises(Misconfigured, match="does not open the vault"), node():
        pass
    with node(vault_passphrase_file="other"):
        pass
    Path("third").write_text("a third passphrase\n")
    run("broker", "rekey", "--passphrase-file", "other", "--new-passphrase-file", "third")
    with node(vault_passphrase_file="third"):
        pass


def asset_file() -> str:
    Path("passphrase").write_text(PASSPHRASE)
    return "passphrase"


def test_a_member_without_a_vault_has_no_broker() -> None:
    with pytest.raises(AssertionError), node():
        pass


def test_a_broker_on_its_own_needs_certificates() -> None:
    with pytest.raises(Misconfigured, match="broker certificates"), node(broker="localhost:9443"):
        pass


def test_a_broker_on_its_own_serves_every_consortium() -> None:
    stock()
    Path("consortia").mkdir()
    other = manifest_of(consortium="f" * 32)
    for manifest in (agreed(), other):
        write(manifest, f"consortia/{manifest.manifest.consortium}.json")
    run("broker", "offer", "base", "--manifest", f"consortia/{'f' * 32}.json", "--yes")
    config = BrokerConfig.model_validate({"consortia": "consortia"})
    broker, manifests = service_broker(config, lambda *_, **__: None)
    assert {one.digest for one in manifests} == {agreed().digest, other.digest}
    assert ask(broker, Session()) == ask(broker, Session(manifest=other)) == BASE_KEY
    write(agreed(), "consortia/twice.json")
    with pytest.raises(Misconfigured, match="one consortium"):
        service_broker(config, lambda *_, **__: None)


@pytest.mark.e2e
def test_a_broker_runs_on_its_own(tmp_path: Path) -> None:
    """As a process: it answers its owner's node over mutual TLS, and says on /health that it is ready."""
    stock()
    Path("consortia").mkdir()
    write(agreed(), "consortia/three.json")
    run("broker", "certificates", "--name", "127.0.0.1")
    port, http = free_loopback_ports(2)
    words = ["broker", "up", "--consortia", "consortia", "--listen", f"127.0.0.1:{port}"]
    log = tmp_path / "broker.log"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", CHEAP, *words, "--http", f"127.0.0.1:{http}", "--log-format", "json"]
    child = spawn(command, name="broker", log=log, environment=environment, folder=tmp_path)
    with child:
        wait_for(log, '"event": "ready"')
        settings = {"broker": f"127.0.0.1:{port}", "broker_ca": "broker-ca.crt"}
        settings |= {"broker_certificate": "broker-node.crt", "broker_certificate_key": "broker-node.key"}
        with node(**settings) as broker:
            assert len(broker.challenge(agreed().digest, BOB, BASE.raw)) == 32
            with pytest.raises(ReleaseRefused):
                ask(broker, Session(), vouch=b"")
        with urllib.request.urlopen(f"http://127.0.0.1:{http}/health") as answer:
            assert b'"status": "ok"' in answer.read()
    assert "refuse" in run("broker", "log")


CHEAP = """
import sys
from superswarm.crypto import passphrase
passphrase.LOG_N = 4
from superswarm.cli import run
raise SystemExit(run(sys.argv[1:]))
"""  # the cost of a passphrase is tested elsewhere


def wait_for(log: Path, text: str) -> None:
    for _ in range(600):
        if log.exists() and text in log.read_text():
            return
        threading.Event().wait(0.05)
    raise AssertionError(log.read_text())


@pytest.mark.parametrize("words", [("status",), ("log",), ("withdraw", "base"), ("backup", "file")])
def test_where_no_vault_is_that_is_said(words: tuple[str, ...]) -> None:
    with pytest.raises(Misconfigured, match="no vault is in vault: name its folder"):
        run("broker", *words)


def test_a_restore_that_is_refused_leaves_nothing_behind() -> None:
    stock()
    run("broker", "backup", "backup")
    elsewhere = ("--vault", "new", "--state", "lost")
    with pytest.raises(Misconfigured, match="--witness-lost"):
        run("broker", "restore", "backup", *elsewhere)
    assert not Path("new").exists()
    with pytest.raises(Malformed, match=r"base\.assetkey is not a backup of a broker"):
        run("broker", "restore", "base.assetkey", "--witness-lost", *elsewhere)
    assert not Path("new").exists()
    assert "used up" in run("broker", "restore", "backup", *elsewhere, "--witness-lost", "--yes")
    with pytest.raises(Misconfigured, match="leave the backup away"):
        run("broker", "restore", "backup", *elsewhere, "--witness-lost")


def test_certificates_are_made_and_kept() -> None:
    said = run(
        "broker", "certificates", "tls", "--name", "broker.example.org", "--client", "node", "--client", "second"
    )
    assert "tls/broker-second.key (secret)" in said
    before = Path("tls/broker-node.crt").read_bytes()
    run("broker", "certificates", "tls", "--name", "broker.example.org", "--client", "node")
    assert Path("tls/broker-node.crt").read_bytes() == before
    assert Path("tls/broker.key").stat().st_mode & 0o777 == 0o600


def test_a_config_file_is_written() -> None:
    assert "consortia = " in run("broker", "config")
    assert issubclass(Rollback, Exception)
    assert ReleaseRefused("a", "b").code == "ReleaseRefused:a"
