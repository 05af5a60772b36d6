"""From a device's report and certificate chain to a `VerifiedDevice`: what the vendor's signatures prove."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import InitVar, dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384

from superswarm.attestation.nvidia.chain import (
    Chain,
    check_path,
    check_validity,
    not_after,
    p384_key,
    parse_pem_chain,
)
from superswarm.attestation.nvidia.identity import INSECURE_FLAGS, Identity, identify
from superswarm.attestation.nvidia.revocation import Revocation, check_revocation
from superswarm.attestation.nvidia.roots import NVIDIA, Roots
from superswarm.attestation.nvidia.spdm import SIGNATURE_BYTES, Report, parse_report
from superswarm.attestation.reasons import Fault, Reason, rejected
from superswarm.values import Digest

_PROOF = object()

COORDINATE = SIGNATURE_BYTES // 2
FIRST_ANSWERED = 1  # the vendor answers for revocation from the second certificate on: the chip makes the leaf


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedDevice:
    """A report that a genuine device signed. Says nothing yet about its firmware. Only `verify_device` makes one."""

    report: Report
    identity: Identity
    revocation: Revocation
    root: Digest
    not_after: int  # unix seconds: when the first certificate of the chain expires
    proof: InitVar[object]

    def __post_init__(self, proof: object) -> None:
        if proof is not _PROOF:
            raise TypeError("only verify_device() makes a VerifiedDevice")


def verify_device(
    report: bytes, chain: bytes, *, at: int, staples: Sequence[bytes] = (), roots: Roots = NVIDIA
) -> VerifiedDevice:
    """Verify a device's SPDM report under its PEM chain, at `at` (unix seconds).

    Raises Malformed or TooLarge for what does not parse, EvidenceRejected for what does not hold.
    """
    # (1) Both parse, within their limits, with nothing left over.
    parsed, certificates = parse_report(report), parse_pem_chain(chain)
    # (2) The chain's first key signed request and response: ECDSA, P-384, SHA-384.
    _check_signature(certificates, parsed)
    # (3) The chain leads to a pinned root, and is valid at `at`.
    root = check_path(certificates, roots.device)
    check_validity(certificates, at)
    # (4) No stapled answer calls one of its certificates revoked.
    revocation = check_revocation(certificates, staples, at, first=FIRST_ANSWERED)
    # (5) The certificate names a device of a known kind, and no insecure state of its firmware.
    identity = identify(certificates)
    _check_flags(identity)
    # (6) The report is about the firmware that the certificate was made for. Early firmware does not say.
    if parsed.fwid is not None and parsed.fwid != identity.fwid:
        raise rejected(Fault(Reason.FWID_MISMATCH, "the report names other firmware than the device's certificate"))
    return VerifiedDevice(
        report=parsed,
        identity=identity,
        revocation=revocation,
        root=root,
        not_after=not_after(certificates),
        proof=_PROOF,
    )


def _check_signature(chain: Chain, report: Report) -> None:
    r, s = report.signature[:COORDINATE], report.signature[COORDINATE:]
    signature = encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))
    try:
        p384_key(chain[0]).verify(signature, report.signed, ec.ECDSA(SHA384()))
    except InvalidSignature:
        message = "the device's signature does not cover this report"
        raise rejected(Fault(Reason.SIGNATURE_INVALID, message)) from None


def _check_flags(identity: Identity) -> None:
    states = [name for bit, name in INSECURE_FLAGS.items() if bit in identity.flags]
    if states:
        raise rejected(Fault(Reason.DEBUG, f"the device's certificate calls its firmware {', '.join(states)}"))
