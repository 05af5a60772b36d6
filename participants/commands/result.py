"""`superswarm result`: list and open the adapters that runs produced."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from superswarm.crypto.signing import VerifyingKey
from superswarm.errors import Misconfigured
from superswarm.io.console import messages, output, size, table, warn_simulated
from superswarm.io.keystore import load_keys, read_passphrase
from superswarm.io.results import (
    ResultFolder,
    StoredResult,
    describe_result,
    open_result,
    read_signer,
    vouched_signer,
)
from superswarm.values import Digest

app = typer.Typer(help="List and open the adapters that runs produced.", no_args_is_help=True, add_completion=False)


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
    file: Annotated[Path, typer.Argument(help="A sealed result.", metavar="FILE")],
    *,
    keys: Annotated[Path, typer.Option(help="Your key file, made by `superswarm keys new`.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to make for the adapter.", metavar="DIR")],
    passphrase_file: Annotated[
        Path | None,
        typer.Option(
            help="File whose first line is the passphrase. Otherwise SUPERSWARM_PASSPHRASE, or you are asked.",
            show_default=False,
        ),
    ] = None,
    signer: Annotated[
        Path | None,
        typer.Option(
            help="File with the aggregator's key that a node vouched for (its FILE.signer). Needed only where that "
            "does not lie beside FILE.",
            show_default=False,
        ),
    ] = None,
    any_signer: Annotated[
        bool,
        typer.Option("--any-signer", help="Open what no node vouched for. Whoever had the key may have made it."),
    ] = False,
) -> None:
    """Open a sealed result into a folder that PEFT loads. It appears whole or not at all."""
    expected = _expected_signer(file, signer, any_signer=any_signer)
    if out.exists():
        raise Misconfigured(f"{out} is there already: name a folder that is not")
    described = describe_result(file)
    if described.header.attestation == "simulated":
        warn_simulated()
    mine = load_keys(keys, read_passphrase(passphrase_file))
    open_result(file, mine.kem, mine.member, out, expected_signer=expected)
    if expected is None:
        messages().print(Text("nobody vouched for the aggregator that signed this; it may be anybody's"))
    output().print(Text(f"wrote {out}: load it with peft.PeftModel.from_pretrained(base_model, {str(out)!r})"))


def _expected_signer(file: Path, signer: Path | None, *, any_signer: bool) -> VerifyingKey | None:
    """Whose signature the result must bear; None only where the user says that anybody's will do."""
    if any_signer:
        if signer is not None:
            raise Misconfigured("--signer and --any-signer exclude each other")
        return None
    if signer is not None:
        return read_signer(signer)
    vouched = vouched_signer(file)
    if vouched is None:
        raise Misconfigured(
            f"{file} does not lie in a node's folder of results, so nobody vouched for whoever signed it: "
            "give --signer, or --any-signer to open it all the same"
        )
    return vouched


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
        ", ".join(header.recipients),
    ]
