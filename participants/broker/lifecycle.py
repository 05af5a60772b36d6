"""What an owner does with its broker: keys in, offers, withdrawals, a new passphrase, backup and restore.

Each is one step under the vault's lock and one entry in its log. Where a crash could come between the two, what then
holds is the stricter of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from participants.broker import vault as vaults
from participants.broker.decisions import Entry, Head
from participants.broker.ledger import LOG, Ledger, Missing, Witness
from participants.broker.vault import Held, Vault, VaultFolder
from participants.broker.wrapping import KeyWrapper
from superswarm.assets.key import AssetKey
from superswarm.assets.terms import owned_asset
from superswarm.consortium.approval import ApprovedManifest
from superswarm.consortium.manifest import Asset
from superswarm.errors import Malformed, Misconfigured, ReleaseRefused
from superswarm.io.files import SECRET, make_folder, read_bytes, write_bytes
from superswarm.values import Digest, MemberId
from superswarm.wire import pack, unpack

BACKUP: Final = "superswarm-broker-backup/1"
BACKUP_BYTES: Final = 1024**3


class Owner:
    """An owner's hands on a vault that it opened."""

    def __init__(self, folder: VaultFolder, wrapper: KeyWrapper, ledger: Ledger) -> None:
        self.folder, self.wrapper, self.ledger = folder, wrapper, ledger

    def add(self, key: AssetKey) -> None:
        """Put an asset's key into the vault. Offered under no manifest yet."""
        with self.folder.locked():
            self.ledger.refresh()
            vault = self.folder.open(self.wrapper).add(key)
            self.ledger.append("add", asset=str(key.digest))
            self.folder.save(vault)

    def offer(self, manifest: ApprovedManifest, name: str) -> Asset:
        """Let the broker release this asset's key under this manifest, on the terms that the manifest has.

        Raises Misconfigured, Mismatch or ReleaseRefused where the manifest has no such sealed asset, or another one,
        or where a later epoch of its consortium is offered already.
        """
        asset = named_asset(manifest, name)
        digest = Digest.parse(asset.digest)
        with self.folder.locked():
            self.ledger.refresh()
            vault = self.folder.open(self.wrapper)
            held = vault.require(digest)
            held.header.require(asset)
            if manifest.manifest.simulated and not held.header.demo:
                raise ReleaseRefused("not-a-demo", f"{name} was not sealed as a demo: simulated TEEs protect nothing")
            self._require_newest(held, manifest)
            self.folder.save(vault.offer(digest, manifest, name, self.ledger.decisions.head.count + 1))
            self.ledger.append(
                "offer",
                asset=asset.digest,
                manifest=str(manifest.digest),
                consortium=manifest.manifest.consortium,
                member=asset.owner,
            )
        return asset

    def _require_newest(self, held: Held, manifest: ApprovedManifest) -> None:
        """An older epoch's offer would end the newer one's: terms that the consortium has replaced."""
        agreed = manifest.manifest
        for one in held.offers:
            live = self.ledger.decisions.offered(Digest.parse(held.asset), Digest.parse(one.manifest)) == one.entry
            if live and one.consortium == agreed.consortium and one.epoch > agreed.epoch:
                raise Misconfigured(
                    f"{one.name} is offered under epoch {one.epoch} already, and this file ends with epoch "
                    f"{agreed.epoch}: give the consortium's newest file"
                )

    def withdraw(self, asset: Digest, manifest: Digest | None) -> None:
        """Release an asset's key no more, under one manifest or any: from the next request on.

        Misconfigured where it is not offered under that one manifest: another epoch's offer would stay, unnoticed.
        """
        with self.folder.locked():
            self.ledger.refresh()
            held = self.folder.open(self.wrapper)
            if manifest is not None and not self._offered(held, asset, manifest):
                raise Misconfigured(
                    f"{asset} is not offered under the manifest {manifest.short}, so nothing was withdrawn: give the "
                    "file of the epoch that it was offered under, or withdraw it under every manifest (no --manifest)"
                )
            vault = held.withdraw(asset, manifest)
            self.ledger.append("withdraw", asset=str(asset), manifest=str(manifest) if manifest is not None else None)
            self.folder.save(vault)

    def _offered(self, vault: Vault, asset: Digest, manifest: Digest) -> bool:
        """Whether log or vault has an offer: after a crash in between, only one of them does."""
        logged = self.ledger.decisions.offered(asset, manifest) is not None
        return logged or vault.require(asset).offer(manifest) is not None

    def rekey(self, wrapper: KeyWrapper) -> None:
        """Wrap all keys anew, under another passphrase or key file. Old copies of the vault open with the old one."""
        with self.folder.locked():
            self.ledger.refresh()
            vault = self.folder.open(self.wrapper).rewrapped(wrapper)
            self.ledger.append("rekey")
            self.folder.save(vault)
            self.wrapper = wrapper

    def backup(self, file: Path) -> Head:
        """Write vault and log into one new file. Its keys are encrypted as in the vault."""
        with self.folder.locked():
            self.ledger.refresh()
            vault = vaults.to_bytes(self.folder.open(self.wrapper).document)
            log = read_bytes(self.ledger.file, limit=BACKUP_BYTES) if self.ledger.file.exists() else b""
            head = self.ledger.decisions.head
        write_bytes(file, pack(BACKUP, vault, log), mode=SECRET)
        return head


