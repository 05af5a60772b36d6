"""The keys of one round of encrypted sums: what they are for, who makes them, and how they reach the holders.

A key pair serves one round. One of the holders makes it inside its TEE, seals the secret key to the attested session
key of each other holder, and signs what it sealed; where not all members are holders, the others get the public key.
The aggregator carries all this and can use none of it: adding ciphertexts takes no key.

Fresh keys bound what a broken aggregator could learn by handing holders sums that it changed, and watching which they
refuse (key recovery through decryption, Chenal and Tang, LATINCRYPT 2014): each holder answers once a round, which
gives a few bits about a key of thousands that is thrown away.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from superswarm.consortium.manifest import Manifest
from superswarm.crypto.he import HeContext, HePublicKey, HeSecretKey
from superswarm.crypto.he_parameters import Encryption, HeParameters, derive_bfv, derive_ckks
from superswarm.crypto.hpke import KemKey
from superswarm.errors import Malformed, Mismatch, Untrusted
from superswarm.updates.secure.he_messages import Dealing, Dealt
from superswarm.updates.secure.he_sum import SumContext
from superswarm.updates.secure.links import Standing
from superswarm.updates.secure.masks import WEIGHTS
from superswarm.updates.secure.ring import Code, Ring
from superswarm.updates.secure.roster import Terms
from superswarm.updates.secure.seeds import Context
from superswarm.values import Digest, MemberId
from superswarm.wire import pack

LABEL: Final = "superswarm/v1/he-deal"
ROUNDED: Final = 0.25  # how far a sum under CKKS may be off: rounding makes it exact


@dataclass(frozen=True, slots=True, kw_only=True)
class HePlan:
    """What all sides of a round derive from manifest and roster: encoding, parameters, holders. Public."""

    context: Context
    code: Code
    parameters: HeParameters
    holders: tuple[MemberId, ...]  # in the order of the circle: who may make the keys, and who decrypts
    limbs: int  # integers after the update's own, that hold the weight

    @classmethod
    def of(cls, terms: Terms, context: Context, size: int, manifest: Manifest) -> Self:
        """The plan of a round for updates of `size` parameters. Raises Malformed where no parameters fit."""
        clause, encoding = manifest.protection.homomorphic, manifest.protection.encoding
        if clause is None or encoding is None:
            raise Untrusted("the manifest does not ask for encrypted sums")
        members = len(terms.roster.entries)
        ring = Ring((members * (2**encoding.payload_bits - 1)).bit_length(), members)
        code = Code(ring=ring, parameters=size, clip_norm=encoding.clip_norm, rotation=context.rotation())
        holders = terms.graph.witnesses[: clause.key_holders]
        limbs = -(-encoding.max_weight.bit_length() // limb_bits(ring))
        length, encryption = code.length + limbs, _encryption(len(holders), members)
        if clause.scheme == "ckks":
            most = 2.0 * ring.half
            found = derive_ckks(length=length, cohort=members, bound=most, error=ROUNDED, encryption=encryption)
        else:
            bits = encoding.payload_bits
            found = derive_bfv(length=length, cohort=members, payload_bits=bits, encryption=encryption)
        return cls(context=context, code=code, parameters=found, holders=holders, limbs=limbs)

    @property
    def everybody(self) -> bytes:
        """The set that ciphertexts of a round may come from: whoever is in the roster."""
        return self.context.roster.mark(self.context.roster.members)

    def sum_context(self, pair: Digest) -> SumContext:
        return SumContext(
            roster=self.context.roster.digest, round=self.context.round, parameters=self.parameters.digest, pair=pair
        )

    def join(self, values: NDArray[Any], weight: int) -> NDArray[Any]:
        """What a member encrypts: its integers, then its weight in limbs."""
        width = limb_bits(self.code.ring)
        limbs = [(weight >> width * i) & (2**width - 1) for i in range(self.limbs)]
        vector = np.concatenate([values, np.array(limbs, values.dtype)])
        return vector if self.parameters.scheme == "bfv" else vector.astype(np.float64)

    def part(self, total: NDArray[Any]) -> tuple[NDArray[Any], int]:
        """Invert `join` for a decrypted sum: the sums of integers and of weights. Raises Malformed."""
        if self.parameters.scheme == "ckks":
            total = self._rounded(total)
        values, limbs = total[: self.code.length], total[self.code.length :].tolist()
        width = limb_bits(self.code.ring)
        weight = sum(x << width * i for i, x in enumerate(limbs))
        if weight >= WEIGHTS:
            raise Malformed("a decrypted sum holds a weight that no members' can add up to")
        return values.astype(self.code.ring.dtype, copy=False), weight

    def _rounded(self, total: NDArray[np.float64]) -> NDArray[np.uint64]:
        if not np.isfinite(total).all() or total.min() < -0.5 or total.max() >= 2.0**self.code.ring.bits:
            raise Malformed("a decrypted sum holds values that no members' can add up to")
        return np.rint(np.abs(total)).astype(np.uint64)


def _encryption(holders: int, members: int) -> Encryption:
    return "secret" if holders == members else "public"


def limb_bits(ring: Ring) -> int:
    """Bits of a weight that one integer of the ring holds."""
    return (2 * ring.half + 1).bit_length() - 1


@dataclass(frozen=True, slots=True)
class RoundKeys:
    """What one trainer has of a round's key pair: the secret key as a holder, else the public one."""

    pair: Digest
    key: HeSecretKey | HePublicKey = field(repr=False)


