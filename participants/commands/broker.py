"""`superswarm broker`: an owner's asset keys, under which manifests they are released, and what became of them."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from participants.commands import common
from participants.commands.broker_views import print_log, print_missing, print_status, print_terms
from participants.commands.common import remark, say
from participants.config import BrokerConfig
from superswarm.errors import Misconfigured
from superswarm.io.keystore import read_passphrase
from superswarm.io.options import add_config_command, with_config
from superswarm.values import Digest

if TYPE_CHECKING:
    from participants.broker.ledger import Ledger
    from participants.broker.lifecycle import Owner
    from participants.broker.vault import Vault, VaultFolder
    from participants.broker.wrapping import KeyWrapper

HELP = (
    "Hold the keys of your sealed assets, and release them to attested TEEs.\n\n"
    "The vault is a folder on your own premises. `broker add` puts a key into it, `broker offer` lets the broker "
    "release it under a manifest, on the terms that the manifest has. The node (`superswarm participant up`) is the "
    "broker too, unless it is told to use one that runs on its own (`broker up`)."
)

app = typer.Typer(help=HELP, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
add_config_command(app, BrokerConfig, "broker")

VaultAt = Annotated[Path, typer.Option("--vault", help="The folder with the keys and their log.")]
State = Annotated[
    Path,
    typer.Option("--state", help="The folder that tells an old log from the newest: the `state` of node or broker."),
]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--vault-key-file", help="The key file that opens the vault, if it is not a passphrase.", show_default=False
    ),
]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        help="File whose first line is the vault's passphrase. Otherwise SUPERSWARM_PASSPHRASE, or you are asked.",
        show_default=False,
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
ManifestFile = Annotated[
    Path, typer.Option("--manifest", help="The consortium's approved file, written by `superswarm manifest combine`.")
]
AssetName = Annotated[
    str, typer.Argument(help="The asset: its name in a manifest that it is offered under, or its digest.")
]
VAULT, STATE = Path("vault"), Path("state")


@app.command()
def add(
    key: Annotated[
        Path, typer.Argument(help="The asset's key file, written by `superswarm asset seal`.", metavar="KEYFILE")
    ],
    *,
    vault: VaultAt = VAULT,
    state: State = STATE,
    vault_key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
    asset_passphrase_file: Annotated[
        Path | None, typer.Option(help="File with the passphrase of KEYFILE, if it is another.", show_default=False)
    ] = None,
) -> None:
    """Put an asset's key into the vault, which is begun if there is none. It is offered to nobody yet.

    A vault opens with a passphrase. With --vault-key-file it opens with that file, which is made if it does not
    exist: whoever has vault and file has the keys, so keep them apart.

    Keep KEYFILE in a safe, or destroy it: the vault does not need it any more.
    """
    from superswarm.io.sealing import load_asset_key

    found = load_asset_key(key, read_passphrase(asset_passphrase_file or passphrase_file, what=str(key)))
    owner = _begin_or_open(vault, state, vault_key_file, passphrase_file)
    owner.add(found)
    say(f"added {found.digest}, a {found.kind} of {found.header.owner}, version {found.header.version}")
    if found.demo:
        common.say_simulated()
    remark("It is offered under no manifest: `superswarm broker offer NAME --manifest FILE` does that.")


@app.command()
def offer(
    asset: Annotated[str, typer.Argument(help="The asset's name in the manifest.")],
    *,
    manifest: ManifestFile,
    vault: VaultAt = VAULT,
    state: State = STATE,
    vault_key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
    yes: Yes = False,
) -> None:
    """Let the broker release an asset's key under this manifest, on the terms that its members signed.

    The key is wrapped once more for this manifest alone. An earlier epoch of the same consortium is served no longer;
    other consortia are not touched. A new epoch needs a new offer.
    """
    from participants.broker.lifecycle import named_asset

    _, approved = common.read_consortium(manifest)
    found = named_asset(approved, asset)
    owner = _open(vault, state, vault_key_file, passphrase_file)
    common.warn_if_simulated(approved.manifest)
    print_terms(approved, found)
    if not yes:
        typer.confirm(f"Release the key of {asset} on these terms?", abort=True)
    owner.offer(approved, asset)
    say(f"offered {asset} under {approved.manifest.name}, epoch {approved.manifest.epoch}")


@app.command("status")
def status(*, vault: VaultAt = VAULT, state: State = STATE) -> None:
    """Show what the vault holds, where it is offered, and how often it was released. Needs no passphrase."""
    folder, ledger = _folders(vault, state)
    folder.require()
    with folder.locked():
        ledger.refresh()
        document = folder.document()
    print_status(document, ledger.decisions)


@app.command()
def log(
    *,
    vault: VaultAt = VAULT,
    state: State = STATE,
    json: Annotated[bool, typer.Option("--json", help="The entries as they stand, one JSON object a line.")] = False,
) -> None:
    """Show every decision of the broker and of its owner, oldest first; check that none was altered or taken out."""
    folder, ledger = _folders(vault, state)
    folder.require()
    with folder.locked():
        entries = ledger.read()
        ledger.refresh()
    print_log(entries, json=json)


@app.command()
def withdraw(
    asset: AssetName,
    *,
    manifest: Annotated[
        Path | None, typer.Option(help="Only under this consortium's approved file.", show_default=False)
    ] = None,
    vault: VaultAt = VAULT,
    state: State = STATE,
    vault_key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
    yes: Yes = False,
) -> None:
    """Release an asset's key to nobody any more: from the next request on, without a restart.

    What was released stays released: TEEs that have the key keep it in memory until their run ends, and what was
    trained with the asset stays trained. To end a run, ask the operator to stop it, or let the grant expire.
    """
    digest = common.read_consortium(manifest)[1].digest if manifest is not None else None
    owner = _open(vault, state, vault_key_file, passphrase_file)
    found = find_asset(owner.folder.open(owner.wrapper), asset)
    if not yes:
        typer.confirm("Withdraw it? What was released already cannot be taken back.", abort=True)
    owner.withdraw(found, digest)
    say(f"withdrawn: the key of {found} is released no more{' under this manifest' if digest else ''}")
    remark("Keys that were released before stay known to the TEEs that got them, until their runs end.")


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="File to write.")],
    *,
    vault: VaultAt = VAULT,
    state: State = STATE,
    vault_key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Write vault and log into one file. Its keys stay encrypted under the vault's passphrase or key file."""
    head = _open(vault, state, vault_key_file, passphrase_file).backup(file)
    say(f"wrote {file}, with the first {head.count} entries of the log")
    remark(
        "What the broker releases after this, the backup does not know: restored, it counts that for every asset and "
        "member. Back up again after each run, and keep the passphrase or key file apart."
    )


