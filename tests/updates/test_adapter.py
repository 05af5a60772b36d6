"""Adapters' bytes: canonical, standard, and refused in every other form."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from superswarm.errors import Error, Malformed, NotFinite, TooLarge, WrongShapes
from superswarm.updates.adapter import Adapter, AdapterSpec, decode_adapter, encode_adapter
from superswarm.values import LIMITS
from superswarm.wire import pack

names = st.from_regex(r"[a-z][a-z0-9_.]{0,20}", fullmatch=True)
shapes = st.lists(st.integers(1, 5), max_size=3).map(tuple)
specs = st.dictionaries(names, shapes, min_size=1, max_size=6)


def make(spec: dict[str, tuple[int, ...]], seed: int = 0) -> Adapter:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in spec.items()}


ADAPTER = make({"a.lora_A.weight": (4, 8), "a.lora_B.weight": (8, 4), "b": (3,)})
SPEC = AdapterSpec.of(ADAPTER)
RAW = encode_adapter(ADAPTER)


def forge(entries: dict[str, Any] | str, body: bytes, *, length: int | None = None) -> bytes:
    """A safetensors file with any header at all."""
    text = (entries if isinstance(entries, str) else json.dumps(entries)).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def entries_of(raw: bytes) -> dict[str, Any]:
    (length,) = struct.unpack_from("<Q", raw)
    return dict(json.loads(raw[8 : 8 + length]))


def body_of(raw: bytes) -> bytes:
    return raw[8 + struct.unpack_from("<Q", raw)[0] :]


@given(specs, st.integers(0, 100))
def test_round_trip_is_exact_and_the_standard_file(shape: dict[str, tuple[int, ...]], seed: int) -> None:
    adapter = make(shape, seed)
    raw = encode_adapter(adapter)
    assert raw == safetensors.numpy.save(adapter, metadata={"format": "pt"})
    back = decode_adapter(raw, AdapterSpec.of(adapter))
    assert back.keys() == adapter.keys()
    assert all(np.array_equal(back[name], adapter[name]) for name in adapter)
    assert encode_adapter(back) == raw


def test_order_of_insertion_and_of_memory_do_not_matter() -> None:
    turned = {name: np.asfortranarray(ADAPTER[name]) for name in reversed(ADAPTER)}
    assert encode_adapter(turned) == RAW
    assert AdapterSpec.of(turned).digest == SPEC.digest


@given(specs)
def test_spec_round_trip(shape: dict[str, tuple[int, ...]]) -> None:
    spec = AdapterSpec.of(make(shape))
    assert AdapterSpec.parse(spec.to_bytes()) == spec
    assert spec.parameters == sum(int(np.prod(s)) for s in shape.values())


@given(specs, specs)
def test_different_specs_have_different_digests(
    one: dict[str, tuple[int, ...]], two: dict[str, tuple[int, ...]]
) -> None:
    assert (one == two) == (AdapterSpec.of(make(one)).digest == AdapterSpec.of(make(two)).digest)


def test_decoded_arrays_are_views_that_cannot_be_written() -> None:
    decoded = decode_adapter(memoryview(bytearray(RAW)), SPEC)
    assert decoded["b"].base is not None
    with pytest.raises(ValueError, match="read-only"):
        decoded["b"][0] = 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, -1])
def test_nan_and_infinity_are_refused_both_ways(value: float, at: int) -> None:
    flat = np.frombuffer(body_of(RAW), np.float32).copy()
    flat[at] = value
    poisoned = RAW[: -flat.nbytes] + flat.tobytes()
    with pytest.raises(NotFinite):
        decode_adapter(poisoned, SPEC)
    with pytest.raises(NotFinite):
        encode_adapter(ADAPTER | {"b": np.array([1, value, 2], np.float32)})


def test_nan_in_a_late_block_is_found() -> None:
    big = {"a": np.zeros(200_001, np.float32)}
    raw = bytearray(encode_adapter(big))
    raw[-4:] = np.float32(np.nan).tobytes()
    with pytest.raises(NotFinite):
        decode_adapter(bytes(raw), AdapterSpec.of(big))


@pytest.mark.parametrize(
    "other",
    [
        ADAPTER | {"b": np.zeros(4, np.float32)},
        ADAPTER | {"b": np.zeros((3, 1), np.float32)},
        ADAPTER | {"c": np.zeros(3, np.float32)},
        {name: array for name, array in ADAPTER.items() if name != "b"},
    ],
    ids=["another size", "same size, another shape", "one more", "one less"],
)
def test_wrong_shapes(other: Adapter) -> None:
    with pytest.raises(WrongShapes):
        decode_adapter(encode_adapter(other), SPEC)
    with pytest.raises(WrongShapes):
        SPEC.check(other)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32])
def test_other_types_are_refused(dtype: type) -> None:
    other: Any = {name: array.astype(dtype) for name, array in ADAPTER.items()}
    with pytest.raises(WrongShapes):
        decode_adapter(safetensors.numpy.save(other, metadata={"format": "pt"}), SPEC)
    with pytest.raises(WrongShapes):
        encode_adapter(other)


def test_big_endian_values_are_refused() -> None:
    with pytest.raises(WrongShapes):
        encode_adapter({"a": np.zeros(3, ">f4")})


def test_a_gigabyte_claimed_is_refused_without_holding_it() -> None:
    with pytest.raises(TooLarge):
        decode_adapter(forge("{}", b"", length=2**30), SPEC)
    with pytest.raises(TooLarge):
        decode_adapter(forge("{}", b"", length=2**64 - 1), SPEC)
    claimed = {"b": {"dtype": "F32", "shape": [2**28], "data_offsets": [0, 2**30]}}
    with pytest.raises(WrongShapes):
        decode_adapter(forge(claimed, b""), SPEC)
    with pytest.raises(TooLarge):
        AdapterSpec((("a", (2**30,)),))
    with pytest.raises(TooLarge):
        AdapterSpec((("a", (2**30, 2**39, 2**39)),))


def test_a_raw_update_over_the_limit_is_refused() -> None:
    class Huge(bytes):
        def __len__(self) -> int:
            return LIMITS.body_bytes + 1

    with pytest.raises(TooLarge):
        decode_adapter(Huge(RAW), SPEC)


def test_overlapping_offsets_are_refused() -> None:
    entries = entries_of(RAW)
    entries["a.lora_B.weight"]["data_offsets"] = entries["a.lora_A.weight"]["data_offsets"]
    with pytest.raises(Malformed) as caught:
        decode_adapter(forge(entries, body_of(RAW)), SPEC)
    assert caught.type is Malformed


def test_duplicate_names_are_refused() -> None:
    (length,) = struct.unpack_from("<Q", RAW)
    text = RAW[8 : 8 + length].decode().rstrip()
    twice = text[:-1] + ',"b":{"dtype":"F32","shape":[3],"data_offsets":[256,268]}}'
    with pytest.raises(Malformed) as caught:
        decode_adapter(forge(twice, body_of(RAW)), SPEC)
    assert caught.type is Malformed


@pytest.mark.parametrize("raw", [RAW[:-1], RAW + b"\0", RAW[:40], RAW[:7], b"", RAW[:-4], RAW + body_of(RAW)])
def test_cut_or_longer_is_refused(raw: bytes) -> None:
    with pytest.raises(Malformed):
        decode_adapter(raw, SPEC)


@pytest.mark.parametrize("text", ["[]", "null", "{", '{"b": 3}', '{"b": []}', "[" * 100_000, "\xff", '"b"'])
def test_odd_headers_are_refused(text: str) -> None:
    with pytest.raises(Malformed):
        decode_adapter(forge(text, body_of(RAW)), SPEC)


@settings(max_examples=300)
@given(st.data())
def test_flipped_headers_raise_only_our_errors(data: st.DataObject) -> None:
    raw = bytearray(RAW)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - len(body_of(RAW)) - 1))
        raw[at] ^= data.draw(st.integers(1, 255))
    if bytes(raw) == RAW:
        return
    with pytest.raises(Error):
        decode_adapter(bytes(raw), SPEC)


@given(st.binary(max_size=200))
def test_random_bytes_raise_only_our_errors(raw: bytes) -> None:
    for attempt in (raw, struct.pack("<Q", max(0, len(raw) - 8)) + raw):
        with pytest.raises(Error):
            decode_adapter(attempt, SPEC)
        with pytest.raises(Error):
            AdapterSpec.parse(attempt)


@pytest.mark.parametrize(
    "raw",
    [
        pack(),
        pack("superswarm/v1/adapter-spec"),
        pack("superswarm/v1/adapter-spec", "a"),
        pack("superswarm/v1/other", "a", pack(1)),
        pack("superswarm/v1/adapter-spec", "a", pack("1")),
        pack("superswarm/v1/adapter-spec", 1, pack(1)),
        pack("superswarm/v1/adapter-spec", "a", pack(0)),
        pack("superswarm/v1/adapter-spec", "a", pack(*[1] * 9)),
        pack("superswarm/v1/adapter-spec", "b", pack(1), "a", pack(1)),
        pack("superswarm/v1/adapter-spec", "a", pack(1), "a", pack(1)),
        pack("superswarm/v1/adapter-spec", 'a"b', pack(1)),
        pack("superswarm/v1/adapter-spec", "__metadata__", pack(1)),
        pack("superswarm/v1/adapter-spec", "", pack(1)),
    ],
)
def test_malformed_specs(raw: bytes) -> None:
    with pytest.raises(Malformed):
        AdapterSpec.parse(raw)
