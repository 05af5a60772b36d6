"""Publishing: the final adapter leaves the aggregator's TEE as a PEFT folder, born encrypted."""

from __future__ import annotations

import hashlib
import io
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from superswarm.bundle import Entry, File, Piece, pack_files, unpack_files
from superswarm.consortium.approval import ApprovedManifest
from superswarm.consortium.manifest import Job, Manifest
from superswarm.crypto.hpke import KemKey
from superswarm.crypto.kdf import KEY_BYTES
from superswarm.crypto.signing import SIGNATURE_BYTES, SigningKey, VerifyingKey
from superswarm.crypto.stream import Chunks, StreamWriter, open_chunks
from superswarm.errors import Malformed
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
from superswarm.values import Digest, MemberId

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\.(?:safetensors|json|md)")
FILES: Final = 64


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
    config = adapter_config(manifest.manifest, job)
    for piece in pack_files([File.of(WEIGHTS, weights), File.of(CONFIG, [config]), File.of(CARD, [readme])]):
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
    files: Iterator[tuple[str, int, Iterator[Piece]]]


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
    return OpenedResult(head.header, unpack_files(open_chunks(src, chunks), "result", _check_names))


def _check_names(entries: list[Entry]) -> None:
    """Refuse a name with a path, or that could hold code."""
    if len(entries) > FILES or not all(NAME.fullmatch(name) for name, _ in entries):
        raise Malformed("a result holds a file that no result has")