def named_asset(manifest: ApprovedManifest, name: str) -> Asset:
    """The sealed asset of this name. Misconfigured where the manifest has none."""
    asset = manifest.manifest.asset(name)
    if asset is None or not asset.sealed:
        sealed = ", ".join(one.name for one in manifest.manifest.assets if one.sealed)
        raise Misconfigured(f"the manifest has no sealed asset {name}; it has {sealed or 'none'}")
    return owned_asset(manifest, MemberId(asset.owner), Digest.parse(asset.digest).raw)


def unpack_backup(file: Path, folder: VaultFolder) -> None:
    """Put a backup's vault and log into an empty folder. Misconfigured where there is one already."""
    raw = read_bytes(file, limit=BACKUP_BYTES)
    try:
        what, vault, log = unpack(raw, str, bytes, bytes, limit=BACKUP_BYTES)
    except Malformed:
        what = ""
    if what != BACKUP:
        raise Malformed(f"{file} is not a backup of a broker, or is cut short")
    vaults.parse(vault)
    make_folder(folder.folder)
    with folder.locked():
        if folder.exists or (folder.folder / LOG).exists():
            raise Misconfigured(
                f"{folder.folder} holds a broker already: leave the backup away to make that one work again, move it "
                "away, or restore to another folder"
            )
        write_bytes(folder.folder / LOG, log, mode=SECRET)
        write_bytes(folder.file, vault, mode=SECRET)


def find_missing(ledger: Ledger) -> Missing:
    """What the log lacks, as far as the witness knows."""
    ledger.read()
    known = ledger.witness.read()
    if known is None:
        return Missing(None, None) if ledger.decisions.head.count else Missing(0, 0)
    return ledger.missing(known)


def reconcile(
    folder: VaultFolder, wrapper: KeyWrapper, ledger: Ledger, current: Sequence[ApprovedManifest]
) -> Entry | None:
    """Let a restored broker work again, and charge for whatever its log may lack. None where it lacks nothing.

    Each release that is missing counts for every asset and every member; where the witness is lost too, all releases
    count as used up. Nothing is offered until the owner offers it anew. Epochs that follow `current`, those
    in force now, begin with a full count.
    """
    with folder.locked():
        folder.open(wrapper)
        missing = find_missing(ledger)
        if missing.nothing:
            return None
        return ledger.append(
            "restore",
            missing=missing.entries,
            charged=missing.releases,
            current=sorted(str(manifest.digest) for manifest in current),
        )


def open_ledger(folder: VaultFolder, state: Path) -> Ledger:
    """The log of a vault, with its witness in the folder `state`."""
    make_folder(state)
    return Ledger(folder.folder, Witness(state))
