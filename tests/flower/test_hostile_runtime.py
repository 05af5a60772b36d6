"""The executors' client against a Runtime API that does not play by the rules."""

from __future__ import annotations

import gzip
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.app.message import make_message
from flwr.app.metadata import Metadata
from flwr.proto.message_pb2 import ObjectTree, PullObjectResponse, PushObjectResponse
from flwr.proto.runtime_pb2 import AcquireTaskRequest, AcquireTaskResponse, GetNodesRequest, PushAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, iterate_object_tree

import superswarm.io.runtime as runtime
from superswarm.errors import Malformed, Misconfigured, RunStopped, TooLarge, Unavailable
from superswarm.io.certificates import ServerFiles, ensure_server_files
from superswarm.io.parcels import to_record
from superswarm.io.runtime import Connection, Heartbeat, RuntimeEndpoint, acquire, call
from superswarm.io.transfer import OBJECTS, Arrival, push
from superswarm.wire import Parcel

Respond = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ServerFiles:
    return ensure_server_files(tmp_path_factory.mktemp("tls"), ["127.0.0.1"], prefix="fake")


@contextmanager
def server(tls: ServerFiles, respond: Respond) -> Iterator[tuple[RuntimeEndpoint, list[str]]]:
    """A Runtime API that answers every POST with `respond`."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            seen.append(self.path)
            self.rfile.read(int(self.headers.get("content-length", 0)))
            respond(self)

        def log_message(self, *args: Any) -> None:
            """Quiet."""

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.certificate, tls.key)
    httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    try:
        yield RuntimeEndpoint(f"127.0.0.1:{httpd.server_port}", tls.authority.read_bytes(), b"secret"), seen
    finally:
        httpd.shutdown()
        httpd.server_close()


def answer(status: int, body: bytes = b"", **headers: str) -> Respond:
    def respond(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return respond


def get_nodes(endpoint: RuntimeEndpoint) -> None:
    with Connection(endpoint) as connection:
        call(connection.task("token").GetNodes, GetNodesRequest(), patience=0.2)


def test_a_redirect_is_not_followed(tls: ServerFiles) -> None:
    with server(tls, answer(307, location="/elsewhere")) as (endpoint, seen):
        with pytest.raises(Unavailable):
            get_nodes(endpoint)
        assert seen == ["/v1/runtime/get-nodes"]


def test_a_compressed_answer_is_refused(tls: ServerFiles) -> None:
    bomb = gzip.compress(bytes(1024**2))
    with server(tls, answer(200, bomb, content_encoding="gzip")) as (endpoint, _), pytest.raises(Malformed):
        get_nodes(endpoint)


def test_an_endless_answer_is_cut_off(tls: ServerFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "RESPONSE_BYTES", 1024)
    with server(tls, answer(200, bytes(4096))) as (endpoint, _), pytest.raises(Malformed):
        get_nodes(endpoint)


def test_garbage_is_malformed(tls: ServerFiles) -> None:
    with server(tls, answer(200, b"\xff\xff\xff")) as (endpoint, _), pytest.raises(Malformed):
        get_nodes(endpoint)


@pytest.mark.parametrize("status", [401, 403])
def test_a_task_that_is_no_longer_known_has_ended(tls: ServerFiles, status: int) -> None:
    """Flower's own client would end this process with a signal on a 401."""
    with server(tls, answer(status, b"{}")) as (endpoint, _), pytest.raises(RunStopped):
        get_nodes(endpoint)


def test_a_version_header_does_not_end_this_process(tls: ServerFiles) -> None:
    detail = json.dumps({"detail": {"code": "runtime-version-incompatible", "message": "exit"}}).encode()
    said = answer(412, detail, flwr_version_incompatibility_message="exit")
    with server(tls, said) as (endpoint, _), pytest.raises(Unavailable):
        get_nodes(endpoint)


def test_a_short_outage_is_waited_out(tls: ServerFiles) -> None:
    answers = iter([answer(503), answer(502), answer(200)])
    with server(tls, lambda handler: next(answers)(handler)) as (endpoint, seen), Connection(endpoint) as connection:
        call(connection.task("token").GetNodes, GetNodesRequest(), patience=5)
        assert len(seen) == 3


