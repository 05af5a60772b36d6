"""A device's report and chain: what genuine ones look like, and every way to be something else."""

from __future__ import annotations

import datetime as dt
import struct

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID
from mint_nvidia import (
    AT,
    FWID,
    NOON,
    Authority,
    Device,
    Vendor,
    composite_device_id,
    device_names,
    digest_of,
    gpu_opaque,
    issue,
    pem,
    tcb_info,
)
from nvidia_fixtures import NONCE, gpu, refused, vendor, verified

from superswarm.attestation.nvidia.identity import Architecture
from superswarm.attestation.nvidia.spdm import OpaqueType, parse_report
from superswarm.attestation.nvidia.verify import verify_device
from superswarm.errors import Malformed, TooLarge


def made_by(leaf: Authority) -> Device:
    """A GPU whose leaf certificate a test made by itself."""
    return Device(leaf.key, leaf.chain, gpu().opaque, gpu().measurements)


def leaf_of(chip: Authority, **changes: object) -> Authority:
    extensions = ((device_names("GH100", "48B02D0000000002"), False), (composite_device_id(chip), False))
    return issue("leaf", chip, **{"ca": False, "extensions": extensions, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("product", "architecture", "name"),
    [
        ("GH100", Architecture.HOPPER, "GH100"),
        ("GB100", Architecture.BLACKWELL, "GB100"),
        ("LS_10", Architecture.NVSWITCH, "LS10"),
    ],
)
def test_genuine_devices_verify(product: str, architecture: Architecture, name: str) -> None:
    device = verified(vendor().device(product))
    assert (device.identity.architecture, device.identity.product) == (architecture, name)
    assert device.identity.serial == "48b02d0000000001"
    assert device.report.nonce == NONCE


def test_every_field_is_named() -> None:
    report = parse_report(gpu().attest(NONCE))
    fields = dict(report.fields())
    assert fields["vbios-version"] == "96.00.74.00.20"
    assert fields["driver-version"] == "580.65.06"
    assert fields["feature-flag"] == "single-GPU passthrough"
    assert fields["nvdec0-status"] == "on"
    assert "measurement-64 (digest)" in fields
    unknown = {**gpu_opaque(), 777: b"later firmware"}
    report = parse_report(Device(gpu().key, gpu().chain, unknown, gpu().measurements).attest(NONCE))
    assert dict(report.fields())["opaque-777"] == b"later firmware".hex()


def test_another_keys_signature_is_refused() -> None:
    other = ec.generate_private_key(ec.SECP384R1())
    forged = Device(other, gpu().chain, gpu().opaque, gpu().measurements)
    assert refused(lambda: verified(forged)) == ("signature-invalid",)


def test_a_report_under_another_devices_chain_is_refused() -> None:
    other = vendor().device(serial="48B02D00000000FF")
    swapped = Device(gpu().key, other.chain, gpu().opaque, gpu().measurements)
    assert refused(lambda: verified(swapped)) == ("signature-invalid",)


def test_another_vendors_root_is_refused() -> None:
    stranger = Vendor()
    assert refused(lambda: verified(stranger.device())) == ("root-untrusted",)


def test_the_root_of_reference_manifests_is_no_root_of_devices() -> None:
    chip = issue("BROM", vendor().reference_root)
    assert refused(lambda: verified(made_by(leaf_of(chip)))) == ("root-untrusted",)


def test_real_roots_do_not_accept_a_minted_device() -> None:
    assert refused(lambda: verify_device(gpu().attest(NONCE), pem(gpu().chain), at=AT)) == ("root-untrusted",)


def test_a_chain_with_a_certificate_left_out_is_refused() -> None:
    chain = gpu().chain
    for missing in range(1, len(chain) - 1):
        shorter = Device(gpu().key, chain[:missing] + chain[missing + 1 :], gpu().opaque, gpu().measurements)
        assert refused(lambda device=shorter: verified(device)) == ("chain-invalid",)


def test_a_root_reissued_over_a_pinned_key_must_carry_that_keys_signature() -> None:
    """Only the key is pinned: a root certificate with the right key and somebody else's signature is none."""
    root = vendor().device_root
    forger = ec.generate_private_key(ec.SECP384R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(root.certificate.subject)
        .issuer_name(root.certificate.subject)
        .public_key(root.key.public_key())
        .serial_number(1)
        .not_valid_before(NOON - dt.timedelta(days=1))
        .not_valid_after(NOON + dt.timedelta(days=99999))
    )
    for extension in root.certificate.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    forged = builder.sign(forger, hashes.SHA384())
    device = Device(gpu().key, (*gpu().chain[:-1], forged), gpu().opaque, gpu().measurements)
    assert refused(lambda: verified(device)) == ("chain-invalid",)


def test_expired_and_future_certificates_are_refused() -> None:
    day = 86_400
    assert "certificate-expired" in refused(lambda: verified(gpu(), at=AT + 366 * day))
    assert "certificate-not-yet-valid" in refused(lambda: verified(gpu(), at=AT - 366 * day))
    old = issue("old BROM", vendor().device_ca, not_after=NOON - dt.timedelta(days=1))
    assert refused(lambda: verified(made_by(leaf_of(old)))) == ("certificate-expired",)


def test_a_leaf_is_no_authority() -> None:
    """A device's own key must not certify another device."""
    false_chip = leaf_of(issue("BROM", vendor().device_ca))
    assert refused(lambda: verified(made_by(leaf_of(false_chip)))) == ("chain-invalid",)


def test_a_path_length_holds() -> None:
    narrow = issue("narrow", vendor().device_root, path_length=0)
    chip = issue("BROM", narrow)
    assert refused(lambda: verified(made_by(leaf_of(chip)))) == ("chain-invalid",)


def test_an_unknown_critical_extension_is_refused() -> None:
    odd = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    chip = issue("BROM", vendor().device_ca, extensions=((odd, True),))
    assert refused(lambda: verified(made_by(leaf_of(chip)))) == ("chain-invalid",)


def test_other_algorithms_are_refused() -> None:
    weak = issue("BROM", vendor().device_ca, digest=hashes.SHA256())
    assert refused(lambda: verified(made_by(leaf_of(weak)))) == ("signature-algorithm",)
    chip = issue("BROM", vendor().device_ca)
    assert refused(lambda: verified(made_by(leaf_of(chip, curve=ec.SECP256R1())))) == ("chain-invalid",)


def test_a_leaf_that_may_not_sign_is_refused() -> None:
    chip = issue("BROM", vendor().device_ca)
    extensions = ((device_names("GH100", "48B02D0000000002"), False), (composite_device_id(chip), False))
    authority = issue("leaf", chip, extensions=extensions, digital_signature=True)
    assert refused(lambda: verified(made_by(authority))) == ("chain-invalid",)


@pytest.mark.parametrize("product", ["GH100", "GB100"])
def test_other_firmware_than_the_certificates_is_refused(product: str) -> None:
    other = bytes(48)
    device = vendor().device(product, opaque=gpu_opaque(fwid=other))
    assert refused(lambda: verified(device)) == ("fwid-mismatch",)


def test_early_firmware_that_names_no_fwid_verifies() -> None:
    device = verified(vendor().device(opaque=gpu_opaque(fwid=None)))
    assert device.report.fwid is None
    assert device.identity.fwid == FWID


def test_the_composite_device_id_names_the_issuers_key() -> None:
    chip = issue("BROM", vendor().device_ca)
    borrowed = composite_device_id(issue("another chip", vendor().device_ca))
    assert refused(lambda: verified(vendor().device(dice=borrowed, chip=chip))) == ("chain-invalid",)


@pytest.mark.parametrize(("flags", "state"), [(b"\x10", "debug"), (b"\x20", "recovery"), (b"\x40", "not secure")])
def test_firmware_that_the_certificate_calls_insecure_is_refused(flags: bytes, state: str) -> None:
    assert refused(lambda: verified(vendor().device("GB100", dice=tcb_info(flags=flags)))) == ("debug",)


def test_a_device_of_an_unknown_kind_is_refused() -> None:
    assert refused(lambda: verified(vendor().device("XX900"))) == ("product-unrecognised",)


def test_a_leaf_names_one_device_and_one_firmware() -> None:
    chip = issue("BROM", vendor().device_ca)
    names, dice = device_names("GH100", "48B02D0000000002"), composite_device_id(chip)
    both = ((names, False), (dice, False), (tcb_info(), False))
    odd = ((device_names("GH100", "x"), False), (dice, False))
    for extensions in (((names, False),), ((dice, False),), both, odd):
        leaf = issue("leaf", chip, ca=False, extensions=extensions)
        assert refused(lambda leaf=leaf: verified(made_by(leaf))) == ("chain-invalid",)


# --- what does not parse -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (0, 0x12),  # SPDM 1.2 signs with a prefix: another scheme
        (1, 0xE1),
        (2, 0x00),  # no signature requested
        (3, 0x01),  # one measurement instead of all
        (36, 0x08),
        (37, 0x12),
        (38, 0x61),
        (39, 0x01),
        (40, 0x01),  # another slot than the request's
        (41, 0x3F),  # fewer blocks than the record holds
        (42, 0x00),
        (46, 0x02),  # another measurement specification
    ],
)
def test_other_messages_than_the_expected_do_not_parse(offset: int, value: int) -> None:
    data = bytearray(gpu().attest(NONCE))
    data[offset] = value
    with pytest.raises(Malformed):
        parse_report(bytes(data))


