"""The node's side of a broker that runs as a service of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self

import grpc

from participants.broker import broker_pb2 as pb
from participants.broker.rpc import MESSAGE_BYTES, PEM_BYTES, SERVICE
from superswarm.assets.release import KeyRequest
from superswarm.attestation.messages import CODE
from superswarm.errors import Malformed, ReleaseRefused, Unavailable
from superswarm.io.config import Address
from superswarm.io.files import read_bytes
from superswarm.values import Digest, MemberId

ANSWER_SECONDS: Final = 30.0


class RefusedByBroker(ReleaseRefused):
    """The owner's own broker refused; `code` is the word that it gave."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__("by-broker", why)
        self._code = code if CODE.fullmatch(code) else "unreadable"

    @property
    def code(self) -> str:
        return self._code


class BrokerClient:
    """Asks a broker at `address`, over mutual TLS. Raises Unavailable where it does not answer. A context manager."""

    def __init__(self, address: Address, *, certificate: Path, key: Path, authority: Path) -> None:
        credentials = grpc.ssl_channel_credentials(
            root_certificates=read_bytes(authority, limit=PEM_BYTES),
            private_key=read_bytes(key, limit=PEM_BYTES),
            certificate_chain=read_bytes(certificate, limit=PEM_BYTES),
        )
        options = [("grpc.max_send_message_length", MESSAGE_BYTES), ("grpc.enable_http_proxy", 0)]
        self._address = address
        self._channel = grpc.secure_channel(str(address), credentials, options=options)
        self._challenge = self._method("Challenge", pb.ChallengeRequest, pb.ChallengeReply)
        self._release = self._method("Release", pb.ReleaseRequest, pb.ReleaseReply)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def challenge(self, manifest: Digest, member: MemberId, asset: bytes) -> bytes:
        """A nonce, 32 bytes, that the trainer of `member` has to answer. Raises RefusedByBroker or Unavailable."""
        asked = pb.ChallengeRequest(manifest=manifest.raw, member=member, asset=asset)
        return self._ask(self._challenge, asked, "nonce")

    def release(self, manifest: Digest, member: MemberId, request: KeyRequest) -> bytes:
        """The key, sealed to the trainer's attested key. Raises RefusedByBroker or Unavailable.

        Unavailable says nothing of what the broker decided: it may have logged a release whose answer was lost.
        """
        asked = pb.ReleaseRequest(manifest=manifest.raw, member=member, request=request.to_bytes())
        return self._ask(self._release, asked, "sealed")

    def _method(self, name: str, asked: Any, reply: Any) -> Callable[..., Any]:
        method: Callable[..., Any] = self._channel.unary_unary(
            f"/{SERVICE}/{name}", request_serializer=asked.SerializeToString, response_deserializer=reply.FromString
        )
        return method

    def _ask(self, method: Callable[..., Any], asked: Any, answer: str) -> bytes:
        try:
            reply = method(asked, timeout=ANSWER_SECONDS)
        except grpc.RpcError as error:
            status = error.code().name.lower().replace("_", " ")
            raise Unavailable(f"the broker at {self._address} does not answer ({status})") from None
        match reply.WhichOneof("answer"):
            case "refusal":
                raise RefusedByBroker(reply.refusal.code, reply.refusal.why)
            case which if which == answer:
                return bytes(getattr(reply, answer))
            case _:
                raise Malformed("the broker's answer holds neither what was asked for nor a refusal")
