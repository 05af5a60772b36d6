"""`superswarm result`: list and open the adapters that runs produced."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from participants.commands import result_merge, result_releases
from participants.commands.common import KeysFile, PassphraseFile, open_keys
from participants.commands.result_files import (
    ConsortiumFile,
    SealedFile,
    SignerFile,
    agreement,
    expected_signer,
    header_of,
)
from superswarm.errors import Misconfigured
from superswarm.io.console import messages, output, size, table
from superswarm.io.files import read_bytes
from superswarm.io.results import ResultFolder, StoredResult, open_result, write_opened
from superswarm.updates.approvals import Recipient, SignedApproval
from superswarm.updates.container import ResultHeader
from superswarm.updates.release import open_released
from superswarm.values import LIMITS, Digest

HELP = (
    "List, release, open and merge the adapters that runs produced.\n\n"
    "Where the manifest says result.approvals = 0, a recipient opens a result with its own keys (`result open`).\n\n"
    "Where it asks for approvals, contributors release it: each runs `result approve` for one recipient, and sends "
    "the file; the recipient gives as many of them as needed to `result open`. For a member's server in a TEE: "
    "`result challenge`, then `result vouch` by the server's member, then `result approve --server-request`."
)

app = typer.Typer(help=HELP, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.command("list")
def list_results(
    folder: Annotated[Path, typer.Argument(help="The node's folder for sealed results.")] = Path("results"),
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List sealed results: which run and manifest they come from, and for whom they are."""
    if not folder.is_dir():
        raise Misconfigured(f"{folder} is no folder: name the one that the node's configuration has as `results`")
    found, faulty = ResultFolder(folder).results()
    for path, error in faulty:
        messages().print(Text(f"{path}: {error} ({error.code})"))
    if as_json:
        for result in found:
            output().print(Text(json.dumps(_fields(result))))
    elif found:
        columns = ("File", "Run", "Rounds", "Manifest", "Attestation", "Size", "For")
        table("", columns, [_row(result) for result in found])
    else:
        messages().print(Text(f"no results in {folder}"))


@app.command("open")
def open_(
    file: SealedFile,
    *,
    keys: KeysFile,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to make for the adapter.", metavar="DIR")],
    approval: Annotated[
        list[Path] | None,
        typer.Option(
            help="A contributor's approval (`result approve`), where the manifest asks for them. Once for each.",
            show_default=False,
            metavar="FILE",
        ),
    ] = None,
    consortium: ConsortiumFile = None,
    passphrase_file: PassphraseFile = None,
    signer: SignerFile = None,
    any_signer: Annotated[
        bool,
        typer.Option("--any-signer", help="Open what no node vouched for. Whoever had the key may have made it."),
    ] = False,
) -> None:
    """Open a sealed result into a folder that PEFT loads. It appears whole or not at all."""
    if signer is not None and any_signer:
        raise Misconfigured("--signer and --any-signer exclude each other")
    advice = "give --signer, or --any-signer to open it all the same"
    expected = None if any_signer else expected_signer(file, signer, advice=advice)
    if out.exists():
        raise Misconfigured(f"{out} is there already: name a folder that is not")
    header = header_of(file)
    files = approval or []
    if bool(header.approvals) != bool(files):
        raise Misconfigured(_about_approvals(header))
    agreed = agreement(file, consortium, header)[0] if files else None
    mine = open_keys(keys, passphrase_file)
    if agreed is None:
        open_result(file, mine.kem, mine.member, out, expected_signer=expected)
    else:
        approvals = [SignedApproval.parse(read_bytes(path, limit=LIMITS.document_bytes)) for path in files]
        to = Recipient(mine.member)
        write_opened(
            file,
            out,
            lambda src: open_released(src, agreed, approvals, to, mine.kem, expected_signer=expected),
        )
    if expected is None:
        messages().print(Text("nobody vouched for the aggregator that signed this; it may be anybody's"))
    output().print(Text(f"wrote {out}: load it with peft.PeftModel.from_pretrained(base_model, {str(out)!r})"))


def _about_approvals(header: ResultHeader) -> str:
    if not header.approvals:
        return "this result needs no approvals: leave --approval away"
    holders = ", ".join(slot.contributor for slot in header.shares)
    return (
        f"this result opens with the approvals of {header.approvals} of {holders}: ask them for "
        "`superswarm result approve`, and give each file with --approval"
    )


for command in (
    result_releases.approve,
    result_releases.challenge,
    result_releases.vouch,
    result_releases.releases,
    result_merge.merge,
):
    app.command()(command)


def _fields(result: StoredResult) -> dict[str, Any]:
    header = result.header
    return {
        "file": str(result.path),
        "consortium": header.consortium,
        "epoch": header.epoch,
        "manifest": header.manifest,
        "attestation": header.attestation,
        "run": header.run,
        "rounds": header.rounds,
        "bytes": result.nbytes,
        "recipients": list(header.recipients),
        "approvals": header.approvals,
        "contributors": [slot.contributor for slot in header.shares],
    }


def _row(result: StoredResult) -> list[object]:
    header = result.header
    return [
        result.path.name,
        header.run,
        header.rounds,
        f"epoch {header.epoch}, {Digest.parse(header.manifest).short}",
        header.attestation,
        size(result.nbytes),
        _for(header),
    ]


def _for(header: ResultHeader) -> str:
    """Who opens it, or who must approve before somebody does."""
    if not header.approvals:
        return ", ".join(header.recipients)
    return f"whom {header.approvals} of {', '.join(slot.contributor for slot in header.shares)} approve"
