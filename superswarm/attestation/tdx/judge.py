"""Judge a verified TDX quote by the workload's policy: all of the checklist that is a matter of choice.

Debug, SEPT_VE_DISABLE, bound service TDs, migration and Revoked are no choice: dcap-qvl refuses them in `verify_tdx`.
They stand here again, so that the judge holds without knowing that, and can name every fault of a quote at once.
"""

from __future__ import annotations

from collections.abc import Iterator

from superswarm.attestation.reasons import Fault, Reason, refuse
from superswarm.attestation.tdx.attributes import (
    HARMLESS,
    UNDER_INSPECTION,
    XFAM_ALWAYS,
    TdAttribute,
    Xfam,
    bits,
    names,
)
from superswarm.attestation.tdx.dcap import DcapClaims
from superswarm.attestation.tdx.quote import TdReport
from superswarm.attestation.tdx.verify import VerifiedTdx
from superswarm.consortium.policy import TdImage, TdxPolicy

DAY = 86_400


def judge_tdx(verified: VerifiedTdx, policy: TdxPolicy, at: int) -> None:
    """Raise EvidenceRejected with every claim that the policy does not accept, at this time (unix seconds)."""
    refuse(policy_faults(verified, policy, at))


def policy_faults(verified: VerifiedTdx, policy: TdxPolicy, at: int) -> Iterator[Fault]:
    """Every claim that the policy does not accept."""
    # (1) What runs in the trust domain.
    yield from image_faults(verified.quote.td, policy)
    # (2) How the trust domain is configured, and by whom.
    yield from domain_faults(verified.quote.td, policy)
    # (3) The TDX module.
    yield from _module_faults(verified.quote.td, policy)
    # (4) The platform's TCB, and how fresh that knowledge is.
    yield from _tcb_faults(verified.dcap, policy, at)
    # (5) Which platform it is.
    yield from _platform_faults(verified.dcap, policy)


def image_faults(td: TdReport, policy: TdxPolicy) -> Iterator[Fault]:
    """Whether MRTD and RTMR0–3 are, together, one of the approved images."""
    shown = image_of(td)
    if shown in policy.images:
        return
    same = [image for image in policy.images if image.mrtd == shown.mrtd]
    if not same:
        yield Fault(Reason.MEASUREMENT, f"no approved image has MRTD {shown.mrtd}")
        return
    registers = ("rtmr0", "rtmr1", "rtmr2", "rtmr3")
    differ = [name for name in registers if all(getattr(image, name) != getattr(shown, name) for image in same)]
    which = ", ".join(differ).upper() or "the combination of RTMRs"
    yield Fault(Reason.MEASUREMENT, f"no approved image with this MRTD has {which} as shown")


def image_of(td: TdReport) -> TdImage:
    """The image that a TD report shows: what a manifest would list to approve it."""
    rtmr0, rtmr1, rtmr2, rtmr3 = (value.hex() for value in td.rtmr)
    return TdImage(mrtd=td.mr_td.hex(), rtmr0=rtmr0, rtmr1=rtmr1, rtmr2=rtmr2, rtmr3=rtmr3)


def domain_faults(td: TdReport, policy: TdxPolicy) -> Iterator[Fault]:
    """What the policy does not accept of the trust domain's configuration."""
    attributes, xfam = bits(td.td_attributes), bits(td.xfam)
    if attributes & UNDER_INSPECTION and policy.debug == "refused":
        which = ", ".join(names(TdAttribute, attributes & UNDER_INSPECTION))
        yield Fault(Reason.DEBUG, f"the trust domain is open to inspection ({which}): the host can read its memory")
    if not attributes & TdAttribute.SEPT_VE_DISABLE and policy.sept_ve_disable == "required":
        yield Fault(Reason.SEPT_VE_DISABLE_OFF, "SEPT_VE_DISABLE is off: the host can inject page faults")
    if attributes & TdAttribute.MIGRATABLE and policy.service_td == "refused":
        yield Fault(Reason.MIGRATION_AGENT, "the trust domain may be migrated: a service TD may export it")
    if attributes & TdAttribute.PERFMON and policy.performance_monitoring == "refused":
        yield Fault(Reason.PERFORMANCE_MONITORING, "the trust domain uses performance counters")
    known = UNDER_INSPECTION | HARMLESS | TdAttribute.MIGRATABLE | TdAttribute.PERFMON
    if attributes & ~known:
        yield Fault(
            Reason.ATTRIBUTES_RESERVED, f"TD attributes: {', '.join(names(TdAttribute, attributes & ~known))}"
        )
    if td.mr_service_td is not None and any(td.mr_service_td) and policy.service_td == "refused":
        yield Fault(Reason.SERVICE_TD_BOUND, "a service TD is bound to the trust domain")
    yield from _xfam_faults(xfam, policy)
    if not _allowed(policy.config_ids, td.mr_config_id):
        yield Fault(Reason.CONFIG_ID, "MRCONFIGID is not in the policy's list")
    if not _allowed(policy.owners, td.mr_owner):
        yield Fault(Reason.OWNER, "MROWNER is not in the policy's list")
    if not _allowed(policy.owner_configs, td.mr_owner_config):
        yield Fault(Reason.OWNER, "MROWNERCONFIG is not in the policy's list")


