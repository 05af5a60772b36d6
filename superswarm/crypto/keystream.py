"""Pseudo-random bytes from a key: AES-256 in counter mode (NIST SP 800-38A), as many as wanted, in constant memory.

One key gives one stream, which is used for one thing: derive a key for each (`superswarm.crypto.kdf`).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from superswarm.crypto.kdf import KEY_BYTES

BLOCK: Final = 1 << 17  # bytes made at a time: they stay in the processor's cache
_ZEROS: Final = memoryview(bytes(BLOCK))


class KeyStream:
    """The stream of one key, read from its beginning to wherever the reader stops."""

    __slots__ = ("_encryptor",)

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"the key of a stream has {KEY_BYTES} bytes")
        self._encryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()

    def fill(self, out: NDArray[Any]) -> None:
        """Write the next bytes of the stream over a contiguous array; its integers are little-endian."""
        view = out.data.cast("B")
        for start in range(0, len(view), BLOCK):
            part = view[start : start + BLOCK]
            self._encryptor.update_into(_ZEROS[: len(part)], part)

    def take(self, count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """The next `count` numbers of this type, uniform over its range."""
        out = np.empty(count, dtype)
        self.fill(out)
        return out
