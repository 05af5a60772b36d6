"""Ask the kernel for evidence: configfs-tsm, for TDX and SEV-SNP alike (its ABI/testing/configfs-tsm-report).

One makes a folder, writes up to 64 bytes into `inblob`, and reads `outblob`, which the hardware makes at that moment.
The kernel counts writes in `generation`: after every read the count must be what one's own writes made it, or another
program wrote in between, and the evidence is for its bytes.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from superswarm.attestation.evidence import Evidence
from superswarm.attestation.snp.table import parse_table
from superswarm.consortium.manifest import Platform
from superswarm.errors import Environment, NotATee, TooLarge
from superswarm.values import LIMITS

REPORTS: Final = "/sys/kernel/config/tsm/report"
PROVIDERS: Final = {"sev_guest": Platform.SEV_SNP, "tdx_guest": Platform.TDX}
INBLOB_BYTES: Final = 64
ATTEMPTS: Final = 5  # of making one report, when others write into it or the firmware is busy
BUSY: Final = (errno.EBUSY, errno.EAGAIN, errno.EINTR)


class Kernel(Protocol):
    """The four calls that configfs-tsm takes. They raise OSError as the kernel does."""

    def mkdir(self, path: str) -> None: ...
    def rmdir(self, path: str) -> None: ...
    def read(self, path: str) -> bytes: ...
    def write(self, path: str, data: bytes) -> None: ...


class LinuxKernel:
    """The real one. An attribute is written in one call and read to its end."""

    def mkdir(self, path: str) -> None:
        Path(path).mkdir(0o700)

    def rmdir(self, path: str) -> None:
        Path(path).rmdir()

    def read(self, path: str) -> bytes:
        with Path(path).open("rb", buffering=0) as file:
            data = bytearray()
            while chunk := file.read(64 * 1024):
                data += chunk
                if len(data) > LIMITS.evidence_bytes:
                    raise TooLarge(f"{path} has more than {LIMITS.evidence_bytes} bytes")
        return bytes(data)

    def write(self, path: str, data: bytes) -> None:
        handle = os.open(path, os.O_WRONLY)
        try:
            if os.write(handle, data) != len(data):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        finally:
            os.close(handle)


@dataclass(frozen=True, slots=True)
class TsmReport:
    """What the hardware made for our bytes."""

    provider: str
    quote: bytes
    certificates: bytes  # an SNP host's certificate table; empty where there is none


class Raced(Exception):
    """Another program wrote into our report's folder while we read."""


def make_report(kernel: Kernel, inblob: bytes, *, folder: str = REPORTS) -> TsmReport:
    """Have the hardware make a report over these bytes. Raises NotATee or Environment."""
    if len(inblob) != INBLOB_BYTES:
        raise ValueError(f"report_data has {INBLOB_BYTES} bytes, not {len(inblob)}")
    for _ in range(ATTEMPTS):
        try:
            with _entry(kernel, folder) as path:
                return _read_report(kernel, path, inblob)
        except Raced:
            continue
        except OSError as error:
            if error.errno not in BUSY:
                raise _explained(error, folder) from None
    raise Environment(f"the kernel's report interface was busy {ATTEMPTS} times: another program keeps using it")


def _read_report(kernel: Kernel, path: str, inblob: bytes) -> TsmReport:
    # (1) Our write is the one that counts from here on.
    before = _generation(kernel, path)
    kernel.write(f"{path}/inblob", inblob)
    expected = before + 1
    # (2) The hardware makes the report when it is read; what comes with it belongs to the same generation.
    quote = kernel.read(f"{path}/outblob")
    _require_generation(kernel, path, expected)
    certificates = _optional(kernel, f"{path}/auxblob")
    _require_generation(kernel, path, expected)
    # (3) Who made it.
    provider = kernel.read(f"{path}/provider").decode("ascii", "replace").strip()
    _require_generation(kernel, path, expected)
    return TsmReport(provider, quote, certificates)


def _generation(kernel: Kernel, path: str) -> int:
    text = kernel.read(f"{path}/generation").decode("ascii", "replace").strip()
    if not text.isdecimal():
        raise Environment("the kernel's report interface does not say its generation")
    return int(text)


def _require_generation(kernel: Kernel, path: str, expected: int) -> None:
    if _generation(kernel, path) != expected:
        raise Raced


def _optional(kernel: Kernel, path: str) -> bytes:
    """An attribute that not every provider has, or that the host did not fill."""
    try:
        return kernel.read(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODATA, errno.ENXIO, errno.EOPNOTSUPP):
            return b""
        raise


@contextmanager
def _entry(kernel: Kernel, folder: str) -> Iterator[str]:
    """A report of our own, taken away again whatever happens."""
    path = f"{folder}/superswarm-{secrets.token_hex(8)}"
    kernel.mkdir(path)
    try:
        yield path
    finally:
        with suppress(OSError):  # the kernel drops it with the machine at the latest
            kernel.rmdir(path)


def _explained(error: OSError, folder: str) -> Environment:
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR | errno.ENXIO | errno.ENODEV | errno.ENOTTY:
            return NotATee(f"this machine is no TDX or SEV-SNP guest, or its kernel has no {folder} (Linux 6.7 has)")
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return Environment(f"{folder} may not be used by this user: evidence is made by root")
        case _:
            name = errno.errorcode.get(error.errno or 0, "an unknown error")
            return Environment(f"the hardware made no report ({name}): see the kernel's log")


class TsmAttester:
    """A TDX or SEV-SNP guest, as `Attester`: it staples the certificates that the host gives, and what is cached.

    `collateral` is asked each time, so that what was fetched since is stapled.
    """

    def __init__(
        self, kernel: Kernel, collateral: Callable[[Platform], Mapping[str, bytes]], *, folder: str = REPORTS
    ) -> None:
        self._kernel, self._folder, self._collateral = kernel, folder, collateral
        self._platform = _platform(make_report(kernel, bytes(INBLOB_BYTES), folder=folder).provider)

    @property
    def platform(self) -> Platform:
        return self._platform

    def attest(self, report_data: bytes) -> Evidence:
        """Show evidence over these 64 bytes. Raises NotATee or Environment."""
        made = make_report(self._kernel, report_data, folder=self._folder)
        if _platform(made.provider) is not self._platform:
            raise Environment("the kernel's report interface changed its provider")
        given = parse_table(made.certificates) if self._platform is Platform.SEV_SNP else {}
        stapled = {**given, **self._collateral(self._platform)}
        return Evidence(self._platform, made.quote, tuple(sorted(stapled.items())))


def _platform(provider: str) -> Platform:
    if provider not in PROVIDERS:
        raise NotATee(f"the kernel's report interface speaks for {provider[:40]!r}, which is not supported")
    return PROVIDERS[provider]
