"""Intel's collateral for a quote: names, and the JSON in which tools pass it on. Proves nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime

from superswarm.consortium.documents import load_json
from superswarm.errors import Malformed
from superswarm.values import LIMITS

# Endorsements of a quote, named as in Intel's QuoteCollateral; chains are PEM and end in the root.
PCK_CRL_CHAIN = "pck_crl_issuer_chain"
ROOT_CRL = "root_ca_crl"  # DER
PCK_CRL = "pck_crl"  # DER
TCB_CHAIN = "tcb_info_issuer_chain"
TCB_INFO = "tcb_info"  # JSON, exactly as signed
TCB_SIGNATURE = "tcb_info_signature"  # 64 bytes
QE_CHAIN = "qe_identity_issuer_chain"
QE_IDENTITY = "qe_identity"  # JSON, exactly as signed
QE_SIGNATURE = "qe_identity_signature"  # 64 bytes
TEXTS = (PCK_CRL_CHAIN, TCB_CHAIN, TCB_INFO, QE_CHAIN, QE_IDENTITY)
BINARIES = (ROOT_CRL, PCK_CRL, TCB_SIGNATURE, QE_SIGNATURE)
NAMES = tuple(sorted(TEXTS + BINARIES))

PCK_CHAIN = "pck_certificate_chain"  # some tools add it; the quote's own chain is what counts


def parse_collateral(data: bytes) -> dict[str, bytes]:
    """Read collateral as dcap-qvl, Phala's and Intel's tools write it: texts as they are, the rest in hexadecimal."""
    document = load_json(data, "collateral", limit=LIMITS.evidence_bytes)
    unknown = document.keys() - {*NAMES, PCK_CHAIN}
    if unknown:
        raise Malformed(f"the collateral has {len(unknown)} fields that are not known")
    return {name: _value(name, document[name]) for name in NAMES if document.get(name) is not None}


def dump_collateral(endorsements: Mapping[str, bytes]) -> bytes:
    """Write endorsements as `parse_collateral` reads them. Raises Malformed for text that is not UTF-8."""
    try:
        texts = {name: endorsements[name].decode() for name in TEXTS if name in endorsements}
    except UnicodeDecodeError:
        raise Malformed("collateral that should be text is not UTF-8") from None
    binaries = {name: endorsements[name].hex() for name in BINARIES if name in endorsements}
    return json.dumps(texts | binaries, indent=1, sort_keys=True).encode()


def _value(name: str, value: object) -> bytes:
    if isinstance(value, str):
        try:
            return value.encode() if name in TEXTS else bytes.fromhex(value)
        except ValueError:  # a lone surrogate, or not hexadecimal
            pass
    raise Malformed(f"the collateral's {name} is not text, or not hexadecimal")


def window(document: bytes) -> tuple[int, int]:
    """When TCB info or a QE identity was issued, and when its successor is due (unix seconds). Raises Malformed."""
    fields = load_json(document, "TCB document", limit=LIMITS.evidence_bytes)
    try:
        issued, due = (datetime.fromisoformat(fields[name]).timestamp() for name in ("issueDate", "nextUpdate"))
        return int(issued), int(due)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise Malformed("a TCB document lacks its dates") from None
