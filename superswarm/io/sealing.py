"""Sealed assets on disk: sealed so that an interruption costs little, unsealed whole or not at all.

While `records.sealed` is being made, three files lie beside it: `.records.sealed.part` (ciphertext), `.journal`
(hashes of ciphertext) and `.unfinished` (the key, under the owner's passphrase). The same command goes on from there:
what is there already is compared with the source, and not written again. A crash at any moment leaves these, or the
whole sealed file with its key.

Unsealing starts afresh instead. Nothing unsealed counts before the last byte was read and compared, so what an
interruption leaves is plaintext of no use: it is better gone.
"""

from __future__ import annotations

import fcntl
import io
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self, cast

from superswarm.assets.container import AssetHead, AssetHeader, Kind, read_head, size_of
from superswarm.assets.key import PURPOSE, AssetKey
from superswarm.assets.seal import WHAT, Sealing, SourceChanged, seal
from superswarm.assets.unseal import sealed_digest, unseal
from superswarm.bundle import Entry, File
from superswarm.crypto.stream import CHUNK, read_into
from superswarm.errors import DiskFull, Malformed, Misconfigured, Untrusted
from superswarm.io.files import PUBLIC, SECRET, explained, new_folder, sync_folder
from superswarm.io.keystore import open_file, seal_file
from superswarm.io.sources import Reader, Source
from superswarm.values import MEMBER_ID, Digest

VERSION_LENGTH: Final = 200  # characters, as of every line in a manifest
HASH: Final = 32  # bytes of one entry in a journal
Advance = Callable[[int], None]
"""Told how many bytes got done."""


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file to seal, and the name that it has in the asset."""

    name: str
    path: Path
    size: int

    def read(self, advance: Advance) -> Iterator[bytes]:
        with explained(self.path), self.path.open("rb", buffering=0) as file:
            while piece := file.read(CHUNK):
                yield piece
                advance(len(piece))


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the owner says of an asset: all of it can be read by anybody."""

    kind: Kind
    owner: str
    version: str
    demo: bool = False

    def __post_init__(self) -> None:
        if not MEMBER_ID.fullmatch(self.owner) or self.owner == "public":
            raise Misconfigured("the owner of a sealed asset is a member's id, as the manifest has it")
        if not self.version.isprintable() or not 0 < len(self.version) <= VERSION_LENGTH:
            raise Misconfigured(f"a version is a word or a line of at most {VERSION_LENGTH} characters")


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed file that was made, and whether an earlier attempt was gone on with, or given up."""

    key: AssetKey
    resumed: bool
    restarted: bool


def seal_to_file(
    files: Sequence[LocalFile],
    terms: Terms,
    *,
    out: Path,
    key_file: Path,
    passphrase: str,
    advance: Advance = lambda _: None,
) -> Sealed:
    """Seal `files`, sorted by name, to the new file `out`, and its key to the new file `key_file`.

    Goes on with an unfinished sealing to both if terms and contents are the same, else starts over under a fresh key.
    What keeps a nonce from serving twice lies beside the key: whoever holds the disk of `out` cannot put it back.
    Raises Misconfigured where a file is in the way or the passphrase is another, Mismatch where a source changes
    meanwhile, DiskFull or Environment; what is done by then is kept for the next attempt.
    """
    if out == key_file:
        raise Misconfigured("the key goes into another file than what it opens")
    with explained(out), _Workplace(out, key_file) as place:
        begun = place.begun(passphrase)
        _require_free(key_file, begun, passphrase)
        sealing, resumed = begun, True
        if sealing is None or not _alike(sealing.head.header, files, terms):
            sealing, resumed = place.begin(files, terms, passphrase), False
        try:
            key = place.seal(files, sealing, advance)
        except SourceChanged:
            sealing, resumed = place.begin(files, terms, passphrase), False
            key = place.seal(files, sealing, advance)
        seal_file(key_file, key.to_bytes(), passphrase, purpose=PURPOSE, replace=begun is not None)
        place.publish()
    return Sealed(key, resumed=resumed, restarted=begun is not None and not resumed)


def load_asset_key(path: Path, passphrase: str) -> AssetKey:
    """Read the key file that `seal_to_file` wrote."""
    return AssetKey.parse(open_file(path, passphrase, purpose=PURPOSE))


def inspect(source: Source) -> AssetHead:
    """Read a sealed asset's public header. Proves nothing."""
    with _named(source), source.open() as src:
        return read_head(src)


