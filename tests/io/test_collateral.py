"""Collateral: what is asked of whom, what is kept, and that it then endorses the evidence it was fetched for."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote as percent

import pytest

from superswarm.attestation.evidence import Evidence
from superswarm.attestation.snp.report import Product, Tcb
from superswarm.attestation.tdx import collateral as tdx
from superswarm.cli import run
from superswarm.consortium.manifest import Platform
from superswarm.errors import Malformed, Misconfigured, Unavailable
from superswarm.io import collateral
from superswarm.io.collateral import INTEL_ROOT_CRL, KDS, PCS, Response, fetch_collateral, fetch_https, vcek_url
from superswarm.io.evidence import from_files, stapled
from tests.attestation.minting import machine
from tests.attestation.snp_mint import CHIP, Authority, report, sign
from tests.attestation.vectors import NEEDS_VECTORS, cases, files

PEM = "-----BEGIN CERTIFICATE-----\n"


class Service:
    """Vendors' services: answers by address, and a record of what was asked."""

    def __init__(self, answers: dict[str, Response]) -> None:
        self.answers, self.asked = answers, []

    def __call__(self, url: str) -> Response:
        self.asked.append(url)
        if url not in self.answers:
            raise Unavailable("nobody answers")
        return self.answers[url]


def pem(der: bytes) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)


def amd(authority: Authority, leaf: bytes, url: str) -> Service:
    kept = authority.endorsements(leaf)
    chain = pem(kept["ask.der"]) + pem(kept["ark.der"])
    base = f"{KDS}/vcek/v1/{authority.product.capitalize()}"
    return Service(
        {
            f"{base}/cert_chain": Response(chain, {}),
            f"{base}/crl": Response(authority.crl(), {}),
            url: Response(leaf, {}),
        }
    )


@pytest.mark.parametrize("product", list(Product))
def test_amds_service_is_asked_for_this_chip_at_this_tcb(product: Product, tmp_path: Path) -> None:
    authority = Authority(product)
    key, leaf = authority.endorse()
    data = sign(report(product), key)
    evidence = Evidence(Platform.SEV_SNP, data)
    query = {
        Product.MILAN: "blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219",
        Product.GENOA: "blSPL=10&teeSPL=00&snpSPL=23&ucodeSPL=84",
        Product.TURIN: "fmcSPL=01&blSPL=01&teeSPL=01&snpSPL=04&ucodeSPL=81",
    }[product]
    chip = CHIP[:8] if product is Product.TURIN else CHIP
    service = amd(authority, leaf, f"{KDS}/vcek/v1/{product.capitalize()}/{chip.hex()}?{query}")
    fetched = fetch_collateral(evidence, service)
    assert set(fetched) == {"ask.pem", "ark.pem", "ark.crl.der", "leaf.der"}
    # It endorses the evidence: laid beside the report, it is what `stapled` and `from_files` read.
    for name, content in fetched.items():
        (tmp_path / name).write_bytes(content)
    assert stapled(tmp_path, Platform.SEV_SNP) == fetched
    assert from_files({"report.bin": data, **fetched}).endorsement("leaf.der") == leaf  # type: ignore[union-attr]


def test_a_masked_chip_and_a_vlek_cannot_be_looked_up() -> None:
    with pytest.raises(Misconfigured, match="masks"):
        vcek_url(Product.GENOA, bytes(64), Tcb(bytes(8)))


def test_what_amd_answers_must_be_what_was_asked() -> None:
    authority = Authority()
    key, leaf = authority.endorse()
    evidence = Evidence(Platform.SEV_SNP, sign(report(), key))
    service = amd(authority, leaf, vcek_url(Product.GENOA, CHIP, Tcb(bytes.fromhex("0a00000000001754"))))
    for url in list(service.answers):
        broken = Service({**service.answers, url: Response(b"<html>busy</html>", {})})
        with pytest.raises(Malformed):
            fetch_collateral(evidence, broken)
        gone = Service({u: a for u, a in service.answers.items() if u != url})
        with pytest.raises(Unavailable):
            fetch_collateral(evidence, gone)


