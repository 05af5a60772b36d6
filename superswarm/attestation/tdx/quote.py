"""Parse Intel TDX quotes, versions 4 and 5. Parsing proves nothing.

Layout: Intel TDX DCAP Quoting Library API, appendix A.3 (version 4) and A.4 (version 5); TD report fields: Intel TDX
Module ABI, TDREPORT_STRUCT. Integers are little-endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

from superswarm.errors import Malformed

TEE_TDX = 0x81
ECDSA_P256 = 2
INTEL_QE_VENDOR = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")

HEADER = struct.Struct("<HHIHH16s20s")
TD_10 = struct.Struct("<16s48s48s8s8s8s48s48s48s48s48s48s48s48s64s")
TD_15 = struct.Struct("<16s48s")  # what TDX 1.5 appends
BODY = struct.Struct("<HI")  # version 5: kind and size of the body
BODY_TDX_10, BODY_TDX_15 = 2, 3
CERTIFICATION = struct.Struct("<HI")
QE_REPORT_CERTIFICATION, PCK_CHAIN = 6, 5
QE_REPORT = struct.Struct("<16sI28s16s32s32s32s96sHH60s64s")


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteHeader:
    """Who made the quote, and how. All of it is signed."""

    version: int
    key_type: int
    tee_type: int
    qe_svn: int
    pce_svn: int
    qe_vendor: bytes  # 16
    user_data: bytes  # 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TdReport:
    """What the TDX module says of the trust domain (TDREPORT_STRUCT)."""

    tee_tcb_svn: bytes  # 16: SVN of the TDX module, its version, and of the loaded microcode
    mr_seam: bytes  # 48: the TDX module
    mr_signer_seam: bytes  # 48: zero for Intel's modules
    seam_attributes: bytes  # 8
    td_attributes: bytes  # 8
    xfam: bytes  # 8
    mr_td: bytes  # 48: the initial contents of the trust domain
    mr_config_id: bytes  # 48: set by the host
    mr_owner: bytes  # 48: set by the host
    mr_owner_config: bytes  # 48: set by the host
    rtmr: tuple[bytes, bytes, bytes, bytes]  # 48 each: extended at run time
    report_data: bytes  # 64
    tee_tcb_svn2: bytes | None = None  # 16, TDX 1.5: the module that now runs
    mr_service_td: bytes | None = None  # 48, TDX 1.5: service trust domains bound to this one


@dataclass(frozen=True, slots=True, kw_only=True)
class QeReport:
    """What SGX says of the quoting enclave; the PCK certificate's key signs it."""

    cpu_svn: bytes  # 16
    misc_select: int
    attributes: bytes  # 16
    mr_enclave: bytes  # 32
    mr_signer: bytes  # 32
    isv_prod_id: int
    isv_svn: int
    report_data: bytes  # 64: SHA-256(attestation key, authentication data), then zeros


@dataclass(frozen=True, slots=True, kw_only=True)
class TdxQuote:
    """A parsed quote. Proves nothing."""

    header: QuoteHeader
    body_kind: int | None  # version 5 only
    td: TdReport
    signature: bytes  # 64: ECDSA P-256 over header and body, r and s
    attestation_key: bytes  # 64: x and y
    qe: QeReport
    qe_signature: bytes  # 64: by the PCK key, over the QE's report
    qe_auth: bytes
    pck_chain: bytes = field(repr=False)  # PEM: leaf, platform or processor CA, root


def parse_quote(data: bytes) -> TdxQuote:
    """Parse a quote strictly: every length exact, no trailing bytes, known kinds only. Raises Malformed."""
    reader = _Reader(data)
    header = _header(reader)
    kind, td = _body(reader, header.version)
    (signed,) = reader.unpack("<I")
    if signed != reader.left:
        raise Malformed(f"a TDX quote claims {signed} bytes of signature data and has {reader.left}")
    signature, key = reader.take(64), reader.take(64)
    reader.certification(QE_REPORT_CERTIFICATION)
    qe, qe_signature = _qe_report(reader), reader.take(64)
    (auth,) = reader.unpack("<H")
    qe_auth = reader.take(auth)
    reader.certification(PCK_CHAIN)
    chain = reader.take(reader.left)
    return TdxQuote(
        header=header,
        body_kind=kind,
        td=td,
        signature=signature,
        attestation_key=key,
        qe=qe,
        qe_signature=qe_signature,
        qe_auth=qe_auth,
        pck_chain=chain.removesuffix(b"\0"),  # Intel's library ends the text with a zero byte
    )


