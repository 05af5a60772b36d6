"""SEV-SNP: minted evidence passes the strictest policy, and every way to weaken it is refused for its own reason."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from superswarm.attestation.reasons import Reason
from superswarm.attestation.snp.chain import VerifiedSnp, verify_snp
from superswarm.attestation.snp.judge import judge_snp
from superswarm.attestation.snp.report import KeyKind, Product, parse_report, product_of
from superswarm.attestation.snp.vek import AMD
from superswarm.consortium.policy import SnpMilan, SnpPolicy, SnpProduct, SnpTcb, SnpTurin
from superswarm.errors import EvidenceRejected, Malformed
from tests.attestation.snp_mint import AT, CHIP, NOW, TCB, Authority, report, sign

FLOOR = {"bootloader": 1, "tee": 0, "snp": 4, "microcode": 1}


def strict(**changes: object) -> SnpPolicy:
    """Every switch on its strict side, Milan accepted so that it can be minted."""
    product = {"minimum_firmware": "1.55.0", "mitigations": 1, "minimum_tcb": SnpTcb(**FLOOR)}
    fields: dict[str, object] = {
        "milan": SnpMilan(**product, accepted_risk="arXiv:2605.12990"),
        "genoa": SnpProduct(**product),
        "turin": SnpTurin(**{**product, "minimum_tcb": SnpTcb(**FLOOR, fmc=1)}),
        "chips": (CHIP.hex(), CHIP[:8].hex()),
        "host_data": (bytes(32).hex(),),
        "id_keys": (bytes(48).hex(),),
        "author_keys": "any",
        "crl_maximum_age_days": 60,
    }
    return SnpPolicy(**{**fields, **changes})


@dataclass
class Minted:
    """One authority with one endorsement key, from which reports are cheap."""

    authority: Authority
    key: ec.EllipticCurvePrivateKey
    leaf: bytes
    crl: bytes

    @classmethod
    def make(cls, product: Product = Product.GENOA, kind: KeyKind = KeyKind.VCEK) -> Minted:
        authority = Authority(product, kind)
        return cls(authority, *authority.endorse(), authority.crl())

    def report(self, **changes: object) -> bytes:
        return sign(report(self.authority.product, **changes), self.key)

    def verify(
        self, data: bytes | None = None, *, at: int = AT, roots=None, **endorsements: bytes | None
    ) -> VerifiedSnp:
        files = self.authority.endorsements(self.leaf, self.crl)
        files |= {name.replace("_", "."): value for name, value in endorsements.items()}
        given = {name: value for name, value in files.items() if value is not None}
        return verify_snp(data or self.report(), given, at, self.authority.roots if roots is None else roots)


@pytest.fixture(scope="module")
def genoa() -> Minted:
    return Minted.make()


@pytest.fixture(scope="module")
def turin() -> Minted:
    return Minted.make(Product.TURIN)


@pytest.fixture(scope="module")
def vlek() -> Minted:
    return Minted.make(Product.GENOA, KeyKind.VLEK)


def refused(call, *reasons: Reason) -> None:
    with pytest.raises(EvidenceRejected) as caught:
        call()
    assert set(reasons) <= set(caught.value.reasons), caught.value


# --- what is accepted --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("product", list(Product))
def test_strictest_policy_accepts_what_meets_it(product: Product) -> None:
    minted = Minted.make(product)
    judge_snp(minted.verify(), strict(), AT)


@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_every_report_version_is_read(genoa: Minted, version: int) -> None:
    data = genoa.report(version=version)
    parsed = genoa.verify(data).report
    assert parsed.version == version
    assert (parsed.cpuid is None) == (version == 2)
    assert (parsed.launch_mitigations is None) == (version < 5)


def test_a_version_2_report_takes_its_product_from_the_chain(genoa: Minted) -> None:
    assert genoa.verify(genoa.report(version=2)).claims.product is Product.GENOA


@pytest.mark.parametrize(
    ("family", "model", "product"),
    [
        (0x19, 0x01, Product.MILAN),
        (0x19, 0x11, Product.GENOA),
        (0x19, 0xA0, Product.GENOA),  # Bergamo, Siena
        (0x1A, 0x02, Product.TURIN),
        (0x1A, 0x11, Product.TURIN),
        (0x19, 0x20, None),
        (0x1A, 0x50, None),  # Venice: its TCB has yet another layout
        (0x17, 0x31, None),
    ],
)
def test_products_by_family_and_model(family: int, model: int, product: Product | None) -> None:
    assert product_of(family, model) is product


def test_siena_chains_to_genoa(genoa: Minted) -> None:
    data = genoa.report(cpuid=(0x19, 0xA0, 2))
    judge_snp(genoa.verify(data), strict(), AT)


def test_a_vlek_needs_consent_and_a_listed_provider(vlek: Minted) -> None:
    data = vlek.report(key_info=1 << 2, chip=bytes(64))
    verified = vlek.verify(data)
    refused(lambda: judge_snp(verified, strict(), AT), Reason.KEY_KIND_NOT_ACCEPTED, Reason.CHIP_MASKED)
    lenient = {"keys": ("vlek",), "masked_chip": "accepted", "chips": "any"}
    judge_snp(verified, strict(**lenient, vlek_providers=("CN=cc-test.example",)), AT)
    other = strict(**lenient, vlek_providers=("CN=cc-other.example",))
    refused(lambda: judge_snp(verified, other, AT), Reason.PROVIDER_NOT_ACCEPTED)


# --- policy ------------------------------------------------------------------------------------------------------

STRICT_POLICY = 1 << 17 | 1 << 20 | 1 << 24 | 55 | 1 << 8


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"policy": STRICT_POLICY | 1 << 19}, Reason.DEBUG),
        ({"policy": STRICT_POLICY | 1 << 18}, Reason.MIGRATION_AGENT),
        ({"report_id_ma": b"\x01" * 32}, Reason.MIGRATION_AGENT),
        ({"policy": STRICT_POLICY | 1 << 16}, Reason.SMT),
        ({"policy": STRICT_POLICY | 1 << 21}, Reason.CXL),
        ({"policy": STRICT_POLICY & ~(1 << 20)}, Reason.SINGLE_SOCKET),
        ({"vmpl": 1}, Reason.VMPL_NOT_ACCEPTED),
        ({"platform": 0b010110}, Reason.ALIAS_CHECK),
        ({"platform": 0b100110, "policy": STRICT_POLICY & ~(1 << 24)}, Reason.CIPHERTEXT_HIDING),
        ({"host_data": b"\x01" * 32}, Reason.HOST_DATA),
        ({"id_key": b"\x01" * 48}, Reason.ID_KEY),
        ({"chip": bytes(64)}, Reason.CHIP_MASKED),
        ({"committed": bytes.fromhex("0000000000001754")}, Reason.TCB_FLOOR),
        ({"launch": bytes.fromhex("0a00000000000354")}, Reason.TCB_FLOOR),
        ({"committed": bytes.fromhex("0a00000000001755")}, Reason.TCB_INCONSISTENT),
        (
            {"current": bytes.fromhex("0a00000000001754"), "committed": bytes.fromhex("0b00000000001754")},
            Reason.TCB_INCONSISTENT,
        ),
        ({"committed_firmware": (1, 54, 255)}, Reason.FIRMWARE_TOO_OLD),
        ({"committed_firmware": (1, 55, 41)}, Reason.TCB_INCONSISTENT),
        ({"policy": STRICT_POLICY + 1}, Reason.TCB_INCONSISTENT),  # asks for ABI 1.56 of firmware 1.55
        ({"mitigations": (0x3E, 0x3F)}, Reason.MITIGATION_MISSING),
        ({"mitigations": (0x3F, 0x3E)}, Reason.MITIGATION_MISSING),
        ({"version": 3}, Reason.MITIGATION_MISSING),
    ],
)
def test_each_weakness_has_its_reason(genoa: Minted, changes: dict[str, object], reason: Reason) -> None:
    verified = genoa.verify(genoa.report(**changes))
    with pytest.raises(EvidenceRejected) as caught:
        judge_snp(verified, strict(), AT)
    assert set(caught.value.reasons) == {reason}


def test_author_keys_must_be_enabled_and_listed(genoa: Minted) -> None:
    policy = strict(author_keys=((b"\x02" * 48).hex(),))
    judge_snp(genoa.verify(genoa.report(key_info=1, author_key=b"\x02" * 48)), policy, AT)
    for changes in ({"author_key": b"\x02" * 48}, {"key_info": 1, "author_key": b"\x03" * 48}):
        refused(
            lambda changes=changes: judge_snp(genoa.verify(genoa.report(**changes)), policy, AT), Reason.AUTHOR_KEY
        )


def test_a_product_outside_the_policy_is_refused(genoa: Minted) -> None:
    refused(lambda: judge_snp(genoa.verify(), strict(genoa=None), AT), Reason.PRODUCT_NOT_ACCEPTED)


def test_milan_is_refused_with_the_paper_that_says_why() -> None:
    minted = Minted.make(Product.MILAN)
    with pytest.raises(EvidenceRejected, match=r"2605\.12990") as caught:
        judge_snp(minted.verify(), strict(milan=None), AT)
    assert caught.value.reason is Reason.PRODUCT_NOT_ACCEPTED


def test_an_unlisted_chip_is_refused(genoa: Minted) -> None:
    policy = strict(chips=((b"\x09" * 64).hex(),))
    refused(lambda: judge_snp(genoa.verify(), policy, AT), Reason.CHIP_NOT_ACCEPTED)


def test_a_masked_report_still_names_its_chip_through_the_vcek(genoa: Minted) -> None:
    verified = genoa.verify(genoa.report(chip=bytes(64)))
    judge_snp(verified, strict(masked_chip="accepted"), AT)


def test_turin_floors_have_the_fmc(turin: Minted) -> None:
    policy = strict(turin=SnpTurin(minimum_tcb=SnpTcb(**FLOOR, fmc=2), minimum_firmware="1.55.0", mitigations=0))
    refused(lambda: judge_snp(turin.verify(), policy, AT), Reason.TCB_FLOOR)


# --- verification ------------------------------------------------------------------------------------------------


def test_another_root_is_untrusted(genoa: Minted) -> None:
    refused(lambda: genoa.verify(roots={}), Reason.ROOT_UNTRUSTED)
    with pytest.raises(EvidenceRejected) as caught:  # AMD's own keys are all that is trusted by default
        verify_snp(genoa.report(), genoa.authority.endorsements(genoa.leaf, genoa.crl), AT)
    assert caught.value.reason is Reason.ROOT_UNTRUSTED


def test_a_root_of_the_same_name_is_untrusted(genoa: Minted) -> None:
    double = Minted.make()
    refused(lambda: double.verify(roots=genoa.authority.roots), Reason.ROOT_UNTRUSTED)
    mixed = double.authority.endorsements(double.leaf)["ask.der"]
    refused(lambda: genoa.verify(ask_der=mixed), Reason.CHAIN_INVALID)


def test_a_signer_that_is_no_authority_is_refused() -> None:
    authority = Authority(signer_is_ca=False)
    minted = Minted(authority, *authority.endorse(), authority.crl())
    refused(minted.verify, Reason.CHAIN_INVALID)


def test_the_report_must_be_signed_by_the_leaf(genoa: Minted) -> None:
    other = sign(report(), ec.generate_private_key(ec.SECP384R1()))
    refused(lambda: genoa.verify(other), Reason.SIGNATURE_INVALID)
    refused(lambda: genoa.verify(bytes(report())), Reason.SIGNATURE_INVALID)  # the host turned signing off
    refused(lambda: genoa.verify(genoa.report(algorithm=2)), Reason.SIGNATURE_ALGORITHM)


def test_a_key_on_another_curve_is_refused(genoa: Minted) -> None:
    key, leaf = genoa.authority.endorse(key=ec.generate_private_key(ec.SECP521R1()))
    assert key
    refused(lambda: genoa.verify(leaf_der=leaf), Reason.SIGNATURE_ALGORITHM)


@pytest.mark.parametrize(
    ("which", "days", "reason"),
    [
        ("ends", -1, Reason.CERTIFICATE_EXPIRED),
        ("begins", 1, Reason.CERTIFICATE_NOT_YET_VALID),
    ],
)
def test_the_leaf_must_be_valid_at_the_time(genoa: Minted, which: str, days: int, reason: Reason) -> None:
    _, leaf = genoa.authority.endorse(key=genoa.key, **{which: NOW + timedelta(days=days)})
    refused(lambda: genoa.verify(leaf_der=leaf), reason)


def test_the_authorities_must_be_valid_at_the_time() -> None:
    authority = Authority(ends=NOW - timedelta(days=1))
    minted = Minted(authority, *authority.endorse(ends=NOW + timedelta(days=9)), authority.crl())
    refused(minted.verify, Reason.CERTIFICATE_EXPIRED)


def test_time_is_the_argument_and_nothing_else(genoa: Minted) -> None:
    later = AT + 4000 * 86_400
    refused(lambda: genoa.verify(at=later), Reason.CERTIFICATE_EXPIRED)


def test_a_certificate_for_another_tcb_is_refused(genoa: Minted) -> None:
    """A host that rolls firmware back keeps an old certificate; the report names the TCB it really has."""
    _, leaf = genoa.authority.endorse(key=genoa.key, tcb=bytes.fromhex("0a00000000001854"))
    refused(lambda: genoa.verify(leaf_der=leaf), Reason.CERTIFICATE_MISMATCH)


def test_a_certificate_of_another_chip_is_refused(genoa: Minted) -> None:
    _, leaf = genoa.authority.endorse(key=genoa.key, chip=bytes(reversed(CHIP)))
    refused(lambda: genoa.verify(leaf_der=leaf), Reason.CERTIFICATE_MISMATCH)


def test_turin_ids_are_eight_bytes_and_no_more(turin: Minted) -> None:
    stuffed = turin.report(chip=CHIP)
    refused(lambda: turin.verify(stuffed), Reason.CERTIFICATE_MISMATCH)


def test_a_vlek_never_passes_for_a_vcek(genoa: Minted, vlek: Minted) -> None:
    refused(lambda: vlek.verify(vlek.report(key_info=0)), Reason.CERTIFICATE_MISMATCH)
    refused(lambda: genoa.verify(genoa.report(key_info=1 << 2)), Reason.CERTIFICATE_MISMATCH)
    refused(lambda: genoa.verify(genoa.report(key_info=7 << 2)), Reason.CERTIFICATE_MISMATCH)


@pytest.mark.parametrize(("signer", "kind"), [(KeyKind.VLEK, KeyKind.VCEK), (KeyKind.VCEK, KeyKind.VLEK)])
def test_each_signing_key_signs_its_own_kind(signer: KeyKind, kind: KeyKind) -> None:
    """AMD keeps a signing key for chips, and another for cloud providers' keys."""
    authority = Authority(kind=kind, signer_kind=signer)
    minted = Minted(authority, *authority.endorse(), authority.crl())
    refused(lambda: minted.verify(minted.report(key_info=kind << 2)), Reason.CERTIFICATE_MISMATCH)


