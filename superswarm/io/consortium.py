"""What every program loads before it does anything: the approved manifest, and the TEE that it runs in."""

from __future__ import annotations

from pathlib import Path

from superswarm.attestation.evidence import Attester
from superswarm.attestation.measure import measure_packages
from superswarm.attestation.simulated import SimulatedPlatform, SimulatedTee
from superswarm.consortium.approval import ApprovedManifest, approve, parse_chain
from superswarm.consortium.documents import dump_json, load_json, require_fields
from superswarm.errors import Fork, Malformed, Misconfigured, Rollback
from superswarm.io.console import warn_simulated
from superswarm.io.files import SECRET, locked, read_bytes, write_bytes
from superswarm.io.tee import HardwareTee
from superswarm.values import LIMITS, Digest

EPOCHS_FORMAT = "superswarm-epochs-seen/1"


def load_manifest(file: Path, pinned: str | None) -> ApprovedManifest:
    """Read and approve a consortium's epochs; warn loudly where they are simulated.

    Raises Environment, Malformed, NotApproved, OwnerVeto, BadSignature or Fork.
    """
    raw = read_bytes(file, limit=LIMITS.chain_bytes)
    try:
        chain = parse_chain(raw)
    except Malformed as error:
        advice = "give the approved file, which `superswarm manifest combine` wrote"
        raise type(error)(f"{file}: {error}: {advice}") from None
    manifest = approve(chain, pinned=Digest.parse(pinned) if pinned is not None else None)
    if manifest.simulated:
        warn_simulated()
    return manifest


def remember_epoch(file: Path, manifest: ApprovedManifest) -> None:
    """Hold this epoch against the newest one that this machine has seen, and remember the newer; durable.

    Raises Rollback for an older epoch, Fork for a rival of one that was seen.
    """
    seen = manifest.manifest.epoch
    with locked(file):
        if file.exists():
            known = _read_seen(file)
            if len(known) > len(manifest.history):
                raise Rollback(f"epoch {len(known)} was seen before, and {seen} is older: get the current manifest")
            if known != manifest.history[: len(known)]:
                raise Fork(f"epoch {len(known)} was seen before with another content: two rival histories")
        digests = [str(digest) for digest in manifest.history]
        write_bytes(file, dump_json({"format": EPOCHS_FORMAT, "epochs": digests}), mode=SECRET, replace=True)


def _read_seen(file: Path) -> tuple[Digest, ...]:
    what = "record of epochs"
    data = load_json(read_bytes(file, limit=LIMITS.document_bytes), what)
    require_fields(data, what, EPOCHS_FORMAT, {"epochs"})
    if not isinstance(data["epochs"], list) or not all(isinstance(epoch, str) for epoch in data["epochs"]):
        raise Malformed(f"{file}: not a {what}")
    return tuple(Digest.parse(epoch) for epoch in data["epochs"])


def open_tee(manifest: ApprovedManifest, credentials: Path | None, collateral: Path | None = None) -> Attester:
    """The TEE that this program runs in, as the manifest's kind of attestation asks.

    Raises Misconfigured where simulated credentials are missing or do not belong, NotATee where the machine has none.
    """
    if manifest.simulated:
        if credentials is None:
            raise Misconfigured("a simulated manifest needs platform_credentials (superswarm keys platform)")
        platform = SimulatedPlatform.parse(read_bytes(credentials, limit=LIMITS.evidence_bytes))
        return SimulatedTee(platform, measure_packages())
    if credentials is not None:
        raise Misconfigured("platform_credentials are for simulated manifests; this one asks for real hardware")
    return HardwareTee(collateral)
