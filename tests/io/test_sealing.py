"""Sealed assets on disk: interruptions at any moment, full disks, and what lies in the way."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from superswarm.assets.seal import BATCH
from superswarm.crypto.stream import CHUNK
from superswarm.errors import CannotOpen, DiskFull, Error, Misconfigured, Mismatch
from superswarm.io import sealing
from superswarm.io.sealing import (
    LocalFile,
    Sealed,
    Terms,
    digest_of,
    inspect,
    load_asset_key,
    seal_to_file,
    unseal_to_folder,
)
from superswarm.io.sources import open_source
from superswarm.values import Digest
from tests.sealed import CONTENTS, cut, sealed_asset

PASSPHRASE = "correct horse battery staple"
TERMS = Terms(kind="dataset", owner="north", version="1")
LARGE = {"a.jsonl": b"a" * 2 * BATCH * CHUNK, "b.jsonl": b"b" * 5 * CHUNK}


class Interrupted(Exception):
    """Somebody pressed Ctrl-C."""


@pytest.fixture(autouse=True)
def _cheap_passphrases(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a guess costs is tested where it is decided."""
    monkeypatch.setattr("superswarm.crypto.passphrase.LOG_N", 4)


def write(folder: Path, contents: dict[str, bytes]) -> list[LocalFile]:
    files = []
    for name, body in sorted(contents.items()):
        path = folder / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        files.append(LocalFile(name, path, len(body)))
    return files


def seal(folder: Path, files: list[LocalFile], terms: Terms = TERMS, **given: object) -> Sealed:
    paths = {"out": folder / "x.sealed", "key_file": folder / "x.key", "passphrase": PASSPHRASE}
    return seal_to_file(files, terms, **(paths | given))  # type: ignore[arg-type]


def stop_after(count: int) -> Callable[[int], None]:
    """An `advance` that interrupts when so many bytes were read."""
    left = [count]

    def advance(done: int) -> None:
        left[0] -= done
        if left[0] < 0:
            raise Interrupted

    return advance


def interrupted(folder: Path, files: list[LocalFile], at: int, **given: object) -> None:
    with pytest.raises(Interrupted):
        seal(folder, files, advance=stop_after(at), **given)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"source"}


def opened(folder: Path, name: str = "out") -> dict[str, bytes]:
    key = load_asset_key(folder / "x.key", PASSPHRASE)
    unseal_to_folder(open_source(str(folder / "x.sealed")), key.key, key.digest, folder / name)
    found = [path for path in (folder / name).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder / name)): path.read_bytes() for path in found}


def test_round_trip(tmp_path: Path) -> None:
    sealed = seal(tmp_path, write(tmp_path, CONTENTS))
    assert names(tmp_path) == {"x.sealed", "x.key"}
    assert opened(tmp_path) == CONTENTS
    source = open_source(str(tmp_path / "x.sealed"))
    assert inspect(source).header == sealed.key.header
    assert digest_of(source)[1] == sealed.key.digest
    assert not sealed.resumed
    assert not sealed.restarted


def test_only_the_owner_can_read_keys_and_plaintext(tmp_path: Path) -> None:
    sealed = seal(tmp_path, write(tmp_path, CONTENTS))
    opened(tmp_path)
    assert (tmp_path / "x.key").stat().st_mode & 0o077 == 0
    assert (tmp_path / "out").stat().st_mode & 0o077 == 0
    assert sealed.key.key not in (tmp_path / "x.key").read_bytes()
    assert b"train.jsonl" not in (tmp_path / "x.key").read_bytes()


