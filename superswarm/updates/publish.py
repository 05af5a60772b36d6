"""Publishing: the final adapter leaves the aggregator's TEE as a PEFT folder, born encrypted."""

from __future__ import annotations

import hashlib
import io
import re
import secrets
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final, TypeAlias

from superswarm.consortium.approval import ApprovedManifest
from superswarm.consortium.manifest import Job, Manifest
from superswarm.crypto.hpke import KemKey
from superswarm.crypto.kdf import KEY_BYTES
from superswarm.crypto.signing import SIGNATURE_BYTES, SigningKey, VerifyingKey
from superswarm.crypto.stream import Chunks, StreamWriter, open_chunks
from superswarm.errors import Malformed, TooLarge
from superswarm.updates.adapter import Adapter, AdapterSpec, encode_parts
from superswarm.updates.card import CARD, CONFIG, WEIGHTS, adapter_config, card
from superswarm.updates.container import (
    MAGIC,
    STREAM_AT,
    ResultHead,
    ResultHeader,
    check_signature,
    read_head,
    sign_stream,
)
from superswarm.updates.slots import KeyContext, Slot
from superswarm.values import LIMITS, Digest, MemberId
from superswarm.wire import Field, pack, unpack_list

File: TypeAlias = tuple[str, Sequence[bytes | memoryview]]
"""A file's name, and pieces that make its content."""

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\.(?:safetensors|json|md)")
FILES: Final = 64
INDEX = struct.Struct(">I")


def publish(
    adapter: Adapter, *, manifest: ApprovedManifest, job: Job, run: str, rounds: int, signer: SigningKey
) -> bytes:
    """Make the result container: its key is for the recipients that the manifest names, at once or by approval."""
    dst = io.BytesIO()
    write_result(dst, adapter, manifest=manifest, job=job, run=run, rounds=rounds, signer=signer)
    return dst.getvalue()


def write_result(
    dst: BinaryIO,
    adapter: Adapter,
    *,
    manifest: ApprovedManifest,
    job: Job,
    run: str,
    rounds: int,
    signer: SigningKey,
) -> ResultHeader:
    """`publish` into an empty file that can be read and sought in; holds one chunk beyond the adapter."""
    weights = encode_parts(adapter)
    digest = hashlib.sha256()
    for part in weights:
        digest.update(part)
    spec = AdapterSpec.of(adapter)
    readme = card(manifest, job, run=run, rounds=rounds, spec=spec, weights=Digest(digest.digest()))
    key = secrets.token_bytes(KEY_BYTES)
    header = result_header(manifest, job=job, run=run, rounds=rounds, signer=signer.public, key=key)

    dst.write(MAGIC + bytes(SIGNATURE_BYTES))
    writer = StreamWriter(dst, key, header=header.to_json())
    files: list[File] = [(WEIGHTS, weights), (CONFIG, [adapter_config(manifest.manifest, job)]), (CARD, [readme])]
    for piece in pack_files(files):
        writer.write(piece)
    writer.close()
    dst.seek(STREAM_AT)
    signature = sign_stream(dst, header, signer)
    dst.seek(len(MAGIC))
    dst.write(signature)
    return header


def result_header(
    manifest: ApprovedManifest, *, job: Job, run: str, rounds: int, signer: VerifyingKey, key: bytes
) -> ResultHeader:
    """The public header, with the content key in it as the manifest says: sealed to recipients, or shared out."""
    agreed = manifest.manifest
    container = secrets.token_bytes(32)
    return ResultHeader(
        attestation=agreed.attestation,
        consortium=agreed.consortium,
        epoch=agreed.epoch,
        manifest=str(manifest.digest),
        job=job.name,
        run=run,
        rounds=rounds,
        container=container.hex(),
        signer=str(signer),
        approvals=agreed.result.approvals,
        key_slots=_slots(manifest, run, container, key),
    )


def _slots(manifest: ApprovedManifest, run: str, container: bytes, key: bytes) -> tuple[Slot, ...]:
    agreed = manifest.manifest
    holders = agreed.contributors if agreed.result.approvals else ()
    context = KeyContext(
        attestation=agreed.attestation,
        manifest=manifest.digest,
        run=run,
        container=container,
        approvals=agreed.result.approvals,
        shares=len(holders),
    )
    if agreed.result.approvals:
        return context.share_out(key, [(member, manifest.encryption_key(member)) for member in holders])
    recipients = map(MemberId, agreed.result.recipients)
    return tuple(context.seal_key(key, member, manifest.encryption_key(member)) for member in recipients)


