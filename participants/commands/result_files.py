"""What the commands on results share: whose signature a sealed result must bear, and what was agreed on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from participants.commands.common import read_epoch
from superswarm.consortium.approval import ApprovedManifest
from superswarm.crypto.signing import VerifyingKey
from superswarm.errors import Misconfigured
from superswarm.io.console import warn_simulated
from superswarm.io.results import CONSORTIUM, describe_result, read_signer, vouched_signer
from superswarm.updates.container import ResultHeader

SealedFile = Annotated[Path, typer.Argument(help="A sealed result.", metavar="FILE")]
SignerFile = Annotated[
    Path | None,
    typer.Option(
        "--signer",
        help="File with the aggregator's key that a node vouched for (its FILE.signer). Needed only where that "
        "does not lie beside FILE.",
        show_default=False,
    ),
]
ConsortiumFile = Annotated[
    Path | None,
    typer.Option(
        "--consortium",
        "-c",
        "--manifest",
        help="The consortium's approved file. By default, the one that your node kept beside FILE.",
        show_default=False,
    ),
]


def agreement(file: Path, consortium: Path | None, header: ResultHeader) -> tuple[ApprovedManifest, ApprovedManifest]:
    """The epoch that a result was made under, and the newest that is known. Raises Misconfigured where neither is."""
    kept = file.with_suffix(CONSORTIUM)
    if consortium is None and not kept.exists():
        raise Misconfigured(
            f"{file} does not lie in a node's folder of results: give the consortium's file, too (-c)"
        )
    return read_epoch(consortium or kept, header.epoch)


def expected_signer(file: Path, signer: Path | None, *, advice: str = "give --signer") -> VerifyingKey:
    """The aggregator's key that a node vouched for. Raises Misconfigured where nothing says which that is."""
    if not file.exists():
        raise Misconfigured(f"{file} is not there: `superswarm result list` shows what a node has")
    if signer is not None:
        return read_signer(signer)
    vouched = vouched_signer(file)
    if vouched is None:
        raise Misconfigured(
            f"{file} does not lie in a node's folder of results, so nobody vouched for whoever signed it: {advice}"
        )
    return vouched


def header_of(file: Path) -> ResultHeader:
    """What the sealed result says of itself; warns where it is simulated. Proves nothing."""
    header = describe_result(file).header
    if header.attestation == "simulated":
        warn_simulated()
    return header
