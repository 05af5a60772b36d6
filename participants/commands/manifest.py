"""`superswarm manifest`: agree on a manifest by sending files, with nobody in the middle."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from participants import drafting, templates
from participants.commands import common
from participants.commands.common import After, Force, KeysFile, Out, PassphraseFile, Yes, remark, say
from participants.commands.manifest_views import (
    describe_missing,
    print_changes,
    print_manifest,
    print_needs,
    print_standing,
)
from participants.leaving import remove_members
from participants.remarks import tolerated
from superswarm.consortium.approval import ApprovedManifest, SignedManifest, chain_to_bytes, standing, succeed
from superswarm.consortium.equivocation import find_equivocation
from superswarm.consortium.manifest import Manifest, load_toml
from superswarm.consortium.rules import requirements
from superswarm.errors import Misconfigured, Mismatch, Unavailable
from superswarm.io.files import read_bytes
from superswarm.io.keystore import MemberKeys, sign_once
from superswarm.values import LIMITS, Digest, Measurement, MemberId

HELP = (
    "Agree on a manifest by sending files, with nobody in the middle.\n\n"
    "1. Every member runs `keys new`, and sends its .member.toml file to the one of them who writes the manifest.\n\n"
    "2. That one runs `manifest init` and `manifest draft`, and sends the TOML file to all.\n\n"
    "3. Every member reads it (`manifest check`, `manifest show`), runs `manifest sign`, and sends the .signed.json "
    "file to all.\n\n"
    "4. Anybody runs `manifest combine`. The resulting file is what all programs are given. Compare its digest.\n\n"
    "To change something later, begin with `manifest init --after`, and give `--after` with each step."
)

app = typer.Typer(help=HELP, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

ManifestFile = Annotated[Path, typer.Argument(help="A manifest: TOML, or a signed file.", metavar="MANIFEST")]


@app.command()
def init(
    scenario: Annotated[templates.Scenario | None, typer.Option(help="Who takes part.", show_default=False)] = None,
    attestation: Annotated[
        templates.Attestation,
        typer.Option(help="simulated protects nothing, and needs no special hardware; real needs TEE hardware."),
    ] = "simulated",
    after: Annotated[
        Path | None,
        typer.Option(help="Begin the next epoch of this consortium instead: its approved file.", show_default=False),
    ] = None,
    out: Out = None,
    *,
    force: Force = False,
) -> None:
    """Write a commented manifest to begin with, or the next epoch of an existing one.

    solo: one team, on somebody else's machines. duo: one owns the model, another the data. consortium: several bring
    data. What they enforce is the same.
    """
    if (scenario is None) == (after is None):
        raise Misconfigured("say either --scenario (solo, duo, consortium) or --after with a consortium's file")
    if after is not None:
        _, current = common.read_consortium(after)
        data = current.manifest.to_data()
        data |= {"epoch": data["epoch"] + 1, "predecessor": str(current.digest)}
        text = NEXT_EPOCH.format(epoch=data["epoch"]) + drafting.to_toml(data)
    else:
        assert scenario is not None  # noqa: S101 - one of the two is given
        text = templates.template(scenario, attestation, secrets.token_hex(16))
    if out is None:
        typer.echo(text, nl=False)
    else:
        common.write_out(out, text.encode(), force=force)
        remark(f"next: superswarm manifest draft {out} --help")


NEXT_EPOCH = """\
# Epoch {epoch} of this consortium, so far the same as the one before. Change what should change, then:
#   superswarm manifest check THIS-FILE --after CONSORTIUM-FILE
"""


@app.command()
def draft(
    template: Annotated[Path, typer.Argument(help="The TOML file from `manifest init`.")],
    *,
    member: Annotated[
        list[Path] | None, typer.Option(help="A member's .member.toml file. Once for each.", show_default=False)
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(
            help="Id of a member that leaves: taken out wherever this file names it. Once for each.",
            show_default=False,
        ),
    ] = None,
    drop_assets: Annotated[
        bool, typer.Option("--drop-assets", help="With --without: take out the assets of whoever leaves, too.")
    ] = False,
    asset: Annotated[
        list[Path] | None,
        typer.Option(help="A sealed asset's .asset.toml file, from `asset card`. Once for each.", show_default=False),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The consortium's name.", show_default=False)] = None,
    coordinator: Annotated[str | None, typer.Option(help="Who runs the relay.", show_default=False)] = None,
    coordinator_authority: Annotated[
        str | None,
        typer.Option(help="Simulated only: digest of the operator's development authority.", show_default=False),
    ] = None,
    measurement: Annotated[
        str | None,
        typer.Option(help="Measurement of the code: sha384:..., or `this` for what is installed here (simulated)."),
    ] = None,
    model_digest: Annotated[
        str | None, typer.Option(help="Digest of the base model, from `superswarm model digest`.", show_default=False)
    ] = None,
    model_source: Annotated[
        str | None, typer.Option(help="Where people find the base model.", show_default=False)
    ] = None,
    model_owner: Annotated[
        str | None, typer.Option(help='Id of the member that owns the base model, or "public".', show_default=False)
    ] = None,
    recipient: Annotated[
        list[str] | None,
        typer.Option(help="Id of a member that receives the adapter. Once for each.", show_default=False),
    ] = None,
    approvals: Annotated[
        int | None,
        typer.Option(
            help="How many contributors must approve each release of the adapter.", min=0, show_default=False
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write; the template itself by default.")
    ] = None,
    force: Force = False,
) -> None:
    """Fill in a template from what the members sent. May be run again as more arrives.

    Nothing is decided by it: each member reads the result before signing.
    """
    text = read_bytes(template, limit=LIMITS.manifest_bytes).decode("utf-8", "replace")
    attestation = load_toml(text).get("attestation")
    if without:
        text, changes = remove_members(text, without, drop_assets=drop_assets)
        for change in changes:
            remark(change)
    cards = [drafting.read_card(read_bytes(path, limit=LIMITS.document_bytes)) for path in member or ()]
    if cards:
        text = drafting.set_members(text, cards)
    if assets := [drafting.read_asset_card(read_bytes(path, limit=LIMITS.document_bytes)) for path in asset or ()]:
        text = drafting.set_assets(text, assets)
    if measurement == "this":
        if attestation != "simulated":
            raise Misconfigured(
                "`this` measures installed files, which proves nothing to real hardware: give sha384:..."
            )
        from superswarm.attestation.measure import measure_packages

        measurement = str(measure_packages())
    for digest in filter(None, (coordinator_authority, model_digest)):
        Digest.parse(digest)
    if measurement is not None:
        Measurement.parse(measurement)
    values = {
        ("", "name"): name,
        ("coordinator", "name"): coordinator,
        ("coordinator", "development_authority"): coordinator_authority,
        ("workloads.trainer", "measurements"): [measurement] if measurement else None,
        ("workloads.aggregator", "measurements"): [measurement] if measurement else None,
        ("assets", "digest"): model_digest,
        ("assets", "source"): model_source,
        ("assets", "owner"): model_owner,
        ("result", "recipients"): recipient or None,
        ("result", "approvals"): approvals,
    }
    text = drafting.fill(text, {place: value for place, value in values.items() if value is not None})
    text, notes = drafting.fit_quorums(text)
    for note in notes:
        remark(f"changed to fit the number of members: {note}")
    common.write_out(out or template, text.encode(), force=force or out in (None, template))
    if missing := list(drafting.open_places(load_toml(text))):
        remark("still to fill in:")
        for where, what in missing:
            remark(f"  {where}: {what}")
    else:
        remark(f"next: superswarm manifest check {out or template}")


@app.command()
def check(file: ManifestFile, *, after: After = None) -> None:
    """Say whether a manifest is valid, what it tolerates, and who must sign it. Needs no signature.

    Ends with exit code 3 and every fault by name if it is not valid.
    """
    manifest = common.read_manifest(file)
    _, current = common.read_before(after, manifest)
    standing(current, SignedManifest(manifest))
    common.warn_if_simulated(manifest)
    say(f"{file} is a valid manifest: {manifest.name}, epoch {manifest.epoch}", style="bold")
    say(f"digest {manifest.digest}")
    say("\nIt tolerates:")
    for weakness in tolerated(manifest):
        say(f"  - {weakness}")
    print_needs(requirements(current.manifest if current else None, manifest), len(manifest.members))


@app.command()
def show(file: ManifestFile) -> None:
    """Show a manifest for people: all that it says, with keys by their fingerprints."""
    manifest = common.read_manifest(file)
    common.warn_if_simulated(manifest)
    print_manifest(manifest)
    signed = common.read_signed(file)[-1]
    if signed.signatures:
        say(f"\nBears signatures of {', '.join(signed.signatures)}; `manifest combine` checks them.")


@app.command()
def diff(
    old: Annotated[Path, typer.Argument(help="The consortium's approved file, or a manifest.")],
    new: Annotated[Path, typer.Argument(help="The manifest proposed as its successor.")],
) -> None:
    """Show what changes between two manifests, clause by clause, and the signatures that the change needs."""
    before, after = common.read_manifest(old), common.read_manifest(new)
    common.warn_if_simulated(after)
    print_changes(before, after)
    if after.epoch == before.epoch + 1:
        print_needs(requirements(before, after), len(before.members))
    else:
        say(f"\nepoch {after.epoch} does not follow epoch {before.epoch}: no signatures turn one into the other")


@app.command()
def sign(
    file: ManifestFile,
    *,
    keys_file: KeysFile,
    after: After = None,
    out: Out = None,
    passphrase_file: PassphraseFile = None,
    yes: Yes = False,
    force: Force = False,
) -> None:
    """Sign a manifest with your keys. Read it first: `manifest check` and `manifest show`.

    You can sign one manifest for each epoch, and never a rival of it: two signatures would prove that you cheat. So
    agree on the text before anybody signs. Writes a file to send to the other members.
    """
    signed = common.read_signed(file)[-1]
    manifest = signed.manifest
    _, current = common.read_before(after, manifest)
    standing(current, signed)
    keys = common.open_keys(keys_file, passphrase_file)
    roles = _roles(keys, current, manifest)
    common.warn_if_simulated(manifest)
    say(f"{manifest.name}, epoch {manifest.epoch}, digest {manifest.digest}")
    if current is not None:
        print_changes(current.manifest, manifest)
    if not yes:
        typer.confirm(f"Sign it as {keys.member}?", abort=True)
    signature = sign_once(keys_file, keys, manifest)
    signatures = {**signed.signatures, **({keys.member: signature} if "decides" in roles else {})}
    acceptances = {**signed.acceptances, **({keys.member: signature} if "enters" in roles else {})}
    part = f"{keys.member}.accepts" if roles == {"enters"} else keys.member
    target = out or file.with_name(f"{file.name.split('.')[0]}.{part}.signed.json")
    common.write_out(target, SignedManifest(manifest, signatures, acceptances).to_bytes(), force=force)
    remark("next: send it to the other members; anybody can then run superswarm manifest combine")


def _roles(keys: MemberKeys, current: ApprovedManifest | None, manifest: Manifest) -> set[str]:
    """What these keys sign as: a member who decides, one who enters with a new key, or both."""
    mine = str(keys.signing.public)
    required = requirements(current.manifest if current else None, manifest)
    before, after = (current.manifest if current else manifest).member(keys.member), manifest.member(keys.member)
    roles = set()
    if before is not None and before.signing_key == mine:
        roles.add("decides")
    if keys.member in required.accept and after is not None and after.signing_key == mine:
        roles.add("enters")
    if not roles:
        raise Misconfigured(
            f"the manifest does not list this key for {keys.member}: compare fingerprints (`superswarm keys show`)"
        )
    return roles


@app.command()
def combine(
    files: Annotated[list[Path], typer.Argument(help="Signed files, as the members sent them.", metavar="SIGNED...")],
    *,
    after: After = None,
    out: Out = None,
    force: Force = False,
) -> None:
    """Merge signatures from several files, say who is missing, and write the approved file once they suffice.

    With all signatures there, it writes --out: the file that nodes, trainers and the coordinator are given, with all
    epochs from the first on. Its digest is what everybody compares.
    """
    parts = [common.read_signed(file)[-1] for file in files]
    manifest = parts[0].manifest
    for file, part in zip(files, parts, strict=True):
        if part.manifest.digest != manifest.digest:
            cheats = ", ".join(proof.member for proof in find_equivocation(parts[0], part))
            both = f"; {cheats} signed both, which proves a fraud" if cheats else ""
            raise Mismatch(f"{files[0]} and {file} hold different manifests{both}")
    merged = SignedManifest(manifest, _merge(p.signatures for p in parts), _merge(p.acceptances for p in parts))
    chain, current = common.read_before(after, manifest)
    found = standing(current, merged)
    common.warn_if_simulated(manifest)
    print_standing(manifest, found, merged)
    if not found.complete:
        raise Unavailable(f"epoch {manifest.epoch} is not complete yet: {describe_missing(found)}")
    approved = succeed(current, merged)
    say(f"approved: {manifest.name}, epoch {manifest.epoch}", style="bold")
    say(f"digest {approved.digest}")
    if out is not None:
        common.write_out(out, chain_to_bytes([*chain, merged]), force=force)
        remark("next: compare the digest with the other members, and give this file to the programs")
    else:
        remark("nothing was written: name the approved file with --out")


def _merge(tables: Iterable[Mapping[MemberId, bytes]]) -> dict[MemberId, bytes]:
    merged: dict[MemberId, bytes] = {}
    for table in tables:
        merged |= table
    return merged
