"""From signed manifests to an approved one. Only `approve` and `succeed` make an `ApprovedManifest`.

A consortium is a chain of epochs. The first is signed by all its members; each later one names its predecessor and
is signed as `superswarm.consortium.rules` asks. Which first epoch to believe, no signature can say, since anybody can
write one: a program pins a digest that its owner has seen, and `approve` holds the chain against it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from superswarm.consortium.documents import (
    dump_json,
    load_json,
    require_fields,
    signatures_from_json,
    signatures_to_json,
)
from superswarm.consortium.manifest import Manifest
from superswarm.consortium.rules import CONSTANT, VETO, Requirements, requirements
from superswarm.crypto.hpke import KemPublicKey
from superswarm.crypto.signing import SigningKey, VerifyingKey
from superswarm.errors import BadSignature, Fork, Malformed, NotApproved, OwnerVeto
from superswarm.values import LIMITS, Digest, MemberId

SIGNED_FORMAT = "superswarm-signed-manifest/1"
CHAIN_FORMAT = "superswarm-consortium/1"


@dataclass(frozen=True, slots=True)
class SignedManifest:
    """A manifest and signatures, as they travel. Proves nothing.

    `signatures` are those of the members who decide, with the keys that they have in the epoch before (at the first
    epoch: in this one). `acceptances` are those of whoever enters with a key that is new in this epoch.
    """

    manifest: Manifest
    signatures: Mapping[MemberId, bytes] = field(default_factory=dict)
    acceptances: Mapping[MemberId, bytes] = field(default_factory=dict)

    def to_data(self) -> dict[str, Any]:
        return {
            "format": SIGNED_FORMAT,
            "manifest": self.manifest.to_data(),
            "signatures": signatures_to_json(self.signatures),
            "acceptances": signatures_to_json(self.acceptances),
        }

    def to_bytes(self) -> bytes:
        return dump_json(self.to_data())

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        return cls.from_data(load_json(raw, "signed manifest", limit=LIMITS.signed_manifest_bytes))

    @classmethod
    def from_data(cls, data: object) -> Self:
        what = "signed manifest"
        if not isinstance(data, dict):
            raise Malformed(f"the {what} is not a JSON object")
        require_fields(data, what, SIGNED_FORMAT, {"manifest", "signatures", "acceptances"})
        return cls(
            Manifest.from_data(data["manifest"]),
            signatures_from_json(data["signatures"], what),
            signatures_from_json(data["acceptances"], what),
        )


@dataclass(frozen=True, slots=True)
class ApprovedManifest:
    """A manifest that its consortium approved. Only `approve` and `succeed` make one."""

    manifest: Manifest
    digest: Digest
    signers: tuple[MemberId, ...]  # whose signatures decided, in the order of the members
    history: tuple[Digest, ...]  # of every epoch from the first to this one

    @property
    def domain(self) -> str:
        return self.manifest.domain

    @property
    def simulated(self) -> bool:
        return self.manifest.simulated

    def verifying_key(self, member: str) -> VerifyingKey:
        """The key whose signatures speak for a member; NotApproved for anybody else."""
        return _keys(self.manifest, member)[0]

    def encryption_key(self, member: str) -> KemPublicKey:
        """The key to which letters and results for a member are sealed; NotApproved for anybody else."""
        return _keys(self.manifest, member)[1]


def _keys(manifest: Manifest, member: str) -> tuple[VerifyingKey, KemPublicKey]:
    entry = manifest.member(member)
    if entry is None:
        raise NotApproved(f"{member[:32]!a} is not a member")
    return VerifyingKey.parse(entry.signing_key), KemPublicKey.parse(entry.encryption_key)


def sign_manifest(key: SigningKey, manifest: Manifest) -> bytes:
    """Sign a manifest by its digest, which covers the domain and the canonical bytes.

    The digest and not the bytes: a manifest of 1,000 members has megabytes, and 1,000 signatures over it.
    Programs that act for a member ask a `SigningRecord` first.
    """
    return key.sign(f"{manifest.domain}/manifest", manifest.digest.raw)


def check_manifest_signature(key: VerifyingKey, manifest: Manifest, digest: Digest, signature: bytes) -> None:
    """Raise BadSignature unless `key` signed this manifest, whose digest the caller has computed."""
    key.verify(f"{manifest.domain}/manifest", digest.raw, signature)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far the signatures of a manifest reach. All signatures that it counts hold."""

    digest: Digest
    required: Requirements
    signers: tuple[MemberId, ...]
    missing: Mapping[MemberId, tuple[str, ...]]  # whose signature nobody else's replaces, and why
    missing_acceptances: Mapping[MemberId, str]
    short: int  # how many more signatures the quorum needs, those in `missing` included

    @property
    def complete(self) -> bool:
        return not self.missing and not self.missing_acceptances and self.short == 0


