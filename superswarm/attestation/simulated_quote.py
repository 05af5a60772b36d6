"""INSECURE: mint quotes in the structure of TDX: version 4, or 5 with a TDX 1.5 body (layout: `tdx.quote`)."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import ec

from superswarm.attestation import simulated_pki as pki
from superswarm.attestation.tdx import quote as layout

SEPT_VE_DISABLE = bytes.fromhex("0000001000000000")
XFAM = bytes.fromhex("e700060000000000")  # x87 to AVX-512 and AMX
MR_SEAM = hashlib.sha384(b"superswarm: INSECURE simulated TDX module").digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedBody:
    """The fields of a TD report that a simulated TEE chooses; the others are zero."""

    mr_td: bytes  # 48
    report_data: bytes  # 64
    td_attributes: bytes = SEPT_VE_DISABLE  # 8
    xfam: bytes = XFAM  # 8
    seam_attributes: bytes = bytes(8)
    mr_signer_seam: bytes = bytes(48)
    mr_config_id: bytes = bytes(48)
    mr_owner: bytes = bytes(48)
    mr_owner_config: bytes = bytes(48)
    rtmr: tuple[bytes, bytes, bytes, bytes] = (bytes(48), bytes(48), bytes(48), bytes(48))
    tee_tcb_svn: bytes = bytes(16)
    tee_tcb_svn2: bytes = bytes(16)  # TDX 1.5
    mr_service_td: bytes | None = None  # 48; given, the body is one of TDX 1.5

    @property
    def version(self) -> int:
        return 4 if self.mr_service_td is None else 5

    def to_bytes(self) -> bytes:
        base = layout.TD_10.pack(
            self.tee_tcb_svn,
            MR_SEAM,
            self.mr_signer_seam,
            self.seam_attributes,
            self.td_attributes,
            self.xfam,
            self.mr_td,
            self.mr_config_id,
            self.mr_owner,
            self.mr_owner_config,
            *self.rtmr,
            self.report_data,
        )
        if self.mr_service_td is None:
            return base
        body = base + layout.TD_15.pack(self.tee_tcb_svn2, self.mr_service_td)
        return layout.BODY.pack(layout.BODY_TDX_15, len(body)) + body


@dataclass(frozen=True, slots=True)
class QuotingEnclave:
    """An attestation key, and the quoting enclave's report on it, signed by the platform's PCK key."""

    key: ec.EllipticCurvePrivateKey = field(repr=False)
    report: bytes
    signature: bytes
    auth: bytes
    chain: bytes  # PEM: PCK leaf, platform CA, root

    @classmethod
    def start(
        cls, pck: ec.EllipticCurvePrivateKey, chain: bytes, *, attributes: bytes = pki.QE_ATTRIBUTES
    ) -> QuotingEnclave:
        """Make an attestation key and have the platform's PCK key sign for it."""
        key = pki.new_key()
        auth = bytes(range(32))
        data = hashlib.sha256(pki.point(key) + auth).digest() + bytes(32)
        report = layout.QE_REPORT.pack(
            bytes(16),
            0,
            bytes(28),
            attributes,
            bytes(32),
            bytes(32),
            pki.QE_SIGNER,
            bytes(96),
            pki.QE_PRODUCT,
            pki.QE_SVN,
            bytes(60),
            data,
        )
        return cls(key, report, pki.sign_raw(pck, report), auth, chain)

    def quote(self, body: SimulatedBody) -> bytes:
        """Sign a TD report and lay out the quote."""
        header = layout.HEADER.pack(
            body.version,
            layout.ECDSA_P256,
            layout.TEE_TDX,
            0,
            0,
            layout.INTEL_QE_VENDOR,
            b"INSECURE".ljust(20, b"\0"),
        )
        signed = header + body.to_bytes()
        certification = b"".join(
            (
                self.report,
                self.signature,
                struct.pack("<H", len(self.auth)),
                self.auth,
                layout.CERTIFICATION.pack(layout.PCK_CHAIN, len(self.chain)),
                self.chain,
            )
        )
        tail = b"".join(
            (
                pki.sign_raw(self.key, signed),
                pki.point(self.key),
                layout.CERTIFICATION.pack(layout.QE_REPORT_CERTIFICATION, len(certification)),
                certification,
            )
        )
        return signed + struct.pack("<I", len(tail)) + tail
