"""NVIDIA's reference integrity manifests (RIM): which measurements a driver or a VBIOS version gives.

A SWID tag (ISO/IEC 19770-2:2015, in the TCG's PC Client RIM profile) with an enveloped XML signature over the whole
document. What is used is only what was signed: the element that signxml gives back from the canonical bytes. All of
NVIDIA's documents use one profile of XML signatures, and no other is taken.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType

from cryptography.hazmat.primitives.serialization import Encoding
from lxml import etree
from signxml.algorithms import DigestAlgorithm, SignatureMethod
from signxml.exceptions import SignXMLException
from signxml.verifier import SignatureConfiguration, XMLVerifier

from superswarm.attestation.nvidia.chain import (
    Chain,
    check_path,
    check_validity,
    decode_base64,
    not_after,
    parse_chain,
)
from superswarm.attestation.nvidia.revocation import Revocation, check_revocation
from superswarm.attestation.nvidia.roots import NVIDIA, Roots
from superswarm.attestation.nvidia.xml import parse_xml
from superswarm.attestation.reasons import Fault, Reason, rejected
from superswarm.errors import Malformed
from superswarm.values import Digest

SWID = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd"
DSIG = "http://www.w3.org/2000/09/xmldsig#"
HASH = "http://www.w3.org/2001/04/xmlenc#sha384"
ENVELOPED = f"{DSIG}enveloped-signature"
C14N_1_1 = "http://www.w3.org/2006/12/xml-c14n11"
C14N_1_0 = "http://www.w3.org/TR/2001/REC-xml-c14n-20010315"

_PROOF = object()

VBIOS_VERSION = re.compile(r"(?:[0-9A-F]{2}\.){4}[0-9A-F]{2}")
VERSION = re.compile(r"[A-Za-z0-9._-]{1,32}")
SIGNATURE_BYTES, DIGEST_BYTES = 96, 48
HEX48 = re.compile(r"[0-9A-Fa-f]{96}")
ALTERNATIVES = 32  # values that one measurement may have


class Component(StrEnum):
    """What a reference manifest describes; VBIOS also names a switch's firmware."""

    DRIVER = "driver"
    VBIOS = "vbios"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceManifest:
    """Measurements of one version of one component. Proves nothing."""

    tag: str  # the document's own identifier
    product: str  # GH100, GB100, LS10
    edition: str  # GPU or SWITCH
    component: Component
    version: str  # VBIOS versions in upper case
    measurements: Mapping[int, frozenset[bytes]]  # SPDM index to the values that are right; only the active ones


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedManifest:
    """A manifest that NVIDIA's signer signed. Only `verify_rim` makes one."""

    manifest: ReferenceManifest
    revocation: Revocation
    root: Digest
    not_after: int  # unix seconds: when the first certificate of the signer's chain expires
    proof: InitVar[object]

    def __post_init__(self, proof: object) -> None:
        if proof is not _PROOF:
            raise TypeError("only verify_rim() makes a VerifiedManifest")


def verify_rim(document: bytes, *, at: int, staples: Sequence[bytes] = (), roots: Roots = NVIDIA) -> VerifiedManifest:
    """Verify a reference manifest at `at` (unix seconds).

    Raises Malformed or TooLarge for what does not parse, EvidenceRejected for what does not hold.
    """
    # (1) The document parses, and is signed in the one way that leaves nothing outside the signature.
    root = parse_xml(document)
    signature = find_signature(root)
    check_profile(signature)
    # (2) The signer's chain leads to a pinned root, and is valid at `at`.
    chain = signer_chain(signature)
    pinned = check_path(chain, roots.reference)
    check_validity(chain, at)
    # (3) No stapled answer calls one of its certificates revoked.
    revocation = check_revocation(chain, staples, at, first=0)
    # (4) The signature holds under the signer's key; from here on only what it covers is read.
    signed = _signed_element(document, chain, at)
    # (5) What is signed is a reference manifest.
    return VerifiedManifest(
        manifest=read_manifest(signed),
        revocation=revocation,
        root=pinned,
        not_after=not_after(chain),
        proof=_PROOF,
    )


