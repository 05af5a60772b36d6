"""Consortia for tests: deterministic keys, small valid manifests, and every signature that they need."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from superswarm.consortium.approval import ApprovedManifest, SignedManifest, approve, sign_manifest
from superswarm.consortium.grant import ApprovedGrant, RunGrant, SignedGrant, approve_grant, sign_grant
from superswarm.consortium.manifest import Manifest
from superswarm.consortium.rules import requirements
from superswarm.crypto.hpke import KemKey
from superswarm.crypto.signing import SigningKey, VerifyingKey
from superswarm.values import Digest, Measurement, MemberId

DATA = "data"
QUORUMS = (
    "members",
    "coordinator",
    "workloads",
    "assets",
    "jobs",
    "aggregation",
    "protection",
    "privacy",
    "metrics",
    "result",
    "quorum",
    "run",
    "aggregator",
)


@cache
def signing_key(name: str) -> SigningKey:
    """The same key for the same name: "alice", "alice/2" for her second one."""
    return SigningKey(hashlib.sha512(f"signing {name}".encode()).digest())


@cache
def public_key(name: str) -> VerifyingKey:
    return signing_key(name).public


@cache
def kem_key(name: str) -> KemKey:
    return KemKey(hashlib.shake_256(f"kem {name}".encode()).digest(96))


@cache
def _kem_text(name: str) -> str:
    return str(kem_key(name).public)


def digest(name: str) -> str:
    return str(Digest.of(name.encode()))


def measurement(name: str) -> str:
    return str(Measurement(hashlib.sha384(name.encode()).digest()))


def member(name: str, *contributes: str, key: str | None = None, simulated: bool = True) -> dict[str, Any]:
    """A member's entry; `key` names another key than the member's first."""
    entry: dict[str, Any] = {
        "id": name,
        "name": f"{name.capitalize()} Hospital",
        "contributes": list(contributes),
        "signing_key": str(public_key(key or name)),
        "encryption_key": _kem_text(key or name),
    }
    if simulated:
        entry["development_authority"] = digest(f"authority {name}")
    return entry


def quorums(every: int, **others: int) -> dict[str, int]:
    return {clause: others.get(clause, every) for clause in QUORUMS}


TDX_POLICY: dict[str, Any] = {
    "images": [{"mrtd": "11" * 48, **{f"rtmr{n}": "22" * 48 for n in range(4)}}],
    "modules": "any",
    "platforms": "any",
    "config_ids": "any",
    "owners": "any",
    "owner_configs": "any",
    "xfam_allowed": "any",
    "minimum_evaluation_number": 17,
    "collateral_maximum_age_days": 30,
}
"""What a real manifest asks of TDX, as plain data."""


def manifest_data(*members: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A valid first epoch as plain data: by default three members with data, a public model, a simple majority."""
    entries = list(members) or [member(name, DATA) for name in ("alice", "bob", "carol")]
    simulated = changes.get("attestation", "simulated") == "simulated"
    workload: dict[str, Any] = {
        "platforms": ["simulated" if simulated else "tdx"],
        "measurements": [measurement("code")],
    }
    if not simulated:
        workload["policy"] = {"tdx": TDX_POLICY}
    coordinator = {"name": "Operator"}
    if simulated:
        coordinator["development_authority"] = digest("authority operator")
    data: dict[str, Any] = {
        "format": "superswarm-manifest/1",
        "consortium": "0123456789abcdef" * 2,
        "name": "Three hospitals",
        "epoch": 1,
        "attestation": "simulated",
        "members": entries,
        "coordinator": coordinator,
        "workloads": {"trainer": workload, "aggregator": workload},
        "assets": [
            {"name": "base", "kind": "model", "owner": "public", "digest": digest("base"), "source": "hub/base"}
        ],
        "jobs": [job()],
        "aggregation": {"rule": "fedavg", "weighting": "examples", "minimum_cohort": 1, "round_seconds": 600},
        "protection": {"mode": "attested"},
        "privacy": {"mechanism": "none"},
        "metrics": {"release": ["train_loss", "eval_loss"], "to": ["members"]},
        "result": {"recipients": [entries[0]["id"]]},
        "quorum": quorums(len(entries) // 2 + 1),
    }
    return data | changes


def job(**changes: Any) -> dict[str, Any]:
    """A job as plain data."""
    data: dict[str, Any] = {
        "name": "adapter",
        "base_model": "base",
        "rounds": 2,
        "seed": 7,
        "lora": {"rank": 4, "alpha": 8.0, "target_modules": ["q_proj", "v_proj"]},
        "training": {"local_steps": 2, "batch_size": 1, "learning_rate": 0.001, "max_length": 64},
    }
    return data | changes


def manifest(*members: dict[str, Any], **changes: Any) -> Manifest:
    return Manifest.from_data(manifest_data(*members, **changes))


def successor(current: ApprovedManifest, **changes: Any) -> Manifest:
    """The next epoch: the current manifest with some tables replaced."""
    data = current.manifest.to_data()
    data |= {"epoch": current.manifest.epoch + 1, "predecessor": str(current.digest)}
    return Manifest.from_data(data | changes)


def holder(entry_key: str, names: Iterable[str]) -> str:
    """Which of these key names has this public key."""
    return next(name for name in names if str(public_key(name)) == entry_key)


def sign_all(
    new: Manifest,
    current: ApprovedManifest | None = None,
    *,
    by: Iterable[str] | None = None,
    keys: Mapping[str, str] | None = None,
) -> SignedManifest:
    """Sign as everybody who may (or only `by`). `keys` maps a member to the name of its key, where it is another.

    A new key of a member "alice" is looked for under the names "alice", "alice/2", "alice/3".
    """
    before = current.manifest if current is not None else new
    wanted = None if by is None else set(by)
    names = dict(keys or {})

    def key(name: str, entry_key: str) -> SigningKey:
        return signing_key(names.get(name) or holder(entry_key, (name, f"{name}/2", f"{name}/3")))

    return SignedManifest(
        new,
        {
            MemberId(m.id): sign_manifest(key(m.id, m.signing_key), new)
            for m in before.members
            if wanted is None or m.id in wanted
        },
        {
            name: sign_manifest(key(name, entry.signing_key), new)
            for name in requirements(current and current.manifest, new).accept
            if (entry := new.member(name)) is not None and (wanted is None or name in wanted)
        },
    )


def approved(*members: dict[str, Any], **changes: Any) -> ApprovedManifest:
    """A first epoch that everybody signed."""
    return approve([sign_all(manifest(*members, **changes))])


def grant(current: ApprovedManifest, **changes: Any) -> RunGrant:
    fields: dict[str, Any] = {
        "run": "run-1",
        "job": "adapter",
        "rounds": 2,
        "attempts": 3,
        "not_after": 2_000_000_000,
    }
    return RunGrant(manifest=current.digest, epoch=current.manifest.epoch, **(fields | changes))


def signed_grant(current: ApprovedManifest, by: Iterable[str] | None = None, **changes: Any) -> SignedGrant:
    allowed = grant(current, **changes)
    who = list(by) if by is not None else [m.id for m in current.manifest.members]
    return SignedGrant(
        allowed, {MemberId(name): sign_grant(signing_key(name), allowed, current.domain) for name in who}
    )


def approved_grant(current: ApprovedManifest, **changes: Any) -> ApprovedGrant:
    return approve_grant(signed_grant(current, **changes), current)
