"""What dcap-qvl's error strings mean: its messages (version 0.7) to reasons. An unknown string is refused as well."""

from __future__ import annotations

from superswarm.attestation.reasons import Fault, Reason
from superswarm.attestation.tdx.chains import Chains
from superswarm.attestation.tdx.quote import TdxQuote

REASONS: tuple[tuple[str, Reason], ...] = (
    ("Debug mode is enabled", Reason.DEBUG),
    ("SEPT_VE_DISABLE is not enabled", Reason.SEPT_VE_DISABLE_OFF),
    ("Invalid MR service TD", Reason.SERVICE_TD_BOUND),
    ("TD migration is enabled", Reason.MIGRATION_AGENT),
    ("Reserved bits in TD attributes are set", Reason.ATTRIBUTES_RESERVED),
    ("TCB status is invalid", Reason.TCB_STATUS),
    ("No matching TCB level found", Reason.TCB_UNRECOGNISED),
    ("is below minimum required", Reason.TCB_UNRECOGNISED),
    ("Failed to evaluate the current TDX TCB", Reason.TCB_UNRECOGNISED),
    ("TDX module TCB level check", Reason.TCB_UNRECOGNISED),
    ("CrlExpired", Reason.COLLATERAL_EXPIRED),
    ("TCBInfo expired", Reason.COLLATERAL_EXPIRED),
    ("QE Identity expired", Reason.COLLATERAL_EXPIRED),
    ("issue date is in the future", Reason.COLLATERAL_INVALID),
    ("CertRevoked", Reason.CERTIFICATE_REVOKED),
    ("Signature is invalid for", Reason.SIGNATURE_INVALID),
    ("ISV enclave report signature is invalid", Reason.SIGNATURE_INVALID),
    ("QE report hash mismatch", Reason.SIGNATURE_INVALID),
    ("Failed to decode TcbInfo", Reason.COLLATERAL_INVALID),
    ("Failed to decode QeIdentity", Reason.COLLATERAL_INVALID),
    ("TDX quote with non-TDX TCB info", Reason.COLLATERAL_INVALID),
    ("Unsupported QE Identity id/version", Reason.COLLATERAL_INVALID),
    ("Fmspc mismatch", Reason.COLLATERAL_INVALID),
    ("QE MRSIGNER mismatch", Reason.MODULE_NOT_ACCEPTED),
    ("QE ISVPRODID mismatch", Reason.MODULE_NOT_ACCEPTED),
    ("QE MISCSELECT mismatch", Reason.MODULE_NOT_ACCEPTED),
    ("QE ATTRIBUTES mismatch", Reason.MODULE_NOT_ACCEPTED),
    ("QE report validation failed", Reason.MODULE_NOT_ACCEPTED),  # a quoting enclave in debug
    ("Intel extension not found", Reason.CHAIN_INVALID),
)
"""Looked for in this order."""

UNSAID = (
    "Failed to verify certificate chain",
    "Failed to parse root CA CRL",
    "Failed to parse PCK CRL",
)
"""Messages that keep their cause to themselves."""


def explain(text: str, quote: TdxQuote, chains: Chains, at: int) -> Fault:
    """Why dcap-qvl refused: the fault that its message names, or that the chains show."""
    text = printable(text.removeprefix("Verification failed: "))
    if any(unsaid in text for unsaid in UNSAID):
        return next(chains.faults(at), Fault(Reason.CHAIN_INVALID, "a certificate chain does not hold"))
    if "TDX module identity check" in text:
        return _module(quote)
    for message, reason in REASONS:
        if message in text:
            return Fault(reason, text[:200])
    return Fault(Reason.COLLATERAL_INVALID, f"the verifier refuses for a reason that is not known here: {text[:200]}")


def printable(text: str) -> str:
    """For a terminal: some messages repeat what the evidence says."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _module(quote: TdxQuote) -> Fault:
    """Not Intel's module (those have a zero signer and zero attributes), or one that no TCB level covers."""
    if any(quote.td.mr_signer_seam) or any(quote.td.seam_attributes):
        return Fault(Reason.MODULE_NOT_ACCEPTED, "the TDX module is not a production module of Intel")
    version, svn = quote.td.tee_tcb_svn[1], quote.td.tee_tcb_svn[0]
    return Fault(Reason.TCB_UNRECOGNISED, f"TDX module {version} with SVN {svn} is below every TCB level, or unknown")
