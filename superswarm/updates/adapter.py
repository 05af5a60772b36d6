"""An adapter: named float32 arrays, what they must look like, and their bytes.

The bytes are a safetensors file in its one canonical form, so that decoding compares the header with the one that
the spec prescribes and never follows a size, name or offset that a peer claims.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from superswarm.errors import Malformed, NotFinite, TooLarge, WrongShapes
from superswarm.values import LIMITS, Digest
from superswarm.wire import pack, unpack_list

Adapter: TypeAlias = dict[str, NDArray[np.float32]]
"""Tensor names, as peft saves them, and their values. Read-only where it comes from `decode_adapter`."""

LABEL = "superswarm/v1/adapter-spec"
FLOAT: Final = np.dtype("<f4")
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,254}")
DIMENSIONS = 8  # of one tensor
BLOCK = 1 << 16  # elements that are checked or added at a time: they stay in the processor's cache
PREFIX = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class AdapterSpec:
    """The tensors that a cohort trains: names with shapes, sorted by name. Same spec, same bytes, same digest."""

    shapes: tuple[tuple[str, tuple[int, ...]], ...]

    def __post_init__(self) -> None:
        names = [name for name, _ in self.shapes]
        if not names or names != sorted(set(names)):
            raise Malformed("an adapter's tensors are named, sorted and distinct")
        if 2 * len(names) >= LIMITS.fields:
            raise TooLarge(f"an adapter claims {len(names)} tensors")
        for name, shape in self.shapes:
            if not NAME.fullmatch(name) or name == "__metadata__":
                raise Malformed("an adapter's tensor has a name that cannot be")
            if len(shape) > DIMENSIONS or any(not 0 < size < 2**40 for size in shape):
                raise Malformed(f"the tensor {name} has a shape that cannot be")
        if self.nbytes > LIMITS.body_bytes:
            raise TooLarge(f"an adapter claims {self.nbytes} bytes; the limit is {LIMITS.body_bytes}")

    @classmethod
    def of(cls, adapter: Adapter) -> Self:
        """The spec that this adapter meets."""
        return cls(tuple(sorted((name, tuple(array.shape)) for name, array in adapter.items())))

    @property
    def parameters(self) -> int:
        return sum(math.prod(shape) for _, shape in self.shapes)

    @property
    def nbytes(self) -> int:
        """Bytes of the values alone."""
        return self.parameters * FLOAT.itemsize

    def to_bytes(self) -> bytes:
        return pack(LABEL, *(field for name, shape in self.shapes for field in (name, pack(*shape))))

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Invert `to_bytes`. Raises Malformed or TooLarge."""
        fields = unpack_list(data)
        if not fields or fields.pop(0) != LABEL or len(fields) % 2:
            raise Malformed("not the spec of an adapter")
        return cls(tuple(_entry(name, shape) for name, shape in zip(fields[::2], fields[1::2], strict=True)))

    @property
    def digest(self) -> Digest:
        return Digest.of(self.to_bytes())

    def check(self, adapter: Adapter) -> None:
        """Raise WrongShapes unless the adapter has exactly these float32 tensors, NotFinite for NaN or infinity."""
        if adapter.keys() != dict(self.shapes).keys():
            raise WrongShapes("the adapter's tensors are not those that the cohort trains")
        for name, shape in self.shapes:
            array = adapter[name]
            if array.shape != shape or array.dtype != FLOAT:
                raise WrongShapes(f"{name} is {array.dtype}{list(array.shape)}, not float32{list(shape)}")
        for array in adapter.values():
            require_finite(array)

    def views(self, flat: NDArray[np.float32]) -> Adapter:
        """Name the parts of one flat vector (P,): the adapter shares its memory."""
        return {name: flat[start:stop].reshape(shape) for name, shape, start, stop in self.spans()}

    def spans(self) -> Iterator[tuple[str, tuple[int, ...], int, int]]:
        """Each tensor's name and shape, and where it starts and stops in the flat vector (P,)."""
        start = 0
        for name, shape in self.shapes:
            stop = start + math.prod(shape)
            yield name, shape, start, stop
            start = stop


def flat_vector(adapter: Adapter, spec: AdapterSpec) -> NDArray[np.float32]:
    """An adapter of this spec as one vector (P,), in the order of `AdapterSpec.spans`."""
    return np.concatenate([adapter[name].reshape(-1) for name, _ in spec.shapes])


