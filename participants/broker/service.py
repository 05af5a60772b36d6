"""The broker as a service of its own: gRPC over mutual TLS, for the owner's nodes and nobody else.

A client without a certificate of the owner's authority gets no further than the TLS handshake. With one it may ask:
the broker judges every request itself, and seals keys to attested TEEs, not to clients.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Protocol, Self

import grpc

from participants.broker import broker_pb2 as pb
from participants.broker.rpc import MESSAGE_BYTES, PEM_BYTES, SERVICE
from superswarm.assets.release import KeyRequest
from superswarm.errors import Error, Malformed, PortTaken
from superswarm.io.config import Address
from superswarm.io.files import read_bytes
from superswarm.values import MEMBER_ID, Digest, MemberId

THREADS: Final = 4  # decisions are taken one at a time; more only wait
STOP_SECONDS: Final = 10.0
WHY_CHARACTERS: Final = 500


class Decides(Protocol):
    """What the service carries questions to: a `Broker`."""

    def challenge(self, manifest: Digest, member: MemberId, asset: bytes) -> bytes: ...
    def release(self, manifest: Digest, member: MemberId, request: KeyRequest) -> bytes: ...


class BrokerService:
    """Listens for the owner's nodes until stopped. A context manager."""

    def __init__(self, broker: Decides, bind: Address, *, certificate: Path, key: Path, authority: Path) -> None:
        """Raises PortTaken, or Environment for certificate files that cannot be read."""
        self._broker = broker
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="broker")
        self._server = grpc.server(
            self._pool,
            maximum_concurrent_rpcs=4 * THREADS,
            options=[
                ("grpc.max_receive_message_length", MESSAGE_BYTES),
                ("grpc.so_reuseport", 0),
            ],
        )
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, self._handlers()),))
        self.address = Address(bind.host, self._listen(bind, _credentials(certificate, key, authority)))

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(STOP_SECONDS).wait()
        self._pool.shutdown()

    def _listen(self, bind: Address, credentials: Any) -> int:
        try:
            port: int = self._server.add_secure_port(str(bind), credentials)
        except RuntimeError:
            port = 0
        if not port:
            raise PortTaken(f"cannot listen on {bind}: another process may; set `listen` to a free port")
        return port

    def _handlers(self) -> dict[str, Any]:
        return {
            "Challenge": _unary(self._challenge, pb.ChallengeRequest, pb.ChallengeReply),
            "Release": _unary(self._release, pb.ReleaseRequest, pb.ReleaseReply),
        }

    def _challenge(self, asked: Any, _context: Any) -> Any:
        try:
            return pb.ChallengeReply(
                nonce=self._broker.challenge(Digest(asked.manifest), _member(asked.member), asked.asset)
            )
        except Error as error:
            return pb.ChallengeReply(refusal=_refusal(error))

    def _release(self, asked: Any, _context: Any) -> Any:
        try:
            request = KeyRequest.parse(asked.request)
            return pb.ReleaseReply(
                sealed=self._broker.release(Digest(asked.manifest), _member(asked.member), request)
            )
        except Error as error:
            return pb.ReleaseReply(refusal=_refusal(error))


def _unary(answer: Callable[[Any, Any], Any], asked: Any, reply: Any) -> Any:
    return grpc.unary_unary_rpc_method_handler(
        answer, request_deserializer=asked.FromString, response_serializer=reply.SerializeToString
    )


def _refusal(error: Error) -> Any:
    return pb.Refusal(code=error.code, why=str(error)[:WHY_CHARACTERS])


def _member(name: str) -> MemberId:
    if not MEMBER_ID.fullmatch(name):
        raise Malformed("a request names something that is not a member")
    return MemberId(name)


def _credentials(certificate: Path, key: Path, authority: Path) -> Any:
    return grpc.ssl_server_credentials(
        [(read_bytes(key, limit=PEM_BYTES), read_bytes(certificate, limit=PEM_BYTES))],
        root_certificates=read_bytes(authority, limit=PEM_BYTES),
        require_client_auth=True,
    )
