"""A sealed asset: a dataset or base model that may lie anywhere. Parsing its public head proves nothing.

    sealed      magic 8 | encrypted stream (superswarm.crypto.stream), whose header is an AssetHeader in JSON
    plaintext   index and contents of its files (superswarm.bundle), in the order of their names | zeros

What anybody can read: kind, owner, version, whether it is a demo, a random id, and about how large it is. Names and
number of files are inside. The exact size would tell which public dataset or model it might be, so zeros bring it up
to the next size of a coarse scale, Padmé (Nikitin et al., PoPETS 2019/4): at most 3.2 % more, 32 or 64 sizes between
a power of two and the next. Everything under 1 MiB looks alike.

The digest that a manifest names is over ciphertext alone, for a digest of plaintext confirms every guess at it. It
covers the prologue, the number of chunks, the length, and the Merkle root of the chunks (adr/0010).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, BinaryIO, Final, Literal, Self

from pydantic import Field, ValidationError

from superswarm.bundle import Entry, pack_index
from superswarm.consortium.assets import Asset
from superswarm.consortium.clause import Clause, Line, Name
from superswarm.consortium.documents import describe, dump_json, load_json
from superswarm.crypto.stream import CHUNK, MAX_CHUNKS, SEALED_CHUNK, TAG, Prologue, read_up_to
from superswarm.errors import Malformed, Mismatch, TooLarge, VersionMismatch
from superswarm.values import Digest
from superswarm.wire import pack

Kind = Literal["model", "dataset"]

MAGIC: Final = b"SSWASST\x01"
FORMAT: Final = "superswarm-asset/1"
LABEL: Final = "superswarm/v1/asset"
HEADER_BYTES: Final = 4096
ASSET_ID: Final = r"^[0-9a-f]{64}$"
MAX_BYTES: Final = MAX_CHUNKS * CHUNK
MAX_SEALED_BYTES: Final = MAX_CHUNKS * SEALED_CHUNK + 2 * HEADER_BYTES

FILE_NAME: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.+=@,-]{0,199}[A-Za-z0-9_+=@-])?")
DEPTH: Final = 16  # folders in one path, the file included
PATH_BYTES: Final = 1024


class AssetHeader(Clause):
    """What anybody may read of a sealed asset. Believe it once the digest has been compared."""

    format: Literal["superswarm-asset/1"] = FORMAT
    kind: Kind
    owner: Name
    version: Line  # the owner's own count or word
    size: Annotated[int, Field(ge=CHUNK, le=MAX_BYTES)]  # bytes of plaintext, with the zeros that round it up
    demo: bool  # sealed to be opened by simulated TEEs too, which protect nothing
    asset: Annotated[str, Field(pattern=ASSET_ID)]  # random: names this asset

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read the canonical JSON. Raises Malformed or TooLarge."""
        try:
            header = cls.model_validate(load_json(raw, "sealed asset's header", limit=HEADER_BYTES))
        except ValidationError as error:
            raise Malformed(f"the sealed asset's header has faults:\n{describe(error)}") from None
        if header.owner == "public":
            raise Malformed("a sealed asset belongs to a member: nobody has the key of what is public")
        if header.size != padded(header.size):
            raise Malformed("a sealed asset's size is not one that sealed assets have")
        if header.to_json() != raw:
            raise Malformed("the sealed asset's header is not in canonical form (RFC 8785)")
        return header

    def to_json(self) -> bytes:
        return dump_json(self.model_dump(mode="json"))

    @classmethod
    def new(cls, entries: Iterable[Entry], *, kind: Kind, owner: str, version: str, demo: bool) -> Self:
        """The header of an asset that is to be sealed. Raises Malformed or TooLarge for what cannot be."""
        fields = {"format": FORMAT, "kind": kind, "owner": owner, "version": version, "demo": demo}
        header = cls.from_data({**fields, "size": size_of(list(entries)), "asset": secrets.token_hex(32)})
        return cls.parse(header.to_json())

    @property
    def chunks(self) -> int:
        return -(-self.size // CHUNK)

    def chunk_bytes(self, index: int) -> int:
        """How long the sealed chunk with this index is."""
        return SEALED_CHUNK if index < self.chunks - 1 else self.size - (self.chunks - 1) * CHUNK + TAG

    def require(self, asset: Asset) -> None:
        """Raise Mismatch where the manifest says something else of this asset. `unseal` compares the digest."""
        if (self.kind, self.owner) != (asset.kind, asset.owner):
            raise Mismatch(
                f"the sealed file of {asset.name} holds a {self.kind} of {self.owner}; "
                f"the manifest says a {asset.kind} of {asset.owner}"
            )


@dataclass(frozen=True, slots=True)
class AssetHead:
    """What stands before the chunks."""

    prologue: Prologue
    header: AssetHeader

    @property
    def chunks_at(self) -> int:
        """Where the first chunk starts."""
        return len(MAGIC) + self.prologue.offset(0)

    @property
    def sealed_bytes(self) -> int:
        """How long the whole file is."""
        return self.chunks_at + self.header.size + self.header.chunks * TAG

    def to_bytes(self) -> bytes:
        return MAGIC + self.prologue.to_bytes()

    def digest(self, root: bytes) -> Digest:
        """The asset's digest, from the Merkle root (RFC 6962) over its sealed chunks."""
        parts = (self.prologue.to_bytes(), self.header.chunks, self.sealed_bytes, root)
        return Digest.of(pack(LABEL, *parts))


def read_head(src: BinaryIO) -> AssetHead:
    """Parse the head of a sealed asset and leave `src` at the first chunk.

    Raises Malformed, TooLarge, or VersionMismatch for what a later superswarm sealed. Reads at most 4,180 bytes.
    """
    magic = read_up_to(src, len(MAGIC))
    if magic[:-1] == MAGIC[:-1] and magic != MAGIC:
        raise VersionMismatch("the asset is sealed in another version's format: use the superswarm that sealed it")
    if magic != MAGIC:
        raise Malformed("not a sealed asset")
    prologue = Prologue.read(src, limit=HEADER_BYTES)
    return AssetHead(prologue, AssetHeader.parse(prologue.header))


def check_entries(entries: list[Entry]) -> None:
    """Refuse an index that has no file, is not in order, or names what no asset may write. Raises Malformed."""
    names = [name for name, _ in entries]
    if not names:
        raise Malformed("an asset holds at least one file")
    if names != sorted(set(names)):
        raise Malformed("the files of an asset are not in order, or one is there twice")
    for name in names:
        check_name(name)
    files = set(names)
    if any(folder in files for name in names for folder in _folders(name)):
        raise Malformed("an asset has a file and a folder of one name")


def check_name(name: str) -> None:
    """Refuse a path that is absolute, leads upward, is hidden, or that some system spells differently."""
    parts = name.split("/")
    if len(name) > PATH_BYTES or len(parts) > DEPTH or not all(FILE_NAME.fullmatch(part) for part in parts):
        raise Malformed(
            "a file's name cannot be in an asset: names have letters, digits and _ . + = @ , - only, begin with a "
            f"letter, a digit or _, and lie at most {DEPTH} folders deep"
        )


def size_of(entries: list[Entry]) -> int:
    """The `size` of an asset with these files, sorted by name. Raises Malformed or TooLarge for what is none."""
    check_entries(entries)
    size = len(pack_index(entries)) + sum(size for _, size in entries)
    if size > MAX_BYTES:
        raise TooLarge(f"an asset has at most {MAX_BYTES} bytes")
    return padded(size)


def padded(size: int) -> int:
    """The next size on the scale of Padmé, at least one chunk."""
    size = max(size, CHUNK)
    exponent = size.bit_length() - 1
    low = exponent - exponent.bit_length()  # low bits that are rounded away
    return (size + (1 << low) - 1) >> low << low


def _folders(name: str) -> Iterable[str]:
    parts = name.split("/")
    return ("/".join(parts[:depth]) for depth in range(1, len(parts)))
