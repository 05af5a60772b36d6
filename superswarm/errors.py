"""What superswarm raises on purpose, grouped by who must act.

Imports nothing. No message holds a secret, a tensor, a prompt or a peer's exception text. `exit_code` is what a
program ends with; `code` is the fixed word that may leave a TEE in place of the message.
"""

from __future__ import annotations

from typing import ClassVar


class Error(Exception):
    """Root of what superswarm raises on purpose. Holds no secret."""

    exit_code: ClassVar[int] = 1

    @property
    def code(self) -> str:
        """The error's name as a fixed word: all that leaves a TEE."""
        return type(self).__name__


# --- 2: whoever typed the command or wrote the configuration must act -------------------------------------------


class Misconfigured(Error):
    """A flag, an environment variable or a configuration file says something that cannot be."""

    exit_code = 2


# --- 3: whoever made the file or message must act ----------------------------------------------------------------


class Malformed(Error):
    """Not what it claims to be."""

    exit_code = 3


class TooLarge(Malformed):
    """Claims or has more bytes than its limit allows."""


class UnsafeModel(Malformed):
    """A model folder that could run code when loaded: pickle weights, auto_map, remote code."""


class UnusableDataset(Malformed):
    """A dataset that is empty, unreadable or lacks the fields that training needs."""


class WrongShapes(Malformed):
    """An update whose tensors are not those that the cohort trains."""


class NotFinite(Malformed):
    """An update or metric that holds NaN or infinity."""


class Mismatch(Malformed):
    """Two things that should be the same are not (a digest of a file, of a model)."""


class WrongModel(Mismatch):
    """The base model's digest is not the one in the manifest."""


# --- 4: the consortium must act; suspect an attack ---------------------------------------------------------------


class Untrusted(Error):
    """Well formed, but a signature, measurement or approval fails."""

    exit_code = 4


class BadSignature(Untrusted):
    """A signature does not hold, or half of a hybrid pair is missing."""


class NotApproved(Untrusted):
    """A manifest, a grant or the release of a result lacks the signatures that the manifest asks for."""


class OwnerVeto(NotApproved):
    """A clause that touches an asset lacks the signature of the asset's owner."""


class Fork(Untrusted):
    """Two successors of one epoch, or a successor of an epoch that is not the current one."""


class Rollback(Untrusted):
    """An epoch older than one already seen."""


class OtherManifest(Untrusted):
    """The peer acts under another manifest or epoch: one side has not taken the current one."""


class NoGrant(Untrusted):
    """A run that no grant allows: unknown run, too many rounds or attempts, expired, another epoch."""


class EvidenceRejected(Untrusted):
    """Attestation evidence fails verification or appraisal. `reason` is the fixed code of the failed claim.

    `reasons` has the codes of all claims that were seen to fail, `reason` first; `messages` says what was found,
    in the same order, as far as it is known.
    """

    def __init__(self, reason: str, message: str, *others: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.reasons = (reason, *others)
        self.messages: tuple[str, ...] = (message,)

    @property
    def code(self) -> str:
        return f"{type(self).__name__}:{self.reason}"


class UnapprovedMeasurement(EvidenceRejected):
    """The consortium did not approve this code for this workload."""

    def __init__(self, message: str) -> None:
        super().__init__("measurement", message)


class BindingMismatch(EvidenceRejected):
    """report_data speaks for another key, nonce, role, member, run or manifest."""

    def __init__(self, message: str) -> None:
        super().__init__("binding", message)


class NotVouched(Untrusted):
    """No valid vouch of the member (or quorum) that a session key claims to speak for."""


class RefusedByMembers(NotVouched):
    """Every member that answers refuses this aggregator or run, for a reason that waiting does not mend."""


class ReleaseRefused(Untrusted):
    """An owner does not release the key of an asset. `reason` is the fixed code of the term that is not met."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    @property
    def code(self) -> str:
        return f"{type(self).__name__}:{self.reason}"


class SecondAggregator(Untrusted):
    """Another aggregator was already vouched for in this run attempt."""


class OtherResult(Untrusted):
    """An approval that was given for another result than the one at hand."""


class OtherRecipient(Untrusted):
    """Somebody who is to get a result is not whom the manifest, or an approval, names."""


class WrongShare(Untrusted):
    """A contributor's share of a result's key is not the one that the result commits to."""


class NotOwner(Untrusted):
    """A member wants to do with an asset what only its owner may."""


class CannotOpen(Untrusted):
    """A ciphertext does not open under this key and context: altered, misdirected, replayed or reordered."""


class Replay(CannotOpen):
    """A message that was already taken, or is older than one already taken."""


# --- 5: whoever runs this machine must act -----------------------------------------------------------------------


class Environment(Error):
    """The machine lacks something: a port, disk space, a file, a working clock, a device."""

    exit_code = 5


class PortTaken(Environment):
    """Another process listens on a port that this program needs."""


class DiskFull(Environment):
    """No space is left where this program must write."""


class NotATee(Environment):
    """This machine offers no trusted execution environment that the manifest allows."""


# --- 6: wait, or ask the others ----------------------------------------------------------------------------------


class Unavailable(Error):
    """A peer or the relay does not answer, or not in time."""

    exit_code = 6


class CohortTooSmall(Unavailable):
    """Fewer members answered than the manifest's minimum cohort."""


class RunStopped(Unavailable):
    """The operator stopped the run."""


# --- 7: upgrade one side -----------------------------------------------------------------------------------------


class VersionMismatch(Error):
    """The peer speaks another version of the protocol."""

    exit_code = 7
