"""Each way in which evidence can fail verification is minted, and refused for its own reason."""

from __future__ import annotations

import dataclasses
import random

import pytest
from failures import every_failure
from minting import DAY, DAYS, NOW, Machine, flip, machine

from superswarm.attestation.evidence import Evidence
from superswarm.attestation.reasons import Reason
from superswarm.attestation.simulated import DevelopmentAuthority, SimulatedPlatform
from superswarm.attestation.tdx.quote import parse_quote
from superswarm.attestation.tdx.refusals import REASONS, explain
from superswarm.attestation.verify import TrustRoots, VerifiedReport, verify
from superswarm.consortium.manifest import Platform
from superswarm.errors import Error, EvidenceRejected, Malformed

M, OTHER = machine("alice"), machine("mallory")
FAILURES = every_failure()


def test_genuine_evidence_verifies_to_what_was_minted() -> None:
    report = M.verify(M.attest(bytes(range(64))))
    assert report.measurement.raw == M.evidence().quote[184:232]
    assert report.report_data == bytes(range(64))
    assert report.authority == M.authority.spki_digest
    assert report.claims.dcap.status == "UpToDate"
    assert report.claims.dcap.pck.fmspc == b"INSECU"
    assert report.claims.dcap.pck.smt is False
    assert report.claims.dcap.pck.dynamic_platform is False


def test_only_verify_makes_a_report() -> None:
    report = M.verify(M.evidence())
    fields = {f.name: getattr(report, f.name) for f in dataclasses.fields(report)}
    with pytest.raises(TypeError):
        VerifiedReport(**fields, proof=object())
    with pytest.raises((TypeError, ValueError)):
        dataclasses.replace(report, report_data=bytes(64))
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.report_data = bytes(64)  # type: ignore[misc]


@pytest.mark.parametrize("failure", FAILURES)
def test_each_failure_has_its_reason(failure: str) -> None:
    reason, mint = FAILURES[failure]
    with pytest.raises(EvidenceRejected) as caught:
        M.verify(mint())
    assert caught.value.reason == reason


def test_every_word_of_the_verifier_is_seen() -> None:
    """The table of dcap-qvl's messages holds no message that the verifier does not say."""
    said = []
    for _, mint in FAILURES.values():
        with pytest.raises(EvidenceRejected) as caught:
            M.verify(mint())
        said.append(str(caught.value))
    assert [needle for needle, _ in REASONS if not any(needle in message for message in said)] == []


def test_a_tdx_15_body_verifies_in_a_version_5_quote() -> None:
    quote = parse_quote(M.evidence(mr_service_td=bytes(48)).quote)
    assert (quote.header.version, quote.body_kind) == (5, 3)
    M.verify(M.evidence(mr_service_td=bytes(48)))


def test_evidence_holds_exactly_in_its_window() -> None:
    evidence = M.evidence()
    M.verify(evidence, NOW + DAYS * DAY - 60)
    with pytest.raises(EvidenceRejected) as late:
        M.verify(evidence, NOW + DAYS * DAY + 60)
    assert late.value.reason == Reason.COLLATERAL_EXPIRED
    M.verify(evidence, NOW - 3000)
    with pytest.raises(EvidenceRejected):
        M.verify(evidence, NOW - DAY)
    for at in (-1, 2**62):
        with pytest.raises(Malformed):
            M.verify(evidence, at)


def test_no_authority_is_trusted_unless_named() -> None:
    for trust in (TrustRoots(), OTHER.trust):
        with pytest.raises(EvidenceRejected) as caught:
            verify(M.evidence(), trust, NOW)
        assert caught.value.reason == Reason.ROOT_UNTRUSTED


def test_simulated_evidence_does_not_pass_as_tdx() -> None:
    """Also where the simulated authority is trusted: vendors' roots are pinned in the code."""
    with pytest.raises(EvidenceRejected) as caught:
        M.verify(dataclasses.replace(M.evidence(), platform=Platform.TDX))
    assert caught.value.reason == Reason.ROOT_UNTRUSTED


def test_simulated_evidence_has_no_devices() -> None:
    with pytest.raises(EvidenceRejected) as caught:
        M.verify(dataclasses.replace(M.evidence(), devices=(b"gpu",)))
    assert caught.value.reason == Reason.GPU_NOT_ACCEPTED


@pytest.mark.parametrize(
    "name", ["pck_crl", "root_ca_crl", "qe_identity_issuer_chain", "tcb_info_issuer_chain", "more"]
)
def test_endorsements_of_unknown_kinds_are_malformed(name: str) -> None:
    with pytest.raises(Malformed):
        M.verify(M.altered(**{name: b"no"}))


def test_unknown_words_of_the_verifier_are_a_refusal() -> None:
    quote = parse_quote(M.evidence().quote)
    fault = explain("Verification failed: the moon is full\x1b[31m", quote, M.chains(), NOW)
    assert fault.reason == Reason.COLLATERAL_INVALID
    assert fault.message.isprintable()
    assert len({needle for needle, _ in REASONS}) == len(REASONS)


def test_cut_and_extended_quotes_are_refused() -> None:
    evidence = M.evidence()
    cut = [evidence.quote[:n] for n in range(0, len(evidence.quote), 7)]
    for quote in [*cut, evidence.quote[:-1], evidence.quote + b"\0", evidence.quote + bytes(4096)]:
        with pytest.raises((Malformed, EvidenceRejected)):
            M.verify(dataclasses.replace(evidence, quote=quote))


def test_flipped_bits_are_never_accepted() -> None:
    """Of a quote everything counts, except the white space around its PEM certificates."""
    evidence = M.evidence()
    for bit in random.Random(3).sample(range(8 * len(evidence.quote)), 700):
        changed = flip(evidence.quote, bit)
        try:
            M.verify(dataclasses.replace(evidence, quote=changed))
        except Error:
            continue
        assert changed.split() == evidence.quote.split(), bit


@pytest.mark.parametrize("name", [name for name, _ in M.platform.endorsements])
def test_flipped_bits_of_collateral_are_never_accepted(name: str) -> None:
    evidence = M.evidence()
    original = dict(evidence.endorsements)[name]
    for bit in random.Random(4).sample(range(8 * len(original)), min(100, 8 * len(original))):
        changed = flip(original, bit)
        stapled = tuple(sorted((dict(evidence.endorsements) | {name: changed}).items()))
        try:
            M.verify(dataclasses.replace(evidence, endorsements=stapled))
        except Error:
            continue
        assert changed.split() == original.split()


def test_evidence_and_credentials_survive_their_bytes() -> None:
    platform = SimulatedPlatform.parse(M.platform.to_bytes())
    authority = DevelopmentAuthority.parse(M.authority.to_bytes())
    assert authority.spki_digest == M.authority.spki_digest
    again = Machine(authority, platform)
    M.verify(Evidence.parse(again.attest(bytes(64)).to_bytes()))
    for raw in (b"", M.platform.to_bytes()[:-1], M.authority.to_bytes()):
        with pytest.raises(Malformed):
            SimulatedPlatform.parse(raw)
    for raw in (b"", M.authority.to_bytes()[:-1], M.platform.to_bytes()):
        with pytest.raises(Malformed):
            DevelopmentAuthority.parse(raw)


def test_private_keys_are_not_printed() -> None:
    for thing in (M.platform, M.authority):
        assert "PrivateKey" not in repr(thing)


def test_report_data_has_64_bytes() -> None:
    for length in (0, 63, 65):
        with pytest.raises(Malformed):
            M.attest(bytes(length))
