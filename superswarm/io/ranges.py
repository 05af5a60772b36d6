"""Files behind http(s), read from any offset by range requests (RFC 9110, section 14), and on after a break.

Plain http is fine for ciphertext. A redirect is followed from https to https only, so that nobody on the way leads
elsewhere; the credentials in an address are sent to its own host alone.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Final, cast

import httpx

from superswarm import __version__
from superswarm.errors import Malformed, Misconfigured, Mismatch, Unavailable
from superswarm.io.sources import Reader, printable

SECONDS: Final = 30.0  # without a byte
REDIRECTS: Final = 5
ATTEMPTS: Final = 5  # in a row that bring less than PROGRESS
PROGRESS: Final = 1 << 20  # bytes that make a connection worth while: a server cannot keep us for a byte each
SLOW_SECONDS: Final = 60.0  # of waiting in one connection for PROGRESS bytes, or their last: then it counts as broken
PAUSE_SECONDS: Final = 0.5  # before the second attempt, twice as long before each further one
RANGE: Final = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})")
LENGTH: Final = re.compile(r"\d{1,19}")
NO_RANGES: Final = (
    ". It sends the file from the start each time: host it where range requests are answered, or copy it"
)
AGAIN: Final = {408, 425, 429, 500, 502, 503, 504}  # answers that waiting may mend


@dataclass(frozen=True, slots=True)
class _Answer:
    """One response that begins at `start` of a file that has `size` bytes."""

    body: httpx.Response
    start: int
    size: int
    tag: str | None  # a strong ETag (RFC 9110, section 8.8.3)


class _Broken(Exception):
    """An attempt failed, in these words; another may not."""


class HttpSource:
    """A file behind an http(s) address."""

    def __init__(
        self,
        url: str,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ask how large the file is. Raises Misconfigured, Unavailable or Malformed."""
        self.name = printable(url)
        self.url = url
        self.sleep, self.monotonic = sleep, monotonic
        self.size, self.tag = self._find()

    def open(self, offset: int = 0) -> BinaryIO:
        return cast("BinaryIO", _Body(self, offset))

    def _find(self) -> tuple[int, str | None]:
        attempts = _Attempts(self.name, self.sleep)
        while True:
            try:
                with _client() as client, _get(client, self.url, 0, None) as answer:
                    return answer.size, answer.tag
            except _Broken as error:
                attempts.failed(str(error))


class _Attempts:
    """Counts attempts that fail in a row, and waits longer after each."""

    def __init__(self, name: str, sleep: Callable[[float], None]) -> None:
        self._name, self._sleep, self._count = name, sleep, 0

    def failed(self, why: str, brought: int = 0, advice: str = "") -> None:
        """Wait before the next attempt. Raises Unavailable if there were enough that brought next to nothing."""
        self._count = 1 if brought >= PROGRESS else self._count + 1
        if self._count == ATTEMPTS:
            raise Unavailable(f"{self._name} {why}, {ATTEMPTS} times in a row{advice}")
        self._sleep(PAUSE_SECONDS * 2 ** (self._count - 1))


class _Body(Reader):
    """Reads from one connection, and from the next where that breaks."""

    def __init__(self, source: HttpSource, offset: int) -> None:
        self._source, self._at = source, offset
        self._pieces = self._read()
        self._left = b""
        self._again = False  # whether the server began anew where it was asked for the rest

    def fetch(self, size: int) -> bytes:
        data = self._left or next(self._pieces, b"")
        self._left = data[size:]
        return data[:size]

    def close(self) -> None:
        self._pieces.close()
        super().close()

    def _read(self) -> Generator[bytes]:
        attempts = _Attempts(self._source.name, self._source.sleep)
        while self._at < self._source.size:
            began = self._at
            try:
                with _client() as client:
                    yield from self._connection(client)
                why = "ended early"
            except _Broken as error:
                why = str(error)
            if self._at < self._source.size:
                attempts.failed(why, brought=self._at - began, advice=NO_RANGES if self._again else "")

    def _connection(self, client: httpx.Client) -> Iterator[bytes]:
        """What one connection brings; it may end early."""
        source = self._source
        with _get(client, source.url, self._at, source.tag) as answer:
            if answer.size != source.size or (source.tag and answer.tag and answer.tag != source.tag):
                raise Mismatch(f"{source.name} changed while it was read")
            skip = self._at - answer.start  # a server without ranges begins at 0
            self._again = skip > 0
            for piece in _paced(answer.body.iter_raw(), source.monotonic):
                fresh = piece[skip:]
                skip = max(0, skip - len(piece))
                if len(fresh) > source.size - self._at:
                    raise Malformed(f"{source.name} sends more than the {source.size} bytes that it announced")
                self._at += len(fresh)
                if fresh:
                    yield fresh