def test_nothing_may_follow_precede_or_lack() -> None:
    genuine = gpu().attest(NONCE)
    for data in (genuine + b"\0", genuine[:-1], b"\0" + genuine, genuine[1:], genuine + genuine, b""):
        with pytest.raises(Malformed):
            parse_report(data)


def test_nothing_may_be_said_twice() -> None:
    """Of two measurements or fields with one number, a reader could take the first and another the last."""
    block = struct.pack("<BBHBH", 7, 1, 51, 1, 48) + digest_of(7)
    field = struct.pack("<HH", OpaqueType.DRIVER_VERSION, 4) + b"1.0\0"
    for record, count, opaque in ((block * 2, 2, field), (block, 1, field * 2), (b"", 0, field)):
        head = bytes((0x11, 0xE0, 1, 0xFF)) + NONCE + b"\0" + bytes((0x11, 0x60, 0, 0, count))
        sizes = len(record).to_bytes(3, "little"), struct.pack("<H", len(opaque))
        with pytest.raises(Malformed):
            parse_report(b"".join((head, sizes[0], record, bytes(32), sizes[1], opaque, bytes(96))))


def test_fields_with_impossible_values_do_not_parse() -> None:
    for kind, value in (
        (OpaqueType.OPAQUE_DATA_VERSION, b"\2\0"),
        (OpaqueType.OPAQUE_DATA_VERSION, bytes(9)),
    ):
        opaque = {**gpu_opaque(), int(kind): value}
        with pytest.raises(Malformed):
            parse_report(Device(gpu().key, gpu().chain, opaque, gpu().measurements).attest(NONCE))
    report = parse_report(
        Device(
            gpu().key,
            gpu().chain,
            {
                int(OpaqueType.NVDEC0_STATUS): b"\x54",
                int(OpaqueType.DRIVER_VERSION): b"<580>",
                int(OpaqueType.VBIOS_VERSION): bytes(range(1, 9)),
                int(OpaqueType.FEATURE_FLAG): b"\x09",
                int(OpaqueType.FWID): b"short",
                int(OpaqueType.PDI): b"123",
            },
            gpu().measurements,
        ).attest(NONCE)
    )
    for field in ("nvdec0_enabled", "driver_version", "vbios_version", "mode", "fwid", "linked_switches"):
        with pytest.raises(Malformed):
            getattr(report, field)
    assert dict(report.fields())["driver-version"] == b"<580>".hex()


