"""A member's side of the mail: letters that wait for the aggregator to come by, and those already taken."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from typing import Final

from superswarm.crypto.letter import Letter
from superswarm.errors import CannotOpen, Error, Replay, TooLarge
from superswarm.values import LIMITS
from superswarm.wire import parse_party

HEADER_BYTES: Final = 4096  # more than any header; an empty letter takes room, too


class Mailbox:
    """Letters to and from one party. Sealed when put in; opened by whoever takes them out.

    Anybody can write in any sender's name, as long as nobody opens it. So letters that wait have a limit in all, and
    where it is passed, the sender of whom most waits loses its oldest: many names take as little room as one.
    """

    def __init__(self, me: str) -> None:
        self.me = me
        self._outbox: deque[Letter] = deque()
        self._inbox: dict[str, deque[Letter]] = {}  # by sender, so that nobody's letters crowd out another's
        self._waiting: Counter[str] = Counter()  # bytes of each sender's letters in the inbox
        self._seen: dict[tuple[str, str, str], int] = {}  # (run, sender, kind) → next sequence

    def post(self, letter: Letter) -> None:
        """Leave a letter to be carried. Raises TooLarge when too many wait."""
        if letter.header.sender != self.me:
            raise RuntimeError("post() of another party's letter")
        if len(self._outbox) >= LIMITS.mail_count:
            raise TooLarge(f"{LIMITS.mail_count} letters already wait to be carried")
        self._outbox.append(letter)

    def collect(self) -> tuple[bytes, ...]:
        """What waits, for the aggregator to carry; handed out once."""
        letters = tuple(letter.to_bytes() for letter in self._outbox)
        self._outbox.clear()
        return letters

    def deliver(self, raws: Iterable[bytes]) -> list[Error]:
        """Take in what the aggregator brought. A letter that is refused does not hold up the others."""
        refused: list[Error] = []
        for raw in raws:
            try:
                self._take(Letter.parse(raw))
            except Error as error:
                refused.append(error)
        return refused

    def _take(self, letter: Letter) -> None:
        header = letter.header
        if header.receiver != self.me:
            raise CannotOpen(f"a letter for {header.receiver}, not for {self.me}")
        parse_party(header.sender)
        box = self._inbox.setdefault(header.sender, deque())
        if len(box) >= LIMITS.mail_count:
            raise TooLarge(f"{LIMITS.mail_count} letters of {header.sender} already wait to be read")
        box.append(letter)
        self._waiting[header.sender] += _size(letter)
        while self._waiting.total() > LIMITS.mailbox_bytes:
            [(fullest, _)] = self._waiting.most_common(1)
            self.read(fullest)

    def read(self, sender: str) -> Letter | None:
        """The oldest letter that waits from this sender, as its header says; it still has to be opened."""
        box = self._inbox.get(sender)
        if not box:
            return None
        letter = box.popleft()
        self._waiting[sender] -= _size(letter)
        if not box:
            del self._inbox[sender], self._waiting[sender]
        return letter

    def accept(self, letter: Letter) -> None:
        """Record an opened letter; Replay where this or a later one of its kind was already accepted.

        Called after the signature was checked, so that a forged letter cannot push the sequence forward.
        """
        header = letter.header
        key = (header.run, header.sender, header.kind)
        if header.sequence < self._seen.get(key, 0):
            raise Replay("a letter that was already accepted")
        self._seen[key] = header.sequence + 1


def _size(letter: Letter) -> int:
    return HEADER_BYTES + len(letter.sealed) + len(letter.signature)
