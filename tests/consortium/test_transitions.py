"""10,000 illegal transitions tried, 0 accepted; the legal ones among them are all accepted.

The judge here is written a second time, over plain data, from docs/adr/0002 and not from the code under test.
"""

from __future__ import annotations

import copy
import dataclasses
import random
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest

from superswarm.consortium.approval import ApprovedManifest, SignedManifest, approve, sign_manifest, succeed
from superswarm.consortium.grant import SignedGrant, approve_grant, sign_grant
from superswarm.consortium.manifest import Manifest
from superswarm.consortium.vouch import Vouch, check_vouch, sign_vouch
from superswarm.crypto.signing import ED25519_SIGNATURE
from superswarm.errors import Error, Fork, NotApproved, OwnerVeto, Untrusted
from superswarm.values import Digest, MemberId, Role
from tests.consortia import (
    TDX_POLICY,
    digest,
    grant,
    kem_key,
    manifest_data,
    measurement,
    member,
    public_key,
    quorums,
    signing_key,
)

ILLEGAL = 10_000
NAMES = ("alice", "bob", "carol", "dave", "erin", "frank")
HANDLING = {"coordinator", "workloads", "jobs", "aggregation", "protection", "privacy", "metrics", "result"}
Data = dict[str, Any]


# --- a judge of its own -------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Verdict:
    voters: frozenset[str]
    quorum: int
    must: frozenset[str]
    veto: frozenset[str]
    enter: frozenset[str]

    def allows(self, signers: set[str], accepting: set[str]) -> bool:
        return signers >= self.must and accepting >= self.enter and len(signers) >= self.quorum


def judge(old: Data, new: Data) -> Verdict:
    """Who must sign `new` after `old`: the rules of docs/adr/0002 over plain data."""
    changed = {c for c in HANDLING | {"members", "assets", "quorum"} if old[c] != new[c]}
    if old["name"] != new["name"]:
        changed.add("members")
    was = {m["id"]: m for m in old["members"]}
    now = {m["id"]: m for m in new["members"]}
    oneself = {i for i in was if i in now and was[i] != now[i]}
    enter = {i for i in now if i not in was or was[i]["signing_key"] != now[i]["signing_key"]}
    owned_before = {a["name"]: a for a in old["assets"]}
    owned_after = {a["name"]: a for a in new["assets"]}
    veto = set()
    for name in [*owned_before, *owned_after]:
        before, after = owned_before.get(name), owned_after.get(name)
        if before != after:
            veto |= {a["owner"] for a in (before, after) if a}
    base_before, base_after = owned_before[old["jobs"][0]["base_model"]], owned_after[new["jobs"][0]["base_model"]]
    handled = bool(changed & HANDLING) or base_before != base_after
    if handled:
        veto |= {base_before["owner"], base_after["owner"]}
        veto |= {a["owner"] for a in [*old["assets"], *new["assets"]] if a["kind"] == "dataset"}
        veto |= {m["id"] for m in new["members"] if "data" in m["contributes"]}
    if "workloads" in changed:
        veto |= {a["owner"] for a in [*old["assets"], *new["assets"]]}
    veto &= set(was)
    need = max([old["quorum"][c] for c in changed], default=old["quorum"]["members"])
    return Verdict(frozenset(was), need, frozenset(veto | oneself), frozenset(veto), frozenset(enter))


# --- random worlds ------------------------------------------------------------------------------------------------


def random_member(rng: random.Random, name: str, key: str | None = None) -> Data:
    return member(name, *rng.choice([["data"], ["data"], ["data", "model"], ["model"], ["hosting"], []]), key=key)


def random_quorums(rng: random.Random, n: int) -> dict[str, int]:
    low = n // 2 + 1
    table = {clause: rng.randint(low, n) for clause in quorums(1)}
    top = max(table.values())
    return table | {"members": top, "quorum": top}


def random_asset(rng: random.Random, name: str, owners: list[str]) -> Data:
    kind = "model" if name == "base" else rng.choice(["model", "dataset"])
    owner = rng.choice([*owners, "public"])
    return {
        "name": name,
        "kind": kind,
        "owner": owner,
        "digest": digest(f"{name} {rng.random()}"),
        "source": "somewhere",
    }


