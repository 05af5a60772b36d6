"""Judge a verified SEV-SNP report by the workload's policy: all of the checklist that is a matter of choice."""

from __future__ import annotations

from collections.abc import Iterator

from superswarm.attestation.reasons import Fault, Reason, refuse
from superswarm.attestation.snp.chain import CrlState, SnpClaims, VerifiedSnp
from superswarm.attestation.snp.report import NO_MIGRATION_AGENT, KeyKind, Product, Report, Tcb
from superswarm.consortium.policy import SnpMilan, SnpPolicy, SnpProduct, SnpTcb

DAY = 86_400
MILAN_BROKEN = "Milan is broken in software (arXiv 2605.12990), and runs only where the policy accepts that"


def judge_snp(verified: VerifiedSnp, policy: SnpPolicy, at: int) -> None:
    """Raise EvidenceRejected with every claim that the policy does not accept."""
    refuse(policy_faults(verified.claims, policy, at))


def policy_faults(claims: SnpClaims, policy: SnpPolicy, at: int) -> Iterator[Fault]:
    """Every claim that the policy does not accept."""
    # (1) The product line, and how new its firmware is.
    accepted = _accepted(claims.product, policy)
    if accepted is None:
        named = "an unknown product" if claims.product is None else f"{claims.product}"
        broken = f": {MILAN_BROKEN}" if claims.product is Product.MILAN else ""
        yield Fault(Reason.PRODUCT_NOT_ACCEPTED, f"the policy does not accept {named}{broken}")
    elif claims.product is not None:
        yield from _floor_faults(claims.report, claims.product, accepted)
    yield from _tcb_order_faults(claims)
    # (2) The key that signed, and the chip it belongs to.
    yield from _key_faults(claims, policy)
    # (3) Privilege level and guest policy.
    yield from _guest_faults(claims.report, policy)
    # (4) The platform's state.
    yield from _platform_faults(claims.report, policy)
    # (5) What the launcher says of the guest.
    yield from _identity_faults(claims.report, policy)
    # (6) Revocation.
    yield from _crl_faults(claims, policy, at)


def _accepted(product: Product | None, policy: SnpPolicy) -> SnpProduct | SnpMilan | None:
    match product:
        case Product.MILAN:
            return policy.milan
        case Product.GENOA:
            return policy.genoa
        case Product.TURIN:
            return policy.turin
        case None:
            return None


def _floor_faults(report: Report, product: Product, accepted: SnpProduct) -> Iterator[Fault]:
    # Committed bounds what the host can still roll back to; launch is what measured the guest.
    for name, tcb in (
        ("reported", report.reported_tcb),
        ("committed", report.committed_tcb),
        ("current", report.current_tcb),
        ("launch", report.launch_tcb),
    ):
        below = [
            f"{part} {found} < {floor}"
            for part, found, floor in _against(tcb, product, accepted.minimum_tcb)
            if found < floor
        ]
        if below:
            yield Fault(Reason.TCB_FLOOR, f"the {name} TCB is below the floor: {', '.join(below)}")
    floor = tuple(int(part) for part in accepted.minimum_firmware.split("."))
    if report.committed_firmware < floor:
        found = ".".join(map(str, report.committed_firmware))
        yield Fault(Reason.FIRMWARE_TOO_OLD, f"committed firmware {found} is older than {accepted.minimum_firmware}")
    for name, vector in (("launch", report.launch_mitigations), ("current", report.current_mitigations)):
        missing = accepted.mitigations & ~(vector or 0)
        if missing:
            yield Fault(Reason.MITIGATION_MISSING, f"the {name} mitigation vector lacks the bits {missing:#x}")


def _against(tcb: Tcb, product: Product, floor: SnpTcb) -> Iterator[tuple[str, int, int]]:
    lowest: dict[str, int | None] = floor.model_dump()
    for part, found in tcb.parts(product).items():
        yield part, found, lowest[part] or 0


def _tcb_order_faults(claims: SnpClaims) -> Iterator[Fault]:
    """Firmware never commits to more than runs, nor reports more than runs (AMD 56860, SNP_COMMIT, SNP_CONFIG)."""
    report, product = claims.report, claims.product
    if product is None:
        return
    current = report.current_tcb.parts(product)
    for name, tcb in (("committed", report.committed_tcb), ("reported", report.reported_tcb)):
        if any(value > current[part] for part, value in tcb.parts(product).items()):
            yield Fault(Reason.TCB_INCONSISTENT, f"the {name} TCB is above the current one")
    if report.committed_firmware > report.current_firmware:
        yield Fault(Reason.TCB_INCONSISTENT, "the committed firmware is newer than the current one")
    if report.policy.abi > report.current_firmware[:2]:
        yield Fault(Reason.TCB_INCONSISTENT, "the guest policy asks for a newer ABI than the firmware has")


