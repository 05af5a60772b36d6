"""The owner's broker: appraises who asks for an asset's key, logs the decision, and seals the key to attested TEEs.

It runs on the owner's own premises, in the node's process or as a service of its own, and never beside a TEE.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from participants.broker.challenges import Challenges
from participants.broker.ledger import Ledger
from participants.broker.vault import Held, Vault, VaultFolder
from participants.broker.wrapping import KeyWrapper
from superswarm.assets.release import KeyRequest
from superswarm.assets.terms import ReleaseTo, judge_request, owned_asset
from superswarm.attestation.evidence import SessionKeys
from superswarm.consortium.approval import ApprovedManifest
from superswarm.consortium.grant import LAST_SECOND, SignedGrant
from superswarm.errors import Error, OtherManifest, ReleaseRefused
from superswarm.values import Digest, MemberId, Role

REFUSALS: Final = 1_000  # logged in one hour: whoever floods the broker must not fill its disk
HOUR: Final = 3600.0


class Broker:
    """One vault, its log, and the manifests that are in force. Answers one request at a time.

    `challenge` and `release` raise our errors; whoever carries the answer sends the error's fixed word.
    """

    def __init__(
        self,
        *,
        vault: VaultFolder,
        wrapper: KeyWrapper,
        ledger: Ledger,
        manifests: Mapping[Digest, ApprovedManifest],
        now: Callable[[], int] = lambda: int(time.time()),
        monotonic: Callable[[], float] = time.monotonic,
        notify: Callable[..., None] = lambda *_, **__: None,
    ) -> None:
        """Open the vault and its log. Raises Misconfigured for a wrong passphrase, Rollback for an old log."""
        self._folder, self._wrapper, self._ledger = vault, wrapper, ledger
        self._manifests, self._now, self._monotonic, self._notify = dict(manifests), now, monotonic, notify
        self._challenges = Challenges(monotonic)
        self._refused: deque[float] = deque()  # when refusals were logged; monotonic seconds
        with self._deciding():
            pass

    def challenge(self, manifest: Digest, member: MemberId, asset: bytes) -> bytes:
        """A nonce, 32 bytes, that the trainer of `member` has to answer. Raises ReleaseRefused or OtherManifest."""
        approved, digest = self._approved(manifest), Digest(asset)
        if member not in approved.manifest.trainers:
            raise ReleaseRefused("not-for-this-member", f"{member} has no trainer under this manifest")
        with self._deciding() as vault:
            self._require_offer(vault, approved, digest)
            return self._challenges.issue(manifest, member, digest)

    def release(self, manifest: Digest, member: MemberId, request: KeyRequest) -> bytes:
        """The key, sealed to the trainer's attested key; decided and on disk before it returns.

        Raises ReleaseRefused, or whatever in the request does not hold, which is logged too.
        """
        approved = self._approved(manifest)
        with self._deciding() as vault:
            try:
                verdict = self._judge(vault, approved, member, request)
                sealed = verdict.seal(vault.key(verdict.context.asset, manifest))
            except Error as error:
                self._log_refusal(approved, member, request, error)
                raise
            self._ledger.append(
                "release",
                asset=str(verdict.context.asset),
                manifest=str(manifest),
                consortium=approved.manifest.consortium,
                member=member,
                role=str(Role.TRAINER),
                run=verdict.context.run,
                attempt=verdict.context.attempt,
                session=str(verdict.context.session),
            )
        self._notify("key released", asset=verdict.asset.name, member=member, run=verdict.context.run)
        return sealed

    def _judge(self, vault: Vault, manifest: ApprovedManifest, member: MemberId, request: KeyRequest) -> ReleaseTo:
        """What the log and the vault know, then what the request shows."""
        asset = Digest(request.asset)
        # (1) It answers a challenge of mine for this member and asset, which is closed by that.
        self._challenges.take(request.nonce, manifest.digest, member, asset)
        # (2) I offer the asset under this manifest, and have not withdrawn it.
        held = self._require_offer(vault, manifest, asset)
        # (3) Evidence, vouch, grant and terms hold, with what was released before.
        session = SessionKeys.parse(request.keys).digest
        return judge_request(
            manifest,
            MemberId(held.header.owner),
            request,
            member,
            demo=held.header.demo,
            used=self._ledger.decisions.used(asset, manifest, member, session),
            at=self._now(),
        )

    def _require_offer(self, vault: Vault, manifest: ApprovedManifest, asset: Digest) -> Held:
        """What is held of an asset that is offered under this manifest."""
        held = vault.held(asset)
        offer = held.offer(manifest.digest) if held is not None else None
        if held is None or offer is None or offer.entry != self._ledger.decisions.offered(asset, manifest.digest):
            raise ReleaseRefused("not-offered", "the owner does not offer this asset under this manifest")
        owned_asset(manifest, MemberId(held.header.owner), asset.raw)
        return held

    def _approved(self, manifest: Digest) -> ApprovedManifest:
        approved = self._manifests.get(manifest)
        if approved is None:
            raise OtherManifest(
                f"the broker does not act under the manifest {manifest.short}: give it the current one"
            )
        return approved

    @contextmanager
    def _deciding(self) -> Iterator[Vault]:
        """One decision at a time, of all threads and processes, on what the files say now."""
        with self._folder.locked():
            self._ledger.refresh()
            yield self._folder.open(self._wrapper)

    def _log_refusal(self, manifest: ApprovedManifest, member: MemberId, request: KeyRequest, error: Error) -> None:
        at = self._monotonic()
        while self._refused and self._refused[0] < at - HOUR:
            self._refused.popleft()
        if len(self._refused) >= REFUSALS:
            self._notify("refusal not logged", member=member, error=error.code)
            return
        self._refused.append(at)
        known: dict[str, Any] = {
            "manifest": str(manifest.digest),
            "consortium": manifest.manifest.consortium,
            "member": member if manifest.manifest.member(member) is not None else None,
            "role": str(Role.TRAINER),
            "code": error.code,
        }
        self._ledger.append("refuse", **known, **_claims(request))


def _claims(request: KeyRequest) -> dict[str, Any]:
    """What a refused request says of itself, as far as it can be read. None of it was checked."""
    claims: dict[str, Any] = {}
    try:
        claims["asset"] = str(Digest(request.asset))
        claims["session"] = str(SessionKeys.parse(request.keys).digest)
        grant = SignedGrant.parse(request.grant).grant
        claims["run"] = grant.run
        if request.attempt <= LAST_SECOND:  # larger ones are no attempt, and no entry holds them
            claims["attempt"] = request.attempt
    except Error:
        return claims
    return claims
