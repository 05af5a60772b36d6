"""How an owner's keys are encrypted at rest: under a root key, or by a KMS or HSM that never gives its key away.

Whatever does it has two methods, `wrap` and `unwrap`. What is wrapped opens only in the context that it was wrapped
for, and under one key only: AES-256-GCM alone does not commit to its key (Albertini et al., USENIX Security 2022), so
a commitment, derived with it, stands beside each ciphertext.
"""

from __future__ import annotations

import hmac
import re
import secrets
import stat
from pathlib import Path
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from superswarm.crypto.kdf import KEY_BYTES, derive
from superswarm.crypto.passphrase import SALT, root_key
from superswarm.errors import CannotOpen, Malformed, Misconfigured
from superswarm.io.files import SECRET, explained, read_bytes, write_bytes
from superswarm.wire import pack, unpack

LABEL: Final = "superswarm/v1/wrapped-key"
PURPOSE: Final = "an owner's vault"
KEY_FILE_PREFIX: Final = "superswarm-vault-key-1:"
WRAPPED_BYTES: Final = 1024  # a wrapped key is shorter
NONCE: Final = bytes(12)  # each wrapping has a salt, and so a key, of its own


class KeyWrapper(Protocol):
    """What encrypts the keys in a vault: the interface behind which a KMS or HSM fits."""

    @property
    def kind(self) -> str:
        """Noted in the vault, to say what opens it: `passphrase`, `key-file`, or another's own word."""
        ...

    @property
    def parameters(self) -> bytes:
        """Noted in the vault as it stands; public (a salt, the name of a key)."""
        ...

    def wrap(self, key: bytes, context: bytes) -> bytes:
        """Encrypt a key of 32 bytes. Raises Unavailable where another machine does it and does not answer."""
        ...

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """Invert `wrap`. CannotOpen where it was wrapped by another, for another context, or altered."""
        ...


class RootKeyWrapper:
    """Wraps under a root key of 32 bytes that is held in this process's memory."""

    def __init__(self, root: bytes, *, kind: str, parameters: bytes = b"") -> None:
        if len(root) != KEY_BYTES:
            raise Malformed(f"a vault's root key has {KEY_BYTES} bytes")
        self._root, self._kind, self._parameters = root, kind, parameters

    @property
    def kind(self) -> str:
        return self._kind

    @property
    def parameters(self) -> bytes:
        return self._parameters

    def wrap(self, key: bytes, context: bytes) -> bytes:
        if len(key) != KEY_BYTES:
            raise Malformed(f"a wrapped key has {KEY_BYTES} bytes")
        salt = secrets.token_bytes(SALT)
        wrapping, commitment = self._derive(salt, context)
        return pack(LABEL, salt, commitment, AESGCM(wrapping).encrypt(NONCE, key, None))

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        label, salt, kept, ciphertext = unpack(wrapped, str, bytes, bytes, bytes, limit=WRAPPED_BYTES)
        if label != LABEL:
            raise Malformed("not a wrapped key of this version")
        wrapping, commitment = self._derive(salt, context)
        if not hmac.compare_digest(commitment, kept):
            raise CannotOpen("a key was not wrapped under this root key, for this use")
        try:
            return AESGCM(wrapping).decrypt(NONCE, ciphertext, None)
        except InvalidTag:
            raise CannotOpen("a wrapped key was altered") from None

    def _derive(self, salt: bytes, context: bytes) -> tuple[bytes, bytes]:
        """The wrapping key and the commitment to it, 32 bytes each."""
        expanded = derive(self._root, LABEL, context, 2 * KEY_BYTES, salt=salt)
        return expanded[:KEY_BYTES], expanded[KEY_BYTES:]


def by_passphrase(passphrase: str, salt: bytes | None = None) -> RootKeyWrapper:
    """Derive the root key once (scrypt, 128 MiB, about 0.3 s); a new vault has a fresh salt."""
    salt = secrets.token_bytes(SALT) if salt is None else salt
    return RootKeyWrapper(root_key(passphrase, salt, purpose=PURPOSE), kind="passphrase", parameters=salt)


def by_key_file(file: Path) -> RootKeyWrapper:
    """Read the root key from a file that only its owner can read. Misconfigured where others can."""
    with explained(file):
        mode = file.stat().st_mode
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise Misconfigured(f"others can read {file} (mode {stat.S_IMODE(mode):o}): chmod 600 {file}")
    text = read_bytes(file, limit=1024).decode("ascii", "replace").strip()
    if not re.fullmatch(rf"{KEY_FILE_PREFIX}[0-9a-f]{{{2 * KEY_BYTES}}}", text):
        raise Malformed(f"{file} is not a vault's key file")
    return RootKeyWrapper(bytes.fromhex(text.removeprefix(KEY_FILE_PREFIX)), kind="key-file")


def new_key_file(file: Path) -> RootKeyWrapper:
    """Make a root key and write it to a new file, for its owner only."""
    write_bytes(file, f"{KEY_FILE_PREFIX}{secrets.token_hex(KEY_BYTES)}\n".encode(), mode=SECRET)
    return by_key_file(file)
