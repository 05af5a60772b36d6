"""`superswarm result merge`: put an opened adapter into the weights of a base model that one owns."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated

import typer

from participants.commands import common
from participants.commands.common import KeysFile, PassphraseFile, remark, say
from participants.models import Snapshot, locate, model_digest, snapshot, unsealed
from superswarm.consortium.approval import ApprovedManifest
from superswarm.consortium.manifest import Asset, Job
from superswarm.errors import Misconfigured, Mismatch, NotOwner, OtherRecipient
from superswarm.io.files import read_bytes
from superswarm.io.keystore import MemberKeys, load_keys, read_passphrase
from superswarm.io.sealing import load_asset_key
from superswarm.updates.card import CONFIG, adapter_config, base_model
from superswarm.values import LIMITS, Digest


def merge(
    adapter: Annotated[Path, typer.Argument(help="An opened result (`result open`).", metavar="ADAPTER")],
    *,
    model: Annotated[
        str,
        typer.Option(help="The base model: folder, GGUF file, Hugging Face id; with --asset-key, the sealed file."),
    ],
    consortium: Annotated[
        Path, typer.Option("--manifest", "--consortium", "-c", help="The consortium's approved file.")
    ],
    keys_file: KeysFile,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to make for the merged model.", metavar="DIR")],
    job: Annotated[
        str | None, typer.Option(help="The job that made the adapter, where several might have.", show_default=False)
    ] = None,
    asset_key: Annotated[
        Path | None,
        typer.Option(help="The key of your sealed base model, under the same passphrase.", show_default=False),
    ] = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Merge an adapter into its base model, and write a model folder of safetensors.

    Only for a recipient to whom the base model belongs in the manifest, or where that model is public: who merges has
    both in the clear. The base must have the manifest's digest, and the adapter be of one of its jobs. A sealed base
    is compared with the manifest if it is given as such (--asset-key); of a plain copy of it, its owner knows best.
    """
    if out.exists():
        raise Misconfigured(f"{out} is there already: name a folder that is not")
    _, agreed = common.read_consortium(consortium)
    common.warn_if_simulated(agreed.manifest)
    chosen = job_of(adapter, agreed, job)
    base = base_model(agreed.manifest, chosen)
    passphrase = read_passphrase(passphrase_file)
    require_owner(load_keys(keys_file, passphrase), agreed, base)
    if asset_key is not None and not base.sealed:
        raise Misconfigured(f"{base.name} is not sealed: leave --asset-key away")
    remark(f"merging {adapter} into {base.name} ({base.source})")

    from participants.merging import merge as merge_adapter

    with _sealed(base, model, asset_key, passphrase) if asset_key is not None else _plain(base, model) as files:
        merge_adapter(files, chosen, adapter, out)
    say(f"wrote {out}: load it with transformers.AutoModelForCausalLM.from_pretrained({str(out)!r})")


def _plain(base: Asset, model: str) -> AbstractContextManager[Snapshot]:
    """The base model from plain files. The digest of a sealed asset covers ciphertext, and no plain file."""
    found = locate(model)
    if not base.sealed:
        return snapshot(found, Digest.parse(base.digest))
    remark(f"the manifest's digest of {base.name} is of its sealed file: nothing compares {found} with it")
    return snapshot(found, model_digest(found))


def _sealed(base: Asset, file: str, key_file: Path, passphrase: str) -> AbstractContextManager[Snapshot]:
    """The base model from its sealed file, decrypted into memory."""
    from participants.unsealing import unseal_into

    key = load_asset_key(key_file, passphrase)
    return unsealed(lambda files: unseal_into(files, base, file, key.key), Digest.parse(base.digest))


def job_of(adapter: Path, agreed: ApprovedManifest, name: str | None) -> Job:
    """The job whose adapters are configured as this one. Raises Mismatch for none, Misconfigured for several."""
    found = read_bytes(adapter / CONFIG, limit=LIMITS.document_bytes)
    named = [one for one in agreed.manifest.jobs if name in (None, one.name)]
    if not named:
        raise Misconfigured(f"the manifest has no job {name}")
    fitting = [one for one in named if adapter_config(agreed.manifest, one) == found]
    if not fitting:
        raise Mismatch(f"{adapter} is no adapter that epoch {agreed.manifest.epoch} of the consortium makes")
    if len({one.base_model for one in fitting}) > 1:
        raise Misconfigured(f"say which made it with --job: {', '.join(one.name for one in fitting)}")
    return fitting[0]


def require_owner(keys: MemberKeys, agreed: ApprovedManifest, base: Asset) -> None:
    """Raise unless these are the keys of a recipient of results to whom the base model belongs."""
    # (1) The keys are a member's, under this epoch.
    common.require_key(keys, agreed)
    # (2) It may have results at all.
    if keys.member not in agreed.manifest.result.recipients:
        raise OtherRecipient(f"{keys.member} is no recipient of results under epoch {agreed.manifest.epoch}")
    # (3) The base model is its own, or anybody's.
    if base.owner not in ("public", keys.member):
        raise NotOwner(f"the base model {base.name} belongs to {base.owner}: only {base.owner} may merge into it")
