"""The broker over gRPC and mutual TLS: the same answers, and nothing for clients of another authority."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from participants.broker import broker_pb2 as pb
from participants.broker.client import BrokerClient
from participants.broker.rpc import SERVICE
from participants.broker.service import BrokerService
from participants.key_desk import KeyDesk
from participants.keyring import KeyRing
from participants.mailbox import Mailbox
from superswarm.errors import Malformed, PortTaken, ReleaseRefused, Unavailable
from superswarm.io.certificates import ServerFiles, ensure_client_files, ensure_server_files
from superswarm.io.config import Address
from superswarm.io.keystore import MemberKeys
from superswarm.values import LIMITS, Digest
from tests import consortia
from tests.releases import ALICE, BASE, BASE_KEY, BOB, CAROL, Premises, Session, agreed, ask, asker

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ServerFiles, ServerFiles]:
    folder = tmp_path_factory.mktemp("tls")
    return (
        ensure_server_files(folder, ["localhost", "127.0.0.1"], prefix="broker"),
        ensure_client_files(folder, prefix="broker", client="node"),
    )


@pytest.fixture
def service(tmp_path: Path, tls: tuple[ServerFiles, ServerFiles]) -> Iterator[BrokerService]:
    server, _ = tls
    with BrokerService(
        Premises(tmp_path).stock().open(),
        Address("127.0.0.1", 0),
        certificate=server.certificate,
        key=server.key,
        authority=server.authority,
    ) as running:
        yield running


def client(service: BrokerService, files: ServerFiles, authority: Path | None = None) -> BrokerClient:
    return BrokerClient(
        service.address, certificate=files.certificate, key=files.key, authority=authority or files.authority
    )


def test_a_trainer_gets_its_key_through_the_service(
    service: BrokerService, tls: tuple[ServerFiles, ServerFiles]
) -> None:
    with client(service, tls[1]) as broker:
        assert ask(broker, Session()) == BASE_KEY


def test_a_refusal_keeps_its_word(service: BrokerService, tls: tuple[ServerFiles, ServerFiles]) -> None:
    with client(service, tls[1]) as broker:
        with pytest.raises(ReleaseRefused) as caught:
            ask(broker, Session(), vouch=Session().vouch(by=CAROL))
        assert caught.value.code == "NotVouched"
        with pytest.raises(ReleaseRefused) as caught:
            broker.challenge(agreed().digest, BOB, Digest.of(b"nothing").raw)
        assert caught.value.code == "ReleaseRefused:not-offered"
        with pytest.raises(ReleaseRefused) as caught:
            broker.challenge(agreed().digest, BOB, b"short")
        assert caught.value.code == "Malformed"


def test_evidence_of_any_allowed_size_fits(service: BrokerService, tls: tuple[ServerFiles, ServerFiles]) -> None:
    with client(service, tls[1]) as broker, pytest.raises(ReleaseRefused) as caught:
        ask(broker, Session(), evidence=bytes(LIMITS.evidence_bytes))
    assert caught.value.code == "Malformed"  # it got there


def test_a_client_without_a_certificate_gets_nothing(
    service: BrokerService, tls: tuple[ServerFiles, ServerFiles]
) -> None:
    credentials = grpc.ssl_channel_credentials(root_certificates=tls[0].authority.read_bytes())
    refused_over(grpc.secure_channel(str(service.address), credentials))


def test_a_client_in_the_clear_gets_nothing(service: BrokerService) -> None:
    refused_over(grpc.insecure_channel(str(service.address)))


def refused_over(channel: grpc.Channel) -> None:
    method = channel.unary_unary(
        f"/{SERVICE}/Challenge",
        request_serializer=pb.ChallengeRequest.SerializeToString,
        response_deserializer=pb.ChallengeReply.FromString,
    )
    with channel, pytest.raises(grpc.RpcError) as caught:
        method(pb.ChallengeRequest(manifest=agreed().digest.raw, member=BOB, asset=BASE.raw), timeout=5)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def test_a_client_of_another_authority_gets_nothing(
    service: BrokerService, tls: tuple[ServerFiles, ServerFiles], tmp_path: Path
) -> None:
    ensure_server_files(tmp_path, ["localhost"], prefix="broker")
    stranger = ensure_client_files(tmp_path, prefix="broker", client="node")
    with client(service, stranger, tls[0].authority) as broker, pytest.raises(Unavailable):
        broker.challenge(agreed().digest, BOB, BASE.raw)


def test_a_servers_certificate_is_no_clients(service: BrokerService, tls: tuple[ServerFiles, ServerFiles]) -> None:
    with client(service, tls[0]) as broker, pytest.raises(Unavailable):
        broker.challenge(agreed().digest, BOB, BASE.raw)


def test_a_false_broker_is_not_believed(
    service: BrokerService, tls: tuple[ServerFiles, ServerFiles], tmp_path: Path
) -> None:
    other = ensure_server_files(tmp_path, ["localhost"], prefix="broker")
    with client(service, tls[1], other.authority) as broker, pytest.raises(Unavailable):
        broker.challenge(agreed().digest, BOB, BASE.raw)


def test_a_broker_that_is_away_is_named(tls: tuple[ServerFiles, ServerFiles], service: BrokerService) -> None:
    away = BrokerClient(
        Address("127.0.0.1", 1), certificate=tls[1].certificate, key=tls[1].key, authority=tls[1].authority
    )
    with away, pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
        away.challenge(agreed().digest, BOB, BASE.raw)


def test_a_port_that_is_taken_is_named(service: BrokerService, tls: tuple[ServerFiles, ServerFiles]) -> None:
    server = tls[0]
    with pytest.raises(PortTaken, match="set `listen`"):
        BrokerService(
            service._broker,
            service.address,
            certificate=server.certificate,
            key=server.key,
            authority=server.authority,
        )


def test_an_answer_that_holds_nothing_is_malformed(
    service: BrokerService, tls: tuple[ServerFiles, ServerFiles]
) -> None:
    with client(service, tls[1]) as broker, pytest.raises(Malformed):
        broker._ask(lambda *_, **__: pb.ChallengeReply(), pb.ChallengeRequest(), "nonce")


def test_letters_reach_the_service_and_come_back(
    service: BrokerService, tls: tuple[ServerFiles, ServerFiles]
) -> None:
    """A trainer's letters, the node's desk, the service: the whole way of one key."""
    session, mine = Session(), Mailbox("trainer/bob")
    ring = KeyRing(asker(session), (agreed().manifest.assets[0],), lambda: 0.0)
    keys = MemberKeys(ALICE, consortia.signing_key(ALICE), consortia.kem_key(ALICE), bytes(32))
    theirs = Mailbox("node/alice")
    with client(service, tls[1]) as broker:
        desk = KeyDesk(agreed(), keys, broker, lambda *_, **__: None)
        for _ in range(2):  # a hello, then a request
            assert ring.advance(mine) == []
            theirs.deliver(mine.collect())
            desk.answer(theirs)
            mine.deliver(theirs.collect())
    assert ring.advance(mine) == []
    assert ring.take() == {"base": BASE_KEY}


def test_the_generated_code_is_of_the_proto_file(tmp_path: Path) -> None:
    proto = "participants/broker/broker.proto"
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", ".", f"--python_out={tmp_path}", proto]
    subprocess.run(command, cwd=ROOT, check=True)
    made = (tmp_path / "participants/broker/broker_pb2.py").read_text()
    line = next(line for line in made.splitlines() if "AddSerializedFile" in line)
    assert line in (ROOT / "participants/broker/broker_pb2.py").read_text()


def test_the_service_is_the_one_of_the_proto_file() -> None:
    (found,) = pb.DESCRIPTOR.services_by_name.values()
    assert found.full_name == SERVICE
    assert {method.name for method in found.methods} == {"Challenge", "Release"}
