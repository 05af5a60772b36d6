"""A trainer that learns nothing: `superswarm trainer up` with another learner, in the trainer's own program parts."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

from benchmarks.federation.plan import Plan
from participants.flower import serve
from participants.learners import LoadedLearner
from participants.supernode import SuperNode, SuperNodeSettings
from participants.trainer import Trainer
from superswarm.io import logs
from superswarm.io.consortium import load_manifest, open_tee
from superswarm.io.keystore import load_pairing
from superswarm.io.reporter import Reporter
from superswarm.values import MemberId


def main(file: Path) -> None:
    """Serve until stopped."""
    config = json.loads(file.read_text())
    logs.setup("trainer", log_format="json", confidential=True)
    manifest = load_manifest(Path(config["manifest"]), None)
    reporter = Reporter("trainer")
    trainer = Trainer(
        member=MemberId(config["member"]),
        manifest=manifest,
        attester=open_tee(manifest, Path(config["platform_credentials"])),
        pairing_key=load_pairing(Path(config["pairing"])),
        learners=LoadedLearner(Plan.read(Path(config["plan"])).learner(config["member"])),
        notify=reporter,
    )
    settings = SuperNodeSettings(
        relay=config["relay"],
        relay_authority=Path(config["relay_ca"]),
        key=Path(config["supernode_key"]),
        state=Path("trainer-state") / "supernode",
    )
    with SuperNode(settings) as supernode:
        reporter.ready()
        serve(supernode.endpoint, trainer.handle, threading.Event())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
