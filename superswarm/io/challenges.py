"""Challenges that a member gave to servers, as files: each serves once, for one result, and expires.

What is open lies beside the member's keys, so that a challenge outlives the command that made it.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Final

from superswarm.attestation.evidence import NONCE_BYTES
from superswarm.attestation.serving import ServerChallenge
from superswarm.consortium.documents import dump_json, load_json, require_fields
from superswarm.errors import Malformed, NotVouched, TooLarge
from superswarm.io.files import SECRET, locked, read_bytes, write_bytes
from superswarm.values import LIMITS

FORMAT: Final = "superswarm-challenges/1"
WHAT: Final = "record of challenges"


class Challenges:
    """The record beside a key file: `KEYS.challenges`."""

    def __init__(self, keys: Path) -> None:
        self._file = keys.with_name(f"{keys.name}.challenges")

    def issue(self, run: str, container: str, *, at: int) -> ServerChallenge:
        """A fresh challenge for a server that asks for this container, on disk before anybody sees it."""
        nonce, expires = secrets.token_hex(NONCE_BYTES), at + LIMITS.challenge_seconds
        made = ServerChallenge(run=run, container=container, nonce=nonce, expires=expires)
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
                if one.raw in nonces and one.container == container:
                    return one.raw
        raise NotVouched(
            "the server answers no open challenge of yours for this result: give it a new one (result challenge)"
        )

    def spend(self, nonce: bytes, *, at: int) -> None:
        """Close a challenge, on disk before what it allowed is done. Raises NotVouched where it is not open."""
        with locked(self._file):
            unexpired = self._read(at)
            left = [one for one in unexpired if one.raw != nonce]
            if len(left) == len(unexpired):
                raise NotVouched("the server's challenge was answered before, or has expired")
            self._write(left)

    def _read(self, at: int) -> list[ServerChallenge]:
        if not self._file.exists():
            return []
        data = load_json(read_bytes(self._file, limit=LIMITS.document_bytes), WHAT)
        require_fields(data, WHAT, FORMAT, {"open"})
        if not isinstance(data["open"], list):
            raise Malformed(f"{self._file}: not a {WHAT}")
        return [one for one in map(ServerChallenge.from_data, data["open"]) if one.expires > at]

    def _write(self, challenges: list[ServerChallenge]) -> None:
        rows = [one.model_dump(mode="json") for one in challenges]
        write_bytes(self._file, dump_json({"format": FORMAT, "open": rows}), mode=SECRET, replace=True)
