"""Challenges that a contributor gave to servers, as files: each serves once, for one result, and expires.

What is open lies beside the contributor's keys, so that a challenge outlives the command that made it.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from superswarm.attestation.evidence import NONCE_BYTES
from superswarm.consortium.documents import dump_json, load_json, require_fields
from superswarm.errors import Malformed, NotVouched, TooLarge
from superswarm.io.files import SECRET, locked, read_bytes, write_bytes
from superswarm.values import LIMITS

FORMAT: Final = "superswarm-challenges/1"
WHAT: Final = "record of challenges"


@dataclass(frozen=True, slots=True)
class Challenge:
    """A nonce that a server's evidence must cover, for one container, until a time (unix seconds)."""

    nonce: bytes
    container: str
    expires: int

    @classmethod
    def parse(cls, data: object) -> Self:
        match data:
            case [str(nonce), str(container), int(expires)] if not isinstance(expires, bool):
                try:
                    return cls(bytes.fromhex(nonce), container, expires)
                except ValueError:
                    pass
        raise Malformed(f"the {WHAT} holds something that is no challenge")


class Challenges:
    """The record beside a key file: `KEYS.challenges`."""

    def __init__(self, keys: Path) -> None:
        self._file = keys.with_name(f"{keys.name}.challenges")

    def issue(self, container: str, *, at: int) -> Challenge:
        """A fresh challenge for a server that asks for this container, on disk before anybody sees it."""
        made = Challenge(secrets.token_bytes(NONCE_BYTES), container, at + LIMITS.challenge_seconds)
        with locked(self._file):
            unexpired = self._read(at)
            if len(unexpired) >= LIMITS.challenges:
                raise TooLarge(f"{LIMITS.challenges} challenges are open: wait until one expires")
            self._write([*unexpired, made])
        return made

    def find(self, nonces: tuple[bytes, ...], container: str, *, at: int) -> bytes:
        """The open challenge among these nonces that was given for this container. Raises NotVouched for none."""
        with locked(self._file):
            for one in self._read(at):
                if one.nonce in nonces and one.container == container:
                    return one.nonce
        raise NotVouched(
            "the server answers no open challenge of yours for this result: give it a new one (result challenge)"
        )

    def spend(self, nonce: bytes, *, at: int) -> None:
        """Close a challenge, on disk before what it allowed is done. Raises NotVouched where it is not open."""
        with locked(self._file):
            unexpired = self._read(at)
            left = [one for one in unexpired if one.nonce != nonce]
            if len(left) == len(unexpired):
                raise NotVouched("the server's challenge was answered before, or has expired")
            self._write(left)

    def _read(self, at: int) -> list[Challenge]:
        if not self._file.exists():
            return []
        data = load_json(read_bytes(self._file, limit=LIMITS.document_bytes), WHAT)
        require_fields(data, WHAT, FORMAT, {"open"})
        if not isinstance(data["open"], list):
            raise Malformed(f"{self._file}: not a {WHAT}")
        return [one for one in map(Challenge.parse, data["open"]) if one.expires > at]

    def _write(self, challenges: list[Challenge]) -> None:
        rows = [[one.nonce.hex(), one.container, one.expires] for one in challenges]
        write_bytes(self._file, dump_json({"format": FORMAT, "open": rows}), mode=SECRET, replace=True)