def test_sizes_are_capped() -> None:
    with pytest.raises(TooLarge):
        parse_report(bytes(16 * 1024 + 1))
    with pytest.raises(TooLarge):
        verify_device(gpu().attest(NONCE), b"x" * (32 * 1024 + 1), at=AT)


def test_a_chain_is_pem_and_nothing_else() -> None:
    chain = pem(gpu().chain)
    for other in (
        b"",
        chain + b"text",
        b"x" + chain,
        chain * 2,
        pem(gpu().chain[:1]),
        chain.replace(b"\nMII", b"\nMI=I", 1),
    ):
        with pytest.raises(Malformed):
            verify_device(gpu().attest(NONCE), other, at=AT, roots=vendor().roots)
    verify_device(gpu().attest(NONCE), chain.replace(b"\n", b"\r\n") + b"\0", at=AT, roots=vendor().roots)


# --- revocation ----------------------------------------------------------------------------------------------------


def provisioner() -> Authority:
    return vendor().device_ca


def chip_of(device: Device) -> x509.Certificate:
    return device.chain[1]


def test_a_chip_that_its_issuer_revoked_is_refused() -> None:
    crl = vendor().crl(provisioner(), (chip_of(gpu()),))
    assert refused(lambda: verified(gpu(), staples=(crl,))) == ("certificate-revoked",)
    response = vendor().ocsp(chip_of(gpu()), provisioner(), status=ocsp.OCSPCertStatus.REVOKED)
    assert refused(lambda: verified(gpu(), staples=(response,))) == ("certificate-revoked",)


