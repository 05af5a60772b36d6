"""TDX: real quotes come out as their cases say; each line of a policy refuses what it names, and only that."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import dcap_qvl
import pytest
from failures import with_qe, with_tcb
from minting import CODE, DAY, DAYS, NOW, machine
from vectors import NEEDS_VECTORS, accepted, cases, files

from superswarm.attestation import conformance
from superswarm.attestation import simulated_pki as pki
from superswarm.attestation.evidence import Evidence
from superswarm.attestation.reasons import Reason
from superswarm.attestation.simulated_quote import QuotingEnclave
from superswarm.attestation.tdx.cases import endorsements
from superswarm.attestation.tdx.collateral import dump_collateral, parse_collateral
from superswarm.attestation.tdx.judge import image_of, judge_tdx, policy_faults
from superswarm.attestation.tdx.quote import parse_quote, without_padding
from superswarm.attestation.tdx.verify import VerifiedTdx, verify_tdx
from superswarm.attestation.verify import TrustRoots, verify
from superswarm.consortium.manifest import Platform
from superswarm.consortium.policy import TdImage, TdxPolicy
from superswarm.errors import EvidenceRejected, Malformed

M = machine("alice")
CASES = cases("tdx")


def verified(evidence: Evidence) -> VerifiedTdx:
    return verify_tdx(evidence.quote, dict(evidence.endorsements), NOW, roots=M.trust.development)


def image(**changes: str) -> TdImage:
    zero = bytes(48).hex()
    registers = {"mrtd": CODE.raw.hex(), "rtmr0": zero, "rtmr1": zero, "rtmr2": zero, "rtmr3": zero}
    return TdImage(**(registers | changes))


def policy(**changes: Any) -> TdxPolicy:
    """The strictest policy that the minted machine passes."""
    td = parse_quote(M.evidence().quote).td
    fields: dict[str, Any] = {
        "images": (image(),),
        "modules": (td.mr_seam.hex(),),
        "platforms": (verified(M.evidence()).dcap.pck.ppid.hex(),),
        "config_ids": (bytes(48).hex(),),
        "owners": (bytes(48).hex(),),
        "owner_configs": (bytes(48).hex(),),
        "xfam_allowed": td.xfam.hex(),
        "minimum_evaluation_number": 1,
        "collateral_maximum_age_days": 1,
    }
    return TdxPolicy(**(fields | changes))


STRICT = policy()
X = b"\x01" * 48
OTHER = X.hex()


def on_platform(**flags: bool | None) -> Evidence:
    """Evidence of a platform whose PCK certificate has these flags; its PPID is zero."""
    authority = M.authority
    extension = pki.sgx_extension(bytes(16), bytes(16), **flags)
    leaf = authority.platforms.certify(
        "PCK", M.platform.key.public_key(), at=NOW, days=DAYS, authority=False, extensions=[extension]
    )
    chain = pki.pem(leaf, authority.platforms_certificate, authority.root_certificate)
    return M.evidence(enclave=QuotingEnclave.start(M.platform.key, chain))


ANYWHERE = {"platforms": "any"}
OUT_OF_DATE = {"tcb_statuses": ("UpToDate", "OutOfDate")}

REFUSED: dict[str, tuple[Reason, Evidence, dict[str, Any], dict[str, Any]]] = {
    # name: reason, evidence, what else the policy says, and what makes it accept
    "MRTD": (Reason.MEASUREMENT, M.evidence(), {"images": (image(mrtd=OTHER),)}, {"images": (image(),)}),
    **{
        f"RTMR{n}": (
            Reason.MEASUREMENT,
            M.evidence(),
            {"images": (image(**{f"rtmr{n}": OTHER}),)},
            {"images": (image(),)},
        )
        for n in range(4)
    },
    "registers of two images": (
        Reason.MEASUREMENT,
        M.evidence(),
        {"images": (image(rtmr0=OTHER), image(rtmr1=OTHER))},
        {"images": (image(rtmr0=OTHER), image())},
    ),
    "MRSEAM": (Reason.MODULE_NOT_ACCEPTED, M.evidence(), {"modules": (OTHER,)}, {"modules": "any"}),
    "PPID": (Reason.CHIP_NOT_ACCEPTED, M.evidence(), {"platforms": ("00" * 16,)}, ANYWHERE),
    "MRCONFIGID": (Reason.CONFIG_ID, M.evidence(mr_config_id=X), {}, {"config_ids": (OTHER,)}),
    "MROWNER": (Reason.OWNER, M.evidence(mr_owner=X), {}, {"owners": (OTHER,)}),
    "MROWNERCONFIG": (Reason.OWNER, M.evidence(mr_owner_config=X), {}, {"owner_configs": "any"}),
    "XFAM over the mask": (
        Reason.XFAM,
        M.evidence(xfam=bytes.fromhex("e702060000000000")),
        {},
        {"xfam_allowed": "e702060000000000"},
    ),
    "status": (Reason.TCB_STATUS, with_tcb(status="OutOfDate"), {}, OUT_OF_DATE),
    "status of the QE": (Reason.TCB_STATUS, with_qe(status="OutOfDate"), {}, OUT_OF_DATE),
    "advisory": (
        Reason.ADVISORY_NOT_ACCEPTED,
        with_tcb(advisories=["INTEL-SA-00001", "INTEL-SA-00002"]),
        {"advisories_accepted": ("INTEL-SA-00001",)},
        {"advisories_accepted": ("INTEL-SA-00001", "INTEL-SA-00002")},
    ),
    "advisory of the QE": (
        Reason.ADVISORY_NOT_ACCEPTED,
        with_qe(advisories=["INTEL-SA-00001"]),
        {},
        {"advisories_accepted": "any"},
    ),
    "advisory by name": (
        Reason.ADVISORY_NOT_ACCEPTED,
        with_tcb(advisories=["INTEL-SA-00001"]),
        {"advisories_accepted": "any", "advisories_refused": ("INTEL-SA-00001",)},
        {"advisories_accepted": "any", "advisories_refused": ("INTEL-SA-00002",)},
    ),
    "evaluation number": (
        Reason.EVALUATION_NUMBER,
        M.evidence(),
        {"minimum_evaluation_number": 2},
        {"minimum_evaluation_number": 0},
    ),
    "age of TCB info": (
        Reason.COLLATERAL_TOO_OLD,
        with_tcb(at=NOW - 2 * DAY),
        {},
        {"collateral_maximum_age_days": 3},
    ),
    "age of QE identity": (
        Reason.COLLATERAL_TOO_OLD,
        with_qe(at=NOW - 2 * DAY),
        {},
        {"collateral_maximum_age_days": 3},
    ),
    "age of the PCK CRL": (
        Reason.COLLATERAL_TOO_OLD,
        M.evidence(endorsements=M.endorse(pck_crl=M.authority.platforms.revoke((), at=NOW - 2 * DAY, days=9))),
        {},
        {"collateral_maximum_age_days": 3},
    ),
    "dynamic platform": (
        Reason.DYNAMIC_PLATFORM,
        on_platform(dynamic_platform=True),
        ANYWHERE,
        ANYWHERE | {"dynamic_platform": "accepted"},
    ),
    "cached keys": (
        Reason.CACHED_KEYS,
        on_platform(cached_keys=True),
        ANYWHERE,
        ANYWHERE | {"cached_keys": "accepted"},
    ),
    "SMT": (Reason.SMT, on_platform(smt=True), ANYWHERE, ANYWHERE | {"smt": "accepted"}),
    "performance counters": (
        Reason.PERFORMANCE_MONITORING,
        M.evidence(td_attributes=bytes.fromhex("0000001000000080")),
        {},
        {"performance_monitoring": "accepted"},
    ),
}


def test_the_strict_policy_accepts_the_minted_machine() -> None:
    judge_tdx(verified(M.evidence()), STRICT, NOW)


@pytest.mark.parametrize("name", REFUSED)
def test_each_line_of_a_policy_counts(name: str) -> None:
    reason, evidence, strict, lenient = REFUSED[name]
    shown = verified(evidence)
    with pytest.raises(EvidenceRejected) as caught:
        judge_tdx(shown, policy(**strict), NOW)
    assert caught.value.reasons == (reason,)
    judge_tdx(shown, policy(**lenient), NOW)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"td_attributes": bytes.fromhex("0000101000000000")}, Reason.ATTRIBUTES_RESERVED),  # bit 20
        ({"xfam": bytes.fromhex("e600060000000000")}, Reason.XFAM),  # no x87
        ({"xfam": bytes.fromhex("e704060000000000")}, Reason.XFAM),  # bit 10
    ],
    ids=["attribute that dcap-qvl lets pass", "no x87", "feature unknown"],
)
def test_bits_without_a_meaning_are_refused_under_every_policy(change: dict[str, bytes], reason: Reason) -> None:
    with pytest.raises(EvidenceRejected) as caught:
        judge_tdx(verified(M.evidence(**change)), policy(xfam_allowed="any"), NOW)
    assert caught.value.reasons == (reason,)


@pytest.mark.parametrize(
    ("flag", "reason"),
    [
        ("dynamic_platform", Reason.DYNAMIC_PLATFORM),
        ("cached_keys", Reason.CACHED_KEYS),
        ("smt", Reason.SMT),
    ],
)
def test_a_platform_that_does_not_say_is_taken_at_its_worst(flag: str, reason: Reason) -> None:
    shown = verified(on_platform(**{flag: None}))
    assert [fault.reason for fault in policy_faults(shown, policy(platforms="any"), NOW)] == [reason]


def test_every_fault_is_named_at_once() -> None:
    evidence = with_tcb(status="OutOfDate", advisories=["INTEL-SA-00001"])
    with pytest.raises(EvidenceRejected) as caught:
        judge_tdx(verified(evidence), policy(minimum_evaluation_number=5), NOW)
    assert set(caught.value.reasons) == {
        Reason.TCB_STATUS,
        Reason.ADVISORY_NOT_ACCEPTED,
        Reason.EVALUATION_NUMBER,
    }


def test_only_verification_makes_a_verified_quote() -> None:
    shown = verified(M.evidence())
    with pytest.raises(TypeError):
        VerifiedTdx(quote=shown.quote, dcap=shown.dcap, events=None, proof=None)


def test_zero_padding_is_removed_where_a_service_adds_it() -> None:
    for quote in (M.evidence().quote, M.evidence(mr_service_td=bytes(48)).quote):
        assert without_padding(quote + bytes(3000)) == without_padding(quote) == quote
        for other in (quote + b"\1", quote + bytes(10) + b"\1", quote[:-1], quote[:100], quote[:2], b"", b"\x09\0"):
            assert without_padding(other) == other


# --- real quotes -------------------------------------------------------------------------------------------------


@NEEDS_VECTORS
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_real_quotes_are_judged_as_their_cases_say(case: Path) -> None:
    lines = list(conformance.judge_case(case))
    assert [str(line) for line in lines if not line.holds] == []


def at_of(case: Path) -> int:
    return conformance.Case.model_validate(json.loads((case / "case.json").read_text())).at


@NEEDS_VECTORS
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_field_of_a_real_quote_is_read(case: Path) -> None:
    """Against what dcap-qvl, another parser, reads."""
    raw = files(case)["quote.bin"]
    quote, other = parse_quote(raw), dcap_qvl.parse_quote(raw)
    assert quote.header.version == other.header.version
    assert (quote.header.qe_svn, quote.header.pce_svn) == (other.header.qe_svn, other.header.pce_svn)
    assert (quote.header.qe_vendor, quote.header.user_data) == (other.header.qe_vendor_id, other.header.user_data)
    ours, theirs = quote.td, other.report
    for name in ("tee_tcb_svn", "mr_seam", "mr_signer_seam", "seam_attributes", "td_attributes", "xfam", "mr_td"):
        assert getattr(ours, name) == getattr(theirs, name), name
    for name in ("mr_config_id", "mr_owner", "mr_owner_config", "report_data"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.rtmr == (theirs.rt_mr0, theirs.rt_mr1, theirs.rt_mr2, theirs.rt_mr3)
    if quote.header.version == 5:
        assert (ours.tee_tcb_svn2, ours.mr_service_td) == (theirs.tee_tcb_svn2, theirs.mr_service_td)
    assert quote.pck_chain.strip() == other.cert_chain_pem_bytes().strip(b"\0\n")
    key = quote.attestation_key + quote.qe_auth
    assert quote.qe.report_data[:32] == hashlib.sha256(key).digest()


@NEEDS_VECTORS
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_verdicts_agree_with_dcap_qvls_own(case: Path) -> None:
    given = files(case)
    collateral = dcap_qvl.QuoteCollateralV3.from_json(given["collateral.json"].decode())
    try:
        theirs = dcap_qvl.verify(given["quote.bin"], collateral, at_of(case))
    except ValueError:
        with pytest.raises(EvidenceRejected):
            verify_tdx(given["quote.bin"], endorsements(given), at_of(case))
        return
    ours = verify_tdx(given["quote.bin"], endorsements(given), at_of(case)).dcap
    assert (ours.status, list(ours.advisories), ours.pck.ppid) == (theirs.status, theirs.advisory_ids, theirs.ppid)


@NEEDS_VECTORS
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_real_quote_verifies_as_evidence(case: Path) -> None:
    """Through the door that every peer uses, after a trip as bytes; and no development root opens it."""
    if accepted(case) is None:
        pytest.skip("this case is not one that verifies")
    given = files(case)
    stapled = tuple(sorted(endorsements(given).items()))
    evidence = Evidence.parse(Evidence(Platform.TDX, given["quote.bin"], stapled).to_bytes())
    report = verify(evidence, TrustRoots(), at_of(case))
    assert report.authority is None
    assert report.measurement.raw == parse_quote(given["quote.bin"]).td.mr_td
    simulated = Evidence(Platform.SIMULATED, evidence.quote, evidence.endorsements)
    with pytest.raises(EvidenceRejected) as caught:
        verify(simulated, M.trust, at_of(case))
    assert caught.value.reason == Reason.ROOT_UNTRUSTED


@NEEDS_VECTORS
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_collateral_survives_its_json(case: Path) -> None:
    parsed = parse_collateral(files(case)["collateral.json"])
    assert parse_collateral(dump_collateral(parsed)) == parsed


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b'{"x": 1}', b'{"pck_crl": "zz"}', b'{"tcb_info": {}}', b'{"tcb_info": "\\ud800"}']
)
def test_malformed_collateral_is_refused(raw: bytes) -> None:
    with pytest.raises(Malformed):
        parse_collateral(raw)


@NEEDS_VECTORS
def test_judging_takes_under_ten_milliseconds() -> None:
    """The best of several, in processor time, so that a busy machine does not count."""
    for case in CASES:
        if accepted(case) is None:
            continue
        given, at, best = files(case), at_of(case), float("inf")
        for _ in range(10):
            start = time.process_time()
            conformance.outcome("tdx", given, accepted(case) or (), at)
            best = min(best, time.process_time() - start)
        assert best < 0.010, case.name


def test_the_image_of_a_quote_is_what_a_policy_lists() -> None:
    td = parse_quote(M.evidence().quote).td
    assert image_of(td) == image()
