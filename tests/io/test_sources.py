"""Where ciphertext lies: each kind of place, read from any offset, and places that misbehave."""

from __future__ import annotations

import io
import itertools
import os
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from superswarm.assets.container import MAX_SEALED_BYTES
from superswarm.crypto.stream import read_up_to
from superswarm.errors import Environment, Error, Malformed, Misconfigured, Mismatch, TooLarge, Unavailable
from superswarm.io import ranges
from superswarm.io.ranges import ATTEMPTS, PROGRESS, HttpSource
from superswarm.io.sources import FsspecSource, LocalSource, Source, open_source, printable

DATA = bytes(range(256)) * (12 * 1024)  # 3 MiB
OFFSETS = [0, 1, PROGRESS, len(DATA) - 1, len(DATA)]


@dataclass
class Host:
    """An HTTP server with ranges that can be told to misbehave."""

    data: bytes = DATA
    tag: str | None = '"one"'
    ranges: bool = True
    cut: Callable[[int], int] = lambda _: 1 << 60  # after how many bytes the n-th answer breaks off
    statuses: list[int] = field(default_factory=list)  # of the next answers
    headers: dict[str, str] = field(default_factory=dict)  # in place of the right ones
    extra: bytes = b""  # sent after the data, chunked
    on_request: Callable[[Host, int], None] = lambda _, __: None
    seen: list[str] = field(default_factory=list)  # the Range of each request
    url: str = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        number = len(self.seen)
        self.seen.append(handler.headers.get("Range", ""))
        self.on_request(self, number)
        start = self._start(handler)
        status = self.statuses.pop(0) if self.statuses else 206 if start is not None else 200
        body = self.data[start or 0 :]
        handler.send_response(status)
        for name, value in self._headers(start, body).items():
            handler.send_header(name, value)
        handler.end_headers()
        end = self.cut(number)
        if self.extra:
            body += self.extra
            handler.wfile.write(b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n")
        else:
            handler.wfile.write(body[:end])
        handler.close_connection = True

    def _start(self, handler: BaseHTTPRequestHandler) -> int | None:
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        known = handler.headers.get("If-Range")
        if not self.ranges or asked is None or (known is not None and known != self.tag):
            return None
        if int(asked[1]) >= len(self.data):
            self.statuses.insert(0, 416)
        return int(asked[1])

    def _headers(self, start: int | None, body: bytes) -> dict[str, str]:
        right = {"Content-Length": str(len(body))}
        if self.extra:
            right = {"Transfer-Encoding": "chunked"}
        if start is not None:
            right["Content-Range"] = f"bytes {start}-{len(self.data) - 1}/{len(self.data)}"
        if self.tag:
            right["ETag"] = self.tag
        return {name: value for name, value in (right | self.headers).items() if value}


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    host = Host()
    monkeypatch.setattr(ranges.time, "sleep", lambda _: None)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            try:
                host.answer(self)
            except (BrokenPipeError, ConnectionResetError):  # the client has seen enough
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    host.url = f"http://127.0.0.1:{server.server_address[1]}/records.sealed"
    yield host
    server.shutdown()
    thread.join()
    server.server_close()


def source_of(host: Host) -> HttpSource:
    return HttpSource(host.url, sleep=lambda _: None)


def read(source: Source, offset: int = 0) -> bytes:
    with source.open(offset) as src:
        return read_up_to(src, source.size + 1)


# --- well behaved ------------------------------------------------------------------------------------------------


def test_every_kind_of_place_gives_the_same(host: Host, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(DATA)
    fsspec.filesystem("memory").pipe("/bucket/x", DATA)
    for location in (str(tmp_path / "x"), f"file://{tmp_path}/x", "memory://bucket/x", host.url):
        source = open_source(location)
        assert source.size == len(DATA)
        for offset in OFFSETS:
            assert read(source, offset) == DATA[offset:]


def test_a_reader_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(DATA)
    with open_source(str(tmp_path / "x")).open(5) as src:
        assert io.BufferedReader(src).read(3) == DATA[5:8]  # type: ignore[arg-type]
    with open_source(str(tmp_path / "x")).open(5) as src:
        assert src.read() == DATA[5:]


def test_bytes_are_asked_for_from_where_they_are_wanted(host: Host) -> None:
    source = source_of(host)
    assert read(source, 7) == DATA[7:]
    assert host.seen == ["bytes=0-", "bytes=7-"]


# --- connections that break --------------------------------------------------------------------------------------


def test_a_broken_connection_is_taken_up_where_it_stopped(host: Host) -> None:
    source = source_of(host)
    host.cut = lambda number: 1_000_000 if number < 3 else 1 << 60
    assert read(source) == DATA
    assert host.seen == ["bytes=0-", "bytes=0-", "bytes=1000000-", "bytes=2000000-"]


@pytest.mark.parametrize("cut", [0, 1, 1000])
def test_a_host_that_brings_next_to_nothing_is_given_up(host: Host, cut: int) -> None:
    source = source_of(host)
    host.cut = lambda _: cut
    with pytest.raises(Unavailable):
        read(source)
    assert len(host.seen) == 1 + ATTEMPTS


def test_a_host_that_sends_a_little_now_and_then_is_given_up(host: Host) -> None:
    """It never lets a read time out, and would keep a trainer for ever."""
    source = source_of(host)
    source.monotonic = ticking(25)  # for each piece, which has at most 64 KiB
    with pytest.raises(Unavailable, match="sends less"):
        read(source)


def test_a_host_that_is_slow_but_brings_enough_is_waited_for(host: Host) -> None:
    source = source_of(host)
    source.monotonic = ticking(0.01)
    assert read(source) == DATA
    assert host.seen == ["bytes=0-", "bytes=0-"]


def ticking(seconds: float) -> Callable[[], float]:
    """A clock that goes on by so much whenever it is looked at."""
    counter = itertools.count()
    return lambda: next(counter) * seconds


def test_a_host_without_ranges_that_always_breaks_off_is_told_apart(host: Host) -> None:
    host.ranges, host.cut = False, lambda _: PROGRESS // 2
    with pytest.raises(Unavailable, match="host it where range requests are answered"):
        open_source(host.url).open().read()


def test_a_host_without_ranges_is_read_from_the_start(host: Host) -> None:
    host.ranges = False
    source = source_of(host)
    assert read(source, 12345) == DATA[12345:]
    host.cut = lambda number: 1_500_000 if number == 2 else 1 << 60
    assert read(source) == DATA


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_busy_host_is_asked_again(host: Host, status: int) -> None:
    host.statuses = [status, status]
    assert source_of(host).size == len(DATA)
    host.statuses = [status] * 99
    with pytest.raises(Unavailable, match=str(status)):
        source_of(host)


@pytest.mark.parametrize("status", [401, 403, 404, 410, 204])
def test_a_refusal_is_final(host: Host, status: int) -> None:
    host.statuses = [status]
    with pytest.raises(Unavailable, match=str(status)):
        source_of(host)
    assert len(host.seen) == 1


def test_nobody_listens() -> None:
    waits: list[float] = []
    with pytest.raises(Unavailable):
        HttpSource("http://127.0.0.1:9/x", sleep=waits.append)
    assert waits == [0.5, 1, 2, 4]


# --- hosts that lie ----------------------------------------------------------------------------------------------


def test_content_that_changes_between_requests_is_not_put_together(host: Host) -> None:
    """The ETag tells, and where there is none another size does; the rest is the digest's to notice."""
    source = source_of(host)
    host.cut = lambda number: PROGRESS if number == 1 else 1 << 60

    def change(host: Host, number: int) -> None:
        if number == 2:
            host.data, host.tag = bytes(len(DATA)), '"two"'

    host.on_request = change
    with pytest.raises(Mismatch):
        read(source)


def test_a_size_that_changes_between_requests(host: Host) -> None:
    host.tag = None
    source = source_of(host)
    host.data = DATA + b"more"
    with pytest.raises(Mismatch):
        read(source)
    host.data = DATA[:100]
    with pytest.raises(Mismatch):
        read(source, 200)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Range": ""},
        {"Content-Range": "bytes 0-1/*"},
        {"Content-Range": "bytes 5-4/100"},
        {"Content-Range": f"bytes 0-{len(DATA)}/{len(DATA)}"},
        {"Content-Range": f"bytes 1-{len(DATA) - 1}/{len(DATA)}"},
        {"Content-Range": "bytes 0-" + "9" * 40 + "/" + "9" * 41},
        {"Content-Encoding": "gzip"},
    ],
    ids=str,
)
def test_answers_that_cannot_be_are_refused(host: Host, headers: dict[str, str]) -> None:
    host.headers = headers
    with pytest.raises(Malformed):
        source_of(host)


