"""Coverage-guided fuzzing (atheris) of every parser of what a peer or a machine hands over. `make fuzz` runs it.

    python -m tests.fuzz_parsers NAME [-runs=N] [CORPUS...]     NAME is one parser below, or `all` for each in turn

A parser may raise our errors only; anything else ends the run with the input that caused it.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable

import atheris

with atheris.instrument_imports(include=["superswarm"]):
    from superswarm.attestation.certificates import load_chain, load_crl
    from superswarm.attestation.evidence import Evidence, SessionKeys
    from superswarm.attestation.messages import AskVouch, Confirm, Hello
    from superswarm.attestation.nvidia.chain import parse_pem_chain
    from superswarm.attestation.nvidia.evidence import DeviceEvidence
    from superswarm.attestation.nvidia.revocation import parse_staple
    from superswarm.attestation.nvidia.rim import read_manifest
    from superswarm.attestation.nvidia.spdm import parse_report as parse_spdm
    from superswarm.attestation.nvidia.xml import parse_xml
    from superswarm.attestation.serving import ServerChallenge, ServerRequest
    from superswarm.attestation.snp.report import parse_report as parse_snp
    from superswarm.attestation.snp.table import parse_table
    from superswarm.attestation.tdx.ccel import parse_ccel
    from superswarm.attestation.tdx.collateral import parse_collateral
    from superswarm.attestation.tdx.quote import parse_quote as parse_tdx
    from superswarm.attestation.vtpm.evidence import parse_evidence
    from superswarm.attestation.vtpm.hcl import parse_hcl
    from superswarm.attestation.vtpm.quote import parse_quote as parse_tpm
    from superswarm.consortium.approval import parse_chain
    from superswarm.consortium.grant import SignedGrant
    from superswarm.consortium.manifest import Manifest
    from superswarm.consortium.vouch import Vouch
    from superswarm.crypto.letter import Letter
    from superswarm.errors import Error
    from superswarm.updates.adapter import AdapterSpec
    from superswarm.updates.approvals import SignedApproval
    from superswarm.updates.container import ResultHeader
    from superswarm.updates.round import MemberMetrics
    from superswarm.wire import Header, unpack_list

Parser = Callable[[bytes], object]
PARSERS: dict[str, Parser] = {
    "wire": unpack_list,
    "header": Header.parse,
    "hello": Hello.parse,
    "ask-vouch": AskVouch.parse,
    "confirm": Confirm.parse,
    "letter": Letter.parse,
    "evidence": Evidence.parse,
    "session-keys": SessionKeys.parse,
    "manifest-toml": Manifest.from_toml,
    "manifest-json": Manifest.from_json,
    "consortium": parse_chain,
    "grant": SignedGrant.parse,
    "vouch": Vouch.parse,
    "adapter-spec": AdapterSpec.parse,
    "metrics": MemberMetrics.parse,
    "result": ResultHeader.parse,
    "approval": SignedApproval.parse,
    "server-request": ServerRequest.parse,
    "server-challenge": ServerChallenge.parse,
    "chain": load_chain,
    "crl": load_crl,
    "snp": parse_snp,
    "snp-table": parse_table,
    "tdx": parse_tdx,
    "tdx-collateral": parse_collateral,
    "ccel": parse_ccel,
    "vtpm": parse_evidence,
    "hcl": parse_hcl,
    "tpm": parse_tpm,
    "spdm": parse_spdm,
    "device": DeviceEvidence.parse,
    "device-chain": parse_pem_chain,
    "staple": parse_staple,
    "rim": lambda data: read_manifest(parse_xml(data)),
}


def main() -> None:
    name, options = sys.argv[1], sys.argv[2:]
    if name == "all":
        for one in PARSERS:  # a process each: a fuzzer does not return
            subprocess.run([sys.executable, "-m", "tests.fuzz_parsers", one, *options], check=True)
        return
    parse = PARSERS[name]

    def only_ours(data: bytes) -> None:
        with contextlib.suppress(Error):
            parse(data)

    atheris.Setup([f"fuzz {name}", "-max_len=65536", "-timeout=5", "-rss_limit_mb=4096", *options], only_ours)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