# --- interruptions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 3 * CHUNK, BATCH * CHUNK + 5, 2 * BATCH * CHUNK, (2 * BATCH + 4) * CHUNK])
def test_an_interrupted_sealing_goes_on(tmp_path: Path, at: int) -> None:
    files = write(tmp_path, LARGE)
    interrupted(tmp_path, files, at)
    assert names(tmp_path) == {".x.sealed.part", ".x.key.journal", ".x.key.unfinished"}
    for name in names(tmp_path):
        assert b"aaaaaaaa" not in (tmp_path / name).read_bytes()
    salt = (tmp_path / ".x.sealed.part").read_bytes()[:48]
    sealed = seal(tmp_path, files)
    assert sealed.resumed
    assert names(tmp_path) == {"x.sealed", "x.key"}
    assert (tmp_path / "x.sealed").read_bytes().startswith(salt)
    assert opened(tmp_path) == LARGE


def test_what_is_on_disk_already_is_not_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = write(tmp_path, LARGE)
    interrupted(tmp_path, files, (2 * BATCH + 4) * CHUNK)
    there = (tmp_path / ".x.sealed.part").stat().st_size
    written: list[int] = []
    real = os.pwrite

    def pwrite(handle: int, data: bytes, at: int) -> int:
        written.append(at)
        return real(handle, data, at)

    monkeypatch.setattr(sealing.os, "pwrite", pwrite)
    seal(tmp_path, files)
    assert there > BATCH * CHUNK
    assert min(at for at in written if at > 2**16) >= there  # below are entries of the journal


@pytest.mark.parametrize("damage", ["torn", "zeros", "longer", "gone"])
def test_a_part_that_a_crash_left_otherwise_is_mended(tmp_path: Path, damage: str) -> None:
    files = write(tmp_path, LARGE)
    interrupted(tmp_path, files, (2 * BATCH + 4) * CHUNK)
    part = tmp_path / ".x.sealed.part"
    data = part.read_bytes()
    other = {"torn": data[:-12345], "zeros": data[:-CHUNK] + bytes(CHUNK), "longer": data * 4, "gone": b""}
    part.write_bytes(other[damage])
    assert seal(tmp_path, files).resumed
    assert opened(tmp_path) == LARGE


def test_a_source_that_changed_starts_over_under_another_key(tmp_path: Path) -> None:
    files = write(tmp_path, LARGE)
    interrupted(tmp_path, files, (2 * BATCH + 4) * CHUNK)
    before = cut((tmp_path / ".x.sealed.part").read_bytes())
    changed = LARGE | {"a.jsonl": b"A" + LARGE["a.jsonl"][1:]}
    sealed = seal(tmp_path, write(tmp_path, changed))
    assert sealed.restarted
    assert opened(tmp_path) == changed
    after = cut((tmp_path / "x.sealed").read_bytes())
    assert before[0] != after[0]
    assert not set(before[1]) & set(after[1])


def test_whoever_holds_the_disk_of_the_ciphertext_cannot_have_a_nonce_used_twice(tmp_path: Path) -> None:
    """It puts back what lay there before chunks were sealed, and the source has changed meanwhile."""
    (tmp_path / "keys").mkdir()
    (tmp_path / "hosted").mkdir()
    given = {"out": tmp_path / "hosted" / "x.sealed", "key_file": tmp_path / "keys" / "x.key"}
    files = write(tmp_path, LARGE)
    interrupted(tmp_path, files, 0, **given)
    earlier = {path: path.read_bytes() for path in (tmp_path / "hosted").iterdir()}
    interrupted(tmp_path, files, (2 * BATCH + 4) * CHUNK, **given)
    seen = cut((tmp_path / "hosted" / ".x.sealed.part").read_bytes())
    for path in (tmp_path / "hosted").iterdir():
        path.unlink()
    for path, data in earlier.items():
        path.write_bytes(data)
    changed = write(tmp_path, LARGE | {"a.jsonl": b"A" + LARGE["a.jsonl"][1:]})
    assert seal(tmp_path, changed, **given).restarted
    assert cut((tmp_path / "hosted" / "x.sealed").read_bytes())[0] != seen[0]
    assert names(tmp_path / "hosted") == {"x.sealed"}
    assert names(tmp_path / "keys") == {"x.key"}