def digest_of(source: Source, advance: Advance = lambda _: None) -> tuple[AssetHead, Digest]:
    """Recompute a sealed asset's digest from all of its ciphertext."""
    with _named(source), source.open() as src:
        return sealed_digest(_counted(src, advance))


def unseal_to_folder(
    source: Source, key: bytes, expected: Digest, dst: Path, advance: Advance = lambda _: None
) -> AssetHeader:
    """Unseal into the new folder `dst`, which appears once all of it was compared with the digest, or not at all.

    Raises what `unseal` raises, Misconfigured where `dst` is there already, DiskFull or Environment.
    """
    if dst.exists():
        raise Misconfigured(f"{dst} is there already: name a folder that is not")
    with explained(dst.parent), new_folder(dst) as folder, _named(source), source.open() as src:
        free = shutil.disk_usage(folder).free
        if source.size > free:
            raise DiskFull(f"{dst.parent} has {free} bytes left, and the asset takes {source.size}")
        return unseal(_counted(src, advance), key, expected, FolderSink(folder))


@contextmanager
def _named(source: Source) -> Iterator[None]:
    """Say of which file an error speaks: its reader sees bytes only, and a person may have several."""
    try:
        yield
    except (Malformed, Untrusted) as error:
        if source.name in str(error):
            raise
        raise type(error)(f"{source.name}: {error}") from None


class FolderSink:
    """Writes an asset's files below a folder that nobody uses yet."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def create(self, name: str, size: int) -> Iterator[BinaryIO]:
        """Raises DiskFull or Environment, and in particular where the name is taken: systems that fold case exist."""
        del size
        path = self._folder / name
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with path.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())


class _Workplace:
    """The files beside `out` and its key while they are being made. One process at a time."""

    def __init__(self, out: Path, key_file: Path) -> None:
        self._out = out
        self._part = out.with_name(f".{out.name}.part")
        self._journal, self._state = (key_file.with_name(f".{key_file.name}.{w}") for w in ("journal", "unfinished"))
        if out.exists():
            if self._part.exists() and self._part.samefile(out):  # done, but for tidying up
                self._tidy()
            raise Misconfigured(f"{out} exists already: move it away, or seal to another file")

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            with explained(self._journal):
                opened.enter_context(self._locked(self._journal, SECRET))
            self._file = opened.enter_context(self._locked(self._part, PUBLIC))
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()  # and with it the locks

    @contextmanager
    def _locked(self, path: Path, mode: int) -> Iterator[io.FileIO]:
        """Open a file that no other process has. Raises Misconfigured. Where nothing was begun, nothing stays."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, mode), "r+b", buffering=0) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                mine = os.fstat(file.fileno()).st_ino == path.stat().st_ino
            except (BlockingIOError, FileNotFoundError):
                mine = False
            if not mine:
                raise Misconfigured(
                    f"another process is sealing to {self._out}, or with its key: let it finish, or stop it"
                )
            try:
                yield file
            finally:
                if not os.fstat(file.fileno()).st_size:
                    path.unlink(missing_ok=True)

    def begun(self, passphrase: str) -> Sealing | None:
        """The sealing that was interrupted here. Misconfigured for another passphrase than it was begun with."""
        if not self._state.exists() or not self._journal.stat().st_size:
            return None
        try:
            return Sealing.parse(open_file(self._state, passphrase, purpose=WHAT))
        except Misconfigured as error:
            raise Misconfigured(
                f"{error}. A sealing to {self._out} was interrupted: give the passphrase that it began with, "
                f"or delete {self._state} to start over"
            ) from None

    def begin(self, files: Sequence[LocalFile], terms: Terms, passphrase: str) -> Sealing:
        """A fresh key, written down before it seals anything, and after all of an earlier attempt is gone."""
        sealing = Sealing.new(
            _entries(files), kind=terms.kind, owner=terms.owner, version=terms.version, demo=terms.demo
        )
        self._state.unlink(missing_ok=True)
        sync_folder(self._state.parent)  # or a power cut brings the old key back, beside an empty journal
        self._file.truncate(0)
        _FileJournal.clear(self._journal, sealing.head.header.chunks)
        seal_file(self._state, sealing.to_bytes(), passphrase, purpose=WHAT, replace=True)
        return sealing

    def seal(self, files: Sequence[LocalFile], sealing: Sealing, advance: Advance) -> AssetKey:
        """Write the sealed file, or what of it is missing. Raises SourceChanged before anything else is written."""
        with _FileJournal(self._journal, sealing.head.header.chunks) as journal:
            draft = _Draft(self._file)
            contents = [File(file.name, file.size, file.read(advance)) for file in files]
            key = seal(contents, sealing, cast("BinaryIO", draft), journal)
            draft.finish()
        return key

    def publish(self) -> None:
        """Give the sealed file its name, and remove what lies beside it."""
        try:
            os.link(self._part, self._out)  # fails where `out` exists, unlike a rename
        except FileExistsError:
            raise Misconfigured(f"{self._out} exists already: move it away and run this again") from None
        sync_folder(self._out.parent)
        self._tidy()

    def _tidy(self) -> None:
        for path in (self._state, self._journal, self._part):
            path.unlink(missing_ok=True)


