"""Results on disk: a node's folder of sealed containers, and opened adapters. Nothing half-written is visible."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from superswarm.crypto.hpke import KemKey
from superswarm.crypto.signing import VerifyingKey
from superswarm.errors import Error, Misconfigured, Mismatch
from superswarm.io.files import explained, new_folder, read_bytes, write_bytes
from superswarm.updates.container import ResultHeader, check_signature, read_head
from superswarm.updates.publish import OpenedResult, open_container
from superswarm.values import LIMITS, MemberId

SUFFIX = ".result"
SIGNER = ".signer"  # beside a result: the key that this node vouched for
CONSORTIUM = ".consortium"  # likewise: the consortium's epochs, up to the one that this node acted under


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredResult:
    """A sealed result in a node's folder, checked when it came in."""

    path: Path
    header: ResultHeader
    nbytes: int


class ResultFolder:
    """Where a node keeps the results that it receives, still sealed.

    `consortium` is the document that the node was started with; whoever releases a result later judges under it.
    """

    def __init__(self, folder: Path, consortium: bytes = b"") -> None:
        self.folder = folder
        self._consortium = consortium

    def store(self, run: str, container: bytes, signer: VerifyingKey) -> None:
        """Check and keep a container; `signer` is the aggregator that this node vouched for in this run.

        Raises Malformed, Mismatch, Untrusted or BadSignature, DiskFull or Environment, and keeps nothing then.
        """
        src = io.BytesIO(container)
        head = read_head(src)
        if head.header.run != run:
            raise Mismatch("a result names another run than the one that it came from")
        check_signature(src, head, signer)
        path = self.folder / f"{run}-{head.header.container[:12]}{SUFFIX}"
        with explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        write_bytes(path.with_suffix(SIGNER), f"{signer}\n".encode(), replace=True)
        if self._consortium:
            write_bytes(path.with_suffix(CONSORTIUM), self._consortium, replace=True)
        write_bytes(path, container, replace=True)

    def results(self) -> tuple[list[StoredResult], list[tuple[Path, Error]]]:
        """Every result in the folder, and every file that looks like one but is none, with what is wrong."""
        found, faulty = [], []
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            try:
                found.append(describe_result(path))
            except Error as error:
                faulty.append((path, error))
        return found, faulty


def describe_result(path: Path) -> StoredResult:
    """Read a result's public header. Proves nothing."""
    with explained(path), path.open("rb") as src:
        return StoredResult(path=path, header=read_head(src).header, nbytes=path.stat().st_size)


def vouched_signer(path: Path) -> VerifyingKey | None:
    """The signer that this node recorded for a result in its folder; None for a file from elsewhere."""
    beside = path.with_suffix(SIGNER)
    return read_signer(beside) if beside.exists() else None


def read_signer(path: Path) -> VerifyingKey:
    """An aggregator's key, as `store` wrote it beside a result."""
    text = read_bytes(path, limit=LIMITS.document_bytes).decode("ascii", errors="replace")
    return VerifyingKey.parse(text.removesuffix("\n"))


def open_result(
    path: Path, kem: KemKey, member: MemberId, dst: Path, *, expected_signer: VerifyingKey | None
) -> ResultHeader:
    """Open a result into a new folder `dst`, which appears whole or not at all.

    Raises Untrusted, BadSignature or CannotOpen where the container is not genuine or not for this member, Malformed,
    Misconfigured where `dst` is there already, DiskFull or Environment.
    """
    return write_opened(path, dst, lambda src: open_container(src, kem, member, expected_signer=expected_signer))


def write_opened(path: Path, dst: Path, opener: Callable[[BinaryIO], OpenedResult]) -> ResultHeader:
    """Write what `opener` finds in a container into a new folder `dst`, which appears whole or not at all.

    Raises what `opener` raises, Misconfigured where `dst` is there already, DiskFull or Environment.
    """
    if dst.exists():
        raise Misconfigured(f"{dst} is there already: name a folder that is not")
    with explained(path), path.open("rb") as src:
        opened = opener(src)
        with explained(dst.parent), new_folder(dst) as folder:
            for name, _, content in opened.files:
                with (folder / name).open("xb") as file:
                    for piece in content:
                        file.write(piece)
                    file.flush()
                    os.fsync(file.fileno())
    return opened.header
