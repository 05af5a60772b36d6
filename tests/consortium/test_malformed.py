"""Whatever the bytes, parsers raise Malformed (or TooLarge, one of it), and nothing else."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from superswarm.consortium.approval import SignedManifest, approve, chain_to_bytes, parse_chain
from superswarm.consortium.equivocation import Equivocation, SigningRecord, find_equivocation
from superswarm.consortium.grant import SignedGrant
from superswarm.consortium.manifest import Manifest
from superswarm.consortium.vouch import Vouch, check_vouch, sign_vouch
from superswarm.crypto.signing import VerifyingKey
from superswarm.errors import BadSignature, Malformed, TooLarge, Untrusted
from superswarm.values import LIMITS, Digest, MemberId, Role
from superswarm.wire import pack
from tests.consortia import (
    approved,
    digest,
    grant,
    job,
    manifest,
    manifest_data,
    member,
    quorums,
    sign_all,
    signed_grant,
    signing_key,
)

CURRENT = approved()
PARSERS: dict[str, Callable[[bytes], object]] = {
    "toml": Manifest.from_toml,
    "json": Manifest.from_json,
    "signed manifest": SignedManifest.parse,
    "chain": parse_chain,
    "grant": SignedGrant.parse,
    "vouch": Vouch.parse,
    "signed vouch": lambda raw: check_vouch(raw, CURRENT),
    "record": SigningRecord.parse,
    "equivocation": Equivocation.parse,
}


def _vouch() -> Vouch:
    return Vouch(
        manifest=CURRENT.digest,
        consortium=CURRENT.manifest.consortium,
        epoch=1,
        run="run-1",
        attempt=1,
        role=Role.TRAINER,
        subject=MemberId("alice"),
        voucher=MemberId("alice"),
        session=Digest(bytes(32)),
        nonce=bytes(32),
        time=1,
    )


def _equivocation() -> bytes:
    (proof, *_) = find_equivocation(sign_all(manifest()), sign_all(manifest(name="Rival")))
    return proof.to_bytes()


GOOD: dict[str, bytes] = {
    "json": manifest().to_json(),
    "signed manifest": sign_all(manifest()).to_bytes(),
    "chain": chain_to_bytes([sign_all(manifest())]),
    "grant": signed_grant(approved()).to_bytes(),
    "record": SigningRecord({}).permit(manifest()).to_bytes(),
    "equivocation": _equivocation(),
    "vouch": _vouch().to_bytes(),
    "signed vouch": sign_vouch(signing_key("alice"), _vouch(), approved().domain),
}


def refused_or_read(parse: Callable[[bytes], object], raw: bytes) -> None:
    with contextlib.suppress(Malformed):
        parse(raw)


@pytest.mark.parametrize("kind", PARSERS)
@settings(max_examples=150, deadline=None)
@given(raw=st.binary(max_size=300) | st.text(max_size=300).map(lambda t: t.encode("utf-8", "surrogatepass")))
@example(raw=b"")
@example(raw=b"\xff\xfe")
@example(raw=b"[" * 50_000)
@example(raw=b'{"a":' * 50_000)
@example(raw=b"x = " + b"[" * 50_000)
@example(raw=b"x = " + b"9" * 5_000)
@example(raw=b'{"format": ' + b"9" * 5_000 + b"}")
@example(raw=b'{"epoch": NaN}')
@example(raw=b'{"\\ud800": "\\ud800"}')
@example(raw=b'{"a":1,"a":1}')
@example(raw=b'"\xed\xa0\x80" = 1')
def test_arbitrary_bytes(kind: str, raw: bytes) -> None:
    refused_or_read(PARSERS[kind], raw)


@pytest.mark.parametrize("kind", GOOD)
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damaged_documents(kind: str, data: st.DataObject) -> None:
    """Bytes of a good document cut out, doubled or overwritten; a signature may fail too."""
    good = GOOD[kind]
    start = data.draw(st.integers(0, len(good)))
    stop = data.draw(st.integers(start, min(len(good), start + 64)))
    raw = good[:start] + data.draw(st.binary(max_size=16) | st.just(good[start:stop] * 2)) + good[stop:]
    with contextlib.suppress(Malformed, *([Untrusted] if kind == "signed vouch" else [])):
        PARSERS[kind](raw)


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=40),
    st.lists(st.integers() | st.text(max_size=5), max_size=5),
    st.dictionaries(st.text(max_size=8), st.integers(), max_size=3),
    st.sampled_from(
        ["", "public", "alice", digest("x"), 2**63, -1, 10**400, float("nan"), float("inf"), "\u202egnp", "\x9b"]
    ),
)


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every path into a tree of dicts and lists."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path, *(deeper for key, value in items for deeper in places(value, (*path, key)))]


def mutate(tree: Any, draw: st.DataObject) -> Any:
    """Replace, delete, double or add at a random place."""
    tree = copy.deepcopy(tree)
    if not tree:
        return tree
    *parents, last = draw.draw(st.sampled_from(places(tree)[1:]))
    node = tree
    for key in parents:
        node = node[key]
    match draw.draw(st.sampled_from(["replace", "delete", "double", "add"])):
        case "replace":
            node[last] = draw.draw(JUNK)
        case "delete":
            del node[last]
        case "double" if isinstance(node, list):
            node.append(node[last])
        case _ if isinstance(node, dict):
            node[draw.draw(st.text(max_size=12))] = draw.draw(JUNK)
    return tree


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_mutated_manifests(data: st.DataObject) -> None:
    """Structured mutations of a valid manifest; what is still accepted has one canonical form."""
    tree = manifest_data()
    for _ in range(data.draw(st.integers(1, 3))):
        tree = mutate(tree, data)
    fault = None
    try:
        read = Manifest.from_data(tree)
    except Malformed as error:
        fault = str(error)
    if fault is None:
        assert Manifest.from_json(read.to_json()) == read
    else:
        assert fault.replace("\n", "").isprintable()


@pytest.mark.parametrize("kind", ["signed manifest", "chain", "grant", "record", "equivocation"])
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_mutated_documents(kind: str, data: st.DataObject) -> None:
    tree = json.loads(GOOD[kind])
    for _ in range(data.draw(st.integers(1, 3))):
        tree = mutate(tree, data)
    refused_or_read(PARSERS[kind], json.dumps(tree, default=str).encode())


def test_a_key_that_is_no_key_verifies_nothing() -> None:
    """It has the right length and spelling, and the manifest is otherwise well formed."""
    name = MemberId("mallory")
    for raw in (bytes(1984), b"\xff" * 1984, b"\x02" + bytes(1983)):
        first = manifest(member("mallory", "data") | {"signing_key": str(VerifyingKey(raw))})
        with pytest.raises((Malformed, BadSignature)):
            approve([SignedManifest(first, {name: bytes(3373)})])


@settings(max_examples=200, deadline=None)
@given(fields=st.lists(st.binary(max_size=40) | st.text(max_size=40) | st.integers(0, 2**63 - 1), max_size=12))
def test_vouches_of_arbitrary_fields(fields: list[Any]) -> None:
    refused_or_read(Vouch.parse, pack(*fields))
    refused_or_read(PARSERS["signed vouch"], pack(pack(*fields), bytes(3373)))


@pytest.mark.parametrize("kind", PARSERS)
def test_over_the_limit(kind: str) -> None:
    size = LIMITS.chain_bytes + 1 if kind == "chain" else 2 * LIMITS.signed_manifest_bytes + 1
    with pytest.raises(TooLarge):
        PARSERS[kind](b" " * size)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"frobnicate": 1}, "frobnicate: unknown field"),
        ({"quorum": quorums(2, run=1)}, r"quorum\.run is 1: it must be more than half of the 3 members"),
        ({"quorum": quorums(4)}, "at most all"),
        ({"predecessor": digest("x")}, "epoch 1 has no predecessor"),
        ({"epoch": 2}, "every later epoch names one"),
        ({"result": {"recipients": ["mallory"]}}, "mallory, who is not a member"),
        ({"result": {"recipients": ["alice", "alice"]}}, "2 recipients are alice"),
        ({"attestation": "real"}, "real attestation may not have a development_authority"),
        ({"name": "Clinic\u202ecinilC"}, "cannot be seen"),
        ({"name": "bell\x07"}, "cannot be seen"),
        ({"metrics": {"release": ["loss"] * 500}}, "metrics.release"),
    ],
)
def test_a_manifest_that_contradicts_itself_says_where(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(Malformed, match=says):
        manifest(**changes)


def test_a_key_has_one_spelling() -> None:
    """Base64 has spare bits: the same key spelled twice would pass as the keys of two members."""
    alice, twin = member("alice", "data"), member("twin", "data")
    spelled = alice["signing_key"]
    assert spelled.endswith("==")
    other = spelled[:-3] + chr(ord(spelled[-3]) + 1) + "=="
    with pytest.raises(Malformed, match="canonical"):
        manifest(alice, twin | {"signing_key": other})
    with pytest.raises(Malformed, match="2 members share the signing key"):
        manifest(alice, twin | {"signing_key": spelled})


def test_no_member_is_called_public() -> None:
    with pytest.raises(Malformed, match="public"):
        manifest(member("public", "data"))


def test_a_flood_of_faults_is_neither_collected_nor_spelled_out() -> None:
    for flood in ({f"field{i}": 1 for i in range(100_000)}, {"members": [1] * 100_000}):
        with pytest.raises(TooLarge, match="more than 4096 entries"):
            Manifest.from_data(manifest_data() | flood)
    nested: Any = 1
    for _ in range(900):
        nested = [nested]
    with pytest.raises(TooLarge, match="nests deeper"):
        Manifest.from_data(manifest_data() | {"name": nested})
    with pytest.raises(Malformed, match="fields are wrong or unknown") as caught:
        Manifest.from_data(manifest_data() | {"members": [{f"f{i}": 1 for i in range(10)}] * 1000})
    assert len(str(caught.value)) < 1000


def test_names_in_messages_are_safe_on_a_terminal() -> None:
    with pytest.raises(Malformed) as caught:
        manifest(**{"\x1b[2Jcleared": 1})
    assert "\x1b" not in str(caught.value)


def test_json_must_be_canonical() -> None:
    raw = manifest().to_json()
    assert Manifest.from_json(raw) == manifest()
    for other in (
        raw + b"\n",
        raw.replace(b'"alpha":8', b'"alpha":8.0'),
        json.dumps(json.loads(raw), indent=1).encode(),
    ):
        with pytest.raises(Malformed, match="canonical"):
            Manifest.from_json(other)


def test_booleans_and_texts_are_not_numbers() -> None:
    data = grant(approved()).to_data()
    for wrong in (True, "2", 2.0, None):
        with pytest.raises(Malformed):
            SignedGrant.parse(
                json.dumps(
                    {"format": "superswarm-run-grant/1", "grant": data | {"rounds": wrong}, "signatures": {}}
                ).encode()
            )
        with pytest.raises(Malformed):
            manifest(jobs=[job(rounds=wrong)])
