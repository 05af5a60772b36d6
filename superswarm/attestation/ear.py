"""The result of an appraisal as an EAT Attestation Result (draft-ietf-rats-ear-04), with an AR4SI trust vector.

Unsigned: it tells people and scripts what this verifier found. No program of superswarm trusts one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from superswarm import __version__
from superswarm.attestation.reasons import Actor, Claim, Fault

PROFILE = "tag:ietf.org,2026:rats/ear#04"
CRYPTOGRAPHY_FAILED = 99
AFFIRMED = {
    Claim.INSTANCE: 2,  # recognised, and not known to be compromised
    Claim.CONFIGURATION: 2,  # a known and approved configuration
    Claim.EXECUTABLES: 3,  # approved executables were loaded at boot; what ran since, hardware does not say
    Claim.HARDWARE: 2,  # genuine, and as the policy asks
}
SEVERITY = ("none", "affirming", "warning", "contraindicated")


@dataclass(frozen=True, slots=True)
class Appraisal:
    """What came out for one part of a machine: no faults means accepted."""

    name: str  # "cpu", "gpu0"
    faults: tuple[Fault, ...] = ()
    judged: bool = True  # false: verification failed first, so nothing but its faults is known

    @property
    def vector(self) -> dict[Claim, int]:
        """A value for each claim: the worst of its faults; otherwise affirmed, or 0 where nothing is known."""
        known = self.judged and all(fault.reason.advice.value != CRYPTOGRAPHY_FAILED for fault in self.faults)
        vector = dict(AFFIRMED) if known else dict.fromkeys(AFFIRMED, 0)
        for fault in self.faults:
            advice = fault.reason.advice
            worst = vector[advice.claim] if vector[advice.claim] > max(AFFIRMED.values()) else 0
            vector[advice.claim] = max(worst, advice.value)
        return vector

    @property
    def status(self) -> str:
        """The worst tier of the vector."""
        return max((tier(value) for value in self.vector.values()), key=SEVERITY.index)

    def claims(self) -> dict[str, Any]:
        """This part's entry among the submodules of an EAR."""
        return {
            "ear_status": self.status,
            "ear_trustworthiness_vector": {str(claim): value for claim, value in self.vector.items()},
            "ear_verifier_claims": {
                "faults": [
                    {
                        "reason": str(fault.reason),
                        "claim": str(fault.reason.advice.claim),
                        "found": fault.message,
                        "actor": str(fault.reason.advice.actor),
                        "action": fault.reason.advice.action,
                    }
                    for fault in self.faults
                ]
            },
        }


def tier(value: int) -> str:
    """The trust tier of an AR4SI value."""
    if value >= 96:
        return "contraindicated"
    if value >= 32:
        return "warning"
    return "affirming" if value >= 2 else "none"


def ear(appraisals: Iterable[Appraisal], at: int) -> dict[str, Any]:
    """The claims-set of an EAR. `iat` is the time that the evidence was judged by."""
    parts = list(appraisals)
    return {
        "eat_profile": PROFILE,
        "iat": at,
        "ear_verifier_id": {"developer": "superswarm", "build": __version__},
        "ear_status": max((part.status for part in parts), key=SEVERITY.index, default="none"),
        "submods": {part.name: part.claims() for part in parts},
    }


def exit_code(appraisals: Iterable[Appraisal]) -> int:
    """0 where all is accepted; 5 where every fault is the machine's to mend; 4 where the consortium must act."""
    actors = {fault.reason.advice.actor for part in appraisals for fault in part.faults}
    if not actors:
        return 0
    return 5 if actors <= {Actor.ATTESTER, Actor.VERIFIER} else 4