def test_a_wrong_secret_is_said_plainly(tls: ServerFiles) -> None:
    with (
        server(tls, answer(401, b"{}")) as (endpoint, _),
        Connection(endpoint) as connection,
        pytest.raises(Misconfigured, match="secret"),
    ):
        next(acquire(connection.executor(), "flwr-clientapp", threading.Event()))


def test_another_authority_is_said_plainly(tls: ServerFiles, tmp_path: Path) -> None:
    other = ensure_server_files(tmp_path, ["127.0.0.1"], prefix="other").authority.read_bytes()
    with server(tls, answer(200)) as (endpoint, seen):
        imposter = RuntimeEndpoint(endpoint.address, other, b"secret")
        with Connection(imposter) as connection, pytest.raises(Misconfigured, match="certificate"):
            next(acquire(connection.executor(), "flwr-clientapp", threading.Event()))
        assert seen == []


def test_polling_goes_on_through_outages_until_told_to_stop(tls: ServerFiles) -> None:
    task = AcquireTaskResponse(token="token").SerializeToString()
    answers = iter([answer(500), answer(200), answer(200, task)])
    with server(tls, lambda handler: next(answers)(handler)) as (endpoint, _), Connection(endpoint) as connection:
        stop = threading.Event()
        tokens = acquire(connection.executor(), "flwr-clientapp", stop)
        assert next(tokens) == "token"
        stop.set()
        assert list(tokens) == []


