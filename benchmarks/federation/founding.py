"""Found a consortium for a benchmark with the library: what members would type takes a minute."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from participants.supernode import enroll
from superswarm.attestation.measure import measure_packages
from superswarm.attestation.simulated import DevelopmentAuthority
from superswarm.consortium.approval import ApprovedManifest, SignedManifest, approve, chain_to_bytes, sign_manifest
from superswarm.consortium.grant import RunGrant, SignedGrant, sign_grant
from superswarm.consortium.manifest import Manifest
from superswarm.demo.stage import Stage
from superswarm.io.keystore import MemberKeys, save_keys, save_pairing
from superswarm.values import Digest, MemberId

OPERATOR = "operator"
ATTEMPTS = 1000  # every repetition is an attempt at the one granted run
CLAUSES = (
    *("members", "coordinator", "workloads", "assets", "jobs", "aggregation", "protection", "privacy"),
    *("metrics", "result", "quorum", "run", "aggregator"),
)


@dataclass(frozen=True, slots=True)
class Founded:
    """A consortium whose members signed one manifest, and one grant for many attempts."""

    manifest: ApprovedManifest
    chain: Path
    signed: SignedGrant
    grant: Path
    members: tuple[str, ...]


def found(stage: Stage, members: Sequence[str], model: Digest, tables: Mapping[str, Any]) -> Founded:
    """Write everybody's files into the stage's folders."""
    at = int(time.time()) - 600
    keys = {name: MemberKeys.generate(name) for name in members}
    authorities = {name: DevelopmentAuthority.create(at=at) for name in (*members, OPERATOR)}
    for name in members:
        _write_member(stage, name, keys[name], authorities[name], at)
    credentials = authorities[OPERATOR].issue(at=at, valid_days=2).to_bytes()
    (stage.home(OPERATOR) / "platform").write_bytes(credentials)
    manifest = Manifest.from_data(_manifest(keys, authorities, model, tables))
    signed = SignedManifest(manifest, {MemberId(n): sign_manifest(keys[n].signing, manifest) for n in members})
    approved = approve([signed])
    allowed = RunGrant(
        manifest=approved.digest,
        epoch=1,
        run="overhead",
        job=manifest.jobs[0].name,
        rounds=manifest.jobs[0].rounds,
        attempts=ATTEMPTS,
        not_after=int(time.time()) + 86_400,
    )
    grant = SignedGrant(
        allowed, {MemberId(n): sign_grant(keys[n].signing, allowed, approved.domain) for n in members}
    )
    chain, file = stage.home("shared") / "consortium.json", stage.home("shared") / "grant.json"
    chain.write_bytes(chain_to_bytes([signed]))
    file.write_bytes(grant.to_bytes())
    return Founded(approved, chain, grant, file, tuple(members))


def _write_member(stage: Stage, name: str, keys: MemberKeys, authority: DevelopmentAuthority, at: int) -> None:
    home, tee = stage.home(name), stage.home(f"{name}-tee")
    save_keys(home / "keys", keys, stage.environment(name)["SUPERSWARM_PASSPHRASE"])
    save_pairing(tee / "pairing", keys.pairing)
    (tee / "platform").write_bytes(authority.issue(at=at, valid_days=2).to_bytes())
    for folder in (home, tee):
        enroll(folder / "supernode.key")


def _manifest(
    keys: Mapping[str, MemberKeys],
    authorities: Mapping[str, DevelopmentAuthority],
    model: Digest,
    tables: Mapping[str, Any],
) -> dict[str, Any]:
    code = {"platforms": ["simulated"], "measurements": [str(measure_packages())]}
    members = [
        {
            "id": name,
            "name": name.capitalize(),
            "contributes": ["data"],
            "signing_key": str(own.signing.public),
            "encryption_key": str(own.kem.public),
            "development_authority": str(authorities[name].spki_digest),
        }
        for name, own in keys.items()
    ]
    coordinator = {"name": "Operator", "development_authority": str(authorities[OPERATOR].spki_digest)}
    base = {"name": "base", "kind": "model", "owner": "public", "digest": str(model), "source": "a benchmark"}
    return {
        "format": "superswarm-manifest/1",
        "consortium": "0123456789abcdef" * 2,
        "name": "A benchmark",
        "epoch": 1,
        "attestation": "simulated",
        "members": members,
        "coordinator": coordinator,
        "workloads": {"trainer": code, "aggregator": code},
        "assets": [base],
        "protection": {"mode": "attested"},
        "privacy": {"mechanism": "none"},
        "result": {"recipients": list(keys)},
        "quorum": dict.fromkeys(CLAUSES, len(keys) // 2 + 1),
        **tables,
        "aggregation": {**tables["aggregation"], "minimum_cohort": len(keys)},
    }