def deal(standing: Standing, plan: HePlan, he: HeContext) -> tuple[RoundKeys, Dealt]:
    """Make the round's key pair, and seal the secret key to the other holders."""
    if standing.me not in plan.holders:
        raise Untrusted("this trainer is no key holder under this roster")
    secret, public = he.generate()
    sealed = tuple(
        standing.peers[other].keys.kem.seal(secret.to_bytes(), info=_info(plan, standing.me, other))
        for other in plan.holders
        if other != standing.me
    )
    shown = public.to_bytes() if plan.parameters.encryption == "public" else b""
    signature = standing.signing.sign(LABEL, _signed(plan, standing.me, public.pair, digests(sealed)))
    said = Dealt(pair=public.pair.raw, public=shown, sealed=sealed, signature=signature)
    return RoundKeys(public.pair, secret), said


def accept(standing: Standing, kem: KemKey, plan: HePlan, dealing: Dealing) -> RoundKeys:
    """Take the round's key from its dealer. Raises Untrusted, BadSignature, CannotOpen or Mismatch."""
    # (1) A holder made it, for this roster, round and parameters, and signed what it sealed.
    dealer, me, pair = MemberId(dealing.dealer), standing.me, Digest(dealing.pair)
    if dealer not in plan.holders or dealer == me:
        raise Untrusted("the round's keys do not come from another key holder")
    standing.peers[dealer].keys.signing.verify(LABEL, _signed(plan, dealer, pair, dealing.digests), dealing.signature)
    # (2) Who holds no secret key gets the public key that the pair is named for.
    if me not in plan.holders:
        public = HePublicKey.parse(dealing.public)
        if public.pair != pair or public.parameters != plan.parameters.digest:
            raise Mismatch("the public key is not the one that the dealer signed")
        return RoundKeys(pair, public)
    # (3) A holder's is the one sealed to it, and opens under its key, for this round and pair.
    position = [other for other in plan.holders if other != dealer].index(me)
    if dealing.digests[position : position + 1] != (Digest.of(dealing.sealed).raw,):
        raise Untrusted(f"{dealer} did not sign what came as the round's key")
    secret = HeSecretKey.parse(kem.open(dealing.sealed, info=_info(plan, dealer, me)))
    if secret.pair != pair or secret.parameters != plan.parameters.digest:
        raise Mismatch("the secret key belongs to another pair or other parameters")
    return RoundKeys(pair, secret)


def pass_on(plan: HePlan, dealer: MemberId, said: Dealt, to: MemberId) -> Dealing:
    """The aggregator's part: what a member needs of a dealing."""
    others = [other for other in plan.holders if other != dealer]
    return Dealing(
        dealer=dealer,
        pair=said.pair,
        public=b"" if to in plan.holders else said.public,
        sealed=said.sealed[others.index(to)] if to in others else b"",
        digests=digests(said.sealed),
        signature=said.signature,
    )


def check_dealt(plan: HePlan, dealer: MemberId, said: Dealt) -> None:
    """Malformed unless there is a key for everybody who needs one."""
    wanted = len(plan.holders) - 1
    if dealer not in plan.holders or len(said.sealed) != wanted:
        raise Malformed(f"{dealer} did not seal the round's key to each other holder")
    if bool(said.public) != (plan.parameters.encryption == "public"):
        raise Malformed(f"{dealer} did not give a public key to those who need one, or gave one that nobody needs")


def digests(sealed: tuple[bytes, ...]) -> tuple[bytes, ...]:
    return tuple(Digest.of(one).raw for one in sealed)


def _info(plan: HePlan, dealer: MemberId, holder: MemberId) -> bytes:
    """HPKE `info`: opens under this roster, round and parameters, between these two only."""
    return pack(f"{LABEL}/key", *_of(plan), dealer, holder)


def _signed(plan: HePlan, dealer: MemberId, pair: Digest, sealed: tuple[bytes, ...]) -> bytes:
    return pack(*_of(plan), dealer, pair.raw, *sealed)


def _of(plan: HePlan) -> tuple[bytes, int, bytes, bytes]:
    context = plan.context
    return context.roster.digest.raw, context.round, context.start.raw, plan.parameters.digest.raw