def without_padding(raw: bytes) -> bytes:
    """The quote alone, where a service returns it in a buffer of fixed size with zeros behind it (Azure, Linux).

    Where the quote ends, its own lengths say; `parse_quote` wants exactly that many bytes.
    """
    (version,) = struct.unpack_from("<H", raw.ljust(2, b"\0"))
    end = HEADER.size + (TD_10.size if version == 4 else BODY.size)
    if version == 5 and len(raw) >= end:
        end += struct.unpack_from("<I", raw, end - 4)[0]
    if len(raw) >= end + 4:
        end += 4 + struct.unpack_from("<I", raw, end)[0]
    return raw[:end] if version in (4, 5) and not any(raw[end:]) else raw


def _header(reader: _Reader) -> QuoteHeader:
    version, key_type, tee_type, qe_svn, pce_svn, vendor, user = reader.unpack(HEADER.format)
    if version not in (4, 5):
        raise Malformed(f"a TDX quote has version 4 or 5, not {version}")
    if tee_type != TEE_TDX:
        raise Malformed(f"the quote is for TEE type {tee_type:#x}, not TDX")
    if key_type != ECDSA_P256:
        raise Malformed(f"a TDX quote is signed with ECDSA P-256 (2), not with key type {key_type}")
    if vendor != INTEL_QE_VENDOR:
        raise Malformed("the quoting enclave's vendor is not Intel")
    return QuoteHeader(
        version=version,
        key_type=key_type,
        tee_type=tee_type,
        qe_svn=qe_svn,
        pce_svn=pce_svn,
        qe_vendor=vendor,
        user_data=user,
    )


def _body(reader: _Reader, version: int) -> tuple[int | None, TdReport]:
    if version == 4:
        return None, _td_report(reader, extended=False)
    kind, size = reader.unpack(BODY.format)
    sizes = {BODY_TDX_10: TD_10.size, BODY_TDX_15: TD_10.size + TD_15.size}
    if kind not in sizes:
        raise Malformed(f"a TDX quote's body has kind 2 (TDX 1.0) or 3 (TDX 1.5), not {kind}")
    if size != sizes[kind]:
        raise Malformed(f"a TDX quote's body of kind {kind} has {sizes[kind]} bytes, not {size}")
    return kind, _td_report(reader, extended=kind == BODY_TDX_15)


def _td_report(reader: _Reader, *, extended: bool) -> TdReport:
    fields = reader.unpack(TD_10.format)
    extra: tuple[bytes, bytes] | tuple[None, None] = (None, None)
    if extended:
        extra = reader.unpack(TD_15.format)
    return TdReport(
        tee_tcb_svn=fields[0],
        mr_seam=fields[1],
        mr_signer_seam=fields[2],
        seam_attributes=fields[3],
        td_attributes=fields[4],
        xfam=fields[5],
        mr_td=fields[6],
        mr_config_id=fields[7],
        mr_owner=fields[8],
        mr_owner_config=fields[9],
        rtmr=(fields[10], fields[11], fields[12], fields[13]),
        report_data=fields[14],
        tee_tcb_svn2=extra[0],
        mr_service_td=extra[1],
    )


def _qe_report(reader: _Reader) -> QeReport:
    cpu_svn, misc, r1, attributes, enclave, r2, signer, r3, product, svn, r4, data = reader.unpack(QE_REPORT.format)
    if any(r1 + r2 + r3 + r4):
        raise Malformed("reserved bytes of the quoting enclave's report are not zero")
    return QeReport(
        cpu_svn=cpu_svn,
        misc_select=misc,
        attributes=attributes,
        mr_enclave=enclave,
        mr_signer=signer,
        isv_prod_id=product,
        isv_svn=svn,
        report_data=data,
    )


class _Reader:
    """Takes bytes from the front; Malformed where they run out."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise Malformed("a TDX quote is cut short")
        self._at += count
        return self._data[self._at - count : self._at]

    def unpack(self, form: str) -> tuple[Any, ...]:
        return struct.unpack(form, self.take(struct.calcsize(form)))

    def certification(self, expected: int) -> None:
        """Read the kind and size of certification data, which fills the rest of the quote."""
        kind, size = self.unpack(CERTIFICATION.format)
        if kind != expected:
            raise Malformed(f"a TDX quote has certification data of kind {kind} where {expected} belongs")
        if size != self.left:
            raise Malformed(f"a TDX quote claims {size} bytes of certification data and has {self.left}")