def random_genesis(rng: random.Random) -> Data:
    names = rng.sample(NAMES, rng.randint(1, 5))
    members = [random_member(rng, name) for name in names]
    members[0]["contributes"] = ["data"]
    data = manifest_data(*members)
    data["assets"] = [
        random_asset(rng, name, names) for name in ["base", "second", "third"][: rng.choice([1, 1, 2, 3])]
    ]
    data["quorum"] = random_quorums(rng, len(names))
    data["consortium"] = rng.randbytes(16).hex()
    return data


Mutation = Callable[[random.Random, Data], None]


def joins(rng: random.Random, data: Data) -> None:
    out = [name for name in NAMES if name not in {m["id"] for m in data["members"]}]
    if out:
        data["members"].append(random_member(rng, rng.choice(out)))


def leaves(rng: random.Random, data: Data) -> None:
    if len(data["members"]) > 1:
        gone = data["members"].pop(rng.randrange(len(data["members"])))["id"]
        heir = data["members"][0]["id"]
        for asset in data["assets"]:
            if asset["owner"] == gone:
                asset["owner"] = heir
        recipients = [r for r in data["result"]["recipients"] if r != gone]
        data["result"]["recipients"] = recipients or [heir]


def rekeys(rng: random.Random, data: Data) -> None:
    entry = rng.choice(data["members"])
    name = entry["id"]
    other = f"{name}/2" if entry["signing_key"] == str(public_key(name)) else name
    entry["signing_key"] = str(public_key(other))
    if rng.random() < 0.5:
        entry["encryption_key"] = str(kem_key(other).public)


def edits_entry(rng: random.Random, data: Data) -> None:
    entry = rng.choice(data["members"])
    if rng.random() < 0.5:
        entry["name"] = f"Clinic {rng.randrange(10**6)}"
    else:
        entry["contributes"] = random_member(rng, entry["id"])["contributes"]


def edits_asset(rng: random.Random, data: Data) -> None:
    asset = rng.choice(data["assets"])
    if rng.random() < 0.5:
        asset["digest"] = digest(str(rng.random()))
    else:
        asset["owner"] = rng.choice([m["id"] for m in data["members"]])


def adds_asset(rng: random.Random, data: Data) -> None:
    name = f"asset-{rng.randrange(10**6)}"
    data["assets"].append(random_asset(rng, name, [m["id"] for m in data["members"]]))


def drops_asset(rng: random.Random, data: Data) -> None:
    spare = [a for a in data["assets"] if a["name"] != data["jobs"][0]["base_model"]]
    if spare:
        data["assets"].remove(rng.choice(spare))


def swaps_base(rng: random.Random, data: Data) -> None:
    data["jobs"][0]["base_model"] = rng.choice([a["name"] for a in data["assets"] if a["kind"] == "model"])


def edits_quorum(rng: random.Random, data: Data) -> None:
    data["quorum"] = random_quorums(rng, len(data["members"]))


def edits_handling(rng: random.Random, data: Data) -> None:
    n = rng.randrange(10**6)
    match rng.randrange(6):
        case 0:
            data["coordinator"] = data["coordinator"] | {"name": f"Operator {n}"}
        case 1:
            data["workloads"]["trainer"]["measurements"] = [measurement(str(n))]
        case 2:
            data["jobs"][0]["seed"] = n
        case 3:
            data["aggregation"]["round_seconds"] = n + 1
        case 4:
            data["metrics"]["release"] = rng.choice([[], ["seconds"], ["examples", "train_loss"]])
        case _:
            names = [m["id"] for m in data["members"]]
            data["result"]["recipients"] = rng.sample(names, rng.randint(1, len(names)))


def edits_name(rng: random.Random, data: Data) -> None:
    data["name"] = f"Consortium {rng.randrange(10**6)}"


MUTATIONS: tuple[Mutation, ...] = (
    joins,
    leaves,
    rekeys,
    edits_entry,
    edits_asset,
    adds_asset,
    drops_asset,
    swaps_base,
    edits_quorum,
    edits_handling,
    edits_handling,
    edits_name,
)


