"""Fetch what endorses evidence from its vendor: certificates, revocation lists, TCB info. The only network use of
attestation, and never at judging.

AMD: key distribution service (57230). Intel: provisioning certification service, API version 4. What comes back is
checked like any other evidence when it is used; here only its form counts.
"""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.message import Message
from typing import IO, Final
from urllib.parse import unquote, urlencode

from superswarm.attestation.certificates import load_certificate, load_chain, load_crl, utc
from superswarm.attestation.evidence import Evidence
from superswarm.attestation.nvidia.revocation import parse_staple, window_of
from superswarm.attestation.nvidia.rim import find_signature, signer_chain
from superswarm.attestation.nvidia.xml import parse_xml
from superswarm.attestation.snp.chain import LEAVES
from superswarm.attestation.snp.report import KeyKind, Product, Report, Tcb, parse_report
from superswarm.attestation.snp.vek import parse_vek
from superswarm.attestation.tdx import collateral as tdx
from superswarm.attestation.tdx.quote import TdxQuote, parse_quote, without_padding
from superswarm.attestation.vtpm.evidence import parse_evidence
from superswarm.consortium.manifest import Platform
from superswarm.errors import Malformed, Misconfigured, TooLarge, Unavailable
from superswarm.values import LIMITS

KDS: Final = "https://kdsintf.amd.com"
PCS: Final = "https://api.trustedservices.intel.com"
INTEL_ROOT_CRL: Final = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"
SECONDS: Final = 30
COLLATERAL: Final = "collateral.json"
FMSPC: Final = re.compile(rb"\x06\x0a\x2a\x86\x48\x86\xf8\x4d\x01\x0d\x01\x04\x04\x06(.{6})", re.DOTALL)
SIGNED: Final = re.compile(
    rb'\s*\{\s*"(\w+)"\s*:\s*(\{.*\})\s*,\s*"signature"\s*:\s*"([0-9a-fA-F]{128})"\s*\}\s*', re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Response:
    """What a vendor's service answered."""

    body: bytes
    headers: Mapping[str, str]


Fetch = Callable[[str], Response]


def fetch_https(url: str, ocsp_request: bytes | None = None) -> Response:
    """GET over TLS, or POST of an OCSP request; no redirects. Raises Unavailable, or TooLarge over the limit."""
    headers = {"User-Agent": "superswarm"}
    if ocsp_request is not None:
        headers |= {"Content-Type": "application/ocsp-request", "Accept": "application/ocsp-response"}
    request = urllib.request.Request(url, ocsp_request, headers)  # noqa: S310 - https alone, see below
    if request.type != "https":
        raise Misconfigured("collateral is fetched over https only")
    opener = urllib.request.build_opener(_NoRedirects)
    try:
        with opener.open(request, timeout=SECONDS) as answer:
            body = answer.read(LIMITS.evidence_bytes + 1)
            headers = {name.lower(): value for name, value in answer.headers.items()}
    except urllib.error.HTTPError as error:
        raise Unavailable(f"{_host(url)} answered {error.code}: try again later, or check what was asked") from None
    except (urllib.error.URLError, OSError, ValueError):
        raise Unavailable(f"{_host(url)} does not answer") from None
    if len(body) > LIMITS.evidence_bytes:
        raise TooLarge(f"{_host(url)} answered with more than {LIMITS.evidence_bytes} bytes")
    return Response(body, headers)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        """A vendor's service has one address."""


def fetch_collateral(evidence: Evidence, fetch: Fetch = fetch_https) -> dict[str, bytes]:
    """What this evidence lacks, by the file names under which it is kept beside it."""
    match evidence.platform:
        case Platform.SEV_SNP:
            return _amd(parse_report(evidence.quote), dict(evidence.endorsements), fetch)
        case Platform.TDX:
            return _intel(parse_quote(without_padding(evidence.quote)), fetch)
        case Platform.AZURE_VTPM:
            inner = parse_evidence(evidence.quote)
            if inner.td_quote is not None:
                return _intel(parse_quote(without_padding(inner.td_quote)), fetch)
            return _amd(parse_report(inner.hcl.hardware), inner.endorsements, fetch)
        case Platform.SIMULATED:
            raise Misconfigured("simulated evidence has no vendor to fetch from")


# --- AMD ---------------------------------------------------------------------------------------------------------


def _amd(report: Report, endorsements: Mapping[str, bytes], fetch: Fetch) -> dict[str, bytes]:
    leaf = next((endorsements[name] for name in LEAVES if name in endorsements), None)
    product = report.product
    if product is None and leaf is not None:
        product = parse_vek(load_certificate(leaf)).product
    if product is None:
        raise Misconfigured("the report does not name its product: put its VCEK certificate beside it")
    vlek = report.signing_key is KeyKind.VLEK
    base = f"{KDS}/{'vlek' if vlek else 'vcek'}/v1/{product.capitalize()}"
    files = _amd_chain(fetch(f"{base}/cert_chain").body)
    files["ark.crl.der"] = fetch(f"{base}/crl").body
    load_crl(files["ark.crl.der"], "AMD's CRL")
    if not vlek:
        files["leaf.der"] = fetch(vcek_url(product, report.chip_id, report.reported_tcb)).body
        load_certificate(files["leaf.der"], "AMD's VCEK certificate")
    elif leaf is None:
        raise Misconfigured("a VLEK's certificate comes from the cloud provider, with the evidence: it lacks it")
    return files


def vcek_url(product: Product, chip: bytes, tcb: Tcb) -> str:
    """Where AMD keeps the VCEK of one chip at one TCB (57230, section 4.1)."""
    if not any(chip):
        raise Misconfigured("the host masks which chip this is, so its VCEK certificate cannot be looked up")
    names = {"bootloader": "blSPL", "tee": "teeSPL", "snp": "snpSPL", "microcode": "ucodeSPL", "fmc": "fmcSPL"}
    query = urlencode({names[part]: f"{value:02}" for part, value in tcb.parts(product).items()})
    chip = chip[:8] if product is Product.TURIN else chip
    return f"{KDS}/vcek/v1/{product.capitalize()}/{chip.hex()}?{query}"


def _amd_chain(pem: bytes) -> dict[str, bytes]:
    """KDS answers with the signer first, then the root."""
    if len(load_chain(pem, "AMD's certificate chain")) != 2:
        raise Malformed("AMD's certificate chain does not have two certificates")
    first, second = pem.split(b"-----BEGIN CERTIFICATE-----")[1:]
    begin = b"-----BEGIN CERTIFICATE-----"
    return {"ask.pem": begin + first, "ark.pem": begin + second}


# --- Intel -------------------------------------------------------------------------------------------------------


def _intel(quote: TdxQuote, fetch: Fetch) -> dict[str, bytes]:
    leaf = load_chain(quote.pck_chain, "the quote's PCK chain")[0]
    found = FMSPC.search(b"".join(leaf.extensions.values()))
    if found is None:
        raise Malformed("the quote's PCK certificate does not say its FMSPC")
    issuer = "platform" if b"Platform" in leaf.raw.issuer.rfc4514_string().encode() else "processor"
    tcb = fetch(f"{PCS}/tdx/certification/v4/tcb?fmspc={found[1].hex().upper()}")
    qe = fetch(f"{PCS}/tdx/certification/v4/qe/identity")
    crl = fetch(f"{PCS}/sgx/certification/v4/pckcrl?ca={issuer}&encoding=der")
    tcb_info, tcb_signature = _signed(tcb.body, "tcbInfo")
    qe_identity, qe_signature = _signed(qe.body, "enclaveIdentity")
    endorsements = {
        tdx.TCB_INFO: tcb_info,
        tdx.TCB_SIGNATURE: tcb_signature,
        tdx.TCB_CHAIN: _header(tcb, "tcb-info-issuer-chain"),
        tdx.QE_IDENTITY: qe_identity,
        tdx.QE_SIGNATURE: qe_signature,
        tdx.QE_CHAIN: _header(qe, "sgx-enclave-identity-issuer-chain"),
        tdx.PCK_CRL: crl.body,
        tdx.PCK_CRL_CHAIN: _header(crl, "sgx-pck-crl-issuer-chain"),
        tdx.ROOT_CRL: fetch(INTEL_ROOT_CRL).body,
    }
    return {COLLATERAL: tdx.dump_collateral(endorsements)}


def _signed(body: bytes, name: str) -> tuple[bytes, bytes]:
    """The document exactly as signed, and its signature."""
    match = SIGNED.fullmatch(body)
    if match is None or match[1].decode() != name:
        raise Malformed(f"Intel's answer is not a signed {name}")
    return match[2], bytes.fromhex(match[3].decode())


def _header(response: Response, name: str) -> bytes:
    value = response.headers.get(name)
    if value is None:
        raise Malformed(f"Intel's answer lacks the header {name}")
    return unquote(value).encode()


# --- for people --------------------------------------------------------------------------------------------------


def windows(files: Mapping[str, bytes], at: int) -> list[tuple[str, str, str]]:
    """Each piece: file, from when to when it is good, and whether it is at this time."""
    rows = []
    for name, data in sorted(_pieces(files).items()):
        try:
            begins, ends = _window(name, data)
        except Malformed:
            rows.append((name, f"{len(data)} bytes", ""))
            continue
        state = "not yet" if at < begins else "expired" if ends is not None and at > ends else "current"
        rows.append((name, f"{utc(begins)} to {'unstated' if ends is None else utc(ends)}", state))
    return rows


def _pieces(files: Mapping[str, bytes]) -> dict[str, bytes]:
    pieces = {name: data for name, data in files.items() if name != COLLATERAL}
    return pieces | (tdx.parse_collateral(files[COLLATERAL]) if COLLATERAL in files else {})


def _window(name: str, data: bytes) -> tuple[int, int | None]:
    if name in (tdx.TCB_INFO, tdx.QE_IDENTITY):
        return tdx.window(data)
    if ".crl" in name or name.endswith("_crl"):
        crl = load_crl(data)
        return crl.this_update, crl.next_update
    if name.startswith("ocsp-"):
        return window_of(parse_staple(data))
    if name.endswith(("chain", ".xml", ".swidtag")):
        chain = load_chain(data) if name.endswith("chain") else signer_chain(find_signature(parse_xml(data)))
        return max(one.begins for one in chain), min(one.ends for one in chain)
    certificate = load_certificate(data)
    return certificate.begins, certificate.ends


def _host(url: str) -> str:
    return url.split("/")[2]
