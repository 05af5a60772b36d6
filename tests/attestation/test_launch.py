"""Reference values: computed here a second time, the long way, for firmware and kernels that the test builds."""

from __future__ import annotations

import hashlib
import struct
import tomllib
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_ccel import event, header
from typer.testing import CliRunner

from superswarm.attestation.launch import linux, snp, tdvf
from superswarm.attestation.launch.pe import authenticode
from superswarm.commands.measure import app
from superswarm.errors import Environment, Error, Malformed, Misconfigured

PAGE = 4096
BODY = bytes(range(256)) * 32  # two pages


def guid(text: str) -> bytes:
    return uuid.UUID(text).bytes_le


def entry(name: str, data: bytes) -> bytes:
    return data + struct.pack("<H", len(data) + 18) + guid(name)


FOOTER = "96b582de-1fb2-45f7-baea-a366c55a082d"
TDX = "e47a6535-984a-4798-865e-4685a7bf8ec2"
SEV_METADATA = "dc886566-984a-4798-a75e-5585a7bf67cc"
SEV_ES_RESET = "00f771de-1a7e-4fcb-890e-68c77e2fb44e"
SEV_HASHES = "7255371f-3a3b-4b04-927b-1da6efa8d454"

# offset, size, address, memory, kind, attributes: firmware volume, variables, temporary memory, accepted by the guest
SECTIONS = [
    (0, 2 * PAGE, 0xFFFFE000, 2 * PAGE, 0, 1),
    (PAGE, PAGE, 0xFFFC0000, PAGE, 1, 0),
    (0, 0, 0x810000, 3 * PAGE, 3, 0),
    (0, 0, 0x100000000, 4 * PAGE, 4, 2),
]


def tdx_firmware(sections: list[tuple[int, ...]] = SECTIONS, **changes: Any) -> bytes:
    """An image with TDX metadata: body, metadata, table, reset vector."""
    metadata = struct.pack(
        "<4sIII", changes.get("signature", b"TDVF"), 0, changes.get("version", 1), changes.get("count", len(sections))
    )
    metadata += b"".join(struct.pack("<IIQQII", *section) for section in sections)
    from_end = len(metadata) + 22 + 18 + 32
    table = entry(changes.get("guid", TDX), struct.pack("<I", changes.get("from_end", from_end)))
    footer = struct.pack("<H", changes.get("footer", len(table) + 18)) + guid(changes.get("footer_guid", FOOTER))
    return BODY + metadata + table + footer + bytes(32)


def test_mrtd_is_what_the_module_hashes() -> None:
    """One record of 128 bytes for each page that is added, one with its chunk for each 256 bytes measured."""

    def record(name: bytes, address: int) -> bytes:
        return name + bytes(16 - len(name)) + address.to_bytes(8, "little") + bytes(104)

    expected = hashlib.sha384()
    for page in range(2):
        expected.update(record(b"MEM.PAGE.ADD", 0xFFFFE000 + page * PAGE))
        for chunk in range(16):
            at = page * PAGE + chunk * 256
            expected.update(record(b"MR.EXTEND", 0xFFFFE000 + at) + BODY[at : at + 256])
    expected.update(record(b"MEM.PAGE.ADD", 0xFFFC0000))
    for page in range(3):
        expected.update(record(b"MEM.PAGE.ADD", 0x810000 + page * PAGE))
    assert tdvf.mrtd(tdx_firmware()).raw == expected.digest()
    assert tdvf.mrtd(tdx_firmware(), two_passes=True).raw != expected.digest()


def test_one_measured_page_measures_the_same_in_both_orders() -> None:
    firmware = tdx_firmware([(0, PAGE, 0x1000, PAGE, 0, 1)])
    assert tdvf.mrtd(firmware) == tdvf.mrtd(firmware, two_passes=True)


@pytest.mark.parametrize(
    "firmware",
    [
        b"",
        BODY,
        tdx_firmware(footer_guid=TDX),
        tdx_firmware(guid=SEV_METADATA),
        tdx_firmware(footer=5),
        tdx_firmware(footer=60_000),
        tdx_firmware(from_end=0),
        tdx_firmware(from_end=2**31),
        tdx_firmware(signature=b"TDVE"),
        tdx_firmware(version=2),
        tdx_firmware(count=0),
        tdx_firmware(count=60),
        tdx_firmware(count=2**31),
        tdx_firmware([(0, PAGE, 1, PAGE, 0, 1)]),
        tdx_firmware([(0, PAGE, 0, PAGE + 1, 0, 0)]),
        tdx_firmware([(0, 100, 0, PAGE, 0, 1)]),
        tdx_firmware([(0, 2 * PAGE, 0, PAGE, 0, 0)]),
        tdx_firmware([(2**31, PAGE, 0, PAGE, 0, 1)]),
        tdx_firmware([(0, 0, 0, 2**40, 0, 0)]),
    ],
)
def test_what_is_no_tdx_firmware_is_refused(firmware: bytes) -> None:
    with pytest.raises(Malformed):
        tdvf.mrtd(firmware)


