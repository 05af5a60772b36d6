"""`superswarm grant`: allow a run, for so many rounds and attempts, until a certain time."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from participants.commands import common
from participants.commands.common import Consortium, Force, KeysFile, Out, PassphraseFile, Yes, remark, say
from superswarm.consortium.approval import ApprovedManifest
from superswarm.consortium.grant import RunGrant, SignedGrant, approve_grant, grant_signers, sign_grant
from superswarm.errors import Misconfigured, Mismatch, Unavailable
from superswarm.io.files import read_bytes
from superswarm.values import LIMITS, MemberId

HELP = (
    "Allow a run: without a grant signed by a quorum of the members, no trainer starts.\n\n"
    "One member runs `grant draft` and sends the file to the others. Each runs `grant sign` and sends its file back. "
    "Anybody runs `grant combine` and gives the result to the operator. A grant is for one epoch: a new manifest "
    "voids it."
)

app = typer.Typer(help=HELP, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

GrantFile = Annotated[Path, typer.Argument(help="A run grant.", metavar="GRANT")]


@app.command()
def draft(
    consortium: Consortium,
    run: Annotated[str, typer.Option(help="The run's name: lower-case letters, digits, dots, hyphens.")],
    job: Annotated[
        str | None, typer.Option(help="Which job of the manifest; needed where it has several.", show_default=False)
    ] = None,
    days: Annotated[float, typer.Option(help="How long it may be started, from now.", min=0.001, max=3650)] = 7,
    rounds: Annotated[
        int | None, typer.Option(help="Rounds at most; the manifest's by default.", min=1, show_default=False)
    ] = None,
    attempts: Annotated[int, typer.Option(help="How often it may be begun anew after a failure.", min=1)] = 3,
    out: Out = None,
    *,
    force: Force = False,
) -> None:
    """Write a grant for others to sign."""
    _, approved = common.read_consortium(consortium)
    chosen = common.choose_job(approved.manifest, job)
    if rounds is not None and rounds > chosen.rounds:
        raise Misconfigured(
            f"--rounds: the job {chosen.name} has {chosen.rounds} in the manifest: no grant adds to them"
        )
    grant = RunGrant(
        manifest=approved.digest,
        epoch=approved.manifest.epoch,
        run=run,
        job=chosen.name,
        rounds=rounds or chosen.rounds,
        attempts=attempts,
        not_after=int(time.time() + days * 86_400),
    )
    common.warn_if_simulated(approved.manifest)
    _print(grant)
    common.write_out(out or Path(f"{run}.grant.json"), SignedGrant(grant).to_bytes(), force=force)
    remark("next: send it to the other members; each runs superswarm grant sign")


@app.command()
def sign(
    file: GrantFile,
    *,
    consortium: Consortium,
    keys_file: KeysFile,
    out: Out = None,
    passphrase_file: PassphraseFile = None,
    yes: Yes = False,
    force: Force = False,
) -> None:
    """Sign a grant with your keys. Writes a file to send to the other members."""
    _, approved = common.read_consortium(consortium)
    signed = _read(file)
    grant_signers(signed, approved)
    keys = common.open_keys(keys_file, passphrase_file)
    if approved.manifest.member(keys.member) is None or approved.verifying_key(keys.member) != keys.signing.public:
        raise Misconfigured(f"the manifest does not list this key for {keys.member}")
    common.warn_if_simulated(approved.manifest)
    _print(signed.grant)
    if not yes:
        typer.confirm(f"Grant it as {keys.member}?", abort=True)
    signature = sign_grant(keys.signing, signed.grant, approved.domain)
    merged = SignedGrant(signed.grant, {**signed.signatures, keys.member: signature})
    target = out or file.with_name(f"{signed.grant.run}.{keys.member}.grant.json")
    common.write_out(target, merged.to_bytes(), force=force)
    _say_missing(merged, approved)


@app.command()
def combine(
    files: Annotated[list[Path], typer.Argument(help="Signed grants, as the members sent them.", metavar="GRANT...")],
    *,
    consortium: Consortium,
    out: Out = None,
    force: Force = False,
) -> None:
    """Merge signatures from several files, say who is missing, and write the grant once they suffice."""
    _, approved = common.read_consortium(consortium)
    parts = [_read(file) for file in files]
    for file, part in zip(files, parts, strict=True):
        if part.grant != parts[0].grant:
            raise Mismatch(f"{files[0]} and {file} hold different grants")
    signatures: dict[MemberId, bytes] = {}
    for part in parts:
        signatures |= part.signatures
    merged = SignedGrant(parts[0].grant, signatures)
    signers = grant_signers(merged, approved)
    common.warn_if_simulated(approved.manifest)
    _print(merged.grant)
    rows = [[m.id, "signed" if m.id in signers else "not yet"] for m in approved.manifest.members]
    common.show_table("Signatures", ["member", ""], rows)
    if len(signers) < approved.manifest.quorum.run:
        raise Unavailable(f"{len(signers)} members granted the run, and {approved.manifest.quorum.run} must")
    approve_grant(merged, approved)
    say(f"granted by {', '.join(signers)}", style="bold")
    if out is not None:
        common.write_out(out, merged.to_bytes(), force=force)
        remark("next: give this file to the operator, who starts the run with it")


@app.command()
def show(file: GrantFile, *, consortium: Consortium) -> None:
    """Show a grant, and whether it allows its run."""
    _, approved = common.read_consortium(consortium)
    signed = _read(file)
    common.warn_if_simulated(approved.manifest)
    _print(signed.grant)
    grant_signers(signed, approved)
    _say_missing(signed, approved)


def _read(path: Path) -> SignedGrant:
    return SignedGrant.parse(read_bytes(path, limit=LIMITS.document_bytes))


def _print(grant: RunGrant) -> None:
    until = datetime.fromtimestamp(grant.not_after, UTC)
    rows = [
        ["run", grant.run],
        ["job", grant.job],
        ["manifest", f"{grant.manifest}, epoch {grant.epoch}"],
        ["rounds", f"at most {grant.rounds}"],
        ["attempts", f"at most {grant.attempts}"],
        ["until", f"{until:%Y-%m-%d %H:%M} UTC"],
    ]
    common.show_table("Run grant", ["", ""], rows)


def _say_missing(signed: SignedGrant, approved: ApprovedManifest) -> None:
    need, have = approved.manifest.quorum.run, len(signed.signatures)
    if have < need:
        say(f"{have} of {need} signatures: it allows nothing yet")
    else:
        say(f"{have} of {need} signatures: it allows the run until its end")
