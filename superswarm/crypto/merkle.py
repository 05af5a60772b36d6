"""Merkle tree hashes over SHA-256, as RFC 6962 (section 2.1) defines them, built leaf by leaf.

Leaves and nodes are hashed under different prefixes, so no node can pass for a leaf: without them, one root has a
second list of leaves. Leaves can be hashed in any order and by several threads; only the joining is in order.
"""

from __future__ import annotations

import hashlib


def leaf_hash(data: bytes | memoryview) -> bytes:
    """32 bytes. Over more than 2 KiB, Python lets other threads run meanwhile."""
    digest = hashlib.sha256(b"\x00")
    digest.update(data)
    return digest.digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


class MerkleRoot:
    """The root over the leaves so far; holds one hash for each bit of their number."""

    def __init__(self) -> None:
        self.count = 0
        self._perfect: list[bytes] = []  # roots of perfect subtrees, the largest and leftmost first

    def add(self, leaf: bytes) -> None:
        """Append the hash of the next leaf."""
        node, sizes = leaf, self.count
        while sizes & 1:  # the rightmost subtree is as large as what is joined to it
            node = node_hash(self._perfect.pop(), node)
            sizes >>= 1
        self._perfect.append(node)
        self.count += 1

    def root(self) -> bytes:
        """32 bytes; of no leaves, the hash of nothing."""
        if not self._perfect:
            return hashlib.sha256().digest()
        node = self._perfect[-1]
        for left in reversed(self._perfect[:-1]):
            node = node_hash(left, node)
        return node