class _Draft:
    """Writes a file from its beginning, and leaves alone what is there already: a disk wears, a network is slow."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        self._at = 0
        self._there = os.fstat(file.fileno()).st_size

    def write(self, data: bytes | memoryview) -> int:
        if self._at + len(data) > self._there or self._read(len(data)) != data:
            self._write(data)
        self._at += len(data)
        return len(data)

    def finish(self) -> None:
        """Cut what an earlier attempt had beyond, and make all of it durable."""
        self._file.truncate(self._at)
        os.fsync(self._file.fileno())

    def _read(self, size: int) -> bytes:
        return os.pread(self._file.fileno(), size, self._at)

    def _write(self, data: bytes | memoryview) -> None:
        view, at = memoryview(data), self._at
        while view:
            count = os.pwrite(self._file.fileno(), view, at)
            view, at = view[count:], at + count


class _FileJournal:
    """The hashes of sealed chunks, 32 bytes each at the place of its index; zeros where there is none.

    A torn entry is just another hash than the chunk's, and starts the sealing over.
    """

    def __init__(self, path: Path, chunks: int) -> None:
        """Raises SourceChanged where the file is not a journal of so many chunks."""
        self._file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        if os.fstat(self._file).st_size != HASH * chunks:
            os.close(self._file)
            raise SourceChanged("the journal of an unfinished sealing is not whole")

    @staticmethod
    def clear(path: Path, chunks: int) -> None:
        """Make an empty journal. Its blocks are taken now, so that a flush later is quick."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, SECRET), "wb") as file:
            file.write(bytes(HASH * chunks))
            file.flush()
            os.fsync(file.fileno())

    def recall(self, index: int) -> bytes | None:
        entry = os.pread(self._file, HASH, HASH * index)
        return entry if any(entry) else None

    def record(self, first: int, leaves: Sequence[bytes]) -> None:
        os.pwrite(self._file, b"".join(leaves), HASH * first)
        os.fdatasync(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)


class _Counted(Reader):
    """A source that says how much of it was read."""

    def __init__(self, src: BinaryIO, advance: Advance) -> None:
        self._src, self._advance = src, advance

    def fetch(self, size: int) -> bytes:
        data = self._src.read(size)
        self._advance(len(data))
        return data

    def readinto(self, buffer: Any, /) -> int:
        count = read_into(self._src, buffer)
        self._advance(count)
        return count


def _counted(src: BinaryIO, advance: Advance) -> BinaryIO:
    return cast("BinaryIO", _Counted(src, advance))


def _entries(files: Sequence[LocalFile]) -> list[Entry]:
    return [(file.name, file.size) for file in files]


def _alike(header: AssetHeader, files: Sequence[LocalFile], terms: Terms) -> bool:
    """Whether this header is what these files under these terms would get, apart from the random id."""
    return header == AssetHeader(
        kind=terms.kind,
        owner=terms.owner,
        version=terms.version,
        size=size_of(_entries(files)),
        demo=terms.demo,
        asset=header.asset,
    )


def _require_free(key_file: Path, begun: Sealing | None, passphrase: str) -> None:
    """A key that belongs to another asset is never overwritten."""
    if not key_file.exists():
        return
    if begun is None or load_asset_key(key_file, passphrase).asset != begun.head.header.asset:
        raise Misconfigured(f"{key_file} exists already: move it away, or write the key to another file")
