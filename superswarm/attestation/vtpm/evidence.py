"""Read the JSON in which Azure vTPM evidence travels, in the forms that are in use. Proves nothing.

Trustee's versions 0 (lists of bytes, PEM), 1 and 2 (hexadecimal, base64url), bare or inside an envelope with
`platform` and `evidence`; see confidential-containers/trustee, `az_snp_vtpm` and `az_tdx_vtpm`.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from superswarm.attestation.vtpm.hcl import Beneath, HclReport, parse_hcl
from superswarm.attestation.vtpm.quote import PCRS, TpmQuote, parse_quote
from superswarm.consortium.documents import load_json
from superswarm.errors import Malformed
from superswarm.values import LIMITS

ENVELOPES = ("evidence", "cpu_evidence")
CERTIFICATES = {"vcek": "vcek.der", "ask": "ask.der", "ark": "ark.der"}


@dataclass(frozen=True, slots=True, kw_only=True)
class VtpmEvidence:
    """A TPM quote, the PCR values behind it, and the paravisor's report. Proves nothing."""

    quote: TpmQuote
    message: bytes  # the quote as signed
    signature: bytes
    pcrs: Mapping[int, bytes]  # 32 bytes each
    hcl: HclReport
    td_quote: bytes | None  # where TDX is beneath
    endorsements: Mapping[str, bytes]  # certificates that came along, named as in SNP evidence


def parse_evidence(data: bytes) -> VtpmEvidence:
    """Parse evidence of an Azure confidential VM. Proves nothing. Raises Malformed or TooLarge."""
    document = load_json(data, "vTPM evidence", limit=LIMITS.evidence_bytes)
    for name in ENVELOPES:
        inner = document.get(name)
        if isinstance(inner, dict):
            document = inner
    quote = _one(document, "tpm_quote", "quote")
    if not isinstance(quote, dict):
        raise Malformed("the vTPM evidence has no quote")
    message = _bytes(_one(quote, "message", "msg"), "quote")
    parsed = parse_quote(message)
    hcl = parse_hcl(_bytes(_one(document, "hcl_report", "report"), "paravisor's report"))
    td_quote = document.get("td_quote")
    if (hcl.beneath is Beneath.TDX) != (td_quote is not None):
        raise Malformed("vTPM evidence brings a TD quote exactly where TDX is beneath")
    return VtpmEvidence(
        quote=parsed,
        message=message,
        signature=_bytes(_one(quote, "signature", "sig"), "quote's signature"),
        pcrs=_pcrs(quote.get("pcrs"), parsed),
        hcl=hcl,
        td_quote=None if td_quote is None else _bytes(td_quote, "TD quote"),
        endorsements={
            file: _bytes(document[name], name)
            for name, file in CERTIFICATES.items()
            if document.get(name) is not None
        },
    )


def _one(document: dict[str, Any], *names: str) -> object:
    """The value under the one of these names that is there."""
    present = [name for name in names if name in document]
    if len(present) != 1:
        raise Malformed(f"the vTPM evidence has not exactly one of {', '.join(names)}")
    return document[present[0]]


def _bytes(value: object, what: str) -> bytes:
    """A list of byte values, hexadecimal, PEM, or base64 in either alphabet, padded or not."""
    if isinstance(value, list):
        if all(type(item) is int and 0 <= item <= 255 for item in value):
            return bytes(value)
    elif isinstance(value, str):
        if value.startswith("-----BEGIN "):
            return value.encode()
        if len(value) % 2 == 0 and all(letter in "0123456789abcdefABCDEF" for letter in value):
            return bytes.fromhex(value)
        text = value.rstrip("=").replace("-", "+").replace("_", "/")
        try:
            return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        except ValueError:
            pass
    raise Malformed(f"the {what} in the vTPM evidence is neither bytes, hexadecimal nor base64")


def _pcrs(values: object, quote: TpmQuote) -> dict[int, bytes]:
    """The quoted PCRs by index: either all 24, or just those that the quote selects, in its order."""
    if not isinstance(values, list) or len(values) not in (PCRS, len(quote.selected)):
        raise Malformed("the vTPM evidence does not have the PCR values that its quote covers")
    indices = range(PCRS) if len(values) == PCRS else quote.selected
    pcrs = {index: _bytes(value, "PCR") for index, value in zip(indices, values, strict=True)}
    if any(len(value) != 32 for value in pcrs.values()):
        raise Malformed("a PCR of the SHA-256 bank has 32 bytes")
    return {index: pcrs[index] for index in quote.selected}
