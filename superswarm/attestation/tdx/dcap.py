"""Verify a DCAP quote (Intel TDX, and what imitates it) with dcap-qvl, of which this is the only import.

Offline, at a given time. Around dcap-qvl 0.7 stand checks of what it was seen to leave open (each has its test):
TCB documents signed by any certificate below the root, a PCK included; TCB info of another PCE; CRLs that begin in
the future; certificates that travel along and that it does not look at.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import dcap_qvl

from superswarm.attestation.reasons import Fault, Reason, rejected
from superswarm.attestation.tdx.chains import Chains, load_chains
from superswarm.attestation.tdx.collateral import (
    BINARIES,
    NAMES,
    PCK_CRL,
    QE_IDENTITY,
    QE_SIGNATURE,
    ROOT_CRL,
    TCB_INFO,
    TCB_SIGNATURE,
    TEXTS,
)
from superswarm.attestation.tdx.quote import TdxQuote
from superswarm.attestation.tdx.refusals import explain
from superswarm.values import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Pck:
    """The platform, as its PCK certificate names it (Intel SGX PCK Certificate and CRL Profile)."""

    ppid: bytes  # 16: names the processor package
    fmspc: bytes  # 6: family, model, stepping, platform, SKU
    cpu_svn: bytes  # 16
    pce_svn: int
    pce_id: bytes  # 2
    sgx_type: int  # 0 standard, 1 scalable, 2 scalable with integrity
    platform_instance: bytes | None  # 16: names the platform
    dynamic_platform: bool | None  # packages may be added; None where the certificate does not say
    cached_keys: bool | None  # Intel keeps the platform's root keys
    smt: bool | None  # simultaneous multithreading is on


@dataclass(frozen=True, slots=True, kw_only=True)
class DcapClaims:
    """What verification established: signatures, chains and revocation hold; the TCB has this status."""

    root: Digest  # SHA-256 of the root's SPKI
    status: str  # of platform, TDX module and quoting enclave together
    advisories: tuple[str, ...]
    platform_status: str  # of the platform's TCB level alone
    qe_status: str  # of the quoting enclave's TCB level alone
    evaluation_number: int  # the lower one of TCB info and QE identity
    issued: int  # unix seconds: the oldest of TCB info, QE identity and PCK CRL, which Intel renews monthly
    pck: Pck


def check_dcap(
    raw: bytes, quote: TdxQuote, endorsements: Mapping[str, bytes], roots: Collection[Digest], at: int
) -> DcapClaims:
    """Verify a quote under one of these roots at this time (unix seconds). Raises EvidenceRejected or Malformed.

    `quote` is `parse_quote(raw)`; `roots` are SHA-256 digests of SubjectPublicKeyInfo.
    """
    # (1) The collateral is all there, and no more of it.
    _require_complete(endorsements)
    # (2) Each chain has the shape of its role and ends in one pinned root; the CRLs are in their window.
    chains = load_chains(quote.pck_chain, endorsements)
    chains.require_root(roots, at)
    chains.require_windows(at)
    # (3) dcap-qvl: chains, revocation, signatures, TCB status, quoting enclave, attributes of the trust domain.
    claims = _dcap_qvl(raw, quote, endorsements, chains, at)
    # (4) It read the same report as we did.
    if claims["report"] != _hex_report(quote):
        raise rejected(Fault(Reason.MALFORMED, "two parsers read this quote differently"))
    # (5) The TCB info is this PCE's. (dcap-qvl compares the FMSPC only.)
    pck = _pck(claims["platform"]["pck"])
    pce_id, issued = _documents(endorsements)
    if pck.pce_id != pce_id:
        raise rejected(Fault(Reason.COLLATERAL_INVALID, "the TCB info is for another PCE"))
    return _claims(claims, pck, chains, issued)


def _require_complete(endorsements: Mapping[str, bytes]) -> None:
    missing = [name for name in NAMES if not endorsements.get(name)]
    if missing:
        crls = [
            Fault(Reason.CRL_MISSING, f"the CRL {name} is missing") for name in missing if name in (ROOT_CRL, PCK_CRL)
        ]
        raise rejected(Fault(Reason.COLLATERAL_MISSING, f"the evidence lacks {', '.join(missing)}"), *crls)
    if any(len(endorsements[name]) != 64 for name in (TCB_SIGNATURE, QE_SIGNATURE)):
        raise rejected(Fault(Reason.COLLATERAL_INVALID, "a signature of TCB info or QE identity has 64 bytes"))


def _dcap_qvl(
    raw: bytes, quote: TdxQuote, endorsements: Mapping[str, bytes], chains: Chains, at: int
) -> dict[str, Any]:
    try:
        texts = {name: endorsements[name].decode() for name in TEXTS}
    except UnicodeDecodeError:
        raise rejected(Fault(Reason.COLLATERAL_INVALID, "collateral that should be text is not UTF-8")) from None
    collateral = dcap_qvl.QuoteCollateralV3(**texts, **{name: endorsements[name] for name in BINARIES})
    policy = dcap_qvl.QuotePolicy.claims_only(at)  # establish everything; whether it is enough is judged elsewhere
    try:
        verifier = dcap_qvl.QuoteVerifier(chains.root_der)
        claims: dict[str, Any] = json.loads(verifier.verify_with_policy(raw, collateral, at, policy).to_json())
    except ValueError as error:
        raise rejected(explain(str(error), quote, chains, at)) from None
    return claims


def _hex_report(quote: TdxQuote) -> dict[str, Any]:
    """Our reading of the TD report, in the form of dcap-qvl's claims."""
    td = quote.td
    base = {
        "tee_tcb_svn": td.tee_tcb_svn,
        "mr_seam": td.mr_seam,
        "mr_signer_seam": td.mr_signer_seam,
        "seam_attributes": td.seam_attributes,
        "td_attributes": td.td_attributes,
        "xfam": td.xfam,
        "mr_td": td.mr_td,
        "mr_config_id": td.mr_config_id,
        "mr_owner": td.mr_owner,
        "mr_owner_config": td.mr_owner_config,
        **{f"rt_mr{i}": value for i, value in enumerate(td.rtmr)},
        "report_data": td.report_data,
    }
    first: dict[str, Any] = {name: value.hex() for name, value in base.items()}
    if td.tee_tcb_svn2 is None or td.mr_service_td is None:
        return {"TD10": first}
    return {"TD15": {"base": first, "tee_tcb_svn2": td.tee_tcb_svn2.hex(), "mr_service_td": td.mr_service_td.hex()}}