def find_signature(root: etree._Element) -> etree._Element:
    """The one signature, a child of the root: nowhere else in the document may one hide."""
    found = list(root.iter(f"{{{DSIG}}}Signature"))
    if len(found) != 1 or found[0].getparent() is not root:
        raise Malformed("a reference manifest has exactly one signature, directly in its root")
    return found[0]


def check_profile(signature: etree._Element) -> None:
    """Exactly one reference, to the whole document less the signature; ECDSA and SHA-384; nothing else inside."""
    if _shape(signature) != ("SignedInfo", "SignatureValue", "KeyInfo"):
        raise Malformed("the signature has other parts than SignedInfo, SignatureValue and KeyInfo")
    info, value = signature[0], signature[1]
    if _shape(info) != ("CanonicalizationMethod", "SignatureMethod", "Reference"):
        raise Malformed("the signature does not have exactly one reference")
    reference = info[2]
    if _shape(reference) != ("Transforms", "DigestMethod", "DigestValue") or dict(reference.attrib) != {"URI": ""}:
        raise Malformed("the signature's reference is not to the whole document")
    transforms = tuple(_algorithm(transform) for transform in reference[0])
    if transforms not in ((ENVELOPED, C14N_1_1), (ENVELOPED, C14N_1_0)):
        raise Malformed("the signature's transforms are not the enveloped one and canonical XML")
    if _algorithm(info[0]) not in (C14N_1_1, C14N_1_0):
        raise Malformed("the signature is not over canonical XML")
    if (_algorithm(info[1]), _algorithm(reference[1])) != (
        SignatureMethod.ECDSA_SHA384.value,
        DigestAlgorithm.SHA384.value,
    ):
        raise rejected(Fault(Reason.SIGNATURE_ALGORITHM, "a reference manifest is not signed with ECDSA and SHA-384"))
    if len(_content(value)) != SIGNATURE_BYTES or len(_content(reference[2])) != DIGEST_BYTES:
        raise Malformed("the signature or the digest has another length than P-384 and SHA-384 give")


def signer_chain(signature: etree._Element) -> Chain:
    """The certificates of the signature's key information, signer first."""
    key_info = signature[2]
    if _shape(key_info) != ("X509Data",) or set(_shape(key_info[0])) != {"X509Certificate"}:
        raise Malformed("the signature's key information has something other than X.509 certificates")
    return parse_chain([_content(part) for part in key_info[0]])


def _signed_element(document: bytes, chain: Chain, at: int) -> etree._Element:
    configuration = SignatureConfiguration(
        location="./",
        expect_references=1,
        signature_methods=frozenset({SignatureMethod.ECDSA_SHA384}),
        digest_algorithms=frozenset({DigestAlgorithm.SHA384}),
        verification_time=datetime.fromtimestamp(at, UTC),
    )
    try:
        result = XMLVerifier().verify(
            document, x509_cert=chain[0].raw.public_bytes(Encoding.PEM).decode(), expect_config=configuration
        )
    except (SignXMLException, etree.LxmlError, ValueError):
        raise rejected(Fault(Reason.SIGNATURE_INVALID, "the reference manifest's signature does not hold")) from None
    if isinstance(result, list) or result.signed_xml is None:
        raise rejected(Fault(Reason.SIGNATURE_INVALID, "the signature does not cover an XML document"))
    return result.signed_xml


