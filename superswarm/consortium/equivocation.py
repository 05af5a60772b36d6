"""Two signatures of one member for rival epochs: how a member's tool avoids them, and how others prove them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

from superswarm.consortium.approval import ApprovedManifest, SignedManifest, check_manifest_signature
from superswarm.consortium.documents import decode_base64, dump_json, load_json, require_fields, signatures_to_json
from superswarm.consortium.manifest import Manifest
from superswarm.crypto.signing import VerifyingKey
from superswarm.errors import BadSignature, Error, Fork, Malformed
from superswarm.values import LIMITS, Digest, MemberId

PROOF_FORMAT = "superswarm-equivocation/1"
RECORD_FORMAT = "superswarm-signing-record/1"


@dataclass(frozen=True, slots=True)
class Equivocation:
    """A member's signatures on two different manifests of one epoch. Proves nothing until `verify`."""

    member: MemberId
    key: VerifyingKey
    first: Manifest
    first_signature: bytes
    second: Manifest
    second_signature: bytes

    def verify(self, approved: ApprovedManifest) -> None:
        """Raise BadSignature or Malformed unless the member cheated.

        `approved` is any epoch, of the verifier's own chain, in which the member had this key: the accuser's word
        is not needed.
        """
        # (1) Two different manifests claim one place in this consortium.
        if not _rivals(self.first, self.second):
            raise Malformed("the two manifests do not claim the same epoch of one consortium")
        if self.first.consortium != approved.manifest.consortium or self.first.domain != approved.domain:
            raise Malformed("the two manifests are of another consortium")
        # (2) The key is the accused member's.
        if approved.verifying_key(self.member) != self.key:
            raise BadSignature(f"the key is not that of {self.member}")
        # (3) It signed both.
        _check(self.key, self.first, self.first_signature)
        _check(self.key, self.second, self.second_signature)

    def to_bytes(self) -> bytes:
        names = {MemberId("first"): self.first_signature, MemberId("second"): self.second_signature}
        return dump_json(
            {
                "format": PROOF_FORMAT,
                "member": self.member,
                "key": str(self.key),
                "first": self.first.to_data(),
                "second": self.second.to_data(),
                "signatures": signatures_to_json(names),
            }
        )

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        what = "equivocation proof"
        data = load_json(raw, what, limit=2 * LIMITS.signed_manifest_bytes)
        require_fields(data, what, PROOF_FORMAT, {"member", "key", "first", "second", "signatures"})
        match data:
            case {
                "member": str(member),
                "key": str(key),
                "signatures": {"first": str(one), "second": str(two), **rest},
            } if not rest:
                return cls(
                    MemberId(member),
                    VerifyingKey.parse(key),
                    Manifest.from_data(data["first"]),
                    decode_base64(one, what),
                    Manifest.from_data(data["second"]),
                    decode_base64(two, what),
                )
            case _:
                raise Malformed(f"the {what} does not have the expected fields")


def find_equivocation(a: SignedManifest, b: SignedManifest) -> tuple[Equivocation, ...]:
    """The members who signed both of two rival manifests, each with a proof that anybody can verify.

    A member's key is looked up in both manifests. One that neither lists (of a member that both send away) goes
    unnoticed here; its holder is out in either case.
    """
    if not _rivals(a.manifest, b.manifest):
        return ()
    found: dict[MemberId, Equivocation] = {}
    for member, key in _keys(a.manifest, b.manifest):
        first, second = _signed_by(member, key, a), _signed_by(member, key, b)
        if first is not None and second is not None:
            found.setdefault(member, Equivocation(member, key, a.manifest, first, b.manifest, second))
    return tuple(found.values())


def _rivals(a: Manifest, b: Manifest) -> bool:
    return (a.consortium, a.domain, a.epoch) == (b.consortium, b.domain, b.epoch) and a.digest != b.digest


def _keys(*manifests: Manifest) -> Iterator[tuple[MemberId, VerifyingKey]]:
    pairs = dict.fromkeys((m.id, m.signing_key) for manifest in manifests for m in manifest.members)
    return ((MemberId(member), VerifyingKey.parse(key)) for member, key in pairs)


def _signed_by(member: MemberId, key: VerifyingKey, signed: SignedManifest) -> bytes | None:
    for signature in (signed.signatures.get(member), signed.acceptances.get(member)):
        if signature is not None:
            try:
                _check(key, signed.manifest, signature)
            except Error:
                continue
            return signature
    return None


def _check(key: VerifyingKey, manifest: Manifest, signature: bytes) -> None:
    check_manifest_signature(key, manifest, manifest.digest, signature)


@dataclass(frozen=True, slots=True)
class SigningRecord:
    """What a member's tool has signed: one manifest for each epoch of each consortium. A pure state.

    Store it durably before a signature leaves: a tool that forgets can be made to cheat.
    """

    signed: Mapping[tuple[str, int], Digest]  # (consortium, epoch) → the manifest's digest

    def permit(self, manifest: Manifest) -> SigningRecord:
        """The record with this manifest in it; Fork where a rival of it is in there already."""
        place = (manifest.consortium, manifest.epoch)
        digest = manifest.digest
        earlier = self.signed.get(place, digest)
        if earlier != digest:
            raise Fork(
                f"this key has signed {earlier.short} as epoch {manifest.epoch} of this consortium; "
                f"signing its rival {digest.short} too would prove to everybody that its owner cheats"
            )
        return SigningRecord({**self.signed, place: digest})

    def to_bytes(self) -> bytes:
        rows = [{"consortium": c, "epoch": e, "manifest": str(d)} for (c, e), d in sorted(self.signed.items())]
        return dump_json({"format": RECORD_FORMAT, "signed": rows})

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        what = "signing record"
        data = load_json(raw, what)
        require_fields(data, what, RECORD_FORMAT, {"signed"})
        rows = data["signed"]
        if not isinstance(rows, list):
            raise Malformed(f"the {what} does not hold a list")
        signed: dict[tuple[str, int], Digest] = {}
        for row in rows:
            match row:
                case {"consortium": str(consortium), "epoch": int(epoch), "manifest": str(digest)} if len(row) == 3:
                    signed[(consortium, epoch)] = Digest.parse(digest)
                case _:
                    raise Malformed(f"the {what} holds a row that is not an epoch and its digest")
        if len(signed) != len(rows):
            raise Malformed(f"the {what} names an epoch twice")
        return cls(signed)