def test_a_crash_while_starting_over_does_not_bring_the_old_key_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its journal is gone then, and with it what keeps its nonces from being used twice."""
    interrupted(tmp_path, write(tmp_path, LARGE), (2 * BATCH + 4) * CHUNK)
    before = cut((tmp_path / ".x.sealed.part").read_bytes())
    changed = write(tmp_path, LARGE | {"a.jsonl": b"A" + LARGE["a.jsonl"][1:]})

    def crash(*_: object, **__: object) -> None:
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(sealing, "seal_file", crash)
        with pytest.raises(Interrupted):
            seal(tmp_path, changed)
    seal(tmp_path, changed)
    assert cut((tmp_path / "x.sealed").read_bytes())[0][:100] != before[0][:100]


@pytest.mark.parametrize(
    "terms",
    [
        Terms(kind="model", owner="north", version="1"),
        Terms(kind="dataset", owner="south", version="1"),
        Terms(kind="dataset", owner="north", version="2"),
        Terms(kind="dataset", owner="north", version="1", demo=True),
    ],
)
def test_other_terms_start_over(tmp_path: Path, terms: Terms) -> None:
    """Above all, an asset that was begun as a real one never becomes a demo under the same key."""
    files = write(tmp_path, LARGE)
    interrupted(tmp_path, files, (2 * BATCH + 4) * CHUNK)
    before = sealing.Sealing.parse(
        sealing.open_file(tmp_path / ".x.key.unfinished", PASSPHRASE, purpose=sealing.WHAT)
    )
    sealed = seal(tmp_path, files, terms)
    assert sealed.restarted
    assert sealed.key.key != before.key
    assert sealed.key.header.demo == terms.demo


def test_a_journal_that_is_not_whole_starts_over(tmp_path: Path) -> None:
    files = write(tmp_path, LARGE)
    for damage in (b"", b"x" * 31):
        interrupted(tmp_path, files, (2 * BATCH + 4) * CHUNK)
        (tmp_path / ".x.key.journal").write_bytes(damage)
    (tmp_path / ".x.key.journal").unlink()
    assert not seal(tmp_path, files).resumed
    assert opened(tmp_path) == LARGE


def test_going_on_takes_the_passphrase_that_it_began_with(tmp_path: Path) -> None:
    files = write(tmp_path, LARGE)
    interrupted(tmp_path, files, 0)
    with pytest.raises(Misconfigured, match="interrupted"):
        seal(tmp_path, files, passphrase="another one")


@pytest.mark.parametrize("moment", ["seal_file", "publish", "unlink"])
def test_a_crash_at_the_end_leaves_all_or_what_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Before the key is written, between key and file, and before the leftovers are removed."""
    files = write(tmp_path, CONTENTS)

    def crash(*_: object, **__: object) -> None:
        raise Interrupted

    real = sealing.seal_file
    with monkeypatch.context() as patch:
        if moment == "seal_file":
            patch.setattr(sealing, "seal_file", lambda p, *a, **k: crash() if p.name == "x.key" else real(p, *a, **k))
        elif moment == "publish":
            patch.setattr(sealing._Workplace, "publish", crash)
        else:
            patch.setattr(sealing._Workplace, "_tidy", crash)
        with pytest.raises(Interrupted):
            seal(tmp_path, files)
    if moment == "unlink":  # whole, with its key; the leftovers hold nothing in the clear, and go at the next attempt
        assert opened(tmp_path) == CONTENTS
        with pytest.raises(Misconfigured, match="exists already"):
            seal(tmp_path, files)
        assert names(tmp_path) == {"x.sealed", "x.key", "out"}
    else:
        assert seal(tmp_path, files).resumed
        assert names(tmp_path) == {"x.sealed", "x.key"}
        assert opened(tmp_path) == CONTENTS


