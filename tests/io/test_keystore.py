"""Keys on disk: encrypted, bound to passphrase and purpose, and never made to cheat."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from superswarm.crypto import passphrase as sealing
from superswarm.crypto.passphrase import open_secret, seal_secret
from superswarm.errors import CannotOpen, Environment, Fork, Malformed, Misconfigured, TooLarge, VersionMismatch
from superswarm.io.keystore import (
    MemberKeys,
    load_keys,
    load_pairing,
    open_file,
    read_passphrase,
    save_keys,
    save_pairing,
    seal_file,
    sign_once,
)
from superswarm.values import MemberId
from superswarm.wire import pack, unpack_list
from tests.consortia import kem_key, manifest, signing_key

GOOD = "correct horse battery"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cheap derivation for what is not about its cost."""
    monkeypatch.setattr(sealing, "LOG_N", 4)


def keys() -> MemberKeys:
    return MemberKeys(MemberId("alice"), signing_key("alice"), kem_key("alice"), b"p" * 32)


def test_a_key_file_is_encrypted_at_full_cost_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "alice.key"
    save_keys(path, keys(), GOOD)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    raw = path.read_bytes()
    assert keys().signing.seeds not in raw
    assert keys().kem.seeds not in raw
    assert load_keys(path, GOOD) == keys()
    assert (sealing.LOG_N, sealing.BLOCK, sealing.PARALLEL) == (17, 8, 1)


@pytest.mark.usefixtures("quick")
def test_an_existing_key_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "alice.key"
    save_keys(path, keys(), GOOD)
    with pytest.raises(Misconfigured, match="exists already"):
        save_keys(path, MemberKeys.generate("alice"), GOOD)
    assert load_keys(path, GOOD) == keys()


@pytest.mark.usefixtures("quick")
def test_a_wrong_passphrase_is_called_so(tmp_path: Path) -> None:
    path = tmp_path / "alice.key"
    save_keys(path, keys(), GOOD)
    with pytest.raises(Misconfigured, match=r"alice\.key: the passphrase is not the one"):
        load_keys(path, "Correct horse battery")


@pytest.mark.usefixtures("quick")
def test_keyboards_that_compose_letters_differently_open_the_same_file() -> None:
    sealed = seal_secret(b"payload", "Zu\u0308rich am See", purpose="test")
    assert open_secret(sealed, "Z\u00fcrich am See", purpose="test") == b"payload"


@pytest.mark.usefixtures("quick")
def test_a_file_opens_as_what_it_is_only(tmp_path: Path) -> None:
    path = tmp_path / "authority"
    seal_file(path, b"payload", GOOD, purpose="a development authority")
    assert open_file(path, GOOD, purpose="a development authority") == b"payload"
    with pytest.raises(Misconfigured, match="holds 'a development authority'"):
        load_keys(path, GOOD)


@pytest.mark.usefixtures("quick")
def test_renaming_the_purpose_does_not_open_it() -> None:
    fields = unpack_list(seal_secret(b"payload", GOOD, purpose="one"))
    with pytest.raises(Misconfigured):
        open_secret(pack(fields[0], "other", *fields[2:]), GOOD, purpose="other")


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("at", [-1, -17, -30])
def test_an_altered_file_is_told_from_a_wrong_passphrase(at: int) -> None:
    sealed = bytearray(seal_secret(b"payload" * 4, GOOD, purpose="test"))
    sealed[at] ^= 1
    with pytest.raises(CannotOpen):
        open_secret(bytes(sealed), GOOD, purpose="test")


@pytest.mark.usefixtures("quick")
def test_every_altered_bit_is_noticed() -> None:
    sealed = seal_secret(b"p", GOOD, purpose="t")
    for at in range(len(sealed)):
        altered = sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]
        with pytest.raises((CannotOpen, Malformed, Misconfigured, TooLarge, VersionMismatch)):
            open_secret(altered, GOOD, purpose="t")


def test_what_is_no_sealed_file_is_malformed() -> None:
    for raw in (b"", b"hello", pack("superswarm-sealed-file/1"), pack("x", "y", b"", b"", b"", b"")):
        with pytest.raises(Malformed):
            open_secret(raw, GOOD, purpose="test")
    with pytest.raises(VersionMismatch):
        open_secret(pack("superswarm-sealed-file/2", b""), GOOD, purpose="test")


def test_the_trainer_gets_the_pairing_key_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "alice.pairing"
    save_pairing(path, keys().pairing)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_pairing(path) == b"p" * 32
    path.write_text("superswarm-pairing-key-1:00")
    with pytest.raises(Malformed, match="not a pairing key"):
        load_pairing(path)


def test_keys_are_not_printed() -> None:
    shown = repr(keys())
    assert "alice" in shown
    assert repr(keys().signing.seeds) not in shown
    assert "seeds" not in shown
    assert "ppp" not in shown


@pytest.mark.parametrize("name", ["", "Alice", "a b", "-a", "a" * 33, "public"])
def test_a_member_has_a_proper_id(name: str) -> None:
    with pytest.raises(Misconfigured):
        MemberKeys.generate(name)


def test_a_member_signs_one_manifest_an_epoch_across_restarts(tmp_path: Path) -> None:
    path = tmp_path / "alice.key"
    sign_once(path, keys(), manifest())
    sign_once(path, keys(), manifest())
    with pytest.raises(Fork, match="cheats"):
        sign_once(path, keys(), manifest(name="Rival"))
    assert stat.S_IMODE((tmp_path / "alice.key.signed").stat().st_mode) == 0o600


def test_a_damaged_record_stops_signing(tmp_path: Path) -> None:
    path = tmp_path / "alice.key"
    sign_once(path, keys(), manifest())
    (tmp_path / "alice.key.signed").write_bytes(b"")
    with pytest.raises(Malformed, match="restore it"):
        sign_once(path, keys(), manifest(name="Rival"))


def test_no_record_no_signature(tmp_path: Path) -> None:
    """A folder that cannot be written to yields no signature either."""
    with pytest.raises(Environment):
        sign_once(tmp_path / "absent" / "alice.key", keys(), manifest())


def test_where_a_passphrase_comes_from(tmp_path: Path) -> None:
    file = tmp_path / "passphrase"
    file.write_text(f"{GOOD}\r\nsecond line\n")
    assert read_passphrase(file, environment={"SUPERSWARM_PASSPHRASE": "other"}) == GOOD
    assert read_passphrase(None, environment={"SUPERSWARM_PASSPHRASE": GOOD}) == GOOD
    with pytest.raises(Misconfigured, match="no passphrase: give --passphrase-file"):
        read_passphrase(None, environment={})
    with pytest.raises(Misconfigured, match="at least 8"):
        read_passphrase(None, new=True, environment={"SUPERSWARM_PASSPHRASE": "short"})
    with pytest.raises(Misconfigured, match="empty"):
        read_passphrase(None, environment={"SUPERSWARM_PASSPHRASE": ""})
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(Misconfigured, match="not a text file"):
        read_passphrase(file, environment={})