def pe(
    *, signatures: bytes = b"", checksum: int = 0, plus: bool = True, tail: bytes = b"tail", entries: int = 16
) -> bytes:
    """A PE image whose two sections lie in the file in another order than in its table."""
    directory = [(0, 0)] * entries
    if signatures:
        directory[4] = (0x500 + len(tail), len(signatures))
    optional = struct.pack("<H", 0x20B if plus else 0x10B) + bytes(58)
    optional += struct.pack("<II", 0x200, checksum) + bytes(40 if plus else 24) + struct.pack("<I", entries)
    optional += b"".join(struct.pack("<II", *pair) for pair in directory)
    sections = b"".join(
        b".name".ljust(8, b"\0") + struct.pack("<IIII", 0, 0, size, start) + bytes(16)
        for start, size in ((0x400, 0x100), (0x200, 0x200), (0, 0))
    )
    coff = struct.pack("<HHIIIHH", 0x8664, 3, 0, 0, 0, len(optional), 0)
    head = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40) + b"PE\0\0" + coff + optional + sections
    return head.ljust(0x200, b"\0") + b"A" * 0x200 + b"B" * 0x100 + tail + signatures


def test_authenticode_leaves_out_checksum_and_signatures() -> None:
    plain = authenticode(pe())
    assert authenticode(pe(checksum=0xDEADBEEF)) == plain
    assert authenticode(pe(signatures=b"S" * 64)) == authenticode(pe(signatures=b"T" * 64)) == plain
    assert authenticode(pe(tail=b"liar")) != plain
    assert authenticode(pe(plus=False)) != plain
    image = pe()
    where = 0x40 + 24 + 64
    by_hand = image[:where] + image[where + 4 : 0x40 + 24 + 144] + image[0x40 + 24 + 152 :]
    assert plain == hashlib.sha384(by_hand).digest()


def test_an_image_without_a_place_for_signatures_is_hashed_whole() -> None:
    image = pe(entries=2)
    where = 0x40 + 24 + 64
    assert authenticode(image) == hashlib.sha384(image[:where] + image[where + 4 :]).digest()


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 0x2FF), st.binary(min_size=1, max_size=8), st.integers(0, 0x600))
def test_altered_images_raise_only_our_errors(at: int, patch: bytes, cut: int) -> None:
    image = pe(signatures=b"S" * 64)
    for changed in (image[:at] + patch + image[at + len(patch) :], image[:cut], patch):
        try:
            authenticode(changed)
        except Malformed:
            continue


@settings(max_examples=300, deadline=None)
@given(st.integers(len(BODY), len(tdx_firmware())), st.binary(min_size=1, max_size=8), st.integers(0, 300))
def test_altered_firmware_raises_only_our_errors(at: int, patch: bytes, cut: int) -> None:
    image = tdx_firmware([(0, PAGE, 0, PAGE, 0, 1)])
    for changed in (image[:at] + patch + image[at + len(patch) :], image[: len(image) - cut], patch):
        try:
            tdvf.parse_sections(changed)
        except Malformed:
            continue


def sha384(data: bytes) -> bytes:
    return hashlib.sha384(data).digest()


def test_direct_boot_registers() -> None:
    kernel = pe()
    steps = [b"Calling EFI Application from Boot Option", bytes(4)]
    steps += [b"Exit Boot Services Invocation", b"Exit Boot Services Returned with Success"]
    register = bytes(48)
    for digest in (authenticode(kernel), *map(sha384, steps)):
        register = sha384(register + digest)
    assert linux.rtmr1(kernel) == register
    options = "initrd=initrd console=ttyS0".encode("utf-16-le") + b"\0\0"
    assert linux.rtmr2("console=ttyS0", b"initrd") == sha384(sha384(bytes(48) + sha384(options)) + sha384(b"initrd"))
    assert linux.rtmr2("x", None) == sha384(bytes(48) + sha384("x\0".encode("utf-16-le")))
    with pytest.raises(Malformed):
        linux.rtmr2("x\0y", None)


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    if isinstance(result.exception, Error):
        raise result.exception
    return result.exit_code, result.output


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "OVMF.fd").write_bytes(tdx_firmware())
    (tmp_path / "vmlinuz").write_bytes(pe())
    (tmp_path / "initrd").write_bytes(b"initrd")
    return tmp_path


