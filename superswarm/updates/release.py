"""Release of a result by its contributors: k of them approve, and the one recipient that they name gets its key.

Each contributor opens its own share of the key and seals it to the recipient. No fewer than k shares say anything of
the key. That any k contributors who collude can rebuild it is what sharing means: nothing here prevents it.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field
from typing import Any, BinaryIO

from superswarm.attestation.serving import VouchedServer
from superswarm.consortium.approval import ApprovedManifest
from superswarm.consortium.documents import decode_base64
from superswarm.crypto.hpke import KemKey, KemPublicKey
from superswarm.crypto.kdf import KEY_BYTES
from superswarm.crypto.shamir import Share, combine
from superswarm.crypto.signing import SigningKey, VerifyingKey
from superswarm.crypto.stream import Chunks
from superswarm.errors import (
    BadSignature,
    Malformed,
    NotApproved,
    OtherManifest,
    OtherRecipient,
    OtherResult,
    WrongShare,
)
from superswarm.updates.approvals import WHAT, Recipient, ResultApproval, SignedApproval
from superswarm.updates.container import ResultHead, ResultHeader, check_signature, read_head
from superswarm.updates.publish import OpenedResult, open_with_key
from superswarm.values import Digest, MemberId

_PROOF = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipientKey:
    """The key of somebody who may get this run's result. Only `member_recipient` and `server_recipient` make one."""

    to: Recipient
    kem: KemPublicKey
    manifest: Digest
    run: str | None  # the one run whose result a server may have; None where the manifest does not say
    proof: InitVar[object]

    def __post_init__(self, proof: object) -> None:
        if proof is not _PROOF:
            raise TypeError("only member_recipient() and server_recipient() make this key")


def member_recipient(manifest: ApprovedManifest, member: MemberId) -> RecipientKey:
    """A member, by its encryption key in the manifest. Raises OtherRecipient unless `result.recipients` names it."""
    to = Recipient(member)
    _require_named(manifest, to)
    return RecipientKey(to=to, kem=manifest.encryption_key(member), manifest=manifest.digest, run=None, proof=_PROOF)


def server_recipient(manifest: ApprovedManifest, server: VouchedServer) -> RecipientKey:
    """An attested, vouched server. Raises OtherManifest, or OtherRecipient unless `result.serving` names it."""
    key = server.key
    if key.manifest != manifest.digest:
        raise OtherManifest("the server was judged under another manifest")
    to = Recipient(key.member, key.keys.digest)
    _require_named(manifest, to)
    return RecipientKey(to=to, kem=key.keys.kem, manifest=manifest.digest, run=key.run, proof=_PROOF)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldShare:
    """A contributor's share of a result that the expected aggregator signed. Only `hold_share` makes one."""

    header: ResultHeader
    result: Digest  # of the stream that the aggregator signed
    manifest: ApprovedManifest = field(repr=False)
    contributor: MemberId
    share: Share
    proof: InitVar[object]

    def __post_init__(self, proof: object) -> None:
        if proof is not _PROOF:
            raise TypeError("only hold_share() makes this")

    def approve(self, to: RecipientKey, signing: SigningKey, *, entry: Digest, at: int) -> SignedApproval:
        """Approve the result's release to one recipient, at this time (unix seconds).

        Whoever calls this has logged it durably before: `entry` is the digest of the log's entry.
        """
        if to.manifest != self.manifest.digest:
            raise OtherManifest("the recipient was judged under another manifest than the result's")
        if to.run not in (None, self.header.run):
            raise OtherResult(f"the server asks for the result of {to.run}, not of {self.header.run}")
        unsealed = ResultApproval.model_validate(
            {**self._names(to.to), "entry": str(entry), "time": at, "sealed": ""}
        )
        sealed = to.kem.seal(self.share.to_bytes(), info=unsealed.share_info(self.manifest.domain))
        approval = unsealed.model_copy(update={"sealed": base64.b64encode(sealed).decode()})
        return SignedApproval(approval, signing.sign(_tag(self.manifest), approval.signed_bytes()))

    def _names(self, to: Recipient) -> dict[str, Any]:
        return {
            "consortium": self.header.consortium,
            "epoch": self.header.epoch,
            "manifest": self.header.manifest,
            "run": self.header.run,
            "container": self.header.container,
            "result": str(self.result),
            "contributor": self.contributor,
            "index": self.share.index,
            "recipient": to.member,
            "server": None if to.session is None else str(to.session),
        }


def hold_share(
    src: BinaryIO, manifest: ApprovedManifest, member: MemberId, kem: KemKey, *, expected_signer: VerifyingKey | None
) -> HeldShare:
    """Open a contributor's share of the result in a seekable file, before it approves anything.

    Raises Malformed, Untrusted, BadSignature, OtherManifest, NotApproved, CannotOpen or WrongShare.
    """
    # (1) It parses, and the expected aggregator signed all of it.
    head, result = _signed_head(src, expected_signer)
    # (2) It is of this manifest, which asks for approvals, and its key is shared out as the manifest says.
    require_shared_out(head.header, manifest)
    # (3) One share is this member's, and is what the result commits to.
    share = head.header.context.open_share(head.header.share_of(member), kem)
    return HeldShare(
        header=head.header, result=result, manifest=manifest, contributor=member, share=share, proof=_PROOF
    )


