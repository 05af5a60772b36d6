"""Looks at the machine for `superswarm doctor`: each check returns findings, and changes nothing.

Paths under /sys, /proc and /dev start at `root`, so that a test can show another machine's.
"""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import stat
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum
from http.client import HTTPException, HTTPSConnection
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from superswarm.errors import Environment, NotATee
from superswarm.io import linux, nvml
from superswarm.io.capacity import available_memory
from superswarm.io.clocks import Clock
from superswarm.io.config import Address
from superswarm.io.confine import LOCKING
from superswarm.io.console import size
from superswarm.io.memory import MemoryFiles
from superswarm.values import LIMITS

RELEASED = 1_795_305_600  # 2026-11-22: a clock before this is wrong
EXPIRY = 4_102_444_800  # 2100-01-01
NEEDED_BYTES = 2 * 1024**3  # free, where a program keeps its state
ANSWER_SECONDS = 5.0


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"  # works, and weakens something or will surprise
    PROBLEM = "problem"  # the program will not run


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at, and what to do about it."""

    check: str
    level: Level
    what: str
    do: str = ""


def good(check: str, what: str) -> Finding:
    return Finding(check, Level.OK, what)


def warn(check: str, what: str, do: str) -> Finding:
    return Finding(check, Level.WARNING, what, do)


def bad(check: str, what: str, do: str) -> Finding:
    return Finding(check, Level.PROBLEM, what, do)


def check_port(name: str, address: Address) -> Finding:
    """Whether a program could listen there."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
        except OSError as error:
            change = f"stop what listens there, or set another {name}"
            return bad("ports", f"{name}: cannot listen on {address}: {error.strerror}", change)
    return good("ports", f"{name}: {address} is free")


def check_clock(clock: Clock) -> Finding:
    """Whether the wall clock is plausible; how it compares with others', `check_relay` sees."""
    now = clock.now()
    if not RELEASED <= now < EXPIRY:
        said = time.strftime("%Y-%m-%d", time.gmtime(min(max(now, 0), EXPIRY)))
        return bad(
            "clock", f"the clock says {said}, which cannot be", "set the clock; run chrony or systemd-timesyncd"
        )
    return good("clock", f"the clock says {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(now))} UTC")


def check_disk(name: str, folder: Path, needed: int = NEEDED_BYTES) -> Finding:
    """Whether a folder, or the nearest one above it, can be written and has room."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        return bad("disk", f"{name}: {there} is not a folder", f"set {name} to a folder, or remove that file")
    if not os.access(there, os.W_OK | os.X_OK):
        return bad(
            "disk", f"{name}: {there} cannot be written by this user", "change its owner, or name another folder"
        )
    free = shutil.disk_usage(there).free
    if free < needed:
        room = f"free {size(needed - free)} there, or name a folder on another disk"
        return bad("disk", f"{name}: {size(free)} free under {there}; {size(needed)} are needed", room)
    return good("disk", f"{name}: {size(free)} free under {there}")


def check_proxy(environment: Mapping[str, str], hosts: Iterable[str]) -> list[Finding]:
    """Whether proxy variables would catch traffic to the relay or to this machine itself."""
    lower = {key.lower(): value for key, value in environment.items() if key.lower().endswith("_proxy") and value}
    proxies = [key for key in ("https_proxy", "http_proxy", "all_proxy") if key in lower]
    if not proxies:
        return [good("proxy", "no proxy is set")]
    exempt = [part.strip().lower().removeprefix("*.").lstrip(".") for part in lower.get("no_proxy", "").split(",")]
    caught = [host for host in dict.fromkeys(hosts) if not _exempt(host.lower(), exempt)]
    if not caught:
        return [good("proxy", "a proxy is set, and NO_PROXY exempts what superswarm connects to")]
    named = ",".join(caught)
    do = f"export NO_PROXY={named} (and no_proxy), unless the relay is meant to be reached through that proxy"
    return [warn("proxy", f"{proxies[0].upper()} would catch connections to {', '.join(caught)}", do)]


def _exempt(host: str, exempt: list[str]) -> bool:
    return any(entry == "*" or host == entry or host.endswith("." + entry) for entry in exempt if entry)


def check_core_dumps() -> Finding:
    """Whether a crash could write memory to disk, or another process of this user read it."""
    if linux.is_dumpable():
        do = "run superswarm's programs on Linux, and let them call prctl (a seccomp profile may forbid it)"
        return warn("memory", "other processes and core dumps can read a program's memory", do)
    return good("memory", "no core dump and no other process of this user reads a program's memory")


def check_swap(root: Path = Path("/")) -> Finding:
    """Whether memory could be written to disk in normal operation."""
    try:
        lines = (root / "proc/swaps").read_text().splitlines()[1:]
    except OSError:
        return warn("memory", "cannot read the list of swap devices", "make sure that swap is off or encrypted")
    on = [line.split()[0] for line in lines if line.strip() and "zram" not in line.split()[0]]
    if not on:
        return good("memory", "swap is off")
    do = "swapoff -a, or encrypt swap with a key that is lost at shutdown: keys and data could be swapped out"
    if linux.may_lock_everything():
        what = "trainer and aggregator lock their memory, a node does not"
    else:
        what, do = "programs may not lock their memory", f"{do}. Else, {LOCKING}"
    return warn("memory", f"swap is on ({', '.join(on)}), and {what}", do)


def check_memory_files() -> Finding:
    """Whether plaintext can be held in files that exist in memory only, and how much of it."""
    try:
        with MemoryFiles() as files, files.create("probe", 1) as file:
            file.write(b"x")
    except Environment as error:
        return bad("memory", str(error), "run it on Linux with /proc mounted, where memfd_create is allowed")
    return good("memory", f"{size(available_memory())} of memory are free for base model and data")


def check_secret_file(name: str, path: Path) -> Finding:
    """Whether a file with a private key exists and only its owner can read it."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return bad("files", f"{name}: {path}: {error.strerror}", f"make the file, or set {name} to where it is")
    if not stat.S_ISREG(mode):
        return bad("files", f"{name}: {path} is not a file", f"set {name} to the file")
    if mode & 0o077:
        return bad("files", f"{name}: others can read {path} (mode {mode & 0o777:o})", f"chmod 600 {path}")
    if not os.access(path, os.R_OK):
        return bad("files", f"{name}: this user cannot read {path}", "run as its owner")
    return good("files", f"{name}: {path} is there, for its owner only")


