"""The public head of a sealed asset: what it shows, what it hides, and what it refuses."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from superswarm.assets.container import (
    FORMAT,
    MAGIC,
    MAX_BYTES,
    AssetHead,
    AssetHeader,
    check_entries,
    padded,
    read_head,
)
from superswarm.consortium.assets import Asset
from superswarm.crypto.stream import CHUNK, FIXED
from superswarm.errors import Error, Malformed, Mismatch, TooLarge, VersionMismatch
from superswarm.values import Digest
from superswarm.wire import pack
from tests.sealed import CONTENTS, sealed_asset

SEALED, KEY = sealed_asset()
HEADER = KEY.header


def head_with(**fields: Any) -> AssetHeader:
    return AssetHeader.parse(json.dumps(HEADER.model_dump() | fields, sort_keys=True, separators=(",", ":")).encode())


def test_the_header_says_kind_owner_version_size_and_nothing_else() -> None:
    head = read_head(io.BytesIO(SEALED))
    assert json.loads(head.prologue.header) == {
        "format": FORMAT,
        "kind": "dataset",
        "owner": "north",
        "version": "1",
        "size": padded(sum(map(len, CONTENTS.values()))),
        "demo": False,
        "asset": HEADER.asset,
    }
    assert head.sealed_bytes == len(SEALED)


def test_names_and_contents_cannot_be_seen() -> None:
    for secret in (b"parquet", b"jsonl", b"PAR1", b"prompt"):
        assert secret not in SEALED


def test_sealing_the_same_files_again_shows_nothing_of_it() -> None:
    again, key = sealed_asset()
    assert key.digest != KEY.digest
    assert key.key != KEY.key
    assert key.asset != KEY.asset
    assert again[-CHUNK:] != SEALED[-CHUNK:]


def test_small_assets_look_alike() -> None:
    assert len(sealed_asset({"a.jsonl": b"yes"})[0]) == len(sealed_asset({"b.jsonl": b"no" * 300_000})[0])


@given(st.integers(CHUNK, MAX_BYTES))
def test_sizes_are_rounded_up_by_little_and_once(size: int) -> None:
    rounded = padded(size)
    assert size <= rounded <= size + size // 31
    assert padded(rounded) == rounded
    assert len(f"{rounded:b}".rstrip("0")) <= 7  # what can be read of it: seven binary digits and a magnitude


def test_the_digest_is_what_the_documentation_says() -> None:
    head = read_head(io.BytesIO(SEALED))
    root = bytes(range(32))
    parts = ("superswarm/v1/asset", head.prologue.to_bytes(), HEADER.chunks, len(SEALED), root)
    assert head.digest(root) == Digest.of(pack(*parts))


@pytest.mark.parametrize(
    "fields",
    [
        {"format": "superswarm-asset/2"},
        {"kind": "adapter"},
        {"owner": "North"},
        {"owner": "public"},
        {"version": ""},
        {"version": "1\u202e"},
        {"version": 1},
        {"size": HEADER.size + 1},
        {"size": CHUNK - 1},
        {"size": 2 * MAX_BYTES},
        {"size": -CHUNK},
        {"demo": 0},
        {"demo": "false"},
        {"asset": "ff"},
        {"files": ["a.jsonl"]},
    ],
    ids=str,
)
def test_headers_that_are_none(fields: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        head_with(**fields)


def test_one_header_has_one_spelling() -> None:
    with pytest.raises(Malformed):
        AssetHeader.parse(json.dumps(HEADER.model_dump(), indent=1).encode())


def test_a_later_format_is_told_from_something_else() -> None:
    with pytest.raises(VersionMismatch):
        read_head(io.BytesIO(MAGIC[:-1] + b"\x02" + SEALED[8:]))
    with pytest.raises(Malformed):
        read_head(io.BytesIO(b"PAR1" + SEALED[4:]))


def test_a_header_that_claims_to_be_large_is_not_read() -> None:
    with pytest.raises(TooLarge):
        read_head(io.BytesIO(MAGIC + FIXED.pack(b"SSWSTRM\x01", bytes(32), bytes(32), 2**32 - 1)))


@given(st.binary(max_size=300))
def test_random_bytes_raise_only_our_errors(raw: bytes) -> None:
    for data in (raw, MAGIC + raw, MAGIC + FIXED.pack(b"SSWSTRM\x01", bytes(32), bytes(32), len(raw)) + raw):
        with pytest.raises(Error):
            read_head(io.BytesIO(data))


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["b", "a"],
        ["a", "a"],
        ["../a"],
        ["a/../b"],
        ["a/./b"],
        ["/etc/passwd"],
        ["a//b"],
        ["a/"],
        ["~a"],
        [".hidden"],
        ["a/.ssh/b"],
        ["a\\b"],
        ["c:a"],
        ["a\0b"],
        ["a\n"],
        ["trailing."],
        ["ü"],
        [""],
        ["a", "a/b"],
        ["/".join("a" * 17)],
        ["a" * 202],
        ["/".join(["a" * 200] * 6)],
    ],
    ids=lambda names: ascii(names)[:40],
)
def test_names_that_no_asset_may_write(names: list[str]) -> None:
    with pytest.raises(Malformed):
        check_entries([(name, 1) for name in names])


def test_usual_names_are_taken() -> None:
    names = ["a", "data/year=2024/part-00000.parquet", "ggml-model-Q4_K_M.gguf", "model-00001-of-00002.safetensors"]
    check_entries([(name, 1) for name in names])


def test_what_is_too_large_is_not_begun() -> None:
    with pytest.raises(TooLarge):
        AssetHeader.new([("a", MAX_BYTES)], kind="model", owner="north", version="1", demo=False)


def test_an_asset_that_the_manifest_describes_otherwise() -> None:
    said = {"name": "records", "kind": "dataset", "owner": "north", "digest": str(KEY.digest), "source": "a bucket"}
    HEADER.require(Asset.from_data(said))
    for other in ({"kind": "model"}, {"owner": "south"}):
        with pytest.raises(Mismatch):
            HEADER.require(Asset.from_data(said | other))


def test_a_heads_bytes_are_the_files_beginning() -> None:
    head = read_head(io.BytesIO(SEALED))
    assert SEALED.startswith(head.to_bytes())
    assert AssetHead(head.prologue, head.header).chunks_at == len(head.to_bytes())