@app.command()
def restore(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="A backup. Without it, what lies in the vault's folder is made to work again.", show_default=False
        ),
    ] = None,
    *,
    manifest: Annotated[
        list[Path] | None,
        typer.Option(help="The approved file of each consortium, in the epoch now in force.", show_default=False),
    ] = None,
    witness_lost: Annotated[
        bool, typer.Option("--witness-lost", help="The state folder is lost too: count everything as used up.")
    ] = False,
    vault: VaultAt = VAULT,
    state: State = STATE,
    vault_key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
    yes: Yes = False,
) -> None:
    """Make a broker from a backup work again, without forgetting what it released since.

    broker-head.json, in the state folder, knows how far the log had come, and how many releases it had. Each release
    that the backup lacks counts for every asset and every member. A withdrawal may be missing too, so nothing is
    offered until you offer it anew. Nothing happens if nothing is missing.

    If broker-head.json is lost with the rest, nobody knows how much is missing: with --witness-lost all releases
    count as used up. Give the epochs now in force with --manifest: the ones that follow them begin with a full
    count, so the way out is a new epoch, for which `superswarm manifest` needs the members' signatures.
    """
    from participants.broker.lifecycle import find_missing, reconcile, unpack_backup

    current = [common.read_consortium(one)[1] for one in manifest or []]
    folder, ledger = _folders(vault, state)
    if file is not None:
        _require_witness(
            ledger, known=ledger.witness.read() is not None or witness_lost
        )  # before anything is written
        unpack_backup(file, folder)
        say(f"restored {file} to {vault}")
    wrapper = _wrapper(folder, vault_key_file, passphrase_file)
    with folder.locked():
        missing = find_missing(ledger)
    _require_witness(ledger, known=missing.entries is not None or witness_lost)
    print_missing(missing)
    if not missing.nothing and not yes:
        typer.confirm("Go on?", abort=True)
    reconcile(folder, wrapper, ledger, current)