def _documents(endorsements: Mapping[str, bytes]) -> tuple[bytes, int]:
    """The PCE that the TCB info is for, and when the older one of TCB info and QE identity was issued (unix seconds).

    Both are signed, and dcap-qvl has read them; but a development authority may sign what only one parser reads.
    """
    try:
        tcb_info, identity = (json.loads(endorsements[name]) for name in (TCB_INFO, QE_IDENTITY))
        issued = [datetime.fromisoformat(document["issueDate"]).timestamp() for document in (tcb_info, identity)]
        return bytes.fromhex(tcb_info["pceId"]), int(min(issued))
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        raise rejected(Fault(Reason.COLLATERAL_INVALID, "TCB info or QE identity cannot be read")) from None


def _claims(claims: dict[str, Any], pck: Pck, chains: Chains, issued: int) -> DcapClaims:
    return DcapClaims(
        root=chains.root.spki,
        status=claims["tcb"]["status"],
        advisories=tuple(claims["tcb"]["advisory_ids"]),
        platform_status=claims["platform"]["tcb_level"]["tcbStatus"],
        qe_status=claims["qe"]["tcb_level"]["tcbStatus"],
        evaluation_number=claims["tcb"]["eval_data_number"],
        issued=min(issued, chains.pck_crl.this_update),
        pck=pck,
    )


def _pck(pck: dict[str, Any]) -> Pck:
    flags = {"True": True, "False": False}
    return Pck(
        ppid=bytes(pck["ppid"]),
        fmspc=bytes(pck["fmspc"]),
        cpu_svn=bytes(pck["cpu_svn"]),
        pce_svn=pck["pce_svn"],
        pce_id=bytes(pck["pce_id"]),
        sgx_type=pck["sgx_type"],
        platform_instance=bytes(pck["platform_instance_id"]) if pck["platform_instance_id"] else None,
        dynamic_platform=flags.get(pck["dynamic_platform"]),
        cached_keys=flags.get(pck["cached_keys"]),
        smt=flags.get(pck["smt_enabled"]),
    )
