"""Mints simulated evidence that is right, and wrong in one thing each."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from typing import Any

from cryptography import x509

from superswarm.attestation import simulated_pki as pki
from superswarm.attestation.evidence import Evidence
from superswarm.attestation.simulated import DevelopmentAuthority, SimulatedPlatform, SimulatedTee
from superswarm.attestation.simulated_quote import QuotingEnclave, SimulatedBody
from superswarm.attestation.tdx.chains import Chains, load_chains
from superswarm.attestation.verify import TrustRoots, VerifiedReport, verify
from superswarm.consortium.manifest import Platform
from superswarm.values import Measurement

NOW = 1_795_348_800  # 2026-11-22 12:00 UTC
DAY = 86_400
DAYS = 30
CODE = Measurement(hashlib.sha384(b"code").digest())


@dataclass(frozen=True)
class Machine:
    """A development authority and one machine of it, whose evidence can be wrong in any one thing."""

    authority: DevelopmentAuthority
    platform: SimulatedPlatform

    @property
    def trust(self) -> TrustRoots:
        return TrustRoots(frozenset({self.authority.spki_digest}))

    @property
    def leaf(self) -> x509.Certificate:
        return x509.load_pem_x509_certificates(self.platform.chain)[0]

    def chains(self) -> Chains:
        return load_chains(self.platform.chain, dict(self.platform.endorsements))

    def endorse(self, **other: Any) -> dict[str, bytes]:
        """Collateral as issued, except for tcb_info, qe_identity, root_crl or pck_crl given here."""
        parts: dict[str, Any] = {
            "tcb_info": pki.tcb_info(at=NOW, days=DAYS),
            "qe_identity": pki.qe_identity(at=NOW, days=DAYS),
            "root_crl": self.authority.root.revoke((), at=NOW, days=DAYS),
            "pck_crl": self.authority.platforms.revoke((), at=NOW, days=DAYS),
        }
        return dict(self.authority.endorse(**(parts | other)))

    def evidence(
        self,
        *,
        report_data: bytes = bytes(64),
        measurement: Measurement = CODE,
        endorsements: dict[str, bytes] | None = None,
        enclave: QuotingEnclave | None = None,
        **body: bytes,
    ) -> Evidence:
        enclave = enclave or QuotingEnclave.start(self.platform.key, self.platform.chain)
        quote = enclave.quote(SimulatedBody(mr_td=measurement.raw, report_data=report_data, **body))
        stapled = dict(self.platform.endorsements) if endorsements is None else endorsements
        return Evidence(Platform.SIMULATED, quote, tuple(sorted(stapled.items())))

    def altered(self, **endorsements: bytes) -> Evidence:
        """Evidence with single endorsements replaced, under whatever signature they had."""
        return self.evidence(endorsements=dict(self.platform.endorsements) | endorsements)

    def attest(self, report_data: bytes, measurement: Measurement = CODE) -> Evidence:
        return SimulatedTee(self.platform, measurement).attest(report_data)

    def verify(self, evidence: Evidence, at: int = NOW) -> VerifiedReport:
        return verify(evidence, self.trust, at)


@cache
def machine(_name: str) -> Machine:
    """The same machine for the same name."""
    authority = DevelopmentAuthority.create(at=NOW)
    return Machine(authority, authority.issue(at=NOW, valid_days=DAYS))


def flip(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
