"""Opens the broker that a program is configured to use: one in its own process, or a service of the same owner."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from participants.broker.broker import Broker
from participants.broker.lifecycle import open_ledger
from participants.broker.vault import VaultFolder, wrapper_for
from participants.config import BrokerConfig, ParticipantConfig
from participants.key_desk import BrokerApi
from superswarm.consortium.approval import ApprovedManifest
from superswarm.errors import Misconfigured
from superswarm.io.config import Address
from superswarm.io.consortium import load_manifest, remember_epoch
from superswarm.io.keystore import read_passphrase

Notify = Callable[..., None]


@contextmanager
def node_broker(
    config: ParticipantConfig, manifest: ApprovedManifest, passphrase: str, notify: Notify
) -> Iterator[BrokerApi | None]:
    """What a node asks for keys; None for a member that has no vault, and so owns no sealed asset.

    `passphrase` is that of the member's keys, for a vault that opens with the same.
    """
    if isinstance(config.broker, Address):
        with _client(config, config.broker) as client:
            yield client
    elif not VaultFolder(config.vault).exists:
        if any(asset.sealed and asset.owner == config.member for asset in manifest.manifest.assets):
            notify("no vault", folder=str(config.vault))
        yield None
    else:
        if config.vault_passphrase_file is not None:
            passphrase = read_passphrase(config.vault_passphrase_file)
        yield embedded(config.vault, config.state, config.vault_key_file, passphrase, [manifest], notify)


@contextmanager
def _client(config: ParticipantConfig, address: Address) -> Iterator[BrokerApi]:
    from participants.broker.client import BrokerClient

    match config.broker_certificate, config.broker_certificate_key, config.broker_ca:
        case Path() as certificate, Path() as key, Path() as authority:
            with BrokerClient(address, certificate=certificate, key=key, authority=authority) as client:
                yield client
        case _:
            raise Misconfigured(
                "a broker of its own needs broker_ca, broker_certificate and broker_certificate_key "
                "(superswarm broker certificates)"
            )


def service_broker(config: BrokerConfig, notify: Notify) -> tuple[Broker, Sequence[ApprovedManifest]]:
    """The broker that runs on its own, and the manifests of all its owner's consortia, each in its newest epoch."""
    files = sorted(config.consortia.glob("*.json"))
    if not files:
        raise Misconfigured(f"{config.consortia} holds no consortium's approved file (NAME.json)")
    manifests = [load_manifest(file, None) for file in files]
    if len({manifest.manifest.consortium for manifest in manifests}) != len(manifests):
        raise Misconfigured(f"two files in {config.consortia} are of one consortium: keep its newest epoch only")
    broker = embedded(
        config.vault,
        config.state,
        config.vault_key_file,
        None if config.vault_key_file is not None else read_passphrase(config.vault_passphrase_file),
        manifests,
        notify,
    )
    for manifest in manifests:
        remember_epoch(config.state / f"epochs-{manifest.manifest.consortium}.json", manifest)
    return broker, manifests


def embedded(
    vault: Path,
    state: Path,
    key_file: Path | None,
    passphrase: str | None,
    manifests: Sequence[ApprovedManifest],
    notify: Notify,
) -> Broker:
    """A broker in this process. Raises Misconfigured for a wrong passphrase, Rollback for an old log."""
    folder = VaultFolder(vault)
    return Broker(
        vault=folder,
        wrapper=wrapper_for(folder.document(), passphrase, key_file),
        ledger=open_ledger(folder, state),
        manifests={manifest.digest: manifest for manifest in manifests},
        notify=notify,
    )