def _key_faults(claims: SnpClaims, policy: SnpPolicy) -> Iterator[Fault]:
    vek, report = claims.certificates.vek, claims.report
    if vek.kind.name.lower() not in policy.keys:
        yield Fault(Reason.KEY_KIND_NOT_ACCEPTED, f"the report is signed by a {vek.kind.name}")
    elif vek.kind is KeyKind.VLEK and not _allowed(policy.vlek_providers, vek.provider):
        yield Fault(Reason.PROVIDER_NOT_ACCEPTED, f"the VLEK belongs to {vek.provider}")
    if report.masked and policy.masked_chip == "refused":
        yield Fault(Reason.CHIP_MASKED, "the host masks which chip this is")
    if not _allowed(policy.chips, None if claims.chip is None else claims.chip.hex()):
        yield Fault(Reason.CHIP_NOT_ACCEPTED, "the chip is not in the policy's list")


def _guest_faults(report: Report, policy: SnpPolicy) -> Iterator[Fault]:
    guest = report.policy
    if report.vmpl not in policy.vmpls:
        yield Fault(Reason.VMPL_NOT_ACCEPTED, f"the report was asked for at VMPL {report.vmpl}")
    if guest.debug and policy.debug == "refused":
        yield Fault(Reason.DEBUG, "the guest policy allows the host to debug: it can read the guest's memory")
    if policy.migration_agent == "refused" and (guest.migration_agent or report.report_id_ma != NO_MIGRATION_AGENT):
        yield Fault(Reason.MIGRATION_AGENT, "a migration agent may export the guest")
    if guest.smt and policy.smt == "refused":
        yield Fault(Reason.SMT, "the guest policy allows SMT: a core may be shared with others")
    if guest.cxl and policy.cxl == "refused":
        yield Fault(Reason.CXL, "the guest policy allows memory behind CXL")
    if not guest.single_socket and policy.single_socket == "required":
        yield Fault(Reason.SINGLE_SOCKET, "the guest policy lets the guest run on several sockets")


def _platform_faults(report: Report, policy: SnpPolicy) -> Iterator[Fault]:
    platform = report.platform_info
    if not platform.alias_check_complete and policy.alias_check == "required":
        yield Fault(Reason.ALIAS_CHECK, "the firmware did not check memory for aliases (BadRAM, AMD-SB-3015)")
    hidden = platform.ciphertext_hiding or report.policy.ciphertext_hiding
    if not hidden and policy.ciphertext_hiding == "required":
        yield Fault(Reason.CIPHERTEXT_HIDING, "the host can read ciphertext of the guest's memory")


def _identity_faults(report: Report, policy: SnpPolicy) -> Iterator[Fault]:
    if not _allowed(policy.host_data, report.host_data.hex()):
        yield Fault(Reason.HOST_DATA, "host_data is not in the policy's list")
    if not _allowed(policy.id_keys, report.id_key_digest.hex()):
        yield Fault(Reason.ID_KEY, "the key that signed the guest's identity block is not in the policy's list")
    author = report.author_key_digest.hex() if report.author_key_enabled else None
    if not _allowed(policy.author_keys, author):
        yield Fault(Reason.AUTHOR_KEY, "the key that certified the identity key is not in the policy's list")


def _crl_faults(claims: SnpClaims, policy: SnpPolicy, at: int) -> Iterator[Fault]:
    crl = claims.certificates.crl
    if crl is None:
        if policy.crl_missing == "refused":
            yield Fault(Reason.CRL_MISSING, "the evidence has no CRL of AMD's root, so revocation is unknown")
        return
    if claims.crl_state is CrlState.STALE and policy.crl_stale == "refused":
        yield Fault(Reason.CRL_STALE, "the CRL of AMD's root is outside its window")
    if at - crl.this_update > policy.crl_maximum_age_days * DAY:
        yield Fault(Reason.COLLATERAL_TOO_OLD, f"the CRL is more than {policy.crl_maximum_age_days} days old")


def _allowed(listed: tuple[str, ...] | str | None, found: str | None) -> bool:
    """Whether an allow-list has this, or says "any"."""
    return listed == "any" or (isinstance(listed, tuple) and found in listed)
