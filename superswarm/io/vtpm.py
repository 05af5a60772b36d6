"""Evidence of an Azure confidential VM: a quote by the vTPM and the paravisor's report, through tpm2-tools.

The attestation key is the one that Azure keeps at handle 0x81000003; the report lies at NV index 0x01400001. For SEV-SNP
beneath: on TDX the TD quote comes from a service of Azure's host, which is not asked here.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from superswarm.attestation.evidence import Evidence
from superswarm.attestation.snp.chain import LEAVES
from superswarm.attestation.vtpm.chain import qualifying_data
from superswarm.attestation.vtpm.hcl import Beneath, parse_hcl
from superswarm.attestation.vtpm.quote import PCRS
from superswarm.consortium.manifest import Platform
from superswarm.errors import Environment, NotATee

AK_HANDLE: Final = "0x81000003"
REPORT_INDEX: Final = "0x01400001"
SELECTION: Final = "sha256:" + ",".join(map(str, range(PCRS)))
SECONDS: Final = 60
TOOLS: Final = ("tpm2_nvread", "tpm2_quote")

Run = Callable[[list[str]], None]


def run_tool(command: list[str]) -> None:
    """Run one of tpm2-tools. Raises Environment without its output, which names keys and handles."""
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=SECONDS)
    except (OSError, subprocess.SubprocessError):
        raise Environment(f"{command[0]} failed: is the vTPM there, and may this user use it?") from None


class VtpmAttester:
    """An Azure confidential VM, as `Attester` of its CPU. `collateral` must have the VCEK certificate."""

    platform: Final = Platform.AZURE_VTPM

    def __init__(self, collateral: Callable[[Platform], Mapping[str, bytes]], *, run: Run = run_tool) -> None:
        self._collateral, self._run = collateral, run
        if run is run_tool and not all(shutil.which(tool) for tool in TOOLS):
            raise NotATee("this machine has no configfs-tsm, and no tpm2-tools to ask a vTPM with")
        with tempfile.TemporaryDirectory() as folder:
            report = self._report(Path(folder))
        if parse_hcl(report).beneath is not Beneath.SEV_SNP:
            raise NotATee("evidence of a vTPM on TDX is judged, but not made by this version")

    def attest(self, report_data: bytes) -> Evidence:
        """Show evidence for these 64 bytes: the quote's nonce is their SHA-256. Raises Environment."""
        nonce = qualifying_data(report_data)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            report = self._report(folder)
            message, signature, values = (folder / file for file in ("message", "signature", "pcrs"))
            quote = ["tpm2_quote", "-c", AK_HANDLE, "-l", SELECTION, "-q", nonce.hex(), "-g", "sha256"]
            self._run(
                [*quote, "-m", str(message), "-s", str(signature), "-f", "plain", "-o", str(values), "-F", "values"]
            )
            pcrs = _read(values)
            document = {
                "version": 1,
                "tpm_quote": {
                    "message": _read(message).hex(),
                    "signature": _read(signature).hex(),
                    "pcrs": [pcrs[at : at + 32].hex() for at in range(0, len(pcrs), 32)],
                },
                "hcl_report": urlsafe_b64encode(report).decode(),
            }
        stapled = dict(self._collateral(self.platform))
        if not stapled.keys() & set(LEAVES):
            raise Environment("the collateral folder has no VCEK certificate (leaf.der): superswarm collateral fetch")
        return Evidence(self.platform, json.dumps(document).encode(), tuple(sorted(stapled.items())))

    def _report(self, folder: Path) -> bytes:
        path = folder / "report"
        self._run(["tpm2_nvread", "-C", "o", REPORT_INDEX, "-o", str(path)])
        return _read(path)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        raise Environment("tpm2-tools wrote no result") from None
