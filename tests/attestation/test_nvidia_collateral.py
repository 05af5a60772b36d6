"""Collateral of a GPU is fetched by name and, stapled, answers everything that a strict policy asks."""

from __future__ import annotations

import base64
import dataclasses
import json

import pytest
from cryptography import x509
from cryptography.x509 import ocsp
from mint_nvidia import AT, Authority, pem
from nvidia_fixtures import NONCE, gpu, manifests, policy, refused, vendor

from superswarm.attestation.nvidia.binding import appraise_device
from superswarm.attestation.nvidia.evidence import DeviceEvidence
from superswarm.errors import Malformed, Unavailable
from superswarm.io.collateral import Response, windows
from superswarm.io.collateral_nvidia import OCSP_SERVICE, RIM_SERVICE, fetch_device_collateral

DRIVER_NAME, VBIOS_NAME = "NV_GPU_DRIVER_GH100_580.65.06", "NV_GPU_VBIOS_G520_0200_885_9600740020"


class Services:
    """NVIDIA's two services, as far as the minted vendor's devices need them."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.documents = dict(zip((DRIVER_NAME, VBIOS_NAME), manifests(), strict=True))

    def fetch(self, url: str) -> Response:
        name = url.removeprefix(f"{RIM_SERVICE}/")
        if name not in self.documents:
            raise Unavailable("no such manifest")
        rim = base64.b64encode(self.documents[name]).decode()
        return Response(json.dumps({"id": name, "rim": rim, "request_id": "1"}).encode(), {})

    def ask(self, url: str, request: bytes) -> Response:
        assert url == OCSP_SERVICE
        serial = ocsp.load_der_ocsp_request(request).serial_number
        self.asked.append(serial)
        certificate, issuer = known()[serial]
        return Response(vendor().ocsp(certificate, issuer), {})


def known() -> dict[int, tuple[x509.Certificate, Authority]]:
    """Certificates by serial number, each with its issuer."""
    v = vendor()
    pairs = [
        (gpu().chain[1], v.device_ca),
        (v.device_ca.certificate, v.identity),
        (v.identity.certificate, v.device_root),
        (v.signer.certificate, v.reference_ca),
        (v.reference_ca.certificate, v.reference_root),
    ]
    return {certificate.serial_number: (certificate, issuer) for certificate, issuer in pairs}


def bare() -> DeviceEvidence:
    return DeviceEvidence(report=gpu().attest(NONCE), chain=pem(gpu().chain))


def test_what_is_fetched_is_all_that_a_strict_policy_asks() -> None:
    services = Services()
    files = fetch_device_collateral(bare(), services.fetch, services.ask)
    assert sorted(services.asked) == sorted(known())  # each certificate once, the chip's own leaf never
    given = {"report.bin": bare().report, "chain.pem": bare().chain, **files}
    evidence = dataclasses.replace(DeviceEvidence.from_files(given), report=bare().report)
    strict = policy(revocation="required")
    assert appraise_device(evidence, NONCE, strict, at=AT, roots=vendor().roots).revocation_known
    without = dataclasses.replace(evidence, staples=evidence.staples[1:])
    assert refused(lambda: appraise_device(without, NONCE, strict, at=AT, roots=vendor().roots))


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"rim": 1}', b'{"rim": "*"}', b'{"rim": "PHgvPg=="}'])
def test_answers_that_hold_no_manifest_are_refused(body: bytes) -> None:
    with pytest.raises(Malformed):
        fetch_device_collateral(bare(), lambda _url: Response(body, {}), Services().ask)


def test_answers_that_are_no_ocsp_are_refused() -> None:
    with pytest.raises(Malformed):
        fetch_device_collateral(bare(), Services().fetch, lambda _url, _request: Response(b"<html>", {}))
    services = Services()
    services.documents.clear()
    with pytest.raises(Unavailable):
        fetch_device_collateral(bare(), services.fetch, services.ask)


def test_what_was_fetched_is_shown_with_its_window() -> None:
    services = Services()
    files = fetch_device_collateral(bare(), services.fetch, services.ask)
    shown = {name: state for name, _window, state in windows(files, AT)}
    assert set(shown.values()) == {"current"}
    assert {state for _name, _window, state in windows(files, AT + 400 * 86_400)} == {"expired"}