def test_killed_in_the_middle(tmp_path: Path) -> None:
    """A real process, and SIGKILL: no cleanup runs."""
    files = write(tmp_path, LARGE)
    program = f"""
import os, signal
from pathlib import Path
import superswarm.crypto.passphrase
superswarm.crypto.passphrase.LOG_N = 4
from superswarm.io.sealing import *
done = 0
def advance(count):
    global done
    done += count
    if done > {(2 * BATCH + 2) * CHUNK}:
        os.kill(os.getpid(), signal.SIGKILL)
folder = Path({str(tmp_path)!r})
paths = [folder / "source" / name for name in {sorted(LARGE)!r}]
files = [LocalFile(path.name, path, path.stat().st_size) for path in paths]
seal_to_file(files, Terms(kind="dataset", owner="north", version="1"), out=folder / "x.sealed",
             key_file=folder / "x.key", passphrase={PASSPHRASE!r}, advance=advance)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    assert not (tmp_path / "x.sealed").exists()
    assert (tmp_path / ".x.sealed.part").stat().st_size > CHUNK
    assert seal(tmp_path, files).resumed
    assert opened(tmp_path) == LARGE


# --- in the way --------------------------------------------------------------------------------------------------


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    files = write(tmp_path, CONTENTS)
    (tmp_path / "x.key").write_bytes(b"another asset's")
    with pytest.raises(Misconfigured, match=r"x\.key"):
        seal(tmp_path, files)
    (tmp_path / "x.key").unlink()
    seal(tmp_path, files)
    before = (tmp_path / "x.sealed").read_bytes(), (tmp_path / "x.key").read_bytes()
    with pytest.raises(Misconfigured, match=r"x\.sealed"):
        seal(tmp_path, files)
    with pytest.raises(Misconfigured, match=r"x\.key"):
        seal(tmp_path, files, out=tmp_path / "y.sealed")
    assert before == ((tmp_path / "x.sealed").read_bytes(), (tmp_path / "x.key").read_bytes())
    with pytest.raises(Misconfigured, match="another file"):
        seal(tmp_path, files, out=tmp_path / "z", key_file=tmp_path / "z")


def test_the_key_of_another_asset_survives_an_interrupted_sealing(tmp_path: Path) -> None:
    files = write(tmp_path, CONTENTS)
    seal(tmp_path, files)
    kept = (tmp_path / "x.key").read_bytes()
    interrupted(tmp_path, files, 0, out=tmp_path / "y.sealed", key_file=tmp_path / "y.key")
    with pytest.raises(Misconfigured, match=r"x\.key"):
        seal(tmp_path, files, out=tmp_path / "y.sealed", key_file=tmp_path / "x.key")
    assert (tmp_path / "x.key").read_bytes() == kept


def test_what_is_refused_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.key").write_bytes(b"another asset's")
    with pytest.raises(Misconfigured, match=r"x\.key"):
        seal(tmp_path, write(tmp_path, CONTENTS))
    assert names(tmp_path) == {"x.key"}


@pytest.mark.parametrize("other", [{}, {"out": "y.sealed"}, {"key_file": "y.key"}])
def test_two_processes_do_not_seal_to_one_file_or_with_one_key(tmp_path: Path, other: dict[str, str]) -> None:
    files = write(tmp_path, CONTENTS)

    def again(_: int) -> None:
        with pytest.raises(Misconfigured, match="another process"):
            seal(tmp_path, files, **{name: tmp_path / file for name, file in other.items()})

    seal(tmp_path, files, advance=again)
    assert names(tmp_path) == {"x.sealed", "x.key"}
    assert opened(tmp_path) == CONTENTS


def test_a_source_that_shrinks_while_it_is_sealed(tmp_path: Path) -> None:
    files = write(tmp_path, LARGE)

    def shrink(_: int) -> None:
        (tmp_path / "source/b.jsonl").write_bytes(b"")

    with pytest.raises(Mismatch):
        seal(tmp_path, files, advance=shrink)
    assert not (tmp_path / "x.sealed").exists()
    assert not (tmp_path / "x.key").exists()


@pytest.mark.parametrize(("owner", "version"), [("North", "1"), ("public", "1"), ("north", ""), ("north", "a\nb")])
def test_terms_that_no_header_has(owner: str, version: str) -> None:
    with pytest.raises(Misconfigured):
        Terms(kind="dataset", owner=owner, version=version)


# --- full disks, and assets that are not the expected ones -------------------------------------------------------


def limited(code: str, nbytes: int) -> subprocess.CompletedProcess[str]:
    """Run code in a process whose files cannot grow beyond `nbytes`: to it, the disk is full."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, nbytes))

    return subprocess.run([sys.executable, "-c", code], preexec_fn=limit, check=False, capture_output=True, text=True)


