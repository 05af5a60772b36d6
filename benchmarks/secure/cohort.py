"""A consortium in memory whose trainers judged each other and share secrets, ready for secure sums.

Everything is what a deployment does, by the same code: a manifest that all members sign, evidence (simulated) and a
vouch for each trainer, judged before its keys are relied on, and the making of links. One thing is done once where a
deployment repeats it: each trainer's evidence is judged once for all who rely on it, since their verdicts are the
same function of the same bytes.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Final

from benchmarks.secure.draws import CLIP_NORM
from superswarm.attestation.appraise import TrainerKey
from superswarm.attestation.evidence import NONCE_BYTES, Evidence, SessionKeys, combine_nonces
from superswarm.attestation.handshake import Attempt
from superswarm.attestation.peers import Dossier, judge_peer
from superswarm.attestation.simulated import DevelopmentAuthority, SimulatedTee
from superswarm.consortium.approval import ApprovedManifest, SignedManifest, approve, sign_manifest
from superswarm.consortium.manifest import Manifest
from superswarm.consortium.vouch import sign_vouch
from superswarm.crypto.hpke import KemKey
from superswarm.crypto.signing import SigningKey
from superswarm.updates.secure.links import Acquaintance, Standing, needed, pass_on
from superswarm.updates.secure.roster import Roster, Terms, accept_roster
from superswarm.values import Digest, Measurement, MemberId, Role

CODE: Final = Measurement(bytes(range(48)))
ENCODING: Final = {"clip_norm": CLIP_NORM, "payload_bits": 12}
AGE: Final = 600  # seconds, of a development authority
CLAUSES: Final = (
    *("members", "coordinator", "workloads", "assets", "jobs", "aggregation", "protection", "privacy"),
    *("metrics", "result", "quorum", "run", "aggregator"),
)


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What a manifest of n members tolerates here: a share of them collude, a share of them (at least one) vanish."""

    colluders: int
    threshold: int
    dropouts: int

    @classmethod
    def of(cls, members: int, colluding: float = 0.1, vanishing: float = 0.1) -> Tolerance:
        colluders = int(members * colluding)
        threshold = (members + colluders) // 2 + 1
        return cls(colluders, threshold, min(max(1, int(members * vanishing)), members - threshold))


def masked_protection(allowed: Tolerance) -> dict[str, Any]:
    return {"mode": "masked", "encoding": ENCODING, "masking": asdict(allowed)}


def he_protection(allowed: Tolerance, scheme: str, holders: int) -> dict[str, Any]:
    """Fewer may vanish than hold the key, or nobody might be left to decrypt."""
    agreement = asdict(allowed) | {"dropouts": min(allowed.dropouts, holders - 1)}
    homomorphic = {"scheme": scheme, "key_holders": holders, **agreement}
    return {"mode": "he", "encoding": ENCODING, "homomorphic": homomorphic}


@dataclass(frozen=True, slots=True)
class Session:
    """One trainer's keys of this attempt."""

    kem: KemKey = field(repr=False)
    signing: SigningKey = field(repr=False)
    public: SessionKeys


@dataclass(frozen=True, slots=True)
class Founder:
    """A member's own keys, and what plays the vendor of its machine."""

    signing: SigningKey = field(repr=False)
    kem: KemKey = field(repr=False)
    authority: DevelopmentAuthority = field(repr=False)

    @classmethod
    def of(cls) -> Founder:
        return cls(SigningKey.generate(), KemKey.generate(), DevelopmentAuthority.create(at=_now() - AGE))