def test_a_host_that_does_not_say_how_much_there_is(host: Host) -> None:
    host.ranges, host.extra = False, b"!"
    with pytest.raises(Malformed):
        source_of(host)


def test_a_host_that_sends_more_than_it_announced(host: Host) -> None:
    source = source_of(host)
    host.extra = b"!"
    with pytest.raises(Malformed):
        read(source)


def test_a_length_beyond_any_asset_is_not_begun(host: Host) -> None:
    host.headers = {"Content-Range": f"bytes 0-{MAX_SEALED_BYTES}/{MAX_SEALED_BYTES + 1}"}
    with pytest.raises(TooLarge):
        open_source(host.url)


def test_a_length_that_is_a_lie_ends_in_an_error(host: Host) -> None:
    host.ranges, host.headers = False, {"Content-Length": str(10 * len(DATA))}
    with pytest.raises(Unavailable):
        read(source_of(host))


@pytest.mark.parametrize(
    "to", ["http://127.0.0.1:1/x", "https://elsewhere.example/x", "/other", "file:///etc/passwd"]
)
def test_redirects_from_plain_http_are_not_followed(host: Host, to: str) -> None:
    host.statuses, host.headers = [302], {"Location": to}
    with pytest.raises(Unavailable, match="redirects"):
        source_of(host)
    assert len(host.seen) == 1


