"""Conformance cases of NVIDIA's kinds: a device's evidence, and a reference manifest alone."""

from __future__ import annotations

from collections.abc import Mapping

from superswarm.attestation import baseline
from superswarm.attestation.nvidia.binding import appraise_device
from superswarm.attestation.nvidia.evidence import DeviceEvidence, manifests_and_staples
from superswarm.attestation.nvidia.rim import verify_rim
from superswarm.attestation.nvidia.spdm import parse_report
from superswarm.errors import Malformed


def judge_device_case(files: Mapping[str, bytes], consents: frozenset[str], at: int) -> None:
    """A case of kind nvidia-gpu, for switches too: report.bin, chain.pem, manifests and staples.

    A case has no challenger, so the nonce that counts is the one inside the report.
    """
    evidence = DeviceEvidence.from_files(files)
    nonce = parse_report(evidence.report).nonce
    appraise_device(evidence, nonce, baseline.nvidia_policy(consents), at=at)


def judge_manifest_case(files: Mapping[str, bytes], consents: frozenset[str], at: int) -> None:
    """A case of kind nvidia-rim: manifests, and staples for their signers. No consent weakens a signature."""
    manifests, staples = manifests_and_staples(files)
    if not manifests:
        raise Malformed("the case has no manifest (*.xml or *.swidtag)")
    for manifest in manifests:
        verify_rim(manifest, at=at, staples=staples)
