"""A member's secrets on disk: always encrypted under a passphrase, and readable by their owner only."""

from __future__ import annotations

import base64
import getpass
import os
import re
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from superswarm.consortium.approval import sign_manifest
from superswarm.consortium.documents import decode_base64, dump_json, load_json, require_fields
from superswarm.consortium.equivocation import SigningRecord
from superswarm.consortium.manifest import Manifest
from superswarm.crypto.hpke import KemKey
from superswarm.crypto.passphrase import SEALED_BYTES, open_secret, seal_secret
from superswarm.crypto.signing import SigningKey
from superswarm.errors import Malformed, Misconfigured
from superswarm.io.files import SECRET, locked, read_bytes, write_bytes
from superswarm.values import LIMITS, MEMBER_ID, MemberId

KEYS_FORMAT = "superswarm-member-keys/1"
MEMBER_KEYS = "a member's keys"
PAIRING_PREFIX = "superswarm-pairing-key-1:"
PAIRING_BYTES = 32
PASSPHRASE_VARIABLE = "SUPERSWARM_PASSPHRASE"  # noqa: S105 - a name
SHORTEST = 8  # characters of a new passphrase
LONGEST = 4096  # bytes of a passphrase file


@dataclass(frozen=True, slots=True)
class MemberKeys:
    """What speaks and reads for a member. Never printed."""

    member: MemberId
    signing: SigningKey = field(repr=False)
    kem: KemKey = field(repr=False)
    pairing: bytes = field(repr=False)  # 32 bytes, shared with the member's own trainer and nobody else

    def __post_init__(self) -> None:
        if len(self.pairing) != PAIRING_BYTES:
            raise Malformed(f"a pairing key has {PAIRING_BYTES} bytes")
        if not MEMBER_ID.fullmatch(self.member) or self.member == "public":
            raise Misconfigured(
                "a member's id has 1 to 32 lower-case letters, digits and hyphens, with no hyphen at either end"
            )

    @classmethod
    def generate(cls, member: str) -> Self:
        return cls(MemberId(member), SigningKey.generate(), KemKey.generate(), secrets.token_bytes(PAIRING_BYTES))

    def to_bytes(self) -> bytes:
        data: dict[str, Any] = {
            "format": KEYS_FORMAT,
            "member": self.member,
            "signing_seeds": base64.b64encode(self.signing.seeds).decode(),
            "kem_seeds": base64.b64encode(self.kem.seeds).decode(),
            "pairing": base64.b64encode(self.pairing).decode(),
        }
        return dump_json(data)

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        data = load_json(raw, MEMBER_KEYS, limit=SEALED_BYTES)
        require_fields(data, MEMBER_KEYS, KEYS_FORMAT, {"member", "signing_seeds", "kem_seeds", "pairing"})
        match data:
            case {
                "member": str(member),
                "signing_seeds": str(signing),
                "kem_seeds": str(kem),
                "pairing": str(pairing),
            }:
                return cls(
                    MemberId(member),
                    SigningKey(decode_base64(signing, MEMBER_KEYS)),
                    KemKey(decode_base64(kem, MEMBER_KEYS)),
                    decode_base64(pairing, MEMBER_KEYS),
                )
            case _:
                raise Malformed("a member's keys do not have the expected fields")


def seal_file(path: Path, payload: bytes, passphrase: str, *, purpose: str, replace: bool = False) -> None:
    """Write a secret, encrypted, for its owner only. `purpose` names what it is; it opens as nothing else."""
    write_bytes(path, seal_secret(payload, passphrase, purpose=purpose), mode=SECRET, replace=replace)


def open_file(path: Path, passphrase: str, *, purpose: str) -> bytes:
    """Read what `seal_file` wrote. Misconfigured for a wrong passphrase, CannotOpen for an altered file."""
    sealed = read_bytes(path, limit=SEALED_BYTES)
    try:
        return open_secret(sealed, passphrase, purpose=purpose)
    except (Misconfigured, Malformed) as error:
        raise type(error)(f"{path}: {error}") from None