def test_products_of_root_report_and_certificate_agree(genoa: Minted) -> None:
    refused(lambda: genoa.verify(genoa.report(cpuid=(0x19, 1, 1))), Reason.CERTIFICATE_MISMATCH)
    refused(lambda: genoa.verify(genoa.report(cpuid=(0x1F, 1, 1))), Reason.PRODUCT_UNRECOGNISED)
    _, leaf = genoa.authority.endorse(key=genoa.key, name="Milan-B0")
    refused(lambda: genoa.verify(leaf_der=leaf), Reason.CERTIFICATE_MISMATCH)
    _, leaf = genoa.authority.endorse(key=genoa.key, name="Atlantis")
    refused(lambda: genoa.verify(leaf_der=leaf), Reason.PRODUCT_UNRECOGNISED)


# --- revocation --------------------------------------------------------------------------------------------------


def test_a_missing_crl_needs_consent(genoa: Minted) -> None:
    verified = genoa.verify(ark_crl_der=None)
    refused(lambda: judge_snp(verified, strict(), AT), Reason.CRL_MISSING)
    judge_snp(verified, strict(crl_missing="accepted"), AT)


@pytest.mark.parametrize("days", [-20, 20])
def test_a_crl_outside_its_window_needs_consent(genoa: Minted, days: int) -> None:
    crl = genoa.authority.crl(begins=NOW + timedelta(days=days), days=10)
    verified = with_crl(genoa, crl)
    refused(lambda: judge_snp(verified, strict(), AT), Reason.CRL_STALE)
    judge_snp(verified, strict(crl_stale="accepted"), AT)