def check_tee(root: Path = Path("/"), *, needed: bool) -> list[Finding]:
    """Which trusted execution environment this machine offers, as a guest sees it (kernel: configfs-tsm)."""
    devices = {"Intel TDX": "dev/tdx_guest", "AMD SEV-SNP": "dev/sev-guest", "vTPM": "dev/tpmrm0"}
    found = [name for name, path in devices.items() if (root / path).exists()]
    reports = (root / "sys/kernel/config/tsm/report").is_dir()
    cpu = [name for name in found if name != "vTPM"]
    if cpu and reports:
        return [good("tee", f"{' and '.join(found)}; the kernel's report interface (configfs-tsm) is there")]
    if cpu:
        do = "mount -t configfs none /sys/kernel/config, and load tsm (Linux 6.7 or later)"
        return [warn("tee", f"{cpu[0]} is there, but not the kernel's report interface (configfs-tsm)", do)]
    what = f"no TEE device is visible{' (a vTPM is)' if found else ''}"
    if needed:
        do = "run the program in a confidential VM (TDX or SEV-SNP); for made-up data a simulated manifest will do"
        return [warn("tee", what, do)]
    return [good("tee", f"{what}; this program does not need one")]


def check_gpu(library: nvml.Library | None = None) -> list[Finding]:
    """Which NVIDIA GPUs are there, and whether they are in a confidential mode.

    A hint for people only: what counts is the evidence that the GPU signs.
    """
    try:
        found = nvml.inspect(library)
    except NotATee as absent:
        return [good("gpu", f"{absent}; training runs on the CPU")]
    except Environment as failure:
        return [warn("gpu", str(failure), "check the driver with nvidia-smi")]
    what = f"{len(found.gpus)} GPU(s), {found.gpus[0].name}, driver {found.driver_version}: {found.verdict}"
    if found.confidential:
        return [good("gpu", what)]
    do = (
        "under a real manifest it is refused: switch confidential computing on (Hopper or later), or train on the CPU"
    )
    return [warn("gpu", what, do)]


def check_versions(extra: str | None) -> list[Finding]:
    """Whether the installed dependencies are in the ranges that superswarm supports."""
    try:
        lines = metadata.requires("superswarm") or []
    except metadata.PackageNotFoundError:
        return [warn("versions", "superswarm is not installed as a package", "pip install it, or run make setup")]
    wanted = [Requirement(line) for line in lines]
    extras = [{"extra": extra}] if extra else [{"extra": ""}]
    faults = [fault for one in wanted if _applies(one, extras) and (fault := _version_fault(one, extra))]
    return faults or [good("versions", "all dependencies are in their supported ranges")]


def _applies(one: Requirement, extras: list[dict[str, str]]) -> bool:
    return one.name != "superswarm" and (one.marker is None or any(one.marker.evaluate(extra) for extra in extras))


def _version_fault(one: Requirement, extra: str | None) -> Finding | None:
    install = f"pip install 'superswarm{f'[{extra}]' if extra else ''}'"
    try:
        version = metadata.version(one.name)
    except metadata.PackageNotFoundError:
        return bad("versions", f"{one.name} is not installed", install)
    if one.specifier.contains(version, prereleases=True):
        return None
    return bad("versions", f"{one.name} {version} is not in the supported range {one.specifier}", install)


def check_relay(relay: Address, authority: Path, clock: Clock) -> list[Finding]:
    """Whether the relay answers, under the certificate it should have, and agrees about the time."""
    try:
        context = ssl.create_default_context(cafile=str(authority))
    except (OSError, ssl.SSLError):
        return [
            bad(
                "relay",
                f"relay_ca: {authority} is not a PEM certificate",
                "ask the operator for the relay's authority",
            )
        ]
    connection = HTTPSConnection(relay.host, relay.port, timeout=ANSWER_SECONDS, context=context)
    try:
        connection.request("GET", "/")
        date = connection.getresponse().getheader("Date")
    except ssl.SSLCertVerificationError as error:
        do = "check relay and relay_ca with the operator, who sets the names in the certificate (`names`)"
        return [bad("relay", f"{relay} has another certificate: {error.verify_message}", do)]
    except (OSError, HTTPException) as error:
        do = "check the address with the operator, then firewalls: only outbound connections to it are needed"
        return [bad("relay", f"{relay} does not answer ({type(error).__name__})", do)]
    finally:
        connection.close()
    return [good("relay", f"{relay} answers, under the expected authority"), _skew(date, clock)]


def _skew(date: str | None, clock: Clock) -> Finding:
    try:
        skew = clock.now() - parsedate_to_datetime(date or "").timestamp()
    except (TypeError, ValueError):
        return warn(
            "clock", "the relay does not say what time it is", "compare this machine's clock with another source"
        )
    if abs(skew) > LIMITS.clock_skew_seconds:
        do = "set the wrong clock of the two: members' signed times must agree within minutes"
        return bad("clock", f"this clock and the relay's differ by {abs(skew):.0f} s", do)
    return good("clock", f"this clock and the relay's agree within {abs(skew) + 1:.0f} s")