def random_successor(rng: random.Random, current: ApprovedManifest) -> Manifest:
    """A well-formed next epoch with zero to three changes; whoever the numbers no longer fit is set right."""
    while True:
        data = copy.deepcopy(current.manifest.to_data())
        data |= {"epoch": data["epoch"] + 1, "predecessor": str(current.digest)}
        for _ in range(rng.choice([0, 1, 1, 1, 2, 2, 3])):
            rng.choice(MUTATIONS)(rng, data)
        n = len(data["members"])
        if not all(n // 2 < q <= n for q in data["quorum"].values()):
            data["quorum"] = random_quorums(rng, n)
        try:
            return Manifest.from_data(data)
        except Error:
            continue  # no member with data is left, or the like


# --- signatures, kept since they cost a millisecond ---------------------------------------------------------------


@cache
def _signature(key: str, tag_manifest: Manifest) -> bytes:
    return sign_manifest(signing_key(key), tag_manifest)


def key_of(manifest: Manifest, name: str) -> str:
    entry = manifest.member(name)
    assert entry is not None
    return name if entry.signing_key == str(public_key(name)) else f"{name}/2"


def sign(old: Manifest, new: Manifest, signers: set[str], accepting: set[str]) -> SignedManifest:
    return SignedManifest(
        new,
        {MemberId(name): _signature(key_of(old, name), new) for name in signers},
        {MemberId(name): _signature(key_of(new, name), new) for name in accepting},
    )


# --- attacks on the signatures of a complete set --------------------------------------------------------------------


def corrupted(
    rng: random.Random, current: ApprovedManifest, full: SignedManifest, rival: Manifest
) -> Iterator[tuple[str, SignedManifest]]:
    """Every way to spoil one signature of a set that would be accepted."""
    old, new = current.manifest, full.manifest
    name = rng.choice(sorted(full.signatures))
    good = full.signatures[name]
    other = _signature(key_of(old, name), rival)
    replayed = _signature(key_of(old, name), old)
    flipped = bytearray(good)
    flipped[rng.randrange(len(good))] ^= 1 << rng.randrange(8)
    stranger = "mallory"
    digest_as_grant = signing_key(key_of(old, name)).sign(f"{old.domain}/grant", new.digest.raw)
    real = signing_key(key_of(old, name)).sign("superswarm/v1/real/manifest", new.digest.raw)
    for what, signature in (
        ("replayed from the current epoch", replayed),
        ("replayed from a rival", other),
        ("half Ed25519 of a rival", other[:ED25519_SIGNATURE] + good[ED25519_SIGNATURE:]),
        ("half ML-DSA of a rival", good[:ED25519_SIGNATURE] + other[ED25519_SIGNATURE:]),
        ("half Ed25519 missing", bytes(ED25519_SIGNATURE) + good[ED25519_SIGNATURE:]),
        ("half ML-DSA missing", good[:ED25519_SIGNATURE]),
        ("a bit flipped", bytes(flipped)),
        ("empty", b""),
        ("made with a stranger's key", _signature(stranger, new)),
        ("made for a grant", digest_as_grant),
        ("made for the real domain", real),
    ):
        yield f"signature {what}", dataclasses.replace(full, signatures={**full.signatures, name: signature})
    strange = {**full.signatures, MemberId(stranger): _signature(stranger, new)}
    yield "signature of a stranger", dataclasses.replace(full, signatures=strange)
    uninvited = {**full.acceptances, MemberId(stranger): _signature(stranger, new)}
    yield "acceptance of a stranger", dataclasses.replace(full, acceptances=uninvited)
    for entering in full.acceptances:
        with_old = {**full.acceptances, entering: _signature(f"{entering}/3", new)}
        yield "acceptance with another key", dataclasses.replace(full, acceptances=with_old)


def misplaced(rng: random.Random, current: ApprovedManifest, new: Manifest) -> Iterator[tuple[str, Manifest]]:
    """The same epoch, signed by all, in another place than after the current one."""
    data = new.to_data()
    yield "epoch skipped", Manifest.from_data(data | {"epoch": data["epoch"] + 1})
    if current.manifest.epoch > 1:
        yield "epoch repeated", Manifest.from_data(data | {"epoch": data["epoch"] - 1})
    yield "another predecessor", Manifest.from_data(data | {"predecessor": digest(str(rng.random()))})
    yield "another consortium", Manifest.from_data(data | {"consortium": rng.randbytes(16).hex()})
    real = copy.deepcopy(data) | {"attestation": "real"}
    for party in [*real["members"], real["coordinator"]]:
        party.pop("development_authority")
    for workload in real["workloads"].values():
        workload |= {"platforms": ["tdx"], "policy": {"tdx": TDX_POLICY}}
    yield "simulated becomes real", Manifest.from_data(real)


class Tally:
    """What was tried, by kind; one accepted attack ends the test."""

    def __init__(self) -> None:
        self.illegal: Counter[str] = Counter()
        self.legal = 0

    def refuse(
        self, what: str, attempt: Callable[..., object], *args: Any, expected: tuple[type[Error], ...] = (Untrusted,)
    ) -> None:
        try:
            attempt(*args)
        except expected:
            self.illegal[what] += 1
        else:
            pytest.fail(f"accepted: {what}")

    def accept(self, attempt: Callable[..., object], *args: Any) -> None:
        attempt(*args)
        self.legal += 1


def try_subsets(tally: Tally, rng: random.Random, current: ApprovedManifest, new: Manifest) -> SignedManifest:
    """Random sets of signers, judged twice. Returns the full set, which is accepted."""
    old = current.manifest
    verdict = judge(old.to_data(), new.to_data())
    everybody = sign(old, new, set(verdict.voters), set(verdict.enter))
    tally.accept(succeed, current, everybody)
    smallest = set(verdict.must)
    for name in sorted(verdict.voters - verdict.must):
        if len(smallest) < verdict.quorum:
            smallest.add(name)
    tally.accept(succeed, current, sign(old, new, smallest, set(verdict.enter)))
    cases = [(smallest - {name}, set(verdict.enter)) for name in sorted(smallest)]
    cases += [(set(verdict.voters), set(verdict.enter) - {name}) for name in sorted(verdict.enter)]
    cases += [(set(verdict.voters) - {name}, set(verdict.enter)) for name in sorted(verdict.must)]
    cases += [({n for n in verdict.voters if rng.random() < 0.5}, set(verdict.enter)) for _ in range(3)]
    for signers, accepting in cases:
        signed = sign(old, new, signers, accepting)
        if verdict.allows(signers, accepting):
            tally.accept(succeed, current, signed)
        elif verdict.veto - signers:
            tally.refuse("owner's asset without the owner", succeed, current, signed, expected=(NotApproved,))
            if len(signers) == len(verdict.voters) - 1 and not (verdict.must - verdict.veto) - signers:
                with pytest.raises(OwnerVeto):
                    succeed(current, signed)
        elif verdict.must - signers:
            tally.refuse("entry changed without its member", succeed, current, signed, expected=(NotApproved,))
        elif verdict.enter - accepting:
            tally.refuse("entering without acceptance", succeed, current, signed, expected=(NotApproved,))
        else:
            tally.refuse("too small a quorum", succeed, current, signed, expected=(NotApproved,))
    return everybody


def try_grants(tally: Tally, rng: random.Random, current: ApprovedManifest, other: ApprovedManifest) -> None:
    """A run without its grant: too few signatures, another epoch's, another domain's, altered, replayed."""
    names = [m.id for m in current.manifest.members]
    allowed = grant(current, run=f"run-{rng.randrange(10**6)}")

    def signature(name: str, of: ApprovedManifest = current, **changes: Any) -> bytes:
        return sign_grant(
            signing_key(key_of(current.manifest, name)), dataclasses.replace(allowed, **changes), of.domain
        )

    full = {MemberId(name): signature(name) for name in names}
    granted = approve_grant(SignedGrant(allowed, full), current)
    tally.accept(granted.check, allowed.not_after, 1)
    few = dict(rng.sample(sorted(full.items()), current.manifest.quorum.run - 1))
    altered = [
        dataclasses.replace(allowed, **{field: getattr(allowed, field) + 1})
        for field in ("rounds", "attempts", "not_after")
    ]
    one = MemberId(rng.choice(names))
    key = signing_key(key_of(current.manifest, one))
    attempts = [
        ("grant without a quorum", SignedGrant(allowed, few)),
        ("grant without signatures", SignedGrant(allowed, {})),
        *(("grant altered after signing", SignedGrant(changed, full)) for changed in altered),
        ("grant renamed after signing", SignedGrant(dataclasses.replace(allowed, run="other"), full)),
        ("grant of another epoch", SignedGrant(dataclasses.replace(allowed, manifest=other.digest), full)),
        ("grant for the real domain", SignedGrant(allowed, {**full, one: key.sign("superswarm/v1/real/grant", b"")})),
        ("half a grant's signature", SignedGrant(allowed, {**full, one: full[one][:ED25519_SIGNATURE]})),
        ("grant signed by a stranger", SignedGrant(allowed, {**full, MemberId("mallory"): full[one]})),
    ]
    for what, signed in attempts:
        tally.refuse(what, approve_grant, signed, current)
    tally.refuse("run after its grant's end", granted.check, allowed.not_after + 1, 1)
    tally.refuse("run's attempts used up", granted.check, 0, allowed.attempts + 1)


def try_vouches(tally: Tally, rng: random.Random, current: ApprovedManifest, other: ApprovedManifest) -> None:
    name = MemberId(rng.choice([m.id for m in current.manifest.members]))
    key = signing_key(key_of(current.manifest, name))
    vouch = Vouch(
        manifest=current.digest,
        consortium=current.manifest.consortium,
        epoch=current.manifest.epoch,
        run="run-1",
        attempt=1,
        role=Role.TRAINER,
        subject=name,
        voucher=name,
        session=Digest(rng.randbytes(32)),
        nonce=rng.randbytes(32),
        time=1_800_000_000,
    )
    replace = dataclasses.replace
    tally.accept(check_vouch, sign_vouch(key, vouch, current.domain), current)
    attempts = [
        ("vouch under another epoch", sign_vouch(key, replace(vouch, manifest=other.digest), current.domain)),
        ("vouch of a stranger", sign_vouch(key, replace(vouch, voucher=MemberId("mallory")), current.domain)),
        ("vouch for another's trainer", sign_vouch(key, replace(vouch, subject=MemberId("mallory")), current.domain)),
        ("vouch with another key", sign_vouch(signing_key("mallory"), vouch, current.domain)),
        ("vouch in the real domain", sign_vouch(key, vouch, "superswarm/v1/real")),
    ]
    for what, raw in attempts:
        tally.refuse(what, check_vouch, raw, current)


def pinned(chain: list[SignedManifest], digest_seen: Digest) -> ApprovedManifest:
    return approve(chain, pinned=digest_seen)


@pytest.mark.slow
def test_ten_thousand_illegal_transitions_are_refused_and_every_legal_one_is_accepted() -> None:
    rng = random.Random(20_24)
    tally = Tally()
    while tally.illegal.total() < ILLEGAL:
        data = random_genesis(rng)
        first = Manifest.from_data(data)
        names = {m.id for m in first.members}
        genesis = sign(first, first, names, set())
        tally.accept(approve, [genesis])
        for name in sorted(names):
            tally.refuse("first epoch without a member", approve, [sign(first, first, names - {name}, set())])
        current = approve([genesis])
        chain = [genesis]
        for _ in range(3):
            new, rival = random_successor(rng, current), random_successor(rng, current)
            full = try_subsets(tally, rng, current, new)
            for what, signed in corrupted(rng, current, full, rival) if new.digest != rival.digest else ():
                tally.refuse(what, succeed, current, signed)
            for what, elsewhere in misplaced(rng, current, new):
                verdict = judge(current.manifest.to_data(), new.to_data())
                signed = sign(current.manifest, elsewhere, set(verdict.voters), set(verdict.enter))
                tally.refuse(what, succeed, current, signed, expected=(Fork, NotApproved))
            after = succeed(current, full)
            tally.refuse("fork", succeed, after, full, expected=(Fork,))
            tally.refuse("chain without its beginning", approve, [full], expected=(Fork,))
            tally.refuse("rival chain", pinned, [*chain, full], Digest.parse(digest("other")), expected=(Fork,))
            try_grants(tally, rng, after, current)
            try_vouches(tally, rng, after, current)
            current, chain = after, [*chain, full]
        tally.accept(pinned, chain, approve(chain[:1]).digest)
        _signature.cache_clear()
    print(f"\n{tally.illegal.total()} illegal transitions tried, 0 accepted; {tally.legal} legal ones accepted")
    for what, count in sorted(tally.illegal.items()):
        print(f"  {count:5} {what}")
    assert tally.illegal.total() >= ILLEGAL
    assert tally.legal >= ILLEGAL // 20
    assert len(tally.illegal) >= 30
    assert min(tally.illegal.values()) >= 20