def test_measure_tdx_prints_a_clause_that_parses(folder: Path) -> None:
    boot = ["--kernel", f"{folder}/vmlinuz", "--initrd", f"{folder}/initrd", "--command-line", "console=ttyS0"]
    code, output = run("tdx", "--firmware", f"{folder}/OVMF.fd", *boot)
    assert code == 0
    assert "RTMR0 depends" in output
    image = tomllib.loads(output)["workloads"]["trainer"]["policy"]["tdx"]["images"][0]
    assert image["mrtd"] == tdvf.mrtd(tdx_firmware()).raw.hex()
    assert image["rtmr1"] == linux.rtmr1(pe()).hex()
    assert image["rtmr2"] == linux.rtmr2("console=ttyS0", b"initrd").hex()
    assert image["rtmr3"] == "00" * 48
    assert "rtmr0" not in image


def test_measure_tdx_takes_registers_from_an_event_log(folder: Path) -> None:
    log = header() + event(1, b"shape") + event(2, b"kernel") + event(3, b"command line")
    (folder / "ccel").write_bytes(log)
    _, output = run("tdx", "--firmware", f"{folder}/OVMF.fd", "--event-log", f"{folder}/ccel")
    image = tomllib.loads(output)["workloads"]["aggregator"]["policy"]["tdx"]["images"][0]
    assert image["rtmr0"] == sha384(bytes(48) + sha384(b"shape")).hex()
    assert len(image) == 5
    with pytest.raises(Misconfigured):
        run(
            *("tdx", "--firmware", f"{folder}/OVMF.fd", "--event-log", f"{folder}/ccel"),
            *("--kernel", f"{folder}/vmlinuz"),
        )


def snp_firmware(**changes: Any) -> bytes:
    """An image with SEV metadata: one page each of memory, secrets and CPUID, and one for the kernel's hashes."""
    items = [(0x800000, PAGE, 1), (0x80D000, PAGE, 2), (0x80E000, PAGE, 3), (0x810000, PAGE, 0x10)]
    metadata = struct.pack("<4sIII", b"ASEV", 16 + 12 * len(items), 1, len(items))
    metadata += b"".join(struct.pack("<III", *item) for item in items)
    table = entry(SEV_HASHES, struct.pack("<II", 0x810C00, 0x400)) + entry(SEV_ES_RESET, struct.pack("<I", 0x80B004))
    table += entry(SEV_METADATA, struct.pack("<I", len(metadata) + len(table) + 22 + 18 + 32))
    footer = struct.pack("<H", len(table) + 18) + guid(changes.get("footer_guid", FOOTER))
    image = metadata + table + footer + bytes(32)
    return bytes(-len(image) % PAGE) + image


def test_snp_launch_digests_depend_on_everything_that_is_measured(folder: Path) -> None:
    firmware = folder / "SNP.fd"
    firmware.write_bytes(snp_firmware())
    kernel, initrd = folder / "vmlinuz", folder / "initrd"
    base: dict[str, Any] = {"vcpus": 2, "vcpu_type": "EPYC-v4"}
    variants = [
        {},
        {"vcpus": 3},
        {"vcpu_type": "EPYC-Genoa"},
        {"guest_features": 0x21},
        {"vmm": "ec2"},
        {"kernel": kernel},
        {"kernel": kernel, "initrd": initrd},
        {"kernel": kernel, "initrd": initrd, "command_line": "console=ttyS0"},
    ]
    digests = {snp.launch_digest(firmware, **(base | variant)) for variant in variants}
    assert len(digests) == len(variants)
    _, output = run("snp", "--firmware", str(firmware), "--vcpus", "2", "--vcpu-type", "EPYC-v4")
    listed = tomllib.loads(output)["workloads"]["trainer"]["measurements"]
    assert listed == [str(snp.launch_digest(firmware, **base))]


def test_snp_faults_are_our_errors(folder: Path) -> None:
    firmware = folder / "SNP.fd"
    firmware.write_bytes(snp_firmware())
    for wrong in ({"vcpu_type": "i486"}, {"vmm": "xen"}, {"vcpus": 0}):
        with pytest.raises(Misconfigured):
            snp.launch_digest(firmware, **({"vcpus": 1, "vcpu_type": "EPYC"} | wrong))  # type: ignore[arg-type]
    with pytest.raises(Environment):
        snp.launch_digest(folder / "none", vcpus=1, vcpu_type="EPYC")
    for raw in (b"", bytes(PAGE), snp_firmware(footer_guid=TDX)):
        firmware.write_bytes(raw)
        with pytest.raises(Malformed):
            snp.launch_digest(firmware, vcpus=1, vcpu_type="EPYC")


def test_no_measurement_without_saying_which() -> None:
    with pytest.raises(Misconfigured):
        run()