def _xfam_faults(xfam: int, policy: TdxPolicy) -> Iterator[Fault]:
    allowed = sum(Xfam) if policy.xfam_allowed == "any" else bits(bytes.fromhex(policy.xfam_allowed)) & sum(Xfam)
    if xfam & XFAM_ALWAYS != XFAM_ALWAYS:
        yield Fault(Reason.XFAM, "XFAM lacks x87 or SSE, which every trust domain has")
    if xfam & ~allowed:
        yield Fault(Reason.XFAM, f"XFAM has features that the policy does not accept: {names(Xfam, xfam & ~allowed)}")


def _module_faults(td: TdReport, policy: TdxPolicy) -> Iterator[Fault]:
    if any(td.mr_signer_seam) or any(td.seam_attributes):
        yield Fault(Reason.MODULE_NOT_ACCEPTED, "the TDX module is not a production module of Intel")
    if not _allowed(policy.modules, td.mr_seam):
        yield Fault(Reason.MODULE_NOT_ACCEPTED, f"the TDX module {td.mr_seam.hex()} is not in the policy's list")


def _tcb_faults(dcap: DcapClaims, policy: TdxPolicy, at: int) -> Iterator[Fault]:
    if dcap.status not in policy.tcb_statuses:
        parts = f"platform {dcap.platform_status}, quoting enclave {dcap.qe_status}"
        yield Fault(Reason.TCB_STATUS, f"the TCB is {dcap.status} ({parts})")
    refused = set(dcap.advisories) & set(policy.advisories_refused)
    if policy.advisories_accepted != "any":
        refused |= set(dcap.advisories) - set(policy.advisories_accepted)
    if refused:
        yield Fault(Reason.ADVISORY_NOT_ACCEPTED, f"advisories apply: {', '.join(sorted(refused))}")
    if dcap.evaluation_number < policy.minimum_evaluation_number:
        lowest = policy.minimum_evaluation_number
        yield Fault(Reason.EVALUATION_NUMBER, f"TCB evaluation {dcap.evaluation_number} is older than {lowest}")
    if at - dcap.issued > policy.collateral_maximum_age_days * DAY:
        yield Fault(
            Reason.COLLATERAL_TOO_OLD, f"collateral is more than {policy.collateral_maximum_age_days} days old"
        )


def _platform_faults(dcap: DcapClaims, policy: TdxPolicy) -> Iterator[Fault]:
    # A certificate that does not say is taken at its worst.
    pck = dcap.pck
    if not _allowed(policy.platforms, pck.ppid):
        yield Fault(Reason.CHIP_NOT_ACCEPTED, "the platform's PPID is not in the policy's list")
    if pck.dynamic_platform is not False and policy.dynamic_platform == "refused":
        yield Fault(Reason.DYNAMIC_PLATFORM, "packages may be added to the platform")
    if pck.cached_keys is not False and policy.cached_keys == "refused":
        yield Fault(Reason.CACHED_KEYS, "Intel keeps the platform's root keys")
    if pck.smt is not False and policy.smt == "refused":
        yield Fault(Reason.SMT, "simultaneous multithreading is on: a core may be shared with others")


def _allowed(listed: tuple[str, ...] | str, found: bytes) -> bool:
    """Whether an allow-list has this, or says "any"."""
    return listed == "any" or found.hex() in listed