def standing(current: ApprovedManifest | None, signed: SignedManifest) -> Standing:
    """Check position and every signature of a proposed epoch, and count. Raises for what no signature can mend."""
    new, digest = signed.manifest, signed.manifest.digest
    before = current.manifest if current is not None else None
    # (1) It continues this consortium, and nothing that never changes has changed.
    _check_position(current, new)
    # (2) Everybody who signs has a say, with the key of the epoch before.
    required = requirements(before, new)
    _check_signatures(before or new, new, digest, signed.signatures, "is not a member who decides on this epoch")
    # (3) Everybody who accepts enters, with the key of the new epoch.
    for member in signed.acceptances:
        if member not in required.accept:
            raise BadSignature(f"{member} accepts, but neither joins nor gets a new signing key")
    _check_signatures(new, new, digest, signed.acceptances, "is not a member")
    # (4) Count.
    signers = tuple(member for member in required.voters if member in signed.signatures)
    return Standing(
        digest=digest,
        required=required,
        signers=signers,
        missing={m: reasons for m, reasons in required.must.items() if m not in signed.signatures},
        missing_acceptances={m: why for m, why in required.accept.items() if m not in signed.acceptances},
        short=max(0, required.quorum - len(signers)),
    )


def succeed(current: ApprovedManifest | None, signed: SignedManifest) -> ApprovedManifest:
    """Approve one more epoch. Raises NotApproved, OwnerVeto, BadSignature or Fork."""
    # (1) It is the next epoch, and all its signatures hold.
    found = standing(current, signed)
    # (2) Nobody is missing whom nobody replaces: owners, members whose entry changes, those who enter.
    for member, reasons in found.missing.items():
        error = OwnerVeto if any(reason.startswith(VETO) for reason in reasons) else NotApproved
        raise error(f"{member} must sign: {'; '.join(reasons)}")
    for member, why in found.missing_acceptances.items():
        raise NotApproved(f"{member} {why}, and must accept with the key that this epoch gives it")
    # (3) Every changed clause has its quorum.
    if found.short:
        changed = ", ".join(found.required.changed) or "nothing"
        raise NotApproved(
            f"{len(found.signers)} members signed, and changing {changed} needs {found.required.quorum}"
        )
    before = current.history if current is not None else ()
    return ApprovedManifest(signed.manifest, found.digest, found.signers, (*before, found.digest))


def approve(chain: Sequence[SignedManifest], *, pinned: Digest | None = None) -> ApprovedManifest:
    """Walk a consortium's epochs from the first to the last, and approve each. Returns the last.

    With `pinned`, that digest must be one of them: the owner of this program has seen it, and neither another
    consortium, nor a rival epoch, nor a chain that ends before it will do.
    """
    approved: ApprovedManifest | None = None
    for signed in chain:
        approved = succeed(approved, signed)
    if approved is None:
        raise NotApproved("there is no manifest to approve")
    if pinned is not None and pinned not in approved.history:
        raise Fork(f"the pinned manifest {pinned.short} is none of the epochs shown: another, older or rival chain")
    return approved


def chain_to_bytes(chain: Sequence[SignedManifest]) -> bytes:
    """All epochs of a consortium in one document: what programs are given."""
    return dump_json({"format": CHAIN_FORMAT, "epochs": [signed.to_data() for signed in chain]})


def parse_chain(raw: bytes) -> tuple[SignedManifest, ...]:
    """Read a chain, or a single signed manifest as a chain of one. Proves nothing."""
    data = load_json(raw, "consortium's document", limit=LIMITS.chain_bytes)
    if data.get("format") == SIGNED_FORMAT:
        return (SignedManifest.from_data(data),)
    require_fields(data, "consortium's document", CHAIN_FORMAT, {"epochs"})
    epochs = data["epochs"]
    if not isinstance(epochs, list) or not epochs:
        raise Malformed("the consortium's document holds no list of epochs")
    return tuple(SignedManifest.from_data(epoch) for epoch in epochs)


def _check_position(current: ApprovedManifest | None, new: Manifest) -> None:
    if current is None:
        if new.epoch != 1:
            raise Fork(f"a consortium begins with epoch 1, not {new.epoch}")
        return
    old = current.manifest
    for name in CONSTANT:
        if getattr(old, name) != getattr(new, name):
            raise NotApproved(f"{name} differs from the epoch before: it never changes")
    if new.epoch != old.epoch + 1:
        raise Fork(f"epoch {new.epoch} cannot follow epoch {old.epoch}")
    if new.predecessor != str(current.digest):
        raise Fork(f"epoch {new.epoch} names another predecessor than {current.digest.short}, the epoch {old.epoch}")


def _check_signatures(
    keys: Manifest, new: Manifest, digest: Digest, signatures: Mapping[MemberId, bytes], stranger: str
) -> None:
    holders = {m.id: m.signing_key for m in keys.members}
    for member, signature in signatures.items():
        if member not in holders:
            raise BadSignature(f"{member} signs, but {stranger}")
        try:
            check_manifest_signature(VerifyingKey.parse(holders[member]), new, digest, signature)
        except BadSignature:
            raise BadSignature(f"the signature of {member} does not hold for epoch {new.epoch}") from None
