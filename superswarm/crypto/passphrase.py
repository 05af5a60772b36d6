"""Sealing small secrets under a passphrase: scrypt (RFC 7914), then AES-256-GCM that commits to its key.

AES-GCM alone lets one ciphertext open under two keys; the stored commitment, a second output of the same derivation,
rules that out, and tells a wrong passphrase from an altered file before anything is decrypted.
"""

from __future__ import annotations

import hmac
import secrets
import unicodedata

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from superswarm.errors import CannotOpen, Malformed, Misconfigured, VersionMismatch
from superswarm.wire import pack, unpack_list

FORMAT = "superswarm-sealed-file/"
VERSION = FORMAT + "1"
LOG_N, BLOCK, PARALLEL = 17, 8, 1  # 128 MiB and about 0.3 s a guess; fixed by the version, never read from the file
SALT = 16
NONCE = 12
SEALED_BYTES = 1024 * 1024


def seal_secret(payload: bytes, passphrase: str, *, purpose: str) -> bytes:
    """Encrypt `payload`; it opens only under the same passphrase and purpose."""
    salt, nonce = secrets.token_bytes(SALT), secrets.token_bytes(NONCE)
    key, commitment = _derive(passphrase, salt, purpose)
    head = pack(VERSION, purpose, salt, commitment, nonce)
    return pack(VERSION, purpose, salt, commitment, nonce, AESGCM(key).encrypt(nonce, payload, head))


def open_secret(sealed: bytes, passphrase: str, *, purpose: str) -> bytes:
    """Invert `seal_secret`. Misconfigured for a wrong passphrase, CannotOpen for an altered file."""
    match unpack_list(sealed, limit=SEALED_BYTES):
        case [str(version), str(kept), bytes(salt), bytes(commitment), bytes(nonce), bytes(ciphertext)] if (
            version == VERSION and len(salt) == SALT and len(commitment) == 32 and len(nonce) == NONCE
        ):
            pass
        case [str(version), *_] if version.startswith(FORMAT) and version != VERSION:
            raise VersionMismatch("the sealed file is of another version: use the superswarm that wrote it")
        case _:
            raise Malformed("not a file that superswarm sealed with a passphrase")
    if kept != purpose:
        raise Misconfigured(f"the sealed file holds {kept[:40]!a}, and {purpose} are wanted")
    key, expected = _derive(passphrase, salt, purpose)
    if not hmac.compare_digest(commitment, expected):
        raise Misconfigured("the passphrase is not the one that the file was sealed with")
    try:
        return AESGCM(key).decrypt(nonce, ciphertext, pack(VERSION, purpose, salt, commitment, nonce))
    except InvalidTag:
        raise CannotOpen("the sealed file was altered") from None


def root_key(passphrase: str, salt: bytes, *, purpose: str) -> bytes:
    """A key of 32 bytes to derive others from; 128 MiB and about 0.3 s. The salt is random, public, and kept."""
    if len(salt) != SALT:
        raise Malformed(f"a passphrase's salt has {SALT} bytes")
    return _derive(passphrase, salt, purpose)[0]


def _derive(passphrase: str, salt: bytes, purpose: str) -> tuple[bytes, bytes]:
    """The AES key and the commitment to it, 32 bytes each. Keyboards differ in how they compose letters: NFC."""
    text = unicodedata.normalize("NFC", passphrase).encode("utf-8", "surrogatepass")
    root = Scrypt(salt=salt, length=32, n=2**LOG_N, r=BLOCK, p=PARALLEL).derive(text)
    expanded = HKDFExpand(algorithm=SHA256(), length=64, info=pack(VERSION, purpose)).derive(root)
    return expanded[:32], expanded[32:]
