"""Claim: an asset is sealed and unsealed at half the speed of one AES-GCM pass or more, in under 200 MB of memory.

    python -m benchmarks.sealing [MEBIBYTES] [--runs N] [--folder DIR]

A pass reads the file, encrypts it as one AES-GCM message in pieces of 1 MiB, and writes it. Sealing also hashes the
ciphertext, keeps a journal, and derives keys from the passphrase twice; unsealing does so once, verifies, decrypts.
All three make what they wrote durable, in one folder: first on disk, then in memory, where no disk hides what work
costs. Each runs in a process of its own, in turns, and the shortest of each counts. Memory is the most that a process
had resident, libraries and the 128 MiB of a passphrase's derivation included.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from benchmarks.record import record
from superswarm.io.sealing import LocalFile, Terms, load_asset_key, seal_to_file, unseal_to_folder
from superswarm.io.sources import open_source

PIECE: Final = 1 << 20
PASSPHRASE: Final = "only for a benchmark"  # noqa: S105
MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a folder of its own is made there


def main(mebibytes: int, runs: int, folder: Path | None) -> None:
    places = [folder] if folder else [Path(tempfile.gettempdir()), MEMORY]
    for place in places:
        if place.is_dir():
            with tempfile.TemporaryDirectory(dir=place) as name:
                measure(Path(name), mebibytes, runs, "memory" if place == MEMORY else "disk")


def measure(folder: Path, mebibytes: int, runs: int, place: str) -> None:
    with (folder / "plain.parquet").open("wb") as file:
        for _ in range(mebibytes):
            file.write(os.urandom(PIECE))
        os.fsync(file.fileno())
    turns = [{name: child(name, folder) for name in ("pass", "seal", "unseal")} for _ in range(runs)]
    best = {name: min(turn[name]["seconds"] for turn in turns) for name in turns[0]}
    cpu = {name: min(turn[name]["cpu_seconds"] for turn in turns) for name in turns[0]}
    record(
        "sealing-speed",
        mebibytes=mebibytes,
        runs=runs,
        place=place,
        pass_gigabytes_per_second=round(mebibytes / best["pass"] / 953.67, 2),
        seal_speed_over_pass=round(best["pass"] / best["seal"], 2),
        unseal_speed_over_pass=round(best["pass"] / best["unseal"], 2),
        seal_cpu_over_pass=round(cpu["seal"] / cpu["pass"], 2),
        unseal_cpu_over_pass=round(cpu["unseal"] / cpu["pass"], 2),
        seal_resident_megabytes=round(max(turn["seal"]["megabytes"] for turn in turns), 1),
        unseal_resident_megabytes=round(max(turn["unseal"]["megabytes"] for turn in turns), 1),
        seconds=[{name: round(turn[name]["seconds"], 2) for name in turn} for turn in turns],
    )


def child(name: str, folder: Path) -> dict[str, float]:
    """Do one of the three in a fresh process, after what an earlier turn left is gone."""
    command = [sys.executable, "-m", "benchmarks.sealing", "--do", name, "--folder", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def do(name: str, folder: Path) -> None:
    """In the child: one task, and what it took."""
    task, made = TASKS[name]
    for path in (folder / file for file in made):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    started, cpu = time.perf_counter(), time.process_time()
    task(folder)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "megabytes": peak}))


def one_pass(folder: Path) -> None:
    encryptor = Cipher(algorithms.AES(bytes(32)), modes.GCM(bytes(12))).encryptor()
    with (folder / "plain.parquet").open("rb") as src, (folder / "passed").open("wb") as dst:
        while piece := src.read(PIECE):
            dst.write(encryptor.update(piece))
        encryptor.finalize()
        dst.flush()
        os.fsync(dst.fileno())


def seal(folder: Path) -> None:
    plain = folder / "plain.parquet"
    terms = Terms(kind="dataset", owner="north", version="1")
    files = [LocalFile(plain.name, plain, plain.stat().st_size)]
    seal_to_file(files, terms, out=folder / "sealed", key_file=folder / "key", passphrase=PASSPHRASE)


def unseal(folder: Path) -> None:
    key = load_asset_key(folder / "key", PASSPHRASE)
    unseal_to_folder(open_source(str(folder / "sealed")), key.key, key.digest, folder / "opened")


TASKS: Final[dict[str, tuple[Callable[[Path], Any], list[str]]]] = {
    "pass": (one_pass, ["passed", "opened"]),
    "seal": (seal, ["passed", "sealed", "key"]),
    "unseal": (unseal, ["opened"]),
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mebibytes", nargs="?", type=int, default=2048)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--do", choices=TASKS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.do:
        do(given.do, given.folder)
    else:
        main(given.mebibytes, given.runs, given.folder)
