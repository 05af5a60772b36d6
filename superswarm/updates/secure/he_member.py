"""One round of encrypted sums, as a trainer sees it: each step once, in order (docs/secure-sums-he.md).

Pure state: all that comes in was carried by the aggregator, which is believed in nothing. A step that fails ends the
member's round; its keys go with this object.
"""

from __future__ import annotations

from typing import Any, BinaryIO, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray

from superswarm.crypto.he import HeContext, HeSecretKey
from superswarm.crypto.hpke import KemKey
from superswarm.crypto.kdf import derive
from superswarm.errors import CannotOpen, CohortTooSmall, Malformed, Replay, Untrusted
from superswarm.updates.secure.check import PRIME
from superswarm.updates.secure.he_keys import HePlan, RoundKeys, accept, deal
from superswarm.updates.secure.he_messages import Dealing, Dealt, Decrypted, Encrypted, Opened, ToDecrypt
from superswarm.updates.secure.he_sum import decrypt_sum, encrypt_update
from superswarm.updates.secure.links import Standing
from superswarm.updates.secure.masks import Contribution
from superswarm.updates.secure.messages import Signed, Survivors, Total
from superswarm.updates.secure.seeds import SURVIVORS, Context
from superswarm.updates.secure.total import CheckedSum, check_total
from superswarm.updates.secure.witnesses import SignedSurvivors, check_survivors
from superswarm.values import MemberId
from superswarm.wire import pack

LABEL: Final = "superswarm/v1/he-total"
STEPS: Final = ("deal", "receive", "encrypt", "sign", "decrypt", "take")
OPTIONAL: Final = frozenset({"deal", "sign", "decrypt"})  # for holders and witnesses that are asked


