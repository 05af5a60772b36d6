"""`superswarm attest`: look at evidence, judge it by hand, and judge folders of cases."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from superswarm.attestation import conformance as cases
from superswarm.attestation.certificates import utc
from superswarm.attestation.check import check, check_device
from superswarm.attestation.ear import Appraisal, ear, exit_code
from superswarm.attestation.evidence import Evidence
from superswarm.attestation.show import show_device, show_evidence
from superswarm.consortium.manifest import Workload
from superswarm.errors import Malformed, Misconfigured
from superswarm.io.evidence import open_evidence
from superswarm.io.files import read_bytes, write_bytes
from superswarm.io.tee import HardwareTee
from superswarm.values import LIMITS

app = typer.Typer(help="Show, verify and test attestation evidence.", no_args_is_help=True, add_completion=False)

File = Annotated[
    Path, typer.Argument(help="Evidence, or a folder that holds it with what endorses it.", metavar="FILE")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def show(file: File, *, as_json: AsJson = False) -> None:
    """Show every field of evidence. Nothing is verified."""
    evidence = open_evidence(file)
    rows = list(show_evidence(evidence) if isinstance(evidence, Evidence) else show_device(evidence))
    if as_json:
        typer.echo(json.dumps(dict(rows), indent=2))
        return
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        typer.echo(f"{name:<{width}}  {value}")


@app.command()
def verify(
    file: File,
    *,
    policy: Annotated[
        Path, typer.Option(help="What to accept: the table of one workload of a manifest, as TOML.", metavar="FILE")
    ],
    at: Annotated[
        str, typer.Option(help="When to judge, as in 2026-03-01 or 2026-03-01T12:00:00Z; a date means noon UTC.")
    ],
    report_data: Annotated[
        str | None, typer.Option(help="The 64 bytes (hexadecimal) that the evidence must speak for.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Verify and judge evidence by a policy, claim by claim.

    Prints an AR4SI trust vector with a reason code for each failed claim; as JSON, an EAT Attestation Result.
    Ends with 0 when all is accepted, 3 for malformed evidence, 4 when the consortium must act (it can be an attack),
    5 when whoever runs the attesting machine can mend it (firmware, settings, fresh collateral).
    """
    when = parse_time(at)
    evidence, workload = open_evidence(file), load_workload(policy)
    if isinstance(evidence, Evidence):
        parts = check(evidence, workload, when, None if report_data is None else _bytes64(report_data))
    elif workload.policy is None or workload.policy.nvidia is None:
        raise Misconfigured("the policy has no table policy.nvidia, and this is a device's evidence")
    else:
        parts = [check_device("gpu", evidence, workload.policy.nvidia, when)]
    if as_json:
        typer.echo(json.dumps(ear(parts, when), indent=2))
    else:
        typer.echo("\n".join(describe(parts, when, compared=report_data is not None)))
    raise typer.Exit(exit_code(parts))


@app.command()
def conformance(
    folder: Annotated[Path, typer.Argument(help="A folder of cases, or one case.", metavar="DIR")],
    *,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print failures and the count alone.")] = False,
) -> None:
    """Judge every case of a folder; end with 0 only when all come out as they must."""
    lines = []
    for line in cases.run(folder):
        lines.append(line)
        if not (quiet and line.holds):
            typer.echo(str(line))
    held = sum(line.holds for line in lines)
    count = len({line.case for line in lines})
    typer.echo(f"{held} of {len(lines)} judgements in {count} cases come out")
    raise typer.Exit(0 if held == len(lines) else 4)


@app.command()
def quote(
    *,
    report_data: Annotated[str, typer.Option(help="The 64 bytes (hexadecimal) that the evidence speaks for.")],
    to: Annotated[Path, typer.Option(help="The file to write.", metavar="FILE")],
    collateral: Annotated[
        Path | None, typer.Option(help="A folder that `superswarm collateral fetch` filled.", metavar="DIR")
    ] = None,
) -> None:
    """Have this machine's TEE make evidence (Linux, configfs-tsm; TDX or SEV-SNP; root).

    GPUs are not asked: their nonce derives from a run's challenge.
    """
    evidence = HardwareTee(collateral).attest(_bytes64(report_data))
    write_bytes(to, evidence.to_bytes())
    typer.echo(
        f"{evidence.platform} evidence, {len(evidence.quote)} bytes, {len(evidence.endorsements)} endorsements"
    )


def describe(parts: Sequence[Appraisal], at: int, *, compared: bool) -> list[str]:
    """The appraisal as lines of text."""
    lines = [f"judged at {utc(at)}"]
    if not compared:
        lines.append("not asked: who the evidence speaks for (--report-data)")
    for part in parts:
        lines.append(f"{part.name}: {part.status}")
        for claim, value in part.vector.items():
            lines.append(f"  {claim:<18} {value:>3}")
            for fault in part.faults:
                advice = fault.reason.advice
                if advice.claim is claim:
                    lines.append(f"    {fault.reason}: {fault.message}".rstrip(": "))
                    lines.append(f"      {advice.actor}: {advice.action}")
    refused = sorted({str(fault.reason) for part in parts for fault in part.faults})
    lines.append(f"REFUSED: {', '.join(refused)}" if refused else "ACCEPTED")
    return lines


def load_workload(path: Path) -> Workload:
    """Read one workload's table: platforms, measurements, policy."""
    try:
        data = tomllib.loads(read_bytes(path, limit=LIMITS.manifest_bytes).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Malformed(f"{path} is not TOML: {error}") from None
    except RecursionError:
        raise Malformed(f"{path} is nested too deeply") from None
    return Workload.from_data(data)


def parse_time(text: str) -> int:
    """Unix seconds of a date (noon UTC) or of a time with its zone. Misconfigured for anything else."""
    try:
        moment = datetime.fromisoformat(f"{text}T12:00:00+00:00" if len(text) == 10 else text)
    except ValueError:
        raise Misconfigured("a time is written 2026-03-01 or 2026-03-01T12:00:00Z") from None
    if moment.tzinfo is None:
        raise Misconfigured("the time lacks its zone: end it with Z for UTC")
    return int(moment.astimezone(UTC).timestamp())


def _bytes64(text: str) -> bytes:
    try:
        data = bytes.fromhex(text)
    except ValueError:
        raise Misconfigured("--report-data is hexadecimal") from None
    if len(data) != 64:
        raise Misconfigured(f"--report-data has 64 bytes, not {len(data)}")
    return data