def save_keys(path: Path, keys: MemberKeys, passphrase: str) -> None:
    """Write a new key file; an existing one is never overwritten."""
    seal_file(path, keys.to_bytes(), passphrase, purpose=MEMBER_KEYS)


def load_keys(path: Path, passphrase: str) -> MemberKeys:
    return MemberKeys.parse(open_file(path, passphrase, purpose=MEMBER_KEYS))


def save_pairing(path: Path, pairing: bytes) -> None:
    """Write the pairing key for the member's trainer, which starts with nobody at the keyboard: not encrypted.

    It opens nothing. Whoever has it can pass its own approved trainer off as the member's.
    """
    write_bytes(path, f"{PAIRING_PREFIX}{pairing.hex()}\n".encode(), mode=SECRET)


def load_pairing(path: Path) -> bytes:
    text = read_bytes(path, limit=1024).decode("ascii", "replace").strip()
    if not re.fullmatch(rf"{PAIRING_PREFIX}[0-9a-f]{{{2 * PAIRING_BYTES}}}", text):
        raise Malformed(f"{path} is not a pairing key")
    return bytes.fromhex(text.removeprefix(PAIRING_PREFIX))


def sign_once(path: Path, keys: MemberKeys, manifest: Manifest) -> bytes:
    """Sign a manifest, unless these keys have signed a rival of it: then Fork.

    The record lies beside the key file, and is on disk before the signature exists. Copy both or neither.
    """
    record = signing_record(path)
    with locked(record):
        permitted = _read_record(record).permit(manifest)
        write_bytes(record, permitted.to_bytes(), mode=SECRET, replace=True)
    return sign_manifest(keys.signing, manifest)


def signing_record(path: Path) -> Path:
    """Where the record of what a key file has signed lies."""
    return path.with_name(f"{path.name}.signed")


def carry_record(old: Path, new: Path) -> None:
    """Give a member's new key file the record of its old one: it signs no rival of what the old one signed."""
    record = signing_record(old)
    with locked(record):
        write_bytes(signing_record(new), _read_record(record).to_bytes(), mode=SECRET)


def _read_record(record: Path) -> SigningRecord:
    """What a member's keys have signed; nothing where there is no record. Malformed where it is damaged."""
    if not record.exists():
        return SigningRecord({})
    try:
        return SigningRecord.parse(read_bytes(record, limit=LIMITS.document_bytes))
    except Malformed as error:
        raise type(error)(f"{record}: {error}; it says what these keys have signed, so restore it") from None


def read_passphrase(
    file: Path | None, *, new: bool = False, what: str = "", environment: Mapping[str, str] = os.environ
) -> str:
    """A passphrase from a file (its first line), else from SUPERSWARM_PASSPHRASE, else from whoever types.

    A `new` one is typed twice, and has at least SHORTEST characters. `what` it opens is said where it is asked for.
    """
    if file is not None:
        passphrase = _first_line(file)
    elif PASSPHRASE_VARIABLE in environment:
        passphrase = environment[PASSPHRASE_VARIABLE]
    elif sys.stdin is not None and sys.stdin.isatty():
        passphrase = getpass.getpass(f"Passphrase of {what}: " if what else "Passphrase: ")
        if new and getpass.getpass("The same again: ") != passphrase:
            raise Misconfigured("the two passphrases differ")
    else:
        raise Misconfigured(f"no passphrase: give --passphrase-file, or set {PASSPHRASE_VARIABLE}")
    if not passphrase:
        raise Misconfigured("the passphrase is empty")
    if new and len(passphrase) < SHORTEST:
        raise Misconfigured(f"a passphrase has at least {SHORTEST} characters; several random words are good")
    return passphrase


def _first_line(file: Path) -> str:
    try:
        return read_bytes(file, limit=LONGEST).decode().partition("\n")[0].removesuffix("\r")
    except UnicodeDecodeError:
        raise Misconfigured(f"{file} is not a text file with a passphrase in its first line") from None