def test_an_old_crl_is_refused_even_in_its_window(genoa: Minted) -> None:
    verified = with_crl(genoa, genoa.authority.crl(begins=NOW - timedelta(days=100)))
    refused(lambda: judge_snp(verified, strict(), AT), Reason.COLLATERAL_TOO_OLD)


@pytest.mark.parametrize("begins", [NOW - timedelta(days=30), NOW - timedelta(days=800)])
def test_a_revoked_signer_is_refused_by_a_stale_crl_too(genoa: Minted, begins) -> None:
    crl = genoa.authority.crl(genoa.authority.signer_serial, begins=begins)
    refused(lambda: with_crl(genoa, crl), Reason.CERTIFICATE_REVOKED)


def test_a_forged_crl_is_refused(genoa: Minted) -> None:
    forged = genoa.authority.crl(key=rsa.generate_private_key(65537, 2048))
    refused(lambda: with_crl(genoa, forged), Reason.CRL_INVALID)


def with_crl(minted: Minted, crl: bytes) -> VerifiedSnp:
    return minted.verify(ark_crl_der=crl)


# --- parsing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 0x4A0 - 1, 0x4A0 + 1, 4096])
def test_length_is_exact(size: int) -> None:
    with pytest.raises(Malformed):
        parse_report((bytes(report()) * 4)[:size])


