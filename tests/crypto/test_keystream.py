"""The stream of a key, against NIST's vectors and read in portions."""

from __future__ import annotations

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from superswarm.crypto.keystream import BLOCK, KeyStream

KEY = bytes(range(32))


def test_it_is_aes_256_in_counter_mode() -> None:
    count = 2 * BLOCK + 6
    reference = Cipher(algorithms.AES(KEY), modes.CTR(bytes(16))).encryptor().update(bytes(count))
    assert KeyStream(KEY).take(count, np.dtype("u1")).tobytes() == reference


def test_portions_make_the_same_stream() -> None:
    whole, stream = KeyStream(KEY).take(1000, np.dtype("<u2")), KeyStream(KEY)
    parts = [stream.take(count, np.dtype("<u2")) for count in (1, 7, 500, 492)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_another_key_is_another_stream() -> None:
    assert KeyStream(KEY).take(4, np.dtype("<u8")).tolist() != KeyStream(KEY[::-1]).take(4, np.dtype("<u8")).tolist()


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        KeyStream(KEY[:16])