def test_simulated_evidence_has_no_vendor() -> None:
    with pytest.raises(Misconfigured):
        fetch_collateral(machine("alice").attest(bytes(64)))


@pytest.mark.parametrize("url", ["http://kdsintf.amd.com/", "file:///etc/passwd"])
def test_only_https_is_asked(url: str) -> None:
    with pytest.raises(Misconfigured):
        fetch_https(url)


def test_a_service_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1"):
        fetch_https("https://127.0.0.1:9/")


# --- Intel, from real collateral ---------------------------------------------------------------------------------


def intel(kept: dict[str, bytes], fmspc: str, authority: str) -> Service:
    """Intel's service as it would have answered when this collateral was fetched."""

    def signed(name: str, document: bytes, signature: bytes) -> bytes:
        return b'{"%b":%b,"signature":"%b"}' % (name.encode(), document, signature.hex().encode())

    def chain(name: str, of: str) -> dict[str, str]:
        return {name: percent(kept[of].decode())}

    return Service(
        {
            f"{PCS}/tdx/certification/v4/tcb?fmspc={fmspc}": Response(
                signed("tcbInfo", kept[tdx.TCB_INFO], kept[tdx.TCB_SIGNATURE]),
                chain("tcb-info-issuer-chain", tdx.TCB_CHAIN),
            ),
            f"{PCS}/tdx/certification/v4/qe/identity": Response(
                signed("enclaveIdentity", kept[tdx.QE_IDENTITY], kept[tdx.QE_SIGNATURE]),
                chain("sgx-enclave-identity-issuer-chain", tdx.QE_CHAIN),
            ),
            f"{PCS}/sgx/certification/v4/pckcrl?ca={authority}&encoding=der": Response(
                kept[tdx.PCK_CRL], chain("sgx-pck-crl-issuer-chain", tdx.PCK_CRL_CHAIN)
            ),
            INTEL_ROOT_CRL: Response(kept[tdx.ROOT_CRL], {}),
        }
    )


@NEEDS_VECTORS
@pytest.mark.parametrize("case", cases("tdx"), ids=lambda case: case.name)
def test_intels_service_is_asked_for_this_platform(case: Path) -> None:
    given = files(case)
    kept = tdx.parse_collateral(given["collateral.json"])
    fmspc = json.loads((case / "case.json").read_text())["fmspc"]
    service = intel(kept, fmspc, "platform")
    fetched = fetch_collateral(Evidence(Platform.TDX, given["quote.bin"]), service)
    assert tdx.parse_collateral(fetched["collateral.json"]) == kept
    for url in service.answers:
        answers = {**service.answers, url: Response(b"busy", {})}
        if url != INTEL_ROOT_CRL and "pckcrl" not in url:
            with pytest.raises(Malformed):
                fetch_collateral(Evidence(Platform.TDX, given["quote.bin"]), Service(answers))


# --- the command -------------------------------------------------------------------------------------------------


def test_the_command_fills_a_folder_and_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    authority = Authority()
    key, leaf = authority.endorse()
    path = tmp_path / "report.bin"
    path.write_bytes(sign(report(), key))
    service = amd(authority, leaf, vcek_url(Product.GENOA, CHIP, Tcb(bytes.fromhex("0a00000000001754"))))
    monkeypatch.setattr(collateral.fetch_collateral, "__defaults__", (service,))
    folder = tmp_path / "collateral"
    assert run(["collateral", "fetch", str(path), "--to", str(folder)]) == 0
    assert sorted(entry.name for entry in folder.iterdir()) == ["ark.crl.der", "ark.pem", "ask.pem", "leaf.der"]
    capsys.readouterr()
    assert run(["collateral", "show", str(folder), "--at", "2026-03-01"]) == 0
    assert "current" in capsys.readouterr().out
    assert run(["collateral", "show", str(folder), "--at", "2046-03-01"]) == 0
    assert "expired" in capsys.readouterr().out
    assert run(["collateral", "show", str(tmp_path / "nothing")]) == 2