class Cohort:
    """Members m0000, m0001, …, acquainted with each other."""

    def __init__(self, members: int, protection: Mapping[str, Any]) -> None:
        self.manifest, founders = _found(members, protection)
        self.attempt = Attempt(manifest=self.manifest, run="benchmark", number=1)
        self.names = self.manifest.manifest.trainers
        self.sessions = {name: _session() for name in self.names}
        self._judged: dict[MemberId, TrainerKey] = {
            name: judge_peer(self.attempt, self._dossier(name, founder), _now()) for name, founder in founders.items()
        }
        keys = {name: session.public for name, session in self.sessions.items()}
        self.terms: Terms = accept_roster(Roster.of(self.attempt, 1, keys), self.attempt)
        self.standings = self._acquaint()

    @cached_property
    def verifying_keys(self) -> dict[MemberId, Any]:
        """What the aggregator checks witnesses' signatures with."""
        return {name: session.public.signing for name, session in self.sessions.items()}

    def _dossier(self, name: MemberId, founder: Founder) -> Dossier:
        """What the aggregator passes on of its handshake with this member's trainer."""
        tee = SimulatedTee(founder.authority.issue(at=_now(), valid_days=2), CODE)
        keys, nonces = (
            self.sessions[name].public,
            (secrets.token_bytes(NONCE_BYTES), secrets.token_bytes(NONCE_BYTES)),
        )
        combined = combine_nonces(list(nonces))
        binding = self.attempt.binding(Role.TRAINER, name, keys, combined, Evidence(tee.platform, b""))
        vouch = self.attempt.vouch(Role.TRAINER, name, name, keys.digest, combined, _now())
        return Dossier(
            member=name,
            keys=keys.to_bytes(),
            nonces=nonces,
            evidence=tee.attest(binding.report_data()).to_bytes(),
            vouch=sign_vouch(founder.signing, vouch, self.manifest.domain),
        )

    def _acquaint(self) -> dict[MemberId, Standing]:
        graph = self.terms.graph
        sides = {name: self._acquaintance(name) for name in self.names}
        said = {name: side.introduce() for name, side in sides.items()}
        return {name: side.acquaint(pass_on(graph, said, name)) for name, side in sides.items()}

    def _acquaintance(self, name: MemberId) -> Acquaintance:
        peers = {other: self._judged[other] for other in needed(self.terms.graph, name)}
        session = self.sessions[name]
        return Acquaintance(self.terms, name, session.kem, session.signing, peers)


def _session() -> Session:
    kem, signing = KemKey.generate(), SigningKey.generate()
    return Session(kem, signing, SessionKeys(kem=kem.public, signing=signing.public))


def _now() -> int:
    return int(time.time())


def _found(members: int, protection: Mapping[str, Any]) -> tuple[ApprovedManifest, dict[MemberId, Founder]]:
    founders = {MemberId(f"m{number:04}"): Founder.of() for number in range(members)}
    manifest = Manifest.from_data(_manifest(founders, protection))
    signatures = {name: sign_manifest(founder.signing, manifest) for name, founder in founders.items()}
    return approve([SignedManifest(manifest, signatures)]), founders


def _manifest(founders: Mapping[MemberId, Founder], protection: Mapping[str, Any]) -> dict[str, Any]:
    code = {"platforms": ["simulated"], "measurements": [str(CODE)]}
    members = [
        {
            "id": name,
            "name": name,
            "contributes": ["data"],
            "signing_key": str(founder.signing.public),
            "encryption_key": str(founder.kem.public),
            "development_authority": str(founder.authority.spki_digest),
        }
        for name, founder in founders.items()
    ]
    operator = str(DevelopmentAuthority.create(at=_now() - AGE).spki_digest)
    base = {"name": "base", "kind": "model", "owner": "public", "digest": str(Digest.of(b"none")), "source": "none"}
    agreement = protection.get("masking") or protection["homomorphic"]
    return {
        "format": "superswarm-manifest/1",
        "consortium": "0123456789abcdef" * 2,
        "name": "A benchmark",
        "epoch": 1,
        "attestation": "simulated",
        "members": members,
        "coordinator": {"name": "Operator", "development_authority": operator},
        "workloads": {"trainer": code, "aggregator": code},
        "assets": [base],
        "jobs": [JOB],
        "aggregation": {
            "rule": "fedavg",
            "weighting": "equal",
            "minimum_cohort": agreement["threshold"],
            "round_seconds": 600,
        },
        "protection": dict(protection),
        "privacy": {"mechanism": "none"},
        "metrics": {"release": [], "to": []},
        "result": {"recipients": list(founders)[:1]},
        "quorum": dict.fromkeys(CLAUSES, len(founders) // 2 + 1),
    }


JOB: Final[dict[str, Any]] = {
    "name": "sums",
    "base_model": "base",
    "rounds": 100,
    "seed": 7,
    "lora": {"rank": 4, "alpha": 8.0, "target_modules": ["q_proj"]},
    "training": {"local_steps": 1, "batch_size": 1, "learning_rate": 0.001, "max_length": 64},
}
