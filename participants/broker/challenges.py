"""A broker's open challenges: each for one member and asset, good once and not for long. Lost when it stops."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from superswarm.attestation.evidence import NONCE_BYTES
from superswarm.errors import ReleaseRefused
from superswarm.values import LIMITS, Digest, MemberId

OPEN: Final = 16  # of one member for one asset under one manifest, at once


@dataclass(frozen=True, slots=True)
class _Challenge:
    manifest: Digest
    member: MemberId
    asset: Digest
    expires: float  # monotonic seconds


class Challenges:
    """Nonces that were given out. Of too many for one member and asset the oldest is dropped: nobody else waits."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._open: dict[bytes, _Challenge] = {}  # oldest first

    def issue(self, manifest: Digest, member: MemberId, asset: Digest) -> bytes:
        """A fresh nonce, 32 bytes."""
        at = self._monotonic()
        self._open = {nonce: one for nonce, one in self._open.items() if one.expires > at}
        mine = [
            nonce
            for nonce, one in self._open.items()
            if (one.manifest, one.member, one.asset) == (manifest, member, asset)
        ]
        for nonce in mine[: max(0, len(mine) - OPEN + 1)]:
            del self._open[nonce]
        nonce = secrets.token_bytes(NONCE_BYTES)
        self._open[nonce] = _Challenge(manifest, member, asset, at + LIMITS.nonce_seconds)
        return nonce

    def take(self, nonce: bytes, manifest: Digest, member: MemberId, asset: Digest) -> None:
        """Close a challenge by answering it. Raises ReleaseRefused unless it was given for this and is open."""
        found = self._open.get(nonce)
        if found is None or (found.manifest, found.member, found.asset) != (manifest, member, asset):
            raise ReleaseRefused("no-such-challenge", "the request answers no open challenge of this broker")
        del self._open[nonce]
        if found.expires <= self._monotonic():
            raise ReleaseRefused("no-such-challenge", "the request answers a challenge that has expired")
