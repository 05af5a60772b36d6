"""Claim: sealing and unsealing a stream reach at least half the speed of one AES-GCM pass over the same file.

    python -m benchmarks.stream [MEBIBYTES]

A pass reads the file, encrypts it as one AES-GCM message piece by piece, and writes it. All three read from and write
to a file in memory where there is one (/dev/shm), so that no disk hides the difference.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from benchmarks.record import best_of, record
from superswarm.crypto.stream import CHUNK, decrypt_stream, encrypt_stream

KEY = bytes(range(32))


def main(mebibytes: int) -> None:
    memory = Path("/dev/shm")  # noqa: S108 - a folder of its own is made there
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        folder = Path(name)
        with (folder / "plain").open("wb") as file:
            for _ in range(mebibytes):
                file.write(os.urandom(1 << 20))
        one_pass(folder)
        before = _resident()
        passed, sealed, opened = best_of(5, lambda: one_pass(folder), lambda: seal(folder), lambda: unseal(folder))
        if (folder / "plain").stat().st_size != (folder / "opened").stat().st_size:
            raise RuntimeError("what was opened is not what was sealed")
    record(
        "stream-speed",
        mebibytes=mebibytes,
        pass_gigabytes_per_cpu_second=round(mebibytes / passed / 953.67, 2),
        seal_speed_over_pass=round(passed / sealed, 2),
        unseal_speed_over_pass=round(passed / opened, 2),
        resident_mebibytes=round(_resident(), 1),
        grown_mebibytes=round(_resident() - before, 1),
    )


def one_pass(folder: Path) -> None:
    encryptor = Cipher(algorithms.AES(KEY), modes.GCM(bytes(12))).encryptor()
    with (folder / "plain").open("rb") as src, (folder / "passed").open("wb") as dst:
        while piece := src.read(CHUNK):
            dst.write(encryptor.update(piece))
        encryptor.finalize()


def seal(folder: Path) -> None:
    with (folder / "plain").open("rb") as src, (folder / "sealed").open("wb") as dst:
        encrypt_stream(src, dst, KEY, header=b"benchmark")


def unseal(folder: Path) -> None:
    with (folder / "sealed").open("rb") as src, (folder / "opened").open("wb") as dst:
        decrypt_stream(src, dst, KEY)


def _resident() -> float:
    """The most memory that this process had so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mebibytes", type=int, nargs="?", default=512, help="of the file")
    main(parser.parse_args().mebibytes)