class HeMemberRound:
    """A trainer's part in one round. `most` is the manifest's largest weight."""

    def __init__(self, standing: Standing, kem: KemKey, plan: HePlan, *, most: int) -> None:
        if plan.context.roster.digest != standing.terms.roster.digest:
            raise Untrusted("a round under another roster than the one this trainer is acquainted under")
        standing.begin(plan.context.round)
        self.plan, self._standing, self._kem, self._most = plan, standing, kem, most
        self._me, self._roster = standing.me, standing.terms.roster
        self._he = HeContext(plan.parameters)
        self._keys: RoundKeys | None = None
        self._done = 0  # steps that were begun, or passed over
        self._signed: frozenset[MemberId] | None = None
        self._agreed: SignedSurvivors | None = None  # what witnesses signed, as this holder has checked it

    @property
    def context(self) -> Context:
        return self.plan.context

    def deal(self) -> Dealt:
        """(1) As the key holder that is asked: make the round's key pair."""
        self._enter("deal")
        self._keys, said = deal(self._standing, self.plan, self._he)
        return said

    def receive(self, message: Dealing) -> None:
        """(2) Take the round's key, once: no ciphertext of a round is under a second key."""
        self._enter("receive")
        if message.dealer == self._me:
            if self._keys is None or self._keys.pair.raw != message.pair:
                raise Untrusted("the aggregator names this trainer for a key that it did not make")
            return
        self._keys = accept(self._standing, self._kem, self.plan, message)

    def encrypt(self, contribution: Contribution, dst: BinaryIO) -> Encrypted:
        """(3) Encrypt a contribution into `dst`, chunk by chunk."""
        self._enter("encrypt")
        keys = self._held()
        vector = self.plan.join(contribution.values, contribution.weight)
        encrypt_update(vector, self._he.encryptor(keys.key), self.plan.sum_context(keys.pair), self._me, dst)
        return Encrypted(tag=contribution.tag)

    def sign(self, message: Survivors) -> Signed:
        """(4) As a witness, sign the one set of survivors of this round."""
        self._enter("sign")
        if self._me not in self._standing.terms.graph.witnesses:
            raise Untrusted("this trainer is no witness under this roster")
        members = self._roster.read(message.members)
        if self._me not in members:
            raise Untrusted("the aggregator names survivors without this trainer")
        if len(members) < self._standing.terms.least:
            raise CohortTooSmall(
                f"a sum of {len(members)} members: this trainer asks for {self._standing.terms.least}"
            )
        self._signed = members
        statement = self.context.statement(self.plan.everybody, self._roster.mark(members))
        return Signed(signature=self._standing.signing.sign(SURVIVORS, statement))

    def decrypt(self, message: ToDecrypt, body: bytes | memoryview) -> tuple[Decrypted, bytes]:
        """(5) As the key holder that is asked: decrypt the sum, check it, and seal it to all trainers.

        One answer a round, so that a sum which the aggregator changed tells it one bit of this round's key at most.
        """
        self._enter("decrypt")
        keys = self._held()
        if not isinstance(keys.key, HeSecretKey):
            raise Untrusted("this trainer is no key holder under this roster")
        # (1) Witnesses signed whose sum it is.
        total = Total.parse(message.total)
        self._agreed = check_survivors(self._standing, self.context, total)
        survivors = self._agreed.survivors
        self._require_signed(survivors)
        # (2) It decrypts, and is what those members sent.
        if message.tag >= PRIME:
            raise Malformed("a sum's tag is not in the field")
        context, decryptor = self.plan.sum_context(keys.pair), self._he.decryptor(keys.key)
        decrypted = decrypt_sum(body, decryptor, context, sorted(survivors))
        plain = self._plain(total, decrypted, message.tag)
        # (3) Only trainers can open what leaves.
        return Decrypted(), self._cipher(self._me).encrypt(bytes(12), plain, None)

    def take(self, message: Opened, body: bytes | memoryview) -> CheckedSum:
        """(6) Take the sum that a holder decrypted, and check it again."""
        self._enter("take")
        if message.holder not in self.plan.holders:
            raise Untrusted("a sum was decrypted by somebody who holds no key")
        try:
            plain = self._cipher(MemberId(message.holder)).decrypt(bytes(12), body, None)
        except (InvalidTag, ValueError):
            raise CannotOpen("the decrypted sum does not open in this round") from None
        found = self._check(Total.parse(message.total), plain)
        self._require_signed(found.survivors)
        self._keys = None
        return found

    def _plain(self, total: Total, decrypted: NDArray[Any], tag: int) -> bytes:
        """The decrypted sum, if it is the sum. Else one and the same refusal, which says nothing of what it is."""
        try:
            values, weight = self.plan.part(decrypted)
            plain = Contribution(values, weight, tag).to_bytes()
            self._check(total, plain)
        except (Malformed, Untrusted):
            raise Untrusted(
                f"the encrypted sum of round {self.context.round} is not what its survivors sent"
            ) from None
        return plain

    def _check(self, total: Total, plain: bytes) -> CheckedSum:
        return check_total(
            self._standing,
            total,
            plain,
            context=self.context,
            code=self.plan.code,
            most=self._most,
            known=self._agreed,
        )

    def _require_signed(self, survivors: frozenset[MemberId]) -> None:
        if self._signed not in (None, survivors):
            raise Untrusted("the aggregator names other survivors than those that this trainer signed")

    def _cipher(self, holder: MemberId) -> AESGCM:
        """What a holder seals the sum with, once: a key of all trainers, for this round and holder."""
        context = pack(self._roster.digest.raw, self.context.round, holder)
        return AESGCM(derive(self._standing.group, LABEL, context))

    def _held(self) -> RoundKeys:
        if self._keys is None:
            raise RuntimeError("a step that needs the round's key before it was received")
        return self._keys

    def _enter(self, step: str) -> None:
        """Each step once, in order; a member that is not asked passes over those that are optional."""
        number = STEPS.index(step)
        if number < self._done:
            raise Replay(f"the step {step} of round {self.context.round} was taken before")
        if any(missed not in OPTIONAL for missed in STEPS[self._done : number]):
            raise Untrusted(f"the step {step} of round {self.context.round} came before those that it rests on")
        self._done = number + 1
