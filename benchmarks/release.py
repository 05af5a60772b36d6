"""Claim: an owner's broker releases a key with under 1 s of its own work at the 95th percentile.

    python -m benchmarks.release [RELEASES]

Each release is a challenge and a request of a fresh session of one member's trainer: the broker verifies and
appraises evidence, checks vouch and grant, writes its log to disk, and seals the key. Measured are processor seconds
and elapsed seconds of these two calls, in one process and over gRPC (mutual TLS, loopback); what the trainer does
between them is not. Evidence is simulated: in the form of TDX, and through the verifier of real evidence.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.record import record
from participants.broker.client import BrokerClient
from participants.broker.lifecycle import Owner, open_ledger
from participants.broker.opening import embedded
from participants.broker.service import BrokerService, Decides
from participants.broker.vault import VaultFolder
from participants.broker.wrapping import new_key_file
from superswarm.assets.container import AssetHeader
from superswarm.assets.key import AssetKey
from superswarm.assets.release import KeyRequest
from superswarm.attestation.evidence import Evidence, SessionKeys, combine_nonces
from superswarm.attestation.handshake import Attempt
from superswarm.attestation.nvidia.binding import attest_machine
from superswarm.attestation.simulated import DevelopmentAuthority, SimulatedTee
from superswarm.consortium.approval import ApprovedManifest, SignedManifest, approve, sign_manifest
from superswarm.consortium.grant import RunGrant, SignedGrant, sign_grant
from superswarm.consortium.manifest import Manifest
from superswarm.consortium.vouch import sign_vouch
from superswarm.crypto.hpke import KemKey
from superswarm.crypto.signing import SigningKey
from superswarm.io.certificates import ensure_client_files, ensure_server_files
from superswarm.io.config import Address
from superswarm.io.keystore import MemberKeys
from superswarm.values import Digest, Measurement, MemberId, Role

OWNER = MemberId("owner")
ASSET = Digest.of(b"asset")
CODE = Measurement(bytes(48))
WARM_UP = 10


@dataclass(frozen=True, slots=True)
class Party:
    """A consortium of one, whose trainer asks its own broker."""

    manifest: ApprovedManifest
    keys: MemberKeys
    tee: SimulatedTee
    grant: bytes

    def request(self, keys: SessionKeys, nonce: bytes) -> KeyRequest:
        attempt = Attempt(manifest=self.manifest, run="run", number=1)
        blank = Evidence(self.tee.platform, b"")
        binding = attempt.binding(Role.TRAINER, OWNER, keys, combine_nonces([nonce]), blank)
        evidence, _ = attest_machine(self.tee, binding)
        vouch = attempt.vouch(Role.TRAINER, OWNER, OWNER, keys.digest, bytes(32), int(time.time()))
        return KeyRequest(
            asset=ASSET.raw,
            nonce=nonce,
            keys=keys.to_bytes(),
            evidence=evidence.to_bytes(),
            vouch=sign_vouch(self.keys.signing, vouch, self.manifest.domain),
            grant=self.grant,
            attempt=1,
        )


def main(releases: int) -> None:
    party = found()
    for way, measured in (("embedded", in_process), ("grpc", over_grpc)):
        with tempfile.TemporaryDirectory() as name:
            cpu, wall = zip(*measured(party, Path(name), releases), strict=True)
        record(
            "key-release-seconds",
            way=way,
            releases=releases,
            cpu_p50=quantile(cpu, 50),
            cpu_p95=quantile(cpu, 95),
            wall_p50=quantile(wall, 50),
            wall_p95=quantile(wall, 95),
            wall_most=round(max(wall), 4),
        )


def in_process(party: Party, folder: Path, releases: int) -> list[tuple[float, float]]:
    return list(times(party, stocked(party, folder), releases))


def over_grpc(party: Party, folder: Path, releases: int) -> list[tuple[float, float]]:
    """Client and service share this process, so its processor seconds are those of both."""
    server = ensure_server_files(folder, ["127.0.0.1"], prefix="broker")
    node = ensure_client_files(folder, prefix="broker", client="node")
    bind = Address("127.0.0.1", 0)
    broker = stocked(party, folder)
    with BrokerService(
        broker, bind, certificate=server.certificate, key=server.key, authority=server.authority
    ) as service:
        files = {"certificate": node.certificate, "key": node.key, "authority": node.authority}
        with BrokerClient(service.address, **files) as client:
            return list(times(party, client, releases))


def times(party: Party, broker: Decides, releases: int) -> Iterator[tuple[float, float]]:
    """Processor and elapsed seconds of each release, after some that do not count."""
    digest = party.manifest.digest
    for number in range(WARM_UP + releases):
        keys = SessionKeys(kem=KemKey.generate().public, signing=SigningKey.generate().public)
        cpu, wall = time.process_time(), time.perf_counter()
        nonce = broker.challenge(digest, OWNER, ASSET.raw)
        spent = time.process_time() - cpu, time.perf_counter() - wall
        request = party.request(keys, nonce)
        cpu, wall = time.process_time(), time.perf_counter()
        broker.release(digest, OWNER, request)
        if number >= WARM_UP:
            yield time.process_time() - cpu + spent[0], time.perf_counter() - wall + spent[1]


def stocked(party: Party, folder: Path) -> Decides:
    """A broker with one asset's key, on this machine's disk."""
    vault, state, file = VaultFolder(folder / "vault"), folder / "state", folder / "vault.key"
    wrapper = new_key_file(file)
    vault.create(wrapper)
    header = {"kind": "model", "owner": OWNER, "version": "1", "size": 1 << 20, "demo": True, "asset": "0" * 64}
    owner = Owner(vault, wrapper, open_ledger(vault, state))
    owner.add(AssetKey(header=AssetHeader.from_data(header), digest=ASSET, key=bytes(32)))
    owner.offer(party.manifest, "asset")
    return embedded(vault.folder, state, file, None, [party.manifest], lambda *_, **__: None)


def found() -> Party:
    """A consortium of one member, which owns a sealed base model."""
    at = int(time.time())
    keys, authority = MemberKeys.generate(OWNER), DevelopmentAuthority.create(at=at)
    manifest = Manifest.from_data(document(keys, str(authority.spki_digest)))
    approved = approve([SignedManifest(manifest, {OWNER: sign_manifest(keys.signing, manifest)})])
    grant = RunGrant(
        manifest=approved.digest, epoch=1, run="run", job="job", rounds=1, attempts=1, not_after=at + 86_400
    )
    signed = SignedGrant(grant, {OWNER: sign_grant(keys.signing, grant, approved.domain)})
    tee = SimulatedTee(authority.issue(at=at, valid_days=1), CODE)
    return Party(approved, keys, tee, signed.to_bytes())


def document(keys: MemberKeys, authority: str) -> dict[str, Any]:
    workload = {"platforms": ["simulated"], "measurements": [str(CODE)]}
    quorums = "members coordinator workloads assets jobs aggregation protection privacy metrics result quorum run"
    return {
        "format": "superswarm-manifest/1",
        "consortium": "0" * 32,
        "name": "One",
        "epoch": 1,
        "attestation": "simulated",
        "members": [
            {
                "id": OWNER,
                "name": "Owner",
                "contributes": ["data", "model"],
                "signing_key": str(keys.signing.public),
                "encryption_key": str(keys.kem.public),
                "development_authority": authority,
            }
        ],
        "coordinator": {"name": "Operator", "development_authority": authority},
        "workloads": {"trainer": workload, "aggregator": workload},
        "assets": [
            {
                "name": "asset",
                "kind": "model",
                "owner": OWNER,
                "digest": str(ASSET),
                "source": "none",
                "release": {"members": [OWNER], "not_after": "2100-01-01", "times": 1_000_000},
            }
        ],
        "jobs": [
            {
                "name": "job",
                "base_model": "asset",
                "rounds": 1,
                "seed": 1,
                "lora": {"rank": 4, "alpha": 8.0, "target_modules": ["q_proj"]},
                "training": {"local_steps": 1, "batch_size": 1, "learning_rate": 0.001, "max_length": 64},
            }
        ],
        "aggregation": {"rule": "fedavg", "weighting": "equal", "minimum_cohort": 1, "round_seconds": 60},
        "protection": {"mode": "attested"},
        "privacy": {"mechanism": "none"},
        "metrics": {},
        "result": {"recipients": [OWNER]},
        "quorum": dict.fromkeys([*quorums.split(), "aggregator"], 1),
    }


def quantile(values: tuple[float, ...], percent: int) -> float:
    return round(statistics.quantiles(values, n=100, method="inclusive")[percent - 1], 4)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("releases", type=int, nargs="?", default=300, help="one after the other")
    main(parser.parse_args().releases)