def encode_adapter(adapter: Adapter) -> bytes:
    """Write the canonical safetensors bytes: what `safetensors.numpy.save` writes, in one copy of the values.

    Equal adapters give equal bytes. Raises WrongShapes for other types than float32, NotFinite for NaN or infinity.
    """
    return b"".join(encode_parts(adapter))


def encode_parts(adapter: Adapter) -> list[bytes | memoryview]:
    """`encode_adapter` without its copy: pieces that make the file, valid while the adapter is not changed."""
    spec = AdapterSpec.of(adapter)
    spec.check(adapter)
    values = (np.ascontiguousarray(adapter[name], dtype=FLOAT) for name, _ in spec.shapes)
    return [header(spec), *(array.reshape(-1).data.cast("B") for array in values)]


def decode_adapter(raw: bytes | memoryview, spec: AdapterSpec) -> Adapter:
    """Read an adapter that must meet `spec`, as read-only views of `raw`: nothing is copied.

    Only what `encode_adapter` writes is taken. Raises TooLarge, Malformed, WrongShapes or NotFinite.
    """
    # (1) It is no larger than any parcel may be.
    if len(raw) > LIMITS.body_bytes:
        raise TooLarge(f"an adapter has {len(raw)} bytes; the limit is {LIMITS.body_bytes}")
    # (2) Its header is the one header that this spec has: no name, type, shape or offset is taken from the peer.
    expected = header(spec)
    if raw[: len(expected)] != expected:
        raise _why(raw, spec)
    # (3) The values fill the rest, to the byte.
    if len(raw) != len(expected) + spec.nbytes:
        raise Malformed(f"an adapter has {len(raw) - len(expected)} bytes of values, not {spec.nbytes}")
    flat = np.frombuffer(raw, dtype=FLOAT, offset=len(expected))  # (P,)
    flat.flags.writeable = False
    # (4) Every value is a number.
    require_finite(flat)
    return spec.views(flat)


def require_finite(array: NDArray[np.float32]) -> None:
    """Raise NotFinite if NaN or infinity is among the values; in blocks, so that no mask of their number is made."""
    flat = array.reshape(-1)
    for start in range(0, flat.size, BLOCK):
        if not np.isfinite(flat[start : start + BLOCK]).all():
            raise NotFinite("an adapter holds NaN or infinity")


@lru_cache(maxsize=4)
def header(spec: AdapterSpec) -> bytes:
    """The canonical head of the safetensors file: length, then JSON padded with spaces to 8 bytes.

    Format: https://github.com/huggingface/safetensors#format; metadata as peft and transformers write it.
    """
    size = FLOAT.itemsize
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    for name, shape, start, stop in spec.spans():
        entries[name] = {"dtype": "F32", "shape": shape, "data_offsets": (start * size, stop * size)}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return PREFIX.pack(len(text)) + text


def _entry(name: object, shape: object) -> tuple[str, tuple[int, ...]]:
    if not isinstance(name, str) or not isinstance(shape, bytes):
        raise Malformed("not the spec of an adapter")
    sizes = tuple(size for size in unpack_list(shape) if isinstance(size, int))
    if pack(*sizes) != shape:
        raise Malformed("a shape holds something other than integers")
    return name, sizes


def _why(raw: bytes | memoryview, spec: AdapterSpec) -> Malformed:
    """Say what is wrong with a header that is not the spec's: WrongShapes where only tensors differ."""
    if len(raw) < PREFIX.size:
        return Malformed("an adapter is cut short")
    (length,) = PREFIX.unpack(raw[: PREFIX.size])
    if length > LIMITS.head_bytes:
        return TooLarge(f"an adapter claims a header of {length} bytes; the limit is {LIMITS.head_bytes}")
    text = bytes(raw[PREFIX.size : PREFIX.size + length])
    try:
        claimed = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        return Malformed("an adapter's header is not JSON, is cut short, or names a tensor twice")
    if not isinstance(claimed, dict):
        return Malformed("an adapter's header is not a JSON object")
    claimed.pop("__metadata__", None)
    tensors = {name: _type_and_shape(entry) for name, entry in claimed.items()}
    if tensors != {name: ("F32", list(shape)) for name, shape in spec.shapes}:
        return WrongShapes("an adapter's tensors are not those that the cohort trains")
    return Malformed("an adapter's header is not in canonical form: offsets overlap, leave gaps or are out of order")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    data = dict(pairs)
    if len(data) != len(pairs):
        raise ValueError("a name comes twice")
    return data


def _type_and_shape(entry: object) -> tuple[object, object]:
    return (entry.get("dtype"), entry.get("shape")) if isinstance(entry, dict) else (None, None)