@app.command()
def rekey(
    *,
    new_key_file: Annotated[
        Path | None, typer.Option(help="Open with this new key file from now on; it is made.", show_default=False)
    ] = None,
    new_passphrase_file: Annotated[
        Path | None, typer.Option(help="File with the new passphrase. Otherwise you are asked.", show_default=False)
    ] = None,
    vault: VaultAt = VAULT,
    state: State = STATE,
    vault_key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Open the vault with another passphrase or key file from now on: after a device was lost, or somebody left.

    Copies of the vault that were made before, backups among them, open with the old one for ever. If somebody may
    have both, the assets' keys are known: seal the assets anew, and put the new digests into a new epoch.
    """
    from participants.broker.wrapping import by_passphrase
    from participants.broker.wrapping import new_key_file as make

    owner = _open(vault, state, vault_key_file, passphrase_file)
    if new_key_file is None and new_passphrase_file is None:
        remark("The new passphrase:")
    fresh = (
        make(new_key_file)
        if new_key_file is not None
        else by_passphrase(read_passphrase(new_passphrase_file, new=True))
    )
    owner.rekey(fresh)
    say(f"the vault opens with the new {fresh.kind.replace('-', ' ')}; restart the node or broker with it")
    remark("Older copies of the vault still open with the old one: destroy them, and make a new backup.")


@app.command()
def certificates(
    folder: Annotated[Path, typer.Argument(help="Where to write them.")] = Path(),
    *,
    name: Annotated[
        list[str] | None,
        typer.Option(
            help="A name or address by which nodes reach the broker. Once for each.", show_default="localhost"
        ),
    ] = None,
    client: Annotated[list[str] | None, typer.Option(help="A node that may connect.", show_default="node")] = None,
) -> None:
    """Make the certificates for a broker that runs on its own: an authority, the broker's, and one for each node.

    A node gets broker-ca.crt, broker-NODE.crt and broker-NODE.key. broker-ca.key admits further nodes: keep it off
    the broker's machine once they are made.
    """
    from superswarm.io.certificates import ensure_client_files, ensure_server_files
    from superswarm.io.files import make_folder

    make_folder(folder)
    server = ensure_server_files(folder, name or ["localhost", "127.0.0.1"], prefix="broker")
    say(f"for the broker: {server.authority}, {server.certificate}, {server.key} (secret)")
    for one in client or ["node"]:
        files = ensure_client_files(folder, prefix="broker", client=one)
        say(f"for {one}: {files.authority}, {files.certificate}, {files.key} (secret)")


@app.command("up")
@with_config(BrokerConfig, "broker")
def up(config: BrokerConfig) -> None:
    """Run the broker on its own, on the owner's premises, until stopped. Only the owner's nodes reach it."""
    from participants.broker.opening import service_broker
    from participants.broker.service import BrokerService
    from superswarm.io import logs
    from superswarm.io.reporter import Reporter
    from superswarm.io.web import StatusServer

    logs.setup("broker", log_format=config.log_format)
    reporter = Reporter("broker")
    broker, manifests = service_broker(config, reporter)
    with ExitStack() as stack:
        if config.http is not None:
            simulated = any(manifest.simulated for manifest in manifests)
            stack.enter_context(
                StatusServer("broker", config.http, reporter.health, simulated=simulated, registry=reporter.registry)
            )
        service = BrokerService(
            broker,
            config.listen,
            certificate=config.certificate,
            key=config.certificate_key,
            authority=config.clients_ca,
        )
        stack.enter_context(service)
        reporter.ready()
        threading.Event().wait()


def find_asset(vault: Vault, text: str) -> Digest:
    """The asset of this digest, or of this name in an offer. Misconfigured where there is none, or several."""
    found = {
        Digest.parse(held.asset)
        for held in vault.document.assets
        if text == held.asset or any(text == one.name for one in held.offers)
    }
    if len(found) != 1:
        raise Misconfigured(f"the vault offers {len(found) or 'no'} assets called {text}: give its digest instead")
    return found.pop()


def _require_witness(ledger: Ledger, *, known: bool) -> None:
    if not known:
        raise Misconfigured(
            f"{ledger.witness.file} is not there, so nobody knows what is missing: put it back, or give "
            "--witness-lost to count all releases as used up"
        )


def _folders(vault: Path, state: Path) -> tuple[VaultFolder, Ledger]:
    from participants.broker.lifecycle import open_ledger
    from participants.broker.vault import VaultFolder

    folder = VaultFolder(vault)
    return folder, open_ledger(folder, state)


def _open(vault: Path, state: Path, key_file: Path | None, passphrase_file: Path | None) -> Owner:
    from participants.broker.lifecycle import Owner

    folder, ledger = _folders(vault, state)
    return Owner(folder, _wrapper(folder, key_file, passphrase_file), ledger)


def _wrapper(folder: VaultFolder, key_file: Path | None, passphrase_file: Path | None) -> KeyWrapper:
    from participants.broker.vault import wrapper_for

    document = folder.document()
    wanted = document.opened_by == "passphrase" and key_file is None
    what = f"the vault {folder.folder}"
    return wrapper_for(document, read_passphrase(passphrase_file, what=what) if wanted else None, key_file)


def _begin_or_open(vault: Path, state: Path, key_file: Path | None, passphrase_file: Path | None) -> Owner:
    """The vault, begun where there is none."""
    from participants.broker.lifecycle import Owner
    from participants.broker.wrapping import by_key_file, by_passphrase, new_key_file

    folder, ledger = _folders(vault, state)
    if folder.exists:
        return _open(vault, state, key_file, passphrase_file)
    wrapper: KeyWrapper
    if key_file is not None:
        wrapper = by_key_file(key_file) if key_file.exists() else new_key_file(key_file)
    else:
        wrapper = by_passphrase(read_passphrase(passphrase_file, new=True, what=f"the new vault {vault}"))
    folder.create(wrapper)
    return Owner(folder, wrapper, ledger)