def open_released(
    src: BinaryIO,
    manifest: ApprovedManifest,
    approvals: Sequence[SignedApproval],
    to: Recipient,
    kem: KemKey,
    *,
    expected_signer: VerifyingKey | None,
) -> OpenedResult:
    """Open a container in a seekable file as the recipient whom k contributors approved."""
    head, result = _signed_head(src, expected_signer)
    return open_with_key(src, head, release(head, result, manifest, approvals, to, kem))


def release(
    head: ResultHead,
    result: Digest,
    manifest: ApprovedManifest,
    approvals: Sequence[SignedApproval],
    to: Recipient,
    kem: KemKey,
) -> bytes:
    """The content key that these approvals release to `to`, whose private key is `kem`.

    `result` is the digest of the stream, as `check_signature` gave it. Raises OtherManifest, OtherRecipient,
    OtherResult, NotApproved, BadSignature, CannotOpen or WrongShare, each naming who is at fault.
    """
    header = head.header
    # (1) The result is of this manifest, and its key is shared out as the manifest says.
    require_shared_out(header, manifest)
    # (2) The manifest lets this recipient have it.
    _require_named(manifest, to)
    shares: dict[MemberId, Share] = {}
    for signed in approvals:
        approval = signed.approval
        contributor = MemberId(approval.contributor)
        # (3) Each approval is of this epoch, this result and this recipient.
        _require_same(approval, header, result, manifest, to)
        # (4) A contributor signed it, and each contributor only once.
        if contributor in shares:
            raise NotApproved(f"{contributor} approves twice: one contributor is one approval")
        _check_signature(signed, manifest)
        # (5) Its share was sealed to this recipient, and is the one that the result commits to.
        shares[contributor] = _open_share(approval, header, manifest, kem)
    # (6) They are as many as the manifest asks for.
    need = manifest.manifest.result.approvals
    if len(shares) < need:
        raise NotApproved(f"{len(shares)} contributors approve, and the manifest asks for {need}")
    # (7) The key that they give is this stream's.
    key = combine(list(shares.values()), need, KEY_BYTES)
    Chunks(key, head.prologue)
    return key


def require_shared_out(header: ResultHeader, manifest: ApprovedManifest) -> None:
    """Raise OtherManifest or NotApproved unless a result's header is what this manifest makes of it."""
    agreed = manifest.manifest
    if header.manifest != str(manifest.digest):
        raise OtherManifest(f"the result was made under epoch {header.epoch}, another manifest than the one given")
    if (header.consortium, header.epoch, header.attestation) != (agreed.consortium, agreed.epoch, agreed.attestation):
        raise OtherManifest("the result's header contradicts the manifest that it names")
    if agreed.result.approvals == 0:
        raise NotApproved("the manifest asks for no approvals: recipients open this result with their keys")
    holders = tuple(slot.contributor for slot in header.shares)
    if header.approvals != agreed.result.approvals or holders != agreed.contributors:
        raise NotApproved("the result's key is not shared out among the contributors as the manifest says")


def _signed_head(src: BinaryIO, expected_signer: VerifyingKey | None) -> tuple[ResultHead, Digest]:
    src.seek(0)
    head = read_head(src)
    return head, check_signature(src, head, expected_signer)


def _require_named(manifest: ApprovedManifest, to: Recipient) -> None:
    result = manifest.manifest.result
    if to.session is None and to.member not in result.recipients:
        raise OtherRecipient(f"{to.member} is no recipient of results under epoch {manifest.manifest.epoch}")
    if to.session is not None and to.member not in result.serving:
        raise OtherRecipient(f"{to.member} serves no results under epoch {manifest.manifest.epoch}")


def _require_same(
    approval: ResultApproval, header: ResultHeader, result: Digest, manifest: ApprovedManifest, to: Recipient
) -> None:
    agreed, who = manifest.manifest, approval.contributor
    if (approval.consortium, approval.epoch, approval.manifest) != (
        agreed.consortium,
        agreed.epoch,
        str(manifest.digest),
    ):
        raise OtherManifest(f"the approval of {who} was given under epoch {approval.epoch}, another manifest")
    if (approval.run, approval.container, approval.result) != (header.run, header.container, str(result)):
        raise OtherResult(f"the approval of {who} is for another result, of the run {approval.run}")
    if approval.to != to:
        raise OtherRecipient(f"the approval of {who} is for {approval.to}, not for {to}")


def _check_signature(signed: SignedApproval, manifest: ApprovedManifest) -> None:
    who = signed.approval.contributor
    if who not in manifest.manifest.contributors:
        raise NotApproved(f"{who} approves, but contributes neither data nor a model")
    try:
        manifest.verifying_key(who).verify(_tag(manifest), signed.approval.signed_bytes(), signed.signature)
    except BadSignature:
        raise BadSignature(f"the signature of {who} does not hold for this approval") from None


def _open_share(approval: ResultApproval, header: ResultHeader, manifest: ApprovedManifest, kem: KemKey) -> Share:
    slot = header.share_of(approval.contributor)
    raw = kem.open(decode_base64(approval.sealed, WHAT), info=approval.share_info(manifest.domain))
    try:
        share = Share.parse(raw)
    except Malformed:
        raise WrongShare(f"what {approval.contributor} sealed is no share") from None
    if approval.index != slot.index:
        raise WrongShare(f"{approval.contributor} approves with the share {approval.index}, and holds {slot.index}")
    header.context.check_share(share, slot)
    return share


def _tag(manifest: ApprovedManifest) -> str:
    return f"{manifest.domain}/result-approval"
