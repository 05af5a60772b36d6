"""Encrypted sums in memory: every member and the aggregator, with nothing between them but whoever cheats."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np

from superswarm.consortium.approval import ApprovedManifest
from superswarm.errors import Error
from superswarm.updates.secure.he_combine import HeSumRound
from superswarm.updates.secure.he_keys import HePlan
from superswarm.updates.secure.he_member import HeMemberRound
from superswarm.updates.secure.masks import Contribution
from superswarm.updates.secure.seeds import contribution
from superswarm.updates.secure.total import CheckedSum
from superswarm.values import MemberId
from tests import consortia
from tests.securesums import MOST, Members, session_keys


@cache
def manifest(
    n: int, *, holders: int = 3, scheme: str = "bfv", threshold: int = 3, dropouts: int = 2
) -> ApprovedManifest:
    return consortia.approved(
        *[consortia.member(f"m{i:03}", consortia.DATA) for i in range(n)],
        protection={
            "mode": "he",
            "encoding": {"clip_norm": 50.0, "max_weight": MOST},
            "homomorphic": {
                "scheme": scheme,
                "key_holders": holders,
                "threshold": threshold,
                "colluders": 0,
                "dropouts": dropouts,
            },
        },
        aggregation={
            "rule": "fedavg",
            "weighting": "examples",
            "minimum_cohort": threshold,
            "round_seconds": 60,
        },
    )


class HeMembers(Members):
    """The members of one roster, and what they bring to rounds of encrypted sums."""

    def plan(self, round_: int = 1) -> HePlan:
        return HePlan.of(self.terms, self.context(round_), self.size, self.manifest.manifest)

    def side(self, name: MemberId, round_: int = 1) -> HeMemberRound:
        kem = consortia.kem_key(f"{name}/session/1")
        return HeMemberRound(self.standings[name], kem, self.plan(round_), most=MOST)

    def contribution(self, name: MemberId, round_: int = 1) -> Contribution:
        plan, standing = self.plan(round_), self.standings[name]
        encoded = plan.code.encode(self.update(name, round_), self.weight(name) / MOST)
        return contribution(plan.context, standing.group, name, encoded, self.weight(name))


Hook = Callable[[str, MemberId, Any], Any]
STEPS = ("deal", "encrypt", "sign", "decrypt", "take")


class HePlay:
    """One round, step by step. `gone` says at which step a member vanishes; `hook` sees what comes to members."""

    def __init__(
        self, members: HeMembers, *, gone: Mapping[MemberId, str] | None = None, hook: Hook | None = None, round_: int
    ) -> None:
        self.members, self.number = members, round_
        self.gone, self.hook = dict(gone or {}), hook or (lambda _step, _name, message: message)
        self.sides = {name: members.side(name, round_) for name in members.names}
        keys = {name: session_keys(name).signing for name in members.names}
        self.aggregator = HeSumRound(members.terms, members.plan(round_), keys)
        self.sums: dict[MemberId, CheckedSum] = {}
        self.refusals: dict[MemberId, Error] = {}

    def run(self) -> HePlay:
        return self.until("")

    def until(self, last: str) -> HePlay:
        """Play the steps before `last`."""
        for step in STEPS:
            if step == last:
                break
            getattr(self, step)()
        return self

    def here(self, name: MemberId, step: str) -> bool:
        vanished = self.gone.get(name)
        return (vanished is None or STEPS.index(step) < STEPS.index(vanished)) and name not in self.refusals

    def arrive(self, step: str, name: MemberId, message: Any) -> Any:
        return self.hook(step, name, type(message).parse(message.to_bytes()))

    def guarded(self, name: MemberId, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except Error as error:
            self.refusals[name] = error
            return None

    def deal(self) -> None:
        while True:
            name = self.aggregator.next_dealer()
            if self.here(name, "deal"):
                self.aggregator.dealt(name, self.arrive("deal", name, self.sides[name].deal()))
                return

    def encrypt(self) -> None:
        for name, message in self.aggregator.ask_encrypted().items():
            if self.here(name, "encrypt"):
                self.guarded(name, lambda name=name, message=message: self.encrypt_one(name, message))

    def encrypt_one(self, name: MemberId, message: Any) -> None:
        side, dst = self.sides[name], io.BytesIO()
        side.receive(self.arrive("receive", name, message))
        said = side.encrypt(self.members.contribution(name, self.number), dst)
        self.aggregator.encrypted(name, *self.hook("encrypt", name, (said, dst.getvalue())))

    def sign(self) -> None:
        for name, message in self.aggregator.ask_signatures().items():
            if self.here(name, "sign"):
                arrived = self.arrive("sign", name, message)
                signed = self.guarded(name, lambda name=name, arrived=arrived: self.sides[name].sign(arrived))
                if signed is not None:
                    self.aggregator.signed(name, signed)

    def decrypt(self) -> None:
        while True:
            dst = io.BytesIO()
            name, message = self.aggregator.next_decryption(dst)
            if not self.here(name, "decrypt"):
                continue
            arrived, body = self.hook("decrypt", name, (message, dst.getvalue()))
            found = self.guarded(name, lambda: self.sides[name].decrypt(arrived, body))  # noqa: B023 - called at once
            if found is not None:
                self.aggregator.decrypted(name, found[1])
                return

    def take(self) -> None:
        message, body = self.aggregator.opened()
        for name in sorted(self.aggregator.survivors):
            if self.here(name, "take"):
                arrived, sealed = self.hook("take", name, (message, body))
                found = self.guarded(name, lambda name=name, a=arrived, s=sealed: self.sides[name].take(a, s))
                if found is not None:
                    self.sums[name] = found

    def check(self) -> None:
        """All that are left have the same mean, which is that of the survivors' updates."""
        survivors = self.aggregator.survivors
        assert self.sums
        means = [found.mean for found in self.sums.values()]
        assert all((mean == means[0]).all() for mean in means)
        assert all(found.survivors == survivors for found in self.sums.values())
        names = sorted(survivors)
        weights, updates = (
            [self.members.weight(n) for n in names],
            [self.members.update(n, self.number) for n in names],
        )
        expected = np.average(updates, axis=0, weights=weights)
        code = self.members.plan(self.number).code
        assert np.abs(means[0] - expected).max() < 6 * code.step * MOST / np.mean(weights)