def test_a_heartbeat_tells_when_the_task_is_gone(tls: ServerFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower's own sender would interrupt the process instead."""
    monkeypatch.setattr(runtime, "FIRST_HEARTBEAT_SECONDS", 0.01)
    with (
        server(tls, answer(200)) as (endpoint, _),  # success: false
        Connection(endpoint) as connection,
        Heartbeat(connection.task("token")) as heartbeat,
    ):
        assert heartbeat.gone.wait(5)


def test_an_endpoint_does_not_show_its_secret() -> None:
    assert "hush" not in repr(RuntimeEndpoint("127.0.0.1:1", b"", b"hush"))


def test_no_proxy_stands_before_a_loopback_runtime(tls: ServerFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    with server(tls, answer(200)) as (endpoint, seen):
        get_nodes(endpoint)
        assert seen


# --- a message's parts ---------------------------------------------------------------------------------------------


class Store:
    """Stands where the Runtime API's objects are."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        self.contents = contents

    def PullObject(self, request: Any) -> PullObjectResponse:  # noqa: N802
        content = self.contents.get(request.object_id)
        return PullObjectResponse(
            object_found=content is not None, object_available=bool(content), object_content=content or b""
        )


def instruction(record: RecordDict) -> Message:
    metadata = Metadata(1, "", 1, 2, "", "", 0.0, 60.0, "query.echo")
    metadata.delivered_at = ""
    return make_message(metadata, content=record)


def message(record: RecordDict) -> tuple[ObjectTree, dict[str, bytes]]:
    made = instruction(record)
    return get_object_tree(made), {id_: part.deflate() for id_, part in get_all_nested_objects(made).items()}


def arrive(tree: ObjectTree, contents: dict[str, bytes]) -> Arrival:
    arrival = Arrival(tree.object_id, tree)
    with ThreadPoolExecutor(1) as pool:
        assert arrival.advance(Store(contents), 1, 1, pool=pool)  # type: ignore[arg-type]
    return arrival


def test_a_message_arrives_in_parts() -> None:
    tree, contents = message(to_record(Parcel(b"head", b"body")))
    arrival = Arrival(tree.object_id, tree)
    store = Store(dict.fromkeys(contents, b""))
    with ThreadPoolExecutor(1) as pool:
        for id_ in contents:  # as the sender pushes them: the root last
            assert not arrival.advance(store, 1, 1, pool=pool)  # type: ignore[arg-type]
            assert arrival.pulled == 0  # nothing is held before the rest is there
            store.contents[id_] = contents[id_]
        assert arrival.advance(store, 1, 1, pool=pool)  # type: ignore[arg-type]
    assert arrival.message().content["head"] == ConfigRecord({"head": b"head"})


def test_a_lost_part_is_malformed() -> None:
    tree, contents = message(to_record(Parcel(b"head", b"body")))
    contents.popitem()
    with pytest.raises(Malformed):
        arrive(tree, contents)


def test_a_message_over_its_limit_is_not_held() -> None:
    tree, contents = message(to_record(Parcel(b"head", b"body")))
    arrival = Arrival(tree.object_id, tree)
    arrival._room = 100
    with ThreadPoolExecutor(1) as pool, pytest.raises(TooLarge):
        arrival.advance(Store(contents), 1, 1, pool=pool)  # type: ignore[arg-type]


def test_a_tree_with_too_many_parts_is_refused() -> None:
    tree = ObjectTree(object_id="0", children=[ObjectTree(object_id=str(n)) for n in range(1, OBJECTS + 2)])
    with pytest.raises(TooLarge):
        Arrival("0", tree)


def test_few_chunks_named_many_times_do_not_fill_the_memory() -> None:
    tree, contents = message(to_record(Parcel(b"", bytes(range(256)) * 4096)))  # 1 MiB
    bombed = {id_: repeat(content) if content.startswith(b"Array ") else content for id_, content in contents.items()}
    assert bombed != contents
    with pytest.raises(TooLarge):
        arrive(tree, bombed).message()


def repeat(content: bytes) -> bytes:
    head, _, body = content.partition(b"\x00")
    meta = json.loads(body)
    meta["arraychunk_ids"] *= 2**40 // 2**20 // 64  # 16 GiB out of one chunk
    body = json.dumps(meta).encode()
    return b" ".join([*head.split(b" ")[:2], str(len(body)).encode()]) + b"\x00" + body


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00",
        b"Nothing  0\x00",
        b"Message  3\x00\xff\xff\xff",
        b"Array  2\x00{}",
        b"\xff\xff\x00",
        b"ConfigRecord  0\x00",
    ],
    ids=repr,
)
def test_an_object_that_flower_would_not_write_is_malformed(content: bytes) -> None:
    arrival = Arrival("0", ObjectTree(object_id="0"))
    arrival._contents = {"0": content}
    with pytest.raises(Malformed):
        arrival.message()


class Taker:
    """Stands where messages are pushed; forgets the session of the first `lapses` announcements."""

    def __init__(self, lapses: int) -> None:
        self.lapses = lapses
        self.announced: list[list[str]] = []
        self.taken: set[str] = set()

    def PushMessages(self, request: Any) -> PushAppMessagesResponse:  # noqa: N802
        ids = [message.metadata.message_id for message in request.messages_list]
        self.announced.append(ids)
        objects = {part.object_id for tree in request.message_object_trees for part in iterate_object_tree(tree)}
        return PushAppMessagesResponse(message_ids=ids, objects_to_push=sorted(objects - self.taken), session_id="s")

    def PushObject(self, request: Any) -> PushObjectResponse:  # noqa: N802
        self.taken.add(request.object_id)
        return PushObjectResponse(stored=len(self.announced) > self.lapses)


@pytest.mark.parametrize("lapses", [0, 1, 2])
def test_sending_starts_over_after_an_outage(lapses: int) -> None:
    taker = Taker(lapses)
    made = instruction(to_record(Parcel(b"head", b"body")))
    (ticket,) = push(taker, [made], node=1, run=1)  # type: ignore[arg-type]
    assert taker.announced == [[ticket]] * (lapses + 1)
    assert len(taker.taken) == 6


def test_sending_does_not_start_over_for_ever() -> None:
    with pytest.raises(Unavailable):
        push(Taker(1000), [instruction(to_record(Parcel(b"head")))], node=1, run=1)  # type: ignore[arg-type]


def test_an_acquire_request_is_signed(tls: ServerFiles) -> None:
    headers: list[str] = []

    def respond(handler: BaseHTTPRequestHandler) -> None:
        headers.extend(handler.headers.keys())
        answer(200)(handler)

    with server(tls, respond) as (endpoint, _), Connection(endpoint) as connection:
        connection.executor().AcquireTask(AcquireTaskRequest(supported_task_types=["flwr-clientapp"]))
    assert "flwr-superexec-signature" in {name.lower() for name in headers}