@pytest.mark.parametrize("offset", [0x4C, 0x18B, 0x19F, 0x1EB, 0x1EF, 0x208, 0x29F, 0x330, 0x49F])
def test_reserved_bytes_are_zero(offset: int) -> None:
    data = report()
    data[offset] = 1
    with pytest.raises(Malformed, match="reserved"):
        parse_report(bytes(data))


@pytest.mark.parametrize(("version", "offset"), [(2, 0x188), (2, 0x1F8), (3, 0x1F8), (3, 0x207)])
def test_what_is_reserved_depends_on_the_version(version: int, offset: int) -> None:
    data = report(version=version)
    data[offset] = 1
    with pytest.raises(Malformed, match="reserved"):
        parse_report(bytes(data))


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 1},
        {"version": 6},
        {"policy": 0},
        {"policy": STRICT_POLICY | 1 << 26},
        {"policy": STRICT_POLICY | 1 << 63},
        {"vmpl": 4},
        {"key_info": 1 << 5},
        {"key_info": 2 << 2},
    ],
)
def test_values_that_do_not_exist_are_malformed(changes: dict[str, object]) -> None:
    with pytest.raises(Malformed):
        parse_report(bytes(report(**changes)))


@pytest.mark.parametrize("oid", ["2", "3.1", "3.3", "3.8", "4"])
def test_a_certificate_without_amds_extensions_is_malformed(genoa: Minted, oid: str) -> None:
    _, leaf = genoa.authority.endorse(key=genoa.key, drop=(AMD + oid,))
    with pytest.raises(Malformed):
        genoa.verify(leaf_der=leaf)


def test_evidence_without_its_certificate_says_so(genoa: Minted) -> None:
    refused(lambda: verify_snp(genoa.report(), {}, AT, genoa.authority.roots), Reason.COLLATERAL_MISSING)


def test_amds_published_certificates_lead_to_the_pinned_roots() -> None:
    from superswarm.attestation.certificates import issued, load_certificate
    from superswarm.attestation.snp.chain import ROOTS, published

    for product in Product:
        root = load_certificate(published(product, "ark"))
        assert ROOTS[root.spki] is product
        for kind in ("ask", "asvk"):
            assert issued(load_certificate(published(product, kind)), root)


def test_tcb_parts_follow_the_product() -> None:
    tcb = parse_report(bytes(report(Product.TURIN))).reported_tcb
    assert tcb.parts(Product.TURIN) == {"fmc": 1, "bootloader": 1, "tee": 1, "snp": 4, "microcode": 0x51}
    tcb = parse_report(bytes(report(Product.GENOA))).reported_tcb
    assert tcb.parts(Product.GENOA) == {"bootloader": 10, "tee": 0, "snp": 23, "microcode": 84}
    assert tcb.raw == TCB[Product.GENOA]
