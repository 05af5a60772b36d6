"""configfs-tsm: the evidence is for our bytes or there is none, and nothing is left behind."""

from __future__ import annotations

import errno
import struct
from uuid import UUID

import pytest

from superswarm.attestation.snp.table import parse_table
from superswarm.consortium.manifest import Platform
from superswarm.errors import Environment, Malformed, NotATee, TooLarge
from superswarm.io.tsm import ATTEMPTS, LinuxKernel, TsmAttester, make_report
from tests.io.tsm_kernel import ROOT, FakeKernel, fail

MINE, OTHER = b"m" * 64, b"o" * 64
VCEK, ASK, UNKNOWN = (
    "63da758d-e664-4564-adc5-f4b93be8accd",
    "4ab7b379-bbac-4fe4-a02f-05aef327c782",
    "ecae0c0f-9502-43b1-afa2-0ae2e0d565b6",
)


def table(*entries: tuple[str, bytes]) -> bytes:
    """A certificate table as a host makes it: headers, an entry of zeros, then the certificates."""
    at = 24 * (len(entries) + 1)
    headers, blobs = b"", b""
    for guid, blob in entries:
        headers += UUID(guid).bytes + struct.pack("<II", at + len(blobs), len(blob))
        blobs += blob
    return (headers + bytes(24) + blobs).ljust(4096, b"\0")


def interfere(times: int, after: str = "outblob"):
    """Another program that writes into our folder after we wrote."""
    left = [times]

    def hook(kernel: FakeKernel, call: str, path: str) -> None:
        if call == "read" and path.endswith(after) and left[0]:
            left[0] -= 1
            entry = kernel.entries[path.rpartition("/")[0]]
            entry.inblob, entry.written = OTHER, entry.written + 1

    return hook


def test_a_report_is_made_over_our_bytes_and_its_folder_is_gone() -> None:
    kernel = FakeKernel(table=table((VCEK, b"leaf")))
    made = make_report(kernel, MINE)
    assert made.quote == b"quote over " + MINE
    assert made.provider == "sev_guest"
    assert parse_table(made.certificates) == {"vcek.der": b"leaf"}
    assert kernel.entries == {}


@pytest.mark.parametrize("after", ["outblob", "auxblob", "provider"])
def test_another_writer_is_noticed_and_the_report_made_again(after: str) -> None:
    kernel = FakeKernel(hook=interfere(2, after))
    assert make_report(kernel, MINE).quote == b"quote over " + MINE
    assert [call for call, _ in kernel.calls].count("mkdir") == 3
    assert kernel.entries == {}


def test_a_writer_that_never_stops_is_an_error_and_never_its_report() -> None:
    kernel = FakeKernel(hook=interfere(10**6))
    with pytest.raises(Environment, match="busy"):
        make_report(kernel, MINE)
    assert [call for call, _ in kernel.calls].count("mkdir") == ATTEMPTS
    assert kernel.entries == {}


def test_the_fake_shows_what_would_happen_without_the_counter() -> None:
    """The attack itself: a report over the other program's bytes is what `outblob` would give."""
    kernel = FakeKernel()
    path = f"{ROOT}/shared"
    kernel.mkdir(path)
    kernel.write(f"{path}/inblob", MINE)
    before = kernel.read(f"{path}/generation")
    kernel.write(f"{path}/inblob", OTHER)
    assert kernel.read(f"{path}/outblob") == b"quote over " + OTHER
    assert kernel.read(f"{path}/generation") != before


def busy_then(number: int, times: int):
    left = [times]

    def hook(_kernel: FakeKernel, call: str, path: str) -> None:
        if call == "read" and path.endswith("outblob") and left[0]:
            left[0] -= 1
            raise fail(number)

    return hook


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EAGAIN, errno.EINTR])
def test_a_busy_firmware_is_asked_again(number: int) -> None:
    assert make_report(FakeKernel(hook=busy_then(number, 2)), MINE).quote == b"quote over " + MINE


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.EIO, Environment, "EIO"),
        (errno.ETIMEDOUT, Environment, "ETIMEDOUT"),
        (errno.ENOTTY, NotATee, "no TDX or SEV-SNP guest"),
        (errno.EACCES, Environment, "root"),
    ],
)
def test_what_the_kernel_says_is_explained(number: int, kind: type[Exception], words: str) -> None:
    kernel = FakeKernel(hook=busy_then(number, 10))
    with pytest.raises(kind, match=words):
        make_report(kernel, MINE)
    assert kernel.entries == {}


def test_a_machine_without_the_interface_is_no_tee() -> None:
    with pytest.raises(NotATee):
        make_report(FakeKernel(provider=""), MINE)
    with pytest.raises(NotATee):
        make_report(LinuxKernel(), MINE, folder="/nonexistent/tsm/report")


def test_inblob_has_exactly_64_bytes() -> None:
    for size in (0, 63, 65):
        with pytest.raises(ValueError, match="64"):
            make_report(FakeKernel(), bytes(size))


# --- as an attester ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("provider", "platform"), [("sev_guest", Platform.SEV_SNP), ("tdx_guest", Platform.TDX)])
def test_the_provider_says_which_platform(provider: str, platform: Platform) -> None:
    attester = TsmAttester(FakeKernel(provider=provider), lambda _: {"ark.crl.der": b"crl"})
    evidence = attester.attest(MINE)
    assert attester.platform is evidence.platform is platform
    assert evidence.quote == b"quote over " + MINE
    assert evidence.endorsement("ark.crl.der") == b"crl"
    assert type(evidence).parse(evidence.to_bytes()) == evidence


def test_another_provider_is_no_tee_of_ours() -> None:
    with pytest.raises(NotATee, match="arm_cca"):
        TsmAttester(FakeKernel(provider="arm_cca_guest"), lambda _: {})


def test_what_is_cached_wins_over_what_the_host_gives() -> None:
    kernel = FakeKernel(table=table((VCEK, b"old leaf"), (ASK, b"ask"), (UNKNOWN, b"more")))
    evidence = TsmAttester(kernel, lambda _: {"vcek.der": b"new leaf"}).attest(MINE)
    assert dict(evidence.endorsements) == {"vcek.der": b"new leaf", "ask.der": b"ask"}


# --- the host's table --------------------------------------------------------------------------------------------


def test_empty_tables_have_no_certificates() -> None:
    for data in (b"", bytes(24), bytes(4096), table()):
        assert parse_table(data) == {}


def test_tables_that_lie_are_malformed() -> None:
    good = table((VCEK, b"leaf"))
    for bad in (
        good.replace(struct.pack("<II", 48, 4), struct.pack("<II", 4093, 4)),
        good.replace(struct.pack("<II", 48, 4), struct.pack("<II", 48, 2**32 - 1)),
        good.replace(struct.pack("<II", 48, 4), struct.pack("<II", 0, 4)),
        table((VCEK, b"leaf"), (VCEK, b"leaf")),
        good[:24],
        b"\x01",
    ):
        with pytest.raises(Malformed):
            parse_table(bad)
    with pytest.raises(TooLarge):
        parse_table(bytes(100_000))