@pytest.mark.parametrize(
    ("chain", "error"),
    [
        (["https://b.example/x"], None),
        (["/y", "https://b.example/x"], None),
        (["http://b.example/x"], Unavailable),
        (["https://b.example/x"] * 9, Unavailable),
    ],
)
def test_redirects_lead_from_https_to_https_only(
    monkeypatch: pytest.MonkeyPatch, chain: list[str], error: type[Error] | None
) -> None:
    """And the password in an address stays with its host."""
    left, asked = list(chain), []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append((request.url.host, "authorization" in request.headers))
        if left:
            return httpx.Response(302, headers={"location": left.pop(0)})
        return httpx.Response(200, content=DATA)

    real = httpx.Client
    monkeypatch.setattr(httpx, "Client", lambda **given: real(**given, transport=httpx.MockTransport(answer)))
    if error is None:
        assert HttpSource("https://me:word@a.example/x").size == len(DATA)
        assert asked[0] == ("a.example", True)
        assert asked[-1] == ("b.example", False)
    else:
        with pytest.raises(error):
            HttpSource("https://me:word@a.example/x")
        assert ("b.example", True) not in asked


# --- places that are none ----------------------------------------------------------------------------------------


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(Environment):
        open_source(str(tmp_path / "absent"))
    with pytest.raises(Misconfigured):
        open_source(str(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Misconfigured):
        open_source(str(tmp_path / "pipe"))
    assert isinstance(open_source(__file__), LocalSource)


@pytest.mark.parametrize(
    ("location", "error"),
    [
        ("memory://nowhere/at/all", Unavailable),
        ("gopher://a/b", Misconfigured),
        ("http:///x", Misconfigured),
    ],
)
def test_addresses_that_lead_nowhere(location: str, error: type[Error]) -> None:
    with pytest.raises(error):
        open_source(location)


def test_a_folder_behind_an_address_is_no_file() -> None:
    fsspec.filesystem("memory").pipe("/folder/x", b"x")
    with pytest.raises(Malformed):
        open_source("memory://folder")


def test_whatever_a_plugin_raises_is_told_in_our_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its text, which may hold credentials."""
    fsspec.filesystem("memory").pipe("/bucket/y", DATA)
    source = open_source("memory://bucket/y")
    assert isinstance(source, FsspecSource)
    src = source.open()

    def broken(*_: object, **__: object) -> bytes:
        raise RuntimeError("token=hunter2")

    monkeypatch.setattr(type(source._system), "open", broken)
    monkeypatch.setattr(src._file, "read", broken)  # type: ignore[attr-defined]
    for attempt in (source.open, lambda: src.read(1)):
        with pytest.raises(Unavailable) as caught:
            attempt()
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("https://me:word@host.example:8443/a/b?X-Amz-Signature=abc#frag", "https://host.example:8443/a/b"),
        ("s3://bucket/key", "s3://bucket/key"),
        ("simplecache::https://me:word@host.example/a", "https://host.example/a"),
        ("https://host.example:port/a", "an address"),
    ],
)
def test_addresses_are_shown_without_what_is_secret(location: str, shown: str) -> None:
    assert printable(location) == shown


@given(st.text(max_size=40))
def test_no_address_shows_a_password(text: str) -> None:
    assert "word@" not in printable(f"https://me:word@{text}")
