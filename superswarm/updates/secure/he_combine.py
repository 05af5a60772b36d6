"""One round of encrypted sums, as the aggregator sees it: it adds and carries what it cannot read, and holds no key.

Members that do not answer are left out of the sum. If the key holder that is asked vanishes, the next one is asked,
for making the round's keys as for decrypting its sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import BinaryIO, Final

from superswarm.crypto.signing import VerifyingKey
from superswarm.errors import CohortTooSmall, Malformed, Replay, Untrusted
from superswarm.updates.secure.check import PRIME
from superswarm.updates.secure.he_keys import HePlan, check_dealt, pass_on
from superswarm.updates.secure.he_messages import Dealing, Dealt, Encrypted, Opened, ToDecrypt
from superswarm.updates.secure.he_sum import HeSum
from superswarm.updates.secure.messages import Signed, Survivors, Total
from superswarm.updates.secure.roster import Terms
from superswarm.updates.secure.seeds import SURVIVORS
from superswarm.values import Digest, MemberId

STEPS: Final = ("dealt", "encrypted", "signed", "decrypted")


class HeSumRound:
    """The aggregator's part in one round. Needs no TenSEAL."""

    def __init__(self, terms: Terms, plan: HePlan, keys: Mapping[MemberId, VerifyingKey]) -> None:
        self.terms, self.plan = terms, plan
        self._graph, self._roster, self._keys = terms.graph, terms.roster, keys
        self._step = 0
        self._tried: list[MemberId] = []  # holders that were asked in this step; the last one may still answer
        self._dealt: tuple[MemberId, Dealt] | None = None
        self._sum: HeSum | None = None
        self._tags: dict[MemberId, int] = {}
        self._signatures: dict[MemberId, bytes] = {}
        self._asked: frozenset[MemberId] = frozenset()
        self.survivors: frozenset[MemberId] = frozenset()
        self._opened: tuple[MemberId, bytes] | None = None

    # --- keys ------------------------------------------------------------------------------------------------------

    def next_dealer(self) -> MemberId:
        """The key holder to ask for the round's keys; after one that fails, the next. Raises CohortTooSmall."""
        self._require("dealt")
        return self._next_holder(frozenset(self._roster.members))

    def dealt(self, member: MemberId, message: Dealt) -> None:
        self._enter_holder("dealt", member)
        check_dealt(self.plan, member, message)
        self._sum = HeSum(self.plan.parameters, self.plan.sum_context(Digest(message.pair)))
        self._dealt = (member, message)

    # --- updates ---------------------------------------------------------------------------------------------------

    def ask_encrypted(self) -> dict[MemberId, Dealing]:
        """Close (1): to everybody, the round's key as its dealer sealed it."""
        if self._dealt is None:
            raise RuntimeError("ask_encrypted() before a key was dealt")
        self._open("encrypted", frozenset(self._roster.members))
        dealer, said = self._dealt
        return {member: pass_on(self.plan, dealer, said, member) for member in self._roster.members}

    def encrypted(self, member: MemberId, message: Encrypted, body: bytes | memoryview) -> None:
        """Add a member's encrypted update; nothing changes if it is refused."""
        self._enter("encrypted", member, frozenset(self._tags))
        if message.tag >= PRIME:
            raise Malformed(f"the tag of {member} is not in the field")
        self._encrypted_sum.add(body, member)
        self._tags[member] = message.tag

    def ask_signatures(self) -> dict[MemberId, Survivors]:
        """Close (2): to each witness among those whose updates came, who they are. Raises CohortTooSmall."""
        self._require("encrypted")
        self.survivors = frozenset(self._tags)
        if len(self.survivors) < self.terms.least:
            raise CohortTooSmall(
                f"round {self.plan.context.round}: {len(self.survivors)} of {len(self._roster.members)} members "
                f"answered, and a sum needs {self.terms.least}"
            )
        self._open("signed", self.survivors.intersection(self._graph.witnesses))
        return dict.fromkeys(self._asked, Survivors(members=self._roster.mark(self.survivors)))

    def signed(self, member: MemberId, message: Signed) -> None:
        self._enter("signed", member, frozenset(self._signatures))
        statement = self.plan.context.statement(self.plan.everybody, self._roster.mark(self.survivors))
        self._keys[member].verify(SURVIVORS, statement, message.signature)
        self._signatures[member] = message.signature

    @property
    def awaited(self) -> frozenset[MemberId]:
        """Members that may still answer the step that is open."""
        match STEPS[self._step]:
            case "encrypted":
                return self._asked - self._tags.keys()
            case "signed":
                return self._asked - self._signatures.keys()
            case _:
                return frozenset(self._tried[-1:])

    # --- the sum ---------------------------------------------------------------------------------------------------

    def next_decryption(self, dst: BinaryIO) -> tuple[MemberId, ToDecrypt]:
        """Close (3), or pass over a holder that failed: whom to ask next, with the encrypted sum in `dst`.

        Raises CohortTooSmall where too few witnesses signed, or no holder is left.
        """
        if STEPS[self._step] == "signed":
            if len(self._signatures) < self._graph.plan.signatures:
                raise CohortTooSmall(
                    f"{len(self._signatures)} witnesses signed the survivors; it takes {self._graph.plan.signatures}"
                )
            self._open("decrypted", self.survivors)
        self._require("decrypted")
        holder = self._next_holder(self.survivors)
        self._encrypted_sum.write(dst)
        return holder, ToDecrypt(total=self._total(), tag=sum(self._tags.values()) % PRIME)

    def decrypted(self, member: MemberId, body: bytes) -> None:
        """Take what a holder sealed to all trainers: nothing that this side can read."""
        self._enter_holder("decrypted", member)
        self._opened = (member, body)

    def opened(self) -> tuple[Opened, bytes]:
        """For all trainers: the sum, as the holder sealed it."""
        if self._opened is None:
            raise RuntimeError("opened() before a holder decrypted")
        holder, body = self._opened
        return Opened(total=self._total(), holder=holder), body

    # --- helpers ---------------------------------------------------------------------------------------------------

    @property
    def _encrypted_sum(self) -> HeSum:
        if self._sum is None:
            raise RuntimeError("a sum before a key was dealt")
        return self._sum

    def _total(self) -> bytes:
        signers = [w for w in self._graph.witnesses if w in self._signatures][: self._graph.plan.signatures]
        return Total(
            round=self.plan.context.round,
            masked=self.plan.everybody,
            members=self._roster.mark(self.survivors),
            witnesses=self._roster.mark(signers),
            signatures=tuple(self._signatures[w] for w in signers),
        ).to_bytes()

    def _next_holder(self, members: frozenset[MemberId]) -> MemberId:
        left = [holder for holder in self.plan.holders if holder in members and holder not in self._tried]
        if not left:
            raise CohortTooSmall(f"round {self.plan.context.round}: no key holder is left to ask")
        self._tried.append(left[0])
        return left[0]

    def _open(self, step: str, asked: frozenset[MemberId]) -> None:
        if STEPS.index(step) != self._step + 1:
            raise RuntimeError(f"the step {step} out of order")
        self._step, self._asked, self._tried = self._step + 1, asked, []

    def _require(self, step: str) -> None:
        if STEPS[self._step] != step:
            raise RuntimeError(f"the step {step} is not open")

    def _enter(self, step: str, member: MemberId, answered: frozenset[MemberId]) -> None:
        """An answer to the open step, from a member that was asked, for the first time."""
        if STEPS[self._step] != step:
            raise Replay(f"{member} answers a step of round {self.plan.context.round} that is not open")
        if member not in self._asked:
            raise Untrusted(f"{member} was not asked in this step of round {self.plan.context.round}")
        if member in answered:
            raise Replay(f"{member} has already answered this step of round {self.plan.context.round}")

    def _enter_holder(self, step: str, member: MemberId) -> None:
        if STEPS[self._step] != step or (self._dealt, self._opened)[step == "decrypted"] is not None:
            raise Replay(f"{member} answers a step of round {self.plan.context.round} that is not open")
        if self._tried[-1:] != [member]:
            raise Untrusted(f"{member} is not the key holder that was asked")
