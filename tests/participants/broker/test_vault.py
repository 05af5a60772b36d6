"""Keys at rest: a wrong passphrase, a readable key file, an entry that was moved or altered, another wrapper."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from participants.broker import vault as vaults
from participants.broker.decisions import Decisions
from participants.broker.vault import Vault, VaultFolder, wrapper_for
from participants.broker.wrapping import RootKeyWrapper, by_key_file, by_passphrase, new_key_file
from superswarm.crypto import passphrase as sealing
from superswarm.errors import CannotOpen, Malformed, Misconfigured, ReleaseRefused, TooLarge
from tests.releases import BASE, BASE_KEY, NOTES, NOTES_KEY, WRAPPER, agreed, asset_key

HERE, ELSEWHERE = b"here", b"elsewhere"


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "LOG_N", 4)


def stocked() -> Vault:
    both = Vault.new(WRAPPER).add(asset_key()).add(asset_key(NOTES, NOTES_KEY, "dataset"))
    return both.offer(BASE, agreed(), "base", 1).offer(NOTES, agreed(), "notes", 2)


def test_a_wrapped_key_opens_in_its_context_only() -> None:
    wrapped = WRAPPER.wrap(BASE_KEY, HERE)
    assert WRAPPER.unwrap(wrapped, HERE) == BASE_KEY
    assert BASE_KEY not in wrapped
    with pytest.raises(CannotOpen):
        WRAPPER.unwrap(wrapped, ELSEWHERE)
    with pytest.raises(CannotOpen):
        RootKeyWrapper(bytes([1]) * 32, kind="key-file").unwrap(wrapped, HERE)


def test_every_byte_of_a_wrapped_key_counts() -> None:
    wrapped = WRAPPER.wrap(BASE_KEY, HERE)
    for at in range(len(wrapped)):
        altered = bytearray(wrapped)
        altered[at] ^= 1
        with pytest.raises((CannotOpen, Malformed, TooLarge)):
            WRAPPER.unwrap(bytes(altered), HERE)


@given(st.binary(max_size=300))
def test_anything_else_is_no_wrapped_key(raw: bytes) -> None:
    with pytest.raises((CannotOpen, Malformed)):
        WRAPPER.unwrap(raw, HERE)


@given(st.binary(max_size=300))
def test_anything_else_is_no_vault_and_no_log(raw: bytes) -> None:
    with pytest.raises(Malformed):
        vaults.parse(raw)
    with pytest.raises(Malformed):
        Decisions().read(raw)


def test_two_wrappings_of_one_key_do_not_look_alike() -> None:
    assert WRAPPER.wrap(BASE_KEY, HERE) != WRAPPER.wrap(BASE_KEY, HERE)


def test_a_wrong_passphrase_is_named() -> None:
    right = by_passphrase("the right one")
    document = Vault.new(right).document
    Vault.open(document, wrapper_for(document, "the right one", None))
    with pytest.raises(Misconfigured, match="passphrase does not open the vault"):
        Vault.open(document, wrapper_for(document, "another", None))
    with pytest.raises(Misconfigured, match="opens with a passphrase"):
        wrapper_for(document, None, Path("vault.key"))


def test_a_key_file_is_its_owners_alone(tmp_path: Path) -> None:
    file = tmp_path / "vault.key"
    document = Vault.new(new_key_file(file)).document
    assert file.stat().st_mode & 0o777 == 0o600
    Vault.open(document, wrapper_for(document, None, file))
    with pytest.raises(Misconfigured, match="give it"):
        wrapper_for(document, "a passphrase", None)
    with pytest.raises(Misconfigured, match="exists already"):
        new_key_file(file)
    file.chmod(0o640)
    with pytest.raises(Misconfigured, match="others can read"):
        by_key_file(file)


def test_another_key_file_is_named(tmp_path: Path) -> None:
    document = Vault.new(new_key_file(tmp_path / "one")).document
    new_key_file(tmp_path / "two")
    with pytest.raises(Misconfigured, match="key file does not open the vault"):
        Vault.open(document, by_key_file(tmp_path / "two"))
    (tmp_path / "three").write_text("something else")
    (tmp_path / "three").chmod(0o600)
    with pytest.raises(Malformed):
        by_key_file(tmp_path / "three")


def test_a_key_is_wrapped_once_more_for_each_manifest() -> None:
    vault = stocked()
    assert vault.key(BASE, agreed().digest) == BASE_KEY
    held = vault.require(BASE)
    assert held.key != held.offers[0].key
    with pytest.raises(ReleaseRefused):
        vault.withdraw(BASE, None).key(BASE, agreed().digest)
    assert vault.withdraw(BASE, None).key(NOTES, agreed().digest) == NOTES_KEY


@pytest.mark.parametrize("change", ["asset", "owner", "demo", "kind"])
def test_an_entry_that_was_altered_does_not_open(change: str) -> None:
    vault = stocked()
    held = vault.require(BASE)
    other = {"asset": str(NOTES), "owner": "bob", "demo": False, "kind": "dataset"}[change]
    moved = (
        held.model_copy(update={"asset": other})
        if change == "asset"
        else held.model_copy(update={"header": held.header.model_copy(update={change: other})})
    )
    altered = vault._with(moved)
    with pytest.raises(CannotOpen):
        altered.key(NOTES if change == "asset" else BASE, agreed().digest)


def test_a_vault_is_whole_after_another_passphrase() -> None:
    fresh = by_passphrase("a new one")
    vault = stocked().rewrapped(fresh)
    assert (vault.key(BASE, agreed().digest), vault.key(NOTES, agreed().digest)) == (BASE_KEY, NOTES_KEY)
    with pytest.raises(Misconfigured):
        Vault.open(vault.document, WRAPPER)
    assert Vault.open(vaults.parse(vaults.to_bytes(vault.document)), fresh).key(BASE, agreed().digest) == BASE_KEY


def test_a_key_is_added_once(tmp_path: Path) -> None:
    vault = stocked()
    with pytest.raises(Misconfigured, match="already"):
        vault.add(asset_key())
    with pytest.raises(Misconfigured, match="no vault"):
        VaultFolder(tmp_path).document()


def test_a_kms_fits_behind_the_same_interface() -> None:
    """One whose keys never leave it: the vault notes its kind and the name of its key, and knows no more."""

    class Kms:
        kind, parameters = "example-kms", b"projects/owner/keys/7"

        def __init__(self) -> None:
            self.kept: dict[bytes, tuple[bytes, bytes]] = {}

        def wrap(self, key: bytes, context: bytes) -> bytes:
            handle = f"handle {len(self.kept)}".encode()
            self.kept[handle] = key, context
            return handle

        def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
            key, wanted = self.kept[wrapped]
            if context != wanted:
                raise CannotOpen("another context")
            return key

    vault = Vault.new(Kms()).add(asset_key()).offer(BASE, agreed(), "base", 1)
    assert vault.key(BASE, agreed().digest) == BASE_KEY
    assert vault.document.opened_by == "example-kms"
    assert base64.b64decode(vault.document.parameters) == b"projects/owner/keys/7"


def test_nothing_that_holds_a_key_prints_it() -> None:
    shown = f"{stocked()!r} {WRAPPER!r} {asset_key()!r}"
    assert BASE_KEY.hex() not in shown
    assert repr(BASE_KEY) not in shown
