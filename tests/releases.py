"""Sealed assets in a consortium in memory, and genuine requests for their keys: what attacks on their release need.

Alice owns the model "base" and the records "notes", all three train. What they run is the product's own code.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from participants.broker.broker import Broker
from participants.broker.lifecycle import Owner, open_ledger
from participants.broker.vault import VaultFolder
from participants.broker.wrapping import RootKeyWrapper
from participants.keyring import Asker
from superswarm.assets.container import AssetHeader
from superswarm.assets.key import AssetKey
from superswarm.assets.release import KeyContext, KeyRequest
from superswarm.assets.terms import ReleaseTo, judge_request
from superswarm.attestation.evidence import Attester, Evidence, SessionKeys, combine_nonces
from superswarm.attestation.handshake import Attempt
from superswarm.attestation.nvidia.binding import attest_machine
from superswarm.consortium.approval import ApprovedManifest
from superswarm.consortium.grant import SignedGrant
from superswarm.consortium.vouch import sign_vouch
from superswarm.crypto.hpke import KemKey
from superswarm.crypto.signing import SigningKey
from superswarm.errors import ReleaseRefused
from superswarm.values import Digest, MemberId, Role
from tests import consortia
from tests.simulator import NOW, SimulatedConsortium, tee

ALICE, BOB, CAROL = MemberId("alice"), MemberId("bob"), MemberId("carol")
ALL = [ALICE, BOB, CAROL]
BASE, NOTES, OTHER = (Digest.of(name.encode()) for name in ("base", "notes", "other"))
BASE_KEY = bytes(range(32))
NOTES_KEY = bytes(range(32, 64))
UNTIL = "2027-01-31"  # NOW is in January 2027
WRAPPER = RootKeyWrapper(bytes(32), kind="key-file")


def sealed(name: str, kind: str = "model", owner: str = ALICE, **release: Any) -> dict[str, Any]:
    terms = {"members": [*ALL], "not_after": UNTIL, "times": 2} | release
    source = "s"
    return {
        "name": name,
        "kind": kind,
        "owner": owner,
        "digest": consortia.digest(name),
        "source": source,
        "release": terms,
    }


def manifest_of(*assets: dict[str, Any], **changes: Any) -> ApprovedManifest:
    return SimulatedConsortium(
        assets=list(assets) or [sealed("base"), sealed("notes", "dataset")], **changes
    ).manifest


@cache
def agreed() -> ApprovedManifest:
    """The usual manifest; made once."""
    return manifest_of()


def next_epoch(current: ApprovedManifest, **changes: Any) -> ApprovedManifest:
    from superswarm.consortium.approval import succeed

    return succeed(
        current, consortia.sign_all(consortia.successor(current, **({"name": "Later"} | changes)), current)
    )


@cache
def granted(manifest: ApprovedManifest, **changes: Any) -> SignedGrant:
    return consortia.signed_grant(manifest, by=[ALICE, BOB], **changes)


@dataclass
class Session:
    """A trainer's session after its handshake: fresh keys, which its member vouched for."""

    member: MemberId = BOB
    manifest: ApprovedManifest = field(default_factory=agreed)
    run: str = "run-1"
    attempt: int = 1
    role: Role = Role.TRAINER
    vouched_at: int = NOW
    attester: Attester | None = None
    kem: KemKey = field(default_factory=KemKey.generate)
    signing: SigningKey = field(default_factory=SigningKey.generate)

    @property
    def keys(self) -> SessionKeys:
        return SessionKeys(kem=self.kem.public, signing=self.signing.public)

    @property
    def at(self) -> Attempt:
        return Attempt(manifest=self.manifest, run=self.run, number=self.attempt)

    def vouch(self, **changes: Any) -> bytes:
        """What the member's node signed in the handshake, over nonces that the broker never saw."""
        who = changes.pop("by", self.member)
        attempt = changes.pop("attempt", self.at)
        keys = changes.pop("keys", self.keys)
        vouch = attempt.vouch(Role.TRAINER, who, who, keys.digest, bytes(range(32)), self.vouched_at)
        return sign_vouch(consortia.signing_key(changes.pop("key", who)), vouch, self.manifest.domain)

    def evidence(self, nonce: bytes, **changes: Any) -> Evidence:
        attester = self.attester or tee(self.member)
        arguments: dict[str, Any] = {
            "role": self.role,
            "member": self.member,
            "keys": self.keys,
            "nonce": combine_nonces([nonce]),
            "ev": Evidence(attester.platform, b""),
        }
        attempt = changes.pop("attempt", self.at)
        evidence, _ = attest_machine(attester, attempt.binding(**(arguments | changes)))
        return evidence

    def request(self, nonce: bytes, asset: Digest = BASE, **changes: Any) -> KeyRequest:
        """A genuine request; `changes` are fields that are something else."""
        fields: dict[str, Any] = {
            "asset": asset.raw,
            "nonce": nonce,
            "keys": self.keys.to_bytes(),
            "grant": granted(self.manifest, run=self.run).to_bytes(),
            "attempt": self.attempt,
        }
        fields |= changes
        fields.setdefault("evidence", self.evidence(nonce).to_bytes())
        fields.setdefault("vouch", self.vouch())
        return KeyRequest(**fields)

    def context(self, nonce: bytes, asset: Digest = BASE) -> KeyContext:
        return KeyContext(
            domain=self.manifest.domain,
            manifest=self.manifest.digest,
            run=self.run,
            attempt=self.attempt,
            asset=asset,
            member=self.member,
            session=self.keys.digest,
            nonce=nonce,
        )