def _paced(pieces: Iterator[bytes], monotonic: Callable[[], float]) -> Iterator[bytes]:
    """What a host sends. Raises _Broken where it is so slow that a byte now and then could keep us for ever.

    Only the time that the host takes is counted, not what is done with a piece meanwhile.
    """
    waited, brought, asked = 0.0, 0, monotonic()
    for piece in pieces:
        waited, brought = waited + monotonic() - asked, brought + len(piece)
        if brought >= PROGRESS:
            waited, brought = 0.0, 0
        elif waited > SLOW_SECONDS:
            raise _Broken(f"sends less than {PROGRESS} bytes in {SLOW_SECONDS:.0f} s")
        yield piece
        asked = monotonic()


@contextmanager
def _client() -> Iterator[httpx.Client]:
    headers = {"User-Agent": f"superswarm/{__version__}", "Accept-Encoding": "identity"}
    with httpx.Client(timeout=SECONDS, follow_redirects=False, headers=headers) as client:
        yield client


@contextmanager
def _get(client: httpx.Client, url: str, offset: int, tag: str | None) -> Iterator[_Answer]:
    """Ask for the file from `offset` on. Raises _Broken where another attempt may help, else our errors."""
    headers = {"Range": f"bytes={offset}-"}
    if tag is not None:
        headers["If-Range"] = tag
    name = printable(url)
    for _ in range(REDIRECTS + 1):
        with _stream(client, url, headers) as response:
            if not response.is_redirect:
                yield _answer(response, name, offset)
                return
            url = _redirected(response, name)
    raise Unavailable(f"{name} redirects more than {REDIRECTS} times")


@contextmanager
def _stream(client: httpx.Client, url: str, headers: dict[str, str]) -> Iterator[httpx.Response]:
    try:
        with client.stream("GET", url, headers=headers) as response:
            yield response
    except (httpx.InvalidURL, httpx.UnsupportedProtocol):
        raise Misconfigured(f"{printable(url)} is not an address") from None
    except httpx.HTTPError as error:
        raise _Broken(f"does not answer, or breaks off ({type(error).__name__})") from None


def _redirected(response: httpx.Response, name: str) -> str:
    try:
        target = response.url.join(response.headers["location"])
    except (httpx.InvalidURL, KeyError):
        raise Unavailable(f"{name} redirects to what is no address") from None
    if (response.url.scheme, target.scheme) != ("https", "https"):
        raise Unavailable(f"{name} redirects; that is followed from https to https only: give the final address")
    return str(target)


def _answer(response: httpx.Response, name: str, offset: int) -> _Answer:
    """Check what a server says of the body that follows."""
    status, headers = response.status_code, response.headers
    if status in AGAIN:
        raise _Broken(f"answers {status}")
    if status == 416:
        raise Mismatch(f"{name} has no byte {offset}: it changed while it was read, or is empty")
    if status not in (200, 206):
        raise Unavailable(f"{name} answers {status}: check the address, and whether anybody may read it")
    if headers.get("content-encoding", "identity") != "identity":
        raise Malformed(f"{name} is compressed on its way, though that was not asked for")
    start, size = _extent(headers, name, partial=status == 206)
    if status == 206 and start != offset:
        raise Malformed(f"{name} sends another range than the one that was asked for")
    tag = headers.get("etag")
    return _Answer(response, start, size, tag if tag and tag.startswith('"') else None)


def _extent(headers: httpx.Headers, name: str, *, partial: bool) -> tuple[int, int]:
    """At which byte the body begins, and how many the whole file has."""
    if partial:
        found = RANGE.fullmatch(headers.get("content-range", ""))
        if found is None or not int(found[1]) <= int(found[2]) < int(found[3]):
            raise Malformed(f"{name} answers with a range that is none")
        return int(found[1]), int(found[3])
    if not LENGTH.fullmatch(headers.get("content-length", "")):
        raise Malformed(f"{name} does not say how large it is: host the file where range requests are answered")
    return 0, int(headers["content-length"])
