"""Fetch what endorses a GPU's or switch's evidence: reference manifests, and answers about revocation.

NVIDIA's RIM service gives a manifest in JSON, its OCSP service answers RFC 6960 over POST; both as NVIDIA's public
verifier asks them (github.com/NVIDIA/attestation-sdk). What comes back is checked like any other evidence when it is
used; here only its form counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from superswarm.attestation.certificates import Certificate
from superswarm.attestation.nvidia.chain import Chain, decode_base64, parse_pem_chain
from superswarm.attestation.nvidia.evidence import DeviceEvidence
from superswarm.attestation.nvidia.names import manifest_names
from superswarm.attestation.nvidia.revocation import parse_staple
from superswarm.attestation.nvidia.rim import find_signature, read_manifest, signer_chain
from superswarm.attestation.nvidia.spdm import parse_report
from superswarm.attestation.nvidia.verify import FIRST_ANSWERED
from superswarm.attestation.nvidia.xml import parse_xml
from superswarm.consortium.documents import load_json
from superswarm.errors import Malformed
from superswarm.io.collateral import Fetch, Response, fetch_https

RIM_SERVICE: Final = "https://rim.attestation.nvidia.com/v1/rim"
OCSP_SERVICE: Final = "https://ocsp.ndis.nvidia.com/"

Ask = Callable[[str, bytes], Response]


def fetch_device_collateral(
    evidence: DeviceEvidence, fetch: Fetch = fetch_https, ask: Ask = fetch_https
) -> dict[str, bytes]:
    """The manifests that a report needs, and an OCSP response for every certificate that NVIDIA answers for.

    By the file names under which `DeviceEvidence.from_files` takes them beside report and chain.
    """
    names = manifest_names(parse_report(evidence.report))
    manifests = {f"{name}.xml": _manifest(name, fetch) for name in names}
    signers = [signer_chain(find_signature(parse_xml(document))) for document in manifests.values()]
    chains = [parse_pem_chain(evidence.chain)[FIRST_ANSWERED:], *signers]
    wanted = {child.raw.serial_number: (child, issuer) for chain in chains for child, issuer in _pairs(chain)}
    answers = {f"ocsp-{serial:x}.der": _answer(*pair, ask) for serial, pair in wanted.items()}
    return manifests | answers


def _pairs(chain: Chain) -> Iterator[tuple[Certificate, Certificate]]:
    return pairwise(chain)


def _manifest(name: str, fetch: Fetch) -> bytes:
    answer = load_json(fetch(f"{RIM_SERVICE}/{name}").body, "answer of NVIDIA's RIM service")
    encoded = answer.get("rim")
    if not isinstance(encoded, str):
        raise Malformed(f"NVIDIA's answer holds no manifest {name}")
    document = decode_base64(encoded.encode())
    read_manifest(parse_xml(document))
    return document


def _answer(certificate: Certificate, issuer: Certificate, ask: Ask) -> bytes:
    # SHA-1 only names the certificate, and is the one hash that every responder must know (RFC 5019, section 2.1.1).
    builder = ocsp.OCSPRequestBuilder().add_certificate(certificate.raw, issuer.raw, SHA1())  # noqa: S303
    body = ask(OCSP_SERVICE, builder.build().public_bytes(Encoding.DER)).body
    parse_staple(body)
    return body