def addressees(manifest: Manifest) -> tuple[MemberId, ...]:
    """Whose nodes keep the sealed result: recipients; with approvals, also whoever releases or serves it."""
    result = manifest.result
    more = (*manifest.contributors, *result.serving) if result.approvals else ()
    return tuple(dict.fromkeys(map(MemberId, (*result.recipients, *more))))


@dataclass(frozen=True, slots=True)
class OpenedResult:
    """A result whose signature was checked and whose key is known.

    `files` is read once, from first to last: each name with its size, then its content piece by piece.
    """

    header: ResultHeader
    files: Iterator[tuple[str, int, Iterator[bytes]]]


def open_container(
    src: BinaryIO, kem: KemKey, member: MemberId, *, expected_signer: VerifyingKey | None
) -> OpenedResult:
    """Open a container in a seekable file. What comes out is genuine, but only a beginning until all is read."""
    # (1) It parses.
    src.seek(0)
    head: ResultHead = read_head(src)
    # (2) The expected aggregator signed all of it, ciphertext included.
    check_signature(src, head, expected_signer)
    # (3) Its key is sealed to this member.
    key = head.header.open_key(member, kem)
    # (4) The key is this stream's, under this header; each chunk is opened as it is read.
    return open_with_key(src, head, key)


def open_with_key(src: BinaryIO, head: ResultHead, key: bytes) -> OpenedResult:
    """Open a container whose signature was checked, with its content key. Raises CannotOpen for another key."""
    chunks = Chunks(key, head.prologue)
    src.seek(STREAM_AT + head.prologue.offset(0))
    return OpenedResult(head.header, unpack_files(open_chunks(src, chunks)))


def pack_files(files: Sequence[File]) -> Iterator[bytes | memoryview]:
    """An index of names and sizes, then the contents: one order, no time, no owner, no path."""
    index = pack(*(field for name, parts in files for field in (name, sum(len(part) for part in parts))))
    yield INDEX.pack(len(index)) + index
    for _, parts in files:
        yield from parts


def unpack_files(chunks: Iterator[bytes]) -> Iterator[tuple[str, int, Iterator[bytes]]]:
    """Invert `pack_files`, in constant memory. Raises Malformed for a name with a path, or that could hold code."""
    plain = _Plain(chunks)
    (length,) = INDEX.unpack(b"".join(plain.take(INDEX.size)))
    if length > LIMITS.document_bytes:
        raise TooLarge(f"a result claims an index of {length} bytes")
    for name, size in _entries(unpack_list(b"".join(plain.take(length)))):
        content = plain.take(size)
        yield name, size, content
        for _ in content:  # what the caller left unread
            pass
    if plain.more():
        raise Malformed("a result holds more than its index says")


def _entries(fields: list[Field]) -> list[tuple[str, int]]:
    pairs = list(zip(fields[::2], fields[1::2], strict=False))
    entries = [(name, size) for name, size in pairs if isinstance(name, str) and isinstance(size, int)]
    if 2 * len(entries) != len(fields) or len(dict(entries)) != len(entries) or len(entries) > FILES:
        raise Malformed("a result's index is not a list of distinct files")
    if not all(NAME.fullmatch(name) for name, _ in entries):
        raise Malformed("a result holds a file that no result has")
    return entries


class _Plain:
    """Reads a stream's plaintext, which comes in chunks, in other portions."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._left = memoryview(b"")

    def more(self) -> bool:
        """Whether something is left; reads, and so authenticates, up to the stream's end."""
        while not self._left:
            following = next(self._chunks, None)
            if following is None:
                return False
            self._left = memoryview(following)
        return True

    def take(self, size: int) -> Iterator[bytes]:
        """The next `size` bytes, in pieces."""
        while size:
            if not self.more():
                raise Malformed("a result holds less than its index says")
            piece = self._left[:size]
            self._left = self._left[len(piece) :]
            size -= len(piece)
            yield bytes(piece)
