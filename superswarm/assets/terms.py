"""Whether the key of a sealed asset may be released to whoever asks: the owner's judgement. Does no I/O."""

from __future__ import annotations

from dataclasses import InitVar, dataclass

from superswarm.assets.release import KeyContext, KeyRequest, seal_key
from superswarm.attestation.appraise import TrainerKey
from superswarm.attestation.evidence import Evidence, SessionKeys
from superswarm.attestation.handshake import Attempt, judge_trainer
from superswarm.consortium.approval import ApprovedManifest
from superswarm.consortium.assets import Asset
from superswarm.consortium.grant import ApprovedGrant, SignedGrant, approve_grant
from superswarm.consortium.vouch import check_vouch
from superswarm.errors import NotVouched, ReleaseRefused
from superswarm.values import LIMITS, Digest, MemberId, Role

_PROOF = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseTo:
    """Attested session keys that may have one asset's key. Only `judge_request` makes one."""

    asset: Asset
    holder: TrainerKey
    context: KeyContext
    proof: InitVar[object]

    def __post_init__(self, proof: object) -> None:
        if proof is not _PROOF:
            raise TypeError("only judge_request() makes a ReleaseTo")

    def seal(self, key: bytes) -> bytes:
        """The asset's key, for this holder."""
        return seal_key(key, self.holder.keys, self.context)


def owned_asset(manifest: ApprovedManifest, owner: MemberId, digest: bytes) -> Asset:
    """The sealed asset of this digest that `owner` brings under this manifest. Raises ReleaseRefused."""
    for asset in manifest.manifest.assets:
        if asset.owner == owner and asset.release is not None and Digest.parse(asset.digest).raw == digest:
            return asset
    raise ReleaseRefused("no-such-asset", f"{owner} has no sealed asset of this digest under this manifest")


def judge_request(
    manifest: ApprovedManifest,
    owner: MemberId,
    request: KeyRequest,
    member: MemberId,
    *,
    demo: bool,
    used: int,
    at: int,
) -> ReleaseTo:
    """Judge a request of `member`'s trainer, whose nonce the caller has just taken from its open challenges.

    `used` counts earlier releases of this asset to this member under this manifest, `demo` says that the asset was
    sealed as a demo, `at` is the owner's clock in unix seconds. Raises ReleaseRefused, NoGrant, NotVouched,
    BadSignature, EvidenceRejected or Malformed.
    """
    # (1) The asset is mine, and sealed, under this manifest.
    asset = owned_asset(manifest, owner, request.asset)
    # (2) Simulated machines protect nothing: they get what was sealed as a demo, and nothing else.
    if manifest.simulated and not demo:
        raise ReleaseRefused("not-a-demo", f"{asset.name} was not sealed as a demo, and the manifest is simulated")
    # (3) A quorum granted this run and attempt, its job uses the asset, and I release it to this member's trainer.
    grant = approve_grant(SignedGrant.parse(request.grant), manifest)
    grant.check(at, request.attempt)
    _require_use(manifest, asset, grant, member)
    # (4) The member says that these session keys are its trainer's, in this attempt, and said so lately.
    keys = SessionKeys.parse(request.keys)
    attempt = Attempt(manifest=manifest, run=grant.grant.run, number=request.attempt)
    _require_vouch(attempt, request.vouch, member, keys, at)
    # (5) They are held by approved code on approved hardware, which answers my challenge.
    holder = judge_trainer(attempt, member, keys, [request.nonce], Evidence.parse(request.evidence), at)
    # (6) The last day has not passed, and one of the times that I signed is left.
    _require_left(asset, member, used, at)
    context = KeyContext(
        domain=manifest.domain,
        manifest=manifest.digest,
        run=attempt.run,
        attempt=attempt.number,
        asset=Digest.parse(asset.digest),
        member=member,
        session=keys.digest,
        nonce=request.nonce,
    )
    return ReleaseTo(asset=asset, holder=holder, context=context, proof=_PROOF)


def _require_use(manifest: ApprovedManifest, asset: Asset, grant: ApprovedGrant, member: MemberId) -> None:
    terms = asset.release
    if terms is None or "trainer" not in terms.roles or member not in terms.members:
        raise ReleaseRefused("not-for-this-member", f"{asset.name} is not released to the trainer of {member}")
    if asset not in manifest.manifest.sealed_for(member, grant.job):
        raise ReleaseRefused("not-for-this-job", f"the trainer of {member} needs no key of {asset.name} for this job")


def _require_vouch(attempt: Attempt, raw: bytes, member: MemberId, keys: SessionKeys, at: int) -> None:
    vouch = check_vouch(raw, attempt.manifest)
    expected = attempt.vouch(Role.TRAINER, member, member, keys.digest, vouch.nonce, vouch.time)
    if vouch != expected:
        raise NotVouched(f"{member} did not vouch for this trainer in this run and attempt")
    age = at - vouch.time
    if not -LIMITS.clock_skew_seconds <= age <= LIMITS.vouch_seconds + LIMITS.clock_skew_seconds:
        raise NotVouched(f"{member} vouched for this trainer {age} s ago, and a vouch lasts {LIMITS.vouch_seconds} s")


def _require_left(asset: Asset, member: MemberId, used: int, at: int) -> None:
    terms = asset.release
    if terms is None or at > terms.ends:
        raise ReleaseRefused("ended", f"{asset.name} is released until {terms.not_after if terms else 'never'}")
    if used >= terms.times:
        raise ReleaseRefused("used-up", f"{asset.name} was released to {member} {used} times of {terms.times}")