def read_manifest(signed: etree._Element) -> ReferenceManifest:
    """Read a SWID tag. Malformed for anything but a primary tag with measurements."""
    if signed.tag != f"{{{SWID}}}SoftwareIdentity":
        raise Malformed("not a software identification tag")
    if any(signed.get(name, "false") != "false" for name in ("corpus", "patch", "supplemental")):
        raise Malformed("a reference manifest is not a patch, a supplement or a corpus")
    meta, payload = _only(signed, "Meta"), _only(signed, "Payload")
    product, edition = _attribute(meta, "product"), _attribute(meta, "edition")
    version = _attribute(meta, "colloquialVersion")
    if not VERSION.fullmatch(version) or edition not in ("GPU", "SWITCH"):
        raise Malformed("a reference manifest is for a version of something other than a GPU or a switch")
    is_vbios = VBIOS_VERSION.fullmatch(version.upper()) is not None
    return ReferenceManifest(
        tag=_attribute(signed, "tagId"),
        product=product,
        edition=edition,
        component=Component.VBIOS if is_vbios else Component.DRIVER,
        version=version.upper() if is_vbios else version,
        measurements=_measurements(payload),
    )


def _measurements(payload: etree._Element) -> Mapping[int, frozenset[bytes]]:
    active: dict[int, frozenset[bytes]] = {}
    seen: set[int] = set()
    for resource in payload:
        if resource.tag != f"{{{SWID}}}Resource" or resource.get("type") != "Measurement":
            raise Malformed("a reference manifest's payload has something other than measurements")
        index = _number(resource, "index", 254)
        state = _attribute(resource, "active")
        if index in seen or state not in ("True", "False"):
            raise Malformed("a measurement is repeated, or neither active nor inactive")
        seen.add(index)
        values = _values(resource)
        if state == "True":
            active[index + 1] = values
    if not active:
        raise Malformed("a reference manifest has no active measurement")
    return MappingProxyType(active)


def _values(resource: etree._Element) -> frozenset[bytes]:
    count = _number(resource, "alternatives", ALTERNATIVES)
    texts = [resource.get(f"{{{HASH}}}Hash{i}") for i in range(count)]
    named = sum(1 for name in resource.attrib if str(name).startswith(f"{{{HASH}}}Hash"))
    if count < 1 or named != count or _number(resource, "size", 48) != 48:
        raise Malformed("a measurement's alternatives are not as many as it says, or no SHA-384")
    if not all(text is not None and HEX48.fullmatch(text) for text in texts):
        raise Malformed("a measurement's value is not 96 hex digits")
    return frozenset(bytes.fromhex(text) for text in texts if text is not None)


def _shape(element: etree._Element) -> tuple[str, ...]:
    """The names of the children; Malformed for a comment or a name that is not XML-signature's."""
    prefix = f"{{{DSIG}}}"
    names = [str(child.tag) for child in element]
    if not all(name.startswith(prefix) for name in names):
        raise Malformed("the signature holds something that is not part of XML signatures")
    return tuple(name.removeprefix(prefix) for name in names)


def _content(element: etree._Element) -> bytes:
    """Decode an element's base64. A comment inside could hide half of it from one reader and not from another."""
    if len(element):
        raise Malformed("a base64 value is not plain text")
    return decode_base64((element.text or "").encode())


def _algorithm(element: etree._Element) -> str | None:
    """The algorithm of a childless element; None where it has parameters."""
    return None if len(element) else str(element.get("Algorithm"))


def _only(parent: etree._Element, name: str) -> etree._Element:
    found = parent.findall(f"{{{SWID}}}{name}")
    if len(found) != 1:
        raise Malformed(f"a reference manifest has exactly one {name}")
    return found[0]


def _attribute(element: etree._Element, name: str) -> str:
    value = element.get(name)
    if value is None or len(value) > 200:
        raise Malformed(f"a reference manifest lacks {name}, or it is too long")
    return str(value)


def _number(element: etree._Element, name: str, most: int) -> int:
    text = _attribute(element, name)
    if not re.fullmatch(r"[0-9]{1,4}", text) or int(text) > most:
        raise Malformed(f"a measurement's {name} is not a number up to {most}")
    return int(text)