def test_a_revocation_counts_even_when_its_list_is_stale() -> None:
    stale = vendor().crl(
        provisioner(),
        (chip_of(gpu()),),
        this_update=NOON - dt.timedelta(days=30),
        next_update=NOON - dt.timedelta(days=20),
    )
    assert refused(lambda: verified(gpu(), staples=(stale,))) == ("certificate-revoked",)


def test_a_list_that_somebody_else_signed_is_refused() -> None:
    forged = vendor().crl(provisioner(), key=ec.generate_private_key(ec.SECP384R1()))
    assert refused(lambda: verified(gpu(), staples=(forged,))) == ("crl-invalid",)
    stranger = issue("stranger", None)
    response = vendor().ocsp(chip_of(gpu()), provisioner(), responder=stranger)
    assert refused(lambda: verified(gpu(), staples=(response,))) == ("crl-invalid",)


def test_a_responder_needs_its_issuers_word() -> None:
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING])
    named = issue("responder", provisioner(), ca=False, extensions=((usage, False),))
    good = vendor().ocsp(chip_of(gpu()), provisioner(), responder=named)
    assert verified(gpu(), staples=(good,)).revocation.good == 1
    other = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    late = {"extensions": ((usage, False),), "not_after": NOON - dt.timedelta(days=1)}
    for changes in ({}, {"extensions": ((other, False),)}, late):
        unnamed = issue("responder", provisioner(), ca=False, **changes)  # type: ignore[arg-type]
        false = vendor().ocsp(chip_of(gpu()), provisioner(), responder=unnamed)
        assert refused(lambda staple=false: verified(gpu(), staples=(staple,))) == ("crl-invalid",)
    elsewhere = issue("responder", vendor().device_root, ca=False, extensions=((usage, False),))
    false = vendor().ocsp(chip_of(gpu()), provisioner(), responder=elsewhere)
    assert refused(lambda: verified(gpu(), staples=(false,))) == ("crl-invalid",)


def test_what_is_known_is_counted() -> None:
    crl = vendor().crl(provisioner())
    assert verified(gpu()).revocation.missing == 3
    known = verified(gpu(), staples=(crl,)).revocation
    assert (known.good, known.missing, known.stale) == (1, 2, 0)
    later = verified(gpu(), staples=(crl,), at=AT + 30 * 86_400).revocation
    assert (later.good, later.missing, later.stale) == (0, 2, 1)
    endless = vendor().ocsp(chip_of(gpu()), provisioner(), next_update=None)
    assert verified(gpu(), staples=(endless,)).revocation.stale == 1
    unknown = vendor().ocsp(chip_of(gpu()), provisioner(), status=ocsp.OCSPCertStatus.UNKNOWN)
    assert verified(gpu(), staples=(unknown,)).revocation.missing == 3


def test_an_answer_about_another_certificate_says_nothing() -> None:
    other = vendor().device(serial="48B02D00000000AA")
    response = vendor().ocsp(chip_of(other), provisioner())
    assert verified(gpu(), staples=(response,)).revocation.good == 0


@pytest.mark.parametrize("staple", [b"", b"x", b"\x30\x03\x0a\x01\x06", bytes(256 * 1024 + 1)])
def test_staples_that_are_none_do_not_parse(staple: bytes) -> None:
    with pytest.raises(Malformed):
        verified(gpu(), staples=(staple,))
    with pytest.raises(TooLarge):
        verified(gpu(), staples=(b"",) * 65)
