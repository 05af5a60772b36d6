"""Every field of a device's evidence has a name, whether or not anything holds."""

from __future__ import annotations

import dataclasses

import pytest
from mint_nvidia import Vendor, pem, tcb_info
from nvidia_fixtures import NONCE, gpu, manifests, vendor

from superswarm.attestation.nvidia.evidence import DeviceEvidence
from superswarm.attestation.nvidia.show import device_rows
from superswarm.errors import Malformed


def shown(evidence: DeviceEvidence) -> dict[str, str]:
    found = list(device_rows(evidence))
    assert len(dict(found)) == len(found)  # no name twice
    return dict(found)


def test_a_device_is_shown_with_its_manifests_and_staples() -> None:
    crl, response = vendor().crl(vendor().device_ca), vendor().ocsp(gpu().chain[1], vendor().device_ca)
    rows = shown(vendor().evidence(gpu(), NONCE, manifests=manifests(), staples=(crl, response)))
    assert rows["device"] == "hopper, GH100, serial 48b02d0000000001"
    assert rows["nonce"] == NONCE.hex()
    assert rows["manifests-needed"] == "NV_GPU_DRIVER_GH100_580.65.06 NV_GPU_VBIOS_G520_0200_885_9600740020"
    assert rows["manifest-1 for"] == "vbios 96.00.74.00.20 of GH100 (GPU)"
    assert rows["manifest-1 active-measurements"].split() == [str(index) for index in range(1, 14)]
    assert rows["certificate-4"].startswith("Test Device Identity CA")
    assert rows["staple-0"].startswith("RevocationList")
    assert rows["staple-1"].startswith("OcspResponse")


def test_evidence_that_nobody_should_trust_is_shown_too() -> None:
    stranger = Vendor()
    debug = stranger.device("GB100", dice=tcb_info(flags=b"\x10"))
    assert shown(stranger.evidence(debug, NONCE))["certificate-flags"] == "3"
    unknown = stranger.device("XX900")
    assert shown(stranger.evidence(unknown, NONCE))["device"].startswith("not named: ")
    odd = dataclasses.replace(gpu(), opaque={6: b"\1" * 8, 3: b"<>"})
    assert shown(vendor().evidence(odd, NONCE))["manifests-needed"].startswith("cannot be told: ")


def test_what_does_not_parse_is_not_shown() -> None:
    good = DeviceEvidence(report=gpu().attest(NONCE), chain=pem(gpu().chain))
    for bad in (
        dataclasses.replace(good, report=b""),
        dataclasses.replace(good, chain=b""),
        dataclasses.replace(good, manifests=(b"<x/>",)),
        dataclasses.replace(good, staples=(b"x",)),
    ):
        with pytest.raises(Malformed):
            shown(bad)
