"""A member's server, in a TEE, asks for a result's key: its request, its member's vouch, a contributor's judgement.

The server gathers one challenge from each contributor that is to approve, and one of its own member's, and shows
evidence that covers them all. Its member judges that first and vouches; each contributor then judges evidence and
vouch, and seals its share straight to the attested key. Nothing here sends or waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import InitVar, dataclass, replace
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import Field

from superswarm.attestation.appraise import ServerKey, appraise_server, trust_roots
from superswarm.attestation.evidence import Attester, Binding, Evidence, SessionKeys, combine_nonces
from superswarm.attestation.handshake import Attempt, check_pairing, pairing_proof
from superswarm.attestation.messages import Blobs, Message
from superswarm.attestation.nvidia.binding import attest_machine
from superswarm.attestation.verify import verify
from superswarm.consortium.approval import ApprovedManifest
from superswarm.consortium.documents import dump_json, load_json
from superswarm.consortium.grant import LAST_SECOND, RUN
from superswarm.consortium.manifest import Clause
from superswarm.consortium.vouch import check_vouch, sign_vouch
from superswarm.crypto.signing import SigningKey
from superswarm.errors import Malformed, NotVouched, OtherManifest
from superswarm.values import MEMBER_ID, MemberId, Role

NO_ATTEMPT: Final = 0
"""A server serves a run's result, whichever attempt made it."""

_PROOF = object()


class ServerChallenge(Clause):
    """Contributor, or the server's own member → server, as a file: a nonce that its evidence must cover."""

    format: Literal["superswarm-server-challenge/1"] = "superswarm-server-challenge/1"
    run: Annotated[str, Field(pattern=rf"^{RUN.pattern}$")]
    container: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # the one result that the challenge serves for
    nonce: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    expires: Annotated[int, Field(ge=0, le=LAST_SECOND)]  # unix seconds, by the challenger's clock

    @property
    def raw(self) -> bytes:
        """The nonce, 32 bytes."""
        return bytes.fromhex(self.nonce)

    def to_bytes(self) -> bytes:
        return dump_json(self.model_dump(mode="json"))

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Invert `to_bytes`. Raises Malformed or TooLarge."""
        return cls.from_data(load_json(raw, "server's challenge"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRequest(Message):
    """Server → contributors, as a file: evidence over their challenges, and the vouch of the server's member."""

    KIND: ClassVar[str] = "server-request"
    manifest: bytes  # digest, 32 bytes
    run: str
    member: str
    keys: bytes  # the server's SessionKeys
    nonces: Blobs  # all challenges that the evidence covers
    evidence: bytes
    pairing: bytes  # proof for the member that this is its server
    vouch: bytes  # empty until the member has vouched


@dataclass(frozen=True, slots=True, kw_only=True)
class VouchedServer:
    """An attested server for whose keys its member vouches. Only `judge_server` makes one."""

    key: ServerKey
    proof: InitVar[object]

    def __post_init__(self, proof: object) -> None:
        if proof is not _PROOF:
            raise TypeError("only judge_server() makes this key")


def server_request(
    attester: Attester,
    manifest: ApprovedManifest,
    *,
    run: str,
    member: MemberId,
    keys: SessionKeys,
    nonces: Sequence[bytes],
    pairing_key: bytes,
) -> ServerRequest:
    """What a server shows: evidence that it is `member`'s, for this run's result, over all challengers' nonces.

    Raises NotATee or Environment, as the attester does, and Malformed for nonces that are none.
    """
    attempt = Attempt(manifest=manifest, run=run, number=NO_ATTEMPT)
    blank = Evidence(attester.platform, b"")
    binding = attempt.binding(Role.SERVER, member, keys, combine_nonces(list(nonces)), blank)
    evidence, bound = attest_machine(attester, binding)
    return ServerRequest(
        manifest=manifest.digest.raw,
        run=run,
        member=member,
        keys=keys.to_bytes(),
        nonces=tuple(nonces),
        evidence=evidence.to_bytes(),
        pairing=pairing_proof(pairing_key, bound),
        vouch=b"",
    )


def vouch_for_server(
    request: ServerRequest,
    manifest: ApprovedManifest,
    *,
    run: str,
    member: MemberId,
    signing: SigningKey,
    pairing_key: bytes,
    mine: bytes,
    at: int,
) -> ServerRequest:
    """The request with the vouch of `member`, whose challenge was `mine`; `at` is its own time in unix seconds.

    Raises OtherManifest, NotVouched, BindingMismatch or EvidenceRejected.
    """
    # (1) It is the request of this member's server, under this manifest, for this run, and answers my challenge.
    asked = _read(request, manifest, run, mine)
    if asked.member != member:
        raise NotVouched(f"the request is of the server of {asked.member}, and {member} vouches for its own only")
    # (2) The member started it: it holds the pairing key.
    check_pairing(pairing_key, asked.binding, request.pairing)
    # (3) It is the approved code on an approved platform.
    _appraise(asked, manifest, at)
    vouch = asked.attempt.vouch(Role.SERVER, member, member, asked.keys.digest, asked.binding.nonce, at)
    return replace(request, vouch=sign_vouch(signing, vouch, manifest.domain))


def judge_server(
    request: ServerRequest, manifest: ApprovedManifest, *, run: str, mine: bytes, at: int
) -> VouchedServer:
    """Judge a server that asks for the result of `run`, as a contributor whose challenge was `mine`.

    Raises OtherManifest, NotVouched, BadSignature, BindingMismatch, EvidenceRejected or Malformed.
    """
    # (1) It asks under this manifest, for this run, and answers my challenge.
    asked = _read(request, manifest, run, mine)
    # (2) It is the approved code on an approved platform, of a member that may serve, and these are its keys.
    key = _appraise(asked, manifest, at)
    # (3) That member vouches for these keys, over these challenges.
    vouch = check_vouch(request.vouch, manifest)
    if vouch != asked.attempt.vouch(
        Role.SERVER, asked.member, asked.member, asked.keys.digest, asked.binding.nonce, vouch.time
    ):
        raise NotVouched(f"{asked.member} did not vouch for this server, for this run's result, with these nonces")
    return VouchedServer(key=key, proof=_PROOF)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A request, read, with what its evidence must speak for."""

    attempt: Attempt
    member: MemberId
    keys: SessionKeys
    binding: Binding
    evidence: Evidence


def _read(request: ServerRequest, manifest: ApprovedManifest, run: str, mine: bytes) -> _Asked:
    if request.manifest != manifest.digest.raw:
        raise OtherManifest("the server asks under another manifest than the one that the result was made under")
    if request.run != run:
        raise NotVouched(f"the server asks for the result of the run {request.run[:64]!a}, not of {run}")
    if not MEMBER_ID.fullmatch(request.member):
        raise Malformed("a server's request names something that is not a member")
    if mine not in request.nonces:
        raise NotVouched("the server's evidence does not cover this side's challenge")
    attempt = Attempt(manifest=manifest, run=run, number=NO_ATTEMPT)
    member, keys, evidence = (
        MemberId(request.member),
        SessionKeys.parse(request.keys),
        Evidence.parse(request.evidence),
    )
    nonce = combine_nonces(list(request.nonces))
    binding = attempt.binding(Role.SERVER, member, keys, nonce, evidence)
    return _Asked(attempt=attempt, member=member, keys=keys, binding=binding, evidence=evidence)


def _appraise(asked: _Asked, manifest: ApprovedManifest, at: int) -> ServerKey:
    return appraise_server(verify(asked.evidence, trust_roots(manifest), at), manifest, asked.binding)
