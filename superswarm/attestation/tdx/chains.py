"""The certificates and CRLs of a quote: shape, root and windows, checked around dcap-qvl, which verifies them.

Shapes: Intel SGX PCK Certificate and CRL Profile Specification. A PCK leaf is issued by the platform or processor CA,
which the root issues; the signer of TCB documents is issued by the root itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.serialization import Encoding

from superswarm.attestation.certificates import (
    Certificate,
    RevocationList,
    issued,
    load_chain,
    load_crl,
    signed_crl,
    utc,
    validity_faults,
)
from superswarm.attestation.reasons import Fault, Reason, refuse, rejected
from superswarm.attestation.tdx.collateral import PCK_CRL, PCK_CRL_CHAIN, QE_CHAIN, ROOT_CRL, TCB_CHAIN
from superswarm.errors import Malformed
from superswarm.values import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Chains:
    """Parsed certificates and CRLs; of a chain, the first is the leaf and the last the root."""

    pck: tuple[Certificate, ...]  # leaf, CA, root
    pck_crl_issuer: tuple[Certificate, ...]  # CA, root
    tcb: tuple[Certificate, ...]  # signer, root
    qe: tuple[Certificate, ...]  # signer, root
    root_crl: RevocationList
    pck_crl: RevocationList

    @property
    def root(self) -> Certificate:
        return self.pck[-1]

    @property
    def root_der(self) -> bytes:
        return self.root.raw.public_bytes(Encoding.DER)

    def require_root(self, roots: Collection[Digest], at: int) -> None:
        """EvidenceRejected unless all chains end in one root that is pinned, and valid at this time."""
        # (1) It is pinned, by its key.
        if self.root.spki not in roots:
            raise rejected(Fault(Reason.ROOT_UNTRUSTED, f"the root {self.root.spki} is not pinned here"))
        # (2) Nobody altered the certificate around the key.
        if not issued(self.root, self.root):
            raise rejected(Fault(Reason.CHAIN_INVALID, "the root's signature on itself does not hold"))
        # (3) Every chain ends in it.
        if any(chain[-1].raw != self.root.raw for chain in (self.pck_crl_issuer, self.tcb, self.qe)):
            raise rejected(Fault(Reason.CHAIN_INVALID, "the chains do not end in one root"))
        # (4) It is valid at this time.
        refuse(validity_faults(self.root, at))

    def require_windows(self, at: int) -> None:
        """EvidenceRejected unless what dcap-qvl does not look at holds: CRLs' begin, the issuer of the PCK's CRL."""
        # (1) A CRL from the future says nothing about now. (dcap-qvl checks the end.)
        for name, crl in (("root", self.root_crl), ("PCK", self.pck_crl)):
            if crl.this_update > at:
                raise rejected(Fault(Reason.CRL_INVALID, f"the {name} CRL begins {utc(crl.this_update)}"))
        # (2) The chain that travels for the PCK's CRL is genuine, although the PCK's own chain is what counts.
        issuer = self.pck_crl_issuer[0]
        if not issued(issuer, self.root):
            raise rejected(Fault(Reason.CHAIN_INVALID, "the root did not issue the issuer of the PCK CRL"))
        refuse(validity_faults(issuer, at))

    def faults(self, at: int) -> Iterator[Fault]:
        """Why a verifier that keeps it to itself refuses these chains, most telling first. Decides nothing."""
        every = (*self.pck, *self.pck_crl_issuer, *self.tcb, *self.qe)
        for certificate in every:
            yield from validity_faults(certificate, at)
        for name, crl, issuer in (("root", self.root_crl, self.root), ("PCK", self.pck_crl, self.pck[1])):
            for certificate in every:
                if _lists(crl, certificate):
                    yield Fault(Reason.CERTIFICATE_REVOKED, f"{issuer.name} revoked {certificate.name}")
            if not signed_crl(crl, issuer):
                yield Fault(Reason.CRL_INVALID, f"the {name} CRL is not signed by {issuer.name}")
            if crl.next_update is None or crl.next_update < at:
                yield Fault(Reason.COLLATERAL_EXPIRED, f"the {name} CRL has expired")


def _lists(crl: RevocationList, certificate: Certificate) -> bool:
    try:
        return certificate.raw.issuer == crl.raw.issuer and certificate.raw.serial_number in crl.serials
    except (ValueError, TypeError):  # a name that cannot be decoded
        return False


def load_chains(pck_chain: bytes, endorsements: Mapping[str, bytes]) -> Chains:
    """Parse all certificates and CRLs, and check each chain's length. Raises EvidenceRejected or Malformed."""
    return Chains(
        pck=_chain("PCK", pck_chain, 3),
        pck_crl_issuer=_chain("PCK CRL", endorsements[PCK_CRL_CHAIN], 2),
        # A PCK could sign TCB documents if a chain of three were let through: its key lives on every machine.
        tcb=_chain("TCB info", endorsements[TCB_CHAIN], 2),
        qe=_chain("QE identity", endorsements[QE_CHAIN], 2),
        root_crl=load_crl(endorsements[ROOT_CRL], "the root CRL"),
        pck_crl=load_crl(endorsements[PCK_CRL], "the PCK CRL"),
    )


def _chain(name: str, pem: bytes, length: int) -> tuple[Certificate, ...]:
    chain = load_chain(pem, f"the {name} chain")
    # Two parsers read these bytes, so they are PEM as everybody writes it: nothing between, before or after.
    plain = b"".join(certificate.raw.public_bytes(Encoding.PEM) for certificate in chain)
    if b"".join(pem.split()) != b"".join(plain.split()):
        raise Malformed(f"the {name} chain is not plain PEM certificates")
    if len(chain) != length:
        raise rejected(Fault(Reason.CHAIN_INVALID, f"the {name} chain has {len(chain)} certificates, not {length}"))
    return chain
