"""Merkle roots are those that RFC 6962 defines."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from superswarm.crypto.merkle import MerkleRoot, leaf_hash, node_hash


def defined(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return hashlib.sha256(b"\1" + defined(leaves[:k]) + defined(leaves[k:])).digest()


def root_of(leaves: list[bytes]) -> bytes:
    tree = MerkleRoot()
    for leaf in leaves:
        tree.add(leaf_hash(leaf))
    return tree.root()


@given(st.lists(st.binary(max_size=4), max_size=70))
def test_roots_are_as_defined(leaves: list[bytes]) -> None:
    assert root_of(leaves) == defined(leaves)


def test_a_root_can_be_read_at_any_time() -> None:
    tree, leaves = MerkleRoot(), [bytes([n]) for n in range(20)]
    for count, leaf in enumerate(leaves, 1):
        tree.add(leaf_hash(leaf))
        assert tree.root() == defined(leaves[:count])


def test_a_node_does_not_pass_for_a_leaf() -> None:
    """Without prefixes, two leaves and the one leaf made of their hashes have one root."""
    left, right = leaf_hash(b"l"), leaf_hash(b"r")
    assert node_hash(left, right) == root_of([b"l", b"r"])
    assert root_of([left + right]) != root_of([b"l", b"r"])