def refused(reason: str) -> pytest.RaisesExc[ReleaseRefused]:
    """The owner refuses, for exactly this reason."""
    return pytest.raises(ReleaseRefused, check=lambda error: error.reason == reason)


NONCE = bytes(reversed(range(32)))


def judged(request: KeyRequest, **changes: Any) -> ReleaseTo:
    """Alice's judgement of a request by Bob's trainer, at NOW, with nothing released before."""
    arguments: dict[str, Any] = {
        "manifest": agreed(),
        "owner": ALICE,
        "request": request,
        "member": BOB,
        "demo": True,
        "used": 0,
        "at": NOW,
    }
    return judge_request(**(arguments | changes))


def asset_key(asset: Digest = BASE, key: bytes = BASE_KEY, kind: str = "model", *, demo: bool = True) -> AssetKey:
    """The key of a sealed file whose content nobody needs here."""
    fields = {"kind": kind, "owner": ALICE, "version": "1", "size": 1 << 20, "demo": demo, "asset": asset.raw.hex()}
    header = AssetHeader.from_data({"format": "superswarm-asset/1"} | fields)
    return AssetKey(header=header, digest=asset, key=key)


class Premises:
    """Alice's premises: a vault, and another folder for the witness. `open` starts a broker there."""

    def __init__(self, folder: Path, wrapper: Any = WRAPPER) -> None:
        self.vault, self.state, self.wrapper = VaultFolder(folder / "vault"), folder / "state", wrapper
        self.now, self.monotonic = NOW, 0.0

    @property
    def owner(self) -> Owner:
        return Owner(self.vault, self.wrapper, self.ledger)

    @property
    def ledger(self) -> Any:
        ledger = open_ledger(self.vault, self.state)
        ledger._now = lambda: self.now
        return ledger

    def stock(self, *manifests: ApprovedManifest, demo: bool = True) -> Premises:
        """Keys in the vault, offered under these manifests."""
        self.vault.create(self.wrapper)
        self.owner.add(asset_key(demo=demo))
        self.owner.add(asset_key(NOTES, NOTES_KEY, "dataset", demo=demo))
        for manifest in manifests or (agreed(),):
            self.owner.offer(manifest, "base")
        return self

    def open(self, *manifests: ApprovedManifest, **changes: Any) -> Broker:
        arguments: dict[str, Any] = {
            "vault": self.vault,
            "wrapper": self.wrapper,
            "ledger": self.ledger,
            "manifests": {one.digest: one for one in manifests or (agreed(),)},
            "now": lambda: self.now,
            "monotonic": lambda: self.monotonic,
        }
        return Broker(**(arguments | changes))


def ask(broker: Any, session: Session, asset: Digest = BASE, **changes: Any) -> bytes:
    """One whole exchange: the asset's key, as the trainer opens it."""
    from superswarm.assets.release import open_key

    nonce = broker.challenge(session.manifest.digest, session.member, asset.raw)
    request = session.request(nonce, asset, **changes)
    sealed_key = broker.release(session.manifest.digest, session.member, request)
    return open_key(sealed_key, session.kem, session.context(nonce, asset))


def asker(session: Session) -> Asker:
    """What a trainer asks with, in this session."""
    return Asker(
        attempt=session.at,
        member=session.member,
        keys=session.keys,
        kem=session.kem,
        signing=session.signing,
        vouch=session.vouch(),
        grant=granted(session.manifest, run=session.run).to_bytes(),
        attester=tee(session.member),
    )