RUN = "import superswarm.crypto.passphrase as p; p.LOG_N = 4; from superswarm import cli; exit(cli.run({!r}))"


def test_a_disk_that_fills_while_unsealing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seal(tmp_path, write(tmp_path, CONTENTS))
    monkeypatch.setenv("SUPERSWARM_PASSPHRASE", PASSPHRASE)
    arguments = ["asset", "unseal", str(tmp_path / "x.sealed"), "--key", str(tmp_path / "x.key")]
    ended = limited(RUN.format([*arguments, "--out", str(tmp_path / "out")]), 2 * CHUNK)
    assert ended.returncode == DiskFull.exit_code
    assert "no space is left" in ended.stderr
    assert names(tmp_path) == {"x.sealed", "x.key"}


def test_a_disk_that_fills_while_sealing_can_be_tidied_and_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write(tmp_path, LARGE)
    monkeypatch.setenv("SUPERSWARM_PASSPHRASE", PASSPHRASE)
    arguments = ["asset", "seal", str(tmp_path / "source"), "--kind", "dataset", "--owner", "north"]
    arguments += ["--out", str(tmp_path / "x.sealed"), "--key", str(tmp_path / "x.key")]
    ended = limited(RUN.format(arguments), 5 * CHUNK)
    assert ended.returncode == DiskFull.exit_code
    assert not (tmp_path / "x.sealed").exists()
    assert seal(tmp_path, files).resumed
    assert opened(tmp_path) == LARGE


def test_an_asset_that_cannot_fit_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sealed = seal(tmp_path, write(tmp_path, CONTENTS))
    usage = sealing.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(sealing.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DiskFull):
        opened(tmp_path)
    assert sealed.key.digest
    assert names(tmp_path) == {"x.sealed", "x.key"}


@pytest.mark.parametrize(
    ("alter", "error"),
    [
        (lambda sealed: sealed[:-1], Error),
        (lambda sealed: sealed[:-5] + bytes(5), CannotOpen),
        (lambda _: sealed_asset(CONTENTS)[0], CannotOpen),
    ],
)
def test_what_is_not_the_asset_leaves_nothing(
    tmp_path: Path, alter: Callable[[bytes], bytes], error: type[Error]
) -> None:
    seal(tmp_path, write(tmp_path, CONTENTS))
    path = tmp_path / "x.sealed"
    path.write_bytes(alter(path.read_bytes()))
    with pytest.raises(error):
        opened(tmp_path)
    assert names(tmp_path) == {"x.sealed", "x.key"}


def test_another_digest_than_the_expected_one_leaves_nothing(tmp_path: Path) -> None:
    sealed = seal(tmp_path, write(tmp_path, CONTENTS))
    with pytest.raises(Mismatch):
        unseal_to_folder(open_source(str(tmp_path / "x.sealed")), sealed.key.key, Digest(bytes(32)), tmp_path / "out")
    assert names(tmp_path) == {"x.sealed", "x.key"}


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    seal(tmp_path, write(tmp_path, CONTENTS))
    (tmp_path / "out").mkdir()
    with pytest.raises(Misconfigured):
        opened(tmp_path)


def test_a_wrong_passphrase(tmp_path: Path) -> None:
    seal(tmp_path, write(tmp_path, CONTENTS))
    with pytest.raises(Misconfigured):
        load_asset_key(tmp_path / "x.key", "another one")
