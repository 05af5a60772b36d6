"""`superswarm result` for contributors: approve the release of a result, and show what was released."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from participants.commands import common
from participants.commands.common import Force, KeysFile, Out, PassphraseFile, Yes, remark, say
from participants.commands.result_files import (
    ConsortiumFile,
    SealedFile,
    SignerFile,
    agreement,
    expected_signer,
    header_of,
)
from superswarm.attestation.serving import ServerRequest, judge_server, vouch_for_server
from superswarm.consortium.approval import ApprovedManifest
from superswarm.errors import Misconfigured
from superswarm.io.challenges import Challenges
from superswarm.io.console import output
from superswarm.io.files import explained, read_bytes
from superswarm.io.keystore import MemberKeys
from superswarm.io.releases import Entry, ReleaseLog
from superswarm.updates.container import ResultHeader
from superswarm.updates.release import HeldShare, RecipientKey, hold_share, member_recipient, server_recipient
from superswarm.values import LIMITS, MemberId

RequestFile = Annotated[
    Path | None,
    typer.Option("--server-request", help="What a member's server shows, with its member's vouch.", metavar="FILE"),
]


def approve(
    file: SealedFile,
    *,
    keys_file: KeysFile,
    consortium: ConsortiumFile = None,
    recipient: Annotated[
        str | None, typer.Option(help="Id of the member that may open the result.", show_default=False)
    ] = None,
    server_request: RequestFile = None,
    signer: SignerFile = None,
    passphrase_file: PassphraseFile = None,
    yes: Yes = False,
    out: Out = None,
    force: Force = False,
) -> None:
    """Approve that one recipient, or one member's attested server, opens a result to which you contributed.

    As many contributors as the manifest's result.approvals must approve; the recipient then opens it with their
    files. Your approval is for this result, this recipient and this epoch, and serves for nothing else. It cannot be
    taken back. It is logged beside your keys (KEYS.releases) before it is written.
    """
    if (recipient is None) == (server_request is None):
        raise Misconfigured("say either --recipient with a member's id, or --server-request with a file")
    header = header_of(file)
    agreed, newest = agreement(file, consortium, header)
    keys = common.open_keys(keys_file, passphrase_file)
    common.require_key(keys, agreed)
    nonce, at = b"", int(time.time())
    if server_request is not None:
        request = _read_request(server_request)
        nonce = Challenges(keys_file).find(request.nonces, header.container, at=at)
        server = judge_server(request, agreed, run=header.run, mine=nonce, at=at)
        to = server_recipient(agreed, server)
    else:
        to = member_recipient(agreed, MemberId(recipient or ""))
    kind = "server" if server_request is not None else "approval"
    target = out or Path(f"{file.stem}.{keys.member}.{to.to.member}.{kind}.json")
    if target.exists() and not force:
        raise Misconfigured(f"{target} exists already: move it away, or write to another file")
    held = _hold(file, agreed, keys, signer)
    _show(held, to, newest)
    if not yes:
        typer.confirm(f"Release it as {keys.member}?", abort=True)
    if nonce:
        Challenges(keys_file).spend(nonce, at=at)
    signed = ReleaseLog(keys_file).approve(held, to, keys.signing, at=at)
    common.write_out(target, signed.to_bytes(), force=force)
    remark(f"next: send it to {to.to.member}, who opens the result with {header.approvals} such files")


def challenge(file: SealedFile, *, keys_file: KeysFile, out: Out = None, force: Force = False) -> None:
    """Give a member's server a challenge, which its evidence must cover before you approve. Serves once."""
    header = header_of(file)
    if not keys_file.exists():
        raise Misconfigured(f"{keys_file} is not there: the challenge is remembered beside your keys")
    made = Challenges(keys_file).issue(header.run, header.container, at=int(time.time()))
    common.write_out(out or Path(f"{file.stem}.{keys_file.stem}.challenge.json"), made.to_bytes(), force=force)
    remark(f"next: send it to the server's member. It serves once, within {LIMITS.challenge_seconds // 3600} hours")


def vouch(
    file: SealedFile,
    *,
    keys_file: KeysFile,
    server_request: Annotated[Path, typer.Option("--server-request", help="What your server shows.", metavar="FILE")],
    consortium: ConsortiumFile = None,
    passphrase_file: PassphraseFile = None,
    yes: Yes = False,
    out: Out = None,
    force: Force = False,
) -> None:
    """Vouch for your own server, which asks for a result: judge its evidence, and sign that its keys are yours.

    Its evidence must cover a challenge of yours, too (`result challenge`).
    """
    header = header_of(file)
    agreed, _ = agreement(file, consortium, header)
    keys = common.open_keys(keys_file, passphrase_file)
    common.require_key(keys, agreed)
    request, at = _read_request(server_request), int(time.time())
    mine = Challenges(keys_file).find(request.nonces, header.container, at=at)
    vouched = vouch_for_server(
        request,
        agreed,
        run=header.run,
        member=keys.member,
        signing=keys.signing,
        pairing_key=keys.pairing,
        mine=mine,
        at=at,
    )
    if not yes:
        typer.confirm(f"Vouch for this server as {keys.member}?", abort=True)
    Challenges(keys_file).spend(mine, at=at)
    common.write_out(out or server_request.with_suffix(".vouched"), vouched.to_bytes(), force=force)
    remark("next: send it to the contributors whose challenges it answers")


def releases(
    *,
    keys_file: KeysFile,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show every release that was approved with these keys. Fails where the log was altered."""
    entries = ReleaseLog(keys_file).entries()
    if as_json:
        for entry in entries:
            output().print(Text(json.dumps(entry.model_dump(mode="json") | {"digest": str(entry.digest)})))
    elif entries:
        common.show_table("", ["", "when (UTC)", "run", "container", "epoch", "to"], map(_row, entries))
        say(f"newest entry {entries[-1].digest}")
    else:
        remark("nothing was released with these keys")


def _row(entry: Entry) -> list[str]:
    when = datetime.fromtimestamp(entry.time, UTC)
    to = str(entry.to)
    return [str(entry.number), f"{when:%Y-%m-%d %H:%M}", entry.run, entry.container[:12], str(entry.epoch), to]


def _read_request(path: Path) -> ServerRequest:
    return ServerRequest.parse(read_bytes(path, limit=LIMITS.head_bytes))


def _hold(file: Path, agreed: ApprovedManifest, keys: MemberKeys, signer: Path | None) -> HeldShare:
    expected = expected_signer(file, signer)
    with explained(file), file.open("rb") as src:
        return hold_share(src, agreed, keys.member, keys.kem, expected_signer=expected)


def _show(held: HeldShare, to: RecipientKey, newest: ApprovedManifest) -> None:
    """What is about to be approved, before anybody is asked."""
    header: ResultHeader = held.header
    rows = [
        ["run", f"{header.run}, job {header.job}, {header.rounds} rounds"],
        ["manifest", f"{header.manifest}, epoch {header.epoch}"],
        ["container", header.container],
        ["result", str(held.result)],
        ["recipient", str(to.to)],
        ["needs", f"{header.approvals} of {', '.join(slot.contributor for slot in header.shares)}"],
    ]
    common.show_table("Release of a result", ["", ""], rows)
    result = newest.manifest.result
    named = result.recipients if to.to.session is None else result.serving
    if newest.digest != held.manifest.digest and to.to.member not in named:
        say(f"{to.to.member} may have no results under the current epoch {newest.manifest.epoch}", style="bold red")
