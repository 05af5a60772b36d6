"""`superswarm measure`: the measurements that a manifest must list for code to be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from superswarm.attestation.launch import linux, snp, tdvf
from superswarm.attestation.measure import measure_packages
from superswarm.attestation.tdx import ccel
from superswarm.errors import Environment, Misconfigured

app = typer.Typer(help="Compute measurements, as the manifest lists them.", add_completion=False)

WORKLOADS = ("trainer", "aggregator")
WARNING = "# SIMULATED: a digest of the installed code, reported by the code itself. It protects nothing."
UNKNOWN = "# RTMR0 depends on the machine's shape: give --event-log of a reference boot, or read it from its quote."
Firmware = Annotated[
    Path, typer.Option(help="The guest's firmware (OVMF).", exists=True, dir_okay=False, readable=True)
]
Kernel = Annotated[
    Path | None, typer.Option(help="The kernel, where the VMM boots it itself.", exists=True, dir_okay=False)
]
Initrd = Annotated[
    Path | None, typer.Option(help="The initial RAM disk, beside --kernel.", exists=True, dir_okay=False)
]


@app.callback(invoke_without_command=True)
def measure(
    context: typer.Context,
    simulated: Annotated[bool, typer.Option("--simulated", help="Measure the installed packages' files.")] = False,  # noqa: FBT002
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the measurement alone.")] = False,  # noqa: FBT002
) -> None:
    """Print a measurement, and the clauses of a manifest that approve it for both workloads."""
    if context.invoked_subcommand is not None:
        return
    if not simulated:
        raise Misconfigured("say which measurement is wanted: --simulated, tdx or snp")
    measurement = measure_packages()
    if quiet:
        typer.echo(measurement)
        return
    typer.echo(WARNING)
    for workload in WORKLOADS:
        typer.echo(f'\n[workloads.{workload}]\nplatforms = ["simulated"]\nmeasurements = ["{measurement}"]')


@app.command("tdx")
def measure_tdx(
    firmware: Firmware,
    kernel: Kernel = None,
    initrd: Initrd = None,
    command_line: Annotated[str, typer.Option(help="The kernel's, without what the firmware adds.")] = "",
    event_log: Annotated[
        Path | None, typer.Option(help="The CC event log of a reference boot.", exists=True, dir_okay=False)
    ] = None,
    two_passes: Annotated[  # noqa: FBT002
        bool, typer.Option("--two-passes", help="The VMM adds all pages of a section before it measures them.")
    ] = False,
) -> None:
    """Compute MRTD from firmware, RTMR1 and RTMR2 from what it boots directly, all RTMRs from an event log."""
    measurement = tdvf.mrtd(_read(firmware), two_passes=two_passes)
    registers: list[str | None] = [None, None, None, bytes(48).hex()]
    if kernel is not None:
        registers[1] = linux.rtmr1(_read(kernel)).hex()
        registers[2] = linux.rtmr2(command_line, None if initrd is None else _read(initrd)).hex()
    if event_log is not None:
        registers = _compared(registers, [value.hex() for value in ccel.replay(ccel.parse_ccel(_read(event_log)))])
    lines = [f'mrtd = "{measurement.raw.hex()}"']
    for number, value in enumerate(registers):
        lines.append(f'rtmr{number} = "{value}"' if value is not None else f"# rtmr{number} is not known")
    for workload in WORKLOADS:
        typer.echo(f'[workloads.{workload}]\nplatforms = ["tdx"]\nmeasurements = ["{measurement}"]\n')
        typer.echo(f"[[workloads.{workload}.policy.tdx.images]]")
        typer.echo("\n".join(lines) + "\n")
    if registers[0] is None:
        typer.echo(UNKNOWN)


@app.command("snp")
def measure_snp(
    firmware: Firmware,
    vcpus: Annotated[int, typer.Option(help="Virtual CPUs of the guest: each one's state is measured.")],
    vcpu_type: Annotated[str, typer.Option(help="As QEMU names it: EPYC-v4, EPYC-Genoa, EPYC-Turin.")],
    vmm: Annotated[str, typer.Option(help="qemu, ec2 or gce.")] = "qemu",
    guest_features: Annotated[int, typer.Option(help="SEV_FEATURES of the guest.")] = snp.GUEST_FEATURES,
    kernel: Kernel = None,
    initrd: Initrd = None,
    command_line: Annotated[str, typer.Option(help="The kernel's.")] = "",
) -> None:
    """Compute the launch digest of an SEV-SNP guest (sev-snp-measure)."""
    measurement = snp.launch_digest(
        firmware,
        vcpus=vcpus,
        vcpu_type=vcpu_type,
        vmm=vmm,
        guest_features=guest_features,
        kernel=kernel,
        initrd=initrd,
        command_line=command_line,
    )
    for workload in WORKLOADS:
        typer.echo(f'[workloads.{workload}]\nplatforms = ["sev-snp"]\nmeasurements = ["{measurement}"]\n')


def _compared(computed: list[str | None], logged: list[str]) -> list[str | None]:
    """The registers of the log, which must be those that files explain."""
    for number, (file, log) in enumerate(zip(computed, logged, strict=True)):
        if file is not None and file != log:
            raise Misconfigured(f"RTMR{number} of the event log is not the one that these files give")
    return list(logged)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Environment(f"{path} cannot be read: {error.strerror}") from None
