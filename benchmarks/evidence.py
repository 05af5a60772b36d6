"""Claim: one evidence is judged in under 10 ms of processor time (CPUs), in under 50 ms with a GPU's manifests.

    SUPERSWARM_VECTORS=FOLDER python -m benchmarks.evidence

Each accepted case of the folder is judged from its bytes: parse, verify, judge, with all its consents. Simulated
evidence, which needs no folder, is verified from its bytes too.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from benchmarks.record import best_of, record
from superswarm.attestation import conformance
from superswarm.attestation.evidence import Evidence
from superswarm.attestation.simulated import DevelopmentAuthority, SimulatedTee
from superswarm.attestation.verify import TrustRoots, verify
from superswarm.values import Measurement

RUNS = 20


def main() -> None:
    at = int(time.time())
    authority = DevelopmentAuthority.create(at=at)
    evidence = SimulatedTee(authority.issue(at=at, valid_days=1), Measurement(bytes(48))).attest(bytes(64)).to_bytes()
    trust = TrustRoots(frozenset({authority.spki_digest}))
    (simulated,) = best_of(RUNS, lambda: verify(Evidence.parse(evidence), trust, at))
    milliseconds = {"simulated": round(1000 * simulated, 2)}
    folder = os.environ.get("SUPERSWARM_VECTORS")
    for path in sorted(Path(folder).glob("*/case.json")) if folder else []:
        case = conformance.Case.model_validate_json(path.read_bytes())
        files = {name: (path.parent / name).read_bytes() for name in case.files}
        for wanted in case.judge:
            if wanted.verdict == "accept":
                milliseconds[path.parent.name] = judged(case, files, wanted)
    record("evidence-milliseconds", best_of=RUNS, cpu_milliseconds=milliseconds)


def judged(case: conformance.Case, files: dict[str, bytes], wanted: conformance.Judgement) -> float:
    given = {name: files[name] for name in wanted.files or files}
    (best,) = best_of(RUNS, lambda: conformance.outcome(case.kind, given, wanted.consent, case.at))
    return round(1000 * best, 2)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    main()
