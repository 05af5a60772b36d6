"""What `superswarm doctor` looks at beyond the machine: manifest, code, base model and data."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from superswarm.attestation.measure import measure_packages
from superswarm.consortium.approval import ApprovedManifest, approve, parse_chain
from superswarm.consortium.manifest import Workload
from superswarm.errors import Error
from superswarm.io.console import size
from superswarm.io.files import read_bytes
from superswarm.io.machine import Finding, bad, good, warn
from superswarm.values import LIMITS, SIMULATED_WARNING, Digest

SAMPLE = 1000  # examples that are read of a dataset


def read_manifest(path: Path, pinned: str | None) -> ApprovedManifest | Finding:
    """The approved manifest that a program is given, or what is wrong with it."""
    try:
        chain = parse_chain(read_bytes(path, limit=LIMITS.chain_bytes))
        return approve(chain, pinned=Digest.parse(pinned) if pinned is not None else None)
    except Error as error:
        return bad("manifest", f"{path}: {error}", "ask for the file that `superswarm manifest combine` wrote")


def check_manifest(
    manifest: ApprovedManifest, pinned: str | None, member: str | None, credentials: Path | None
) -> Iterator[Finding]:
    """Whether the manifest fits this program's configuration."""
    yield good("manifest", f"{manifest.manifest.name}, epoch {manifest.manifest.epoch}, digest {manifest.digest}")
    if pinned is None:
        yield warn("manifest", "no digest is pinned", "compare the digest with the other members, then set pinned")
    if member is not None and manifest.manifest.member(member) is None:
        yield bad("manifest", f"{member} is not a member", "set member to an id that the manifest lists")
    if manifest.simulated:
        yield warn("tee", SIMULATED_WARNING, "use made-up data only")
    elif credentials is not None:
        do = "remove platform_credentials: under a real manifest evidence comes from the TEE"
        yield bad("tee", "platform_credentials are set, and the manifest is real", do)


def check_code(
    manifest: ApprovedManifest, name: str, workload: Workload, credentials: Path | None
) -> Iterator[Finding]:
    """Under a simulated manifest: whether this code is approved, and can make evidence."""
    if not manifest.simulated:
        return
    if credentials is None:
        yield bad("tee", "a simulated TEE needs platform_credentials", "make them with `superswarm keys platform`")
    mine = str(measure_packages())
    if mine in workload.measurements:
        yield good("code", f"the manifest approves this code as a {name}")
    else:
        do = f"install the approved version, or agree on a new epoch with {mine}"
        yield bad("code", f"the manifest approves other code than this as a {name}", do)


def check_model(source: str) -> Finding:
    """Whether the base model's folder holds what loads, and nothing that could run code. Reads names only."""
    from participants.models import model_files

    path = Path(source)
    if not path.is_absolute():
        do = "nothing, if this machine has it or can download it; else set model to a folder"
        return warn("model", f"{source} is a name, not a folder", do)
    if not path.exists():
        return bad("model", f"{path} does not exist", "put the base model there, or set model to its folder")
    try:
        files = model_files(path).files
    except Error as error:
        return bad("model", str(error), "use a folder with safetensors, or one .gguf file, and nothing that runs")
    total = sum(file.stat().st_size for _, file in files)
    return good("model", f"{len(files)} files, {size(total)}; the digest is checked when the trainer loads them")


def check_assets(settings: Sequence[str]) -> Iterator[Finding]:
    """Whether the places of assets can be reached, and hold sealed assets or a base model."""
    from participants.unsealing import locations
    from superswarm.assets.container import read_head
    from superswarm.io.sources import open_source

    try:
        places = locations(settings)
    except Error as error:
        yield bad("asset", str(error), "write asset = ['NAME=PLACE', ...]")
        return
    for name, place in places.items():
        if Path(place).is_dir() or place.endswith(".gguf"):
            yield check_model(str(Path(place).absolute()))
            continue
        try:
            with open_source(place).open() as src:
                header = read_head(src).header
        except Error as error:
            yield bad("asset", f"{name}: {error}", "put the sealed file there, or name another place")
        else:
            yield good("asset", f"{name}: a sealed {header.kind} of {header.owner}, version {header.version}")


def check_data(name: str, path: Path) -> Finding:
    """Whether a dataset begins as training expects it."""
    from participants.examples import read_examples

    try:
        examples = read_examples(path, most=SAMPLE)
    except Error as error:
        form = json.dumps({"prompt": "...", "completion": "..."})
        return bad("data", f"{name}: {error}", f"one JSON object a line: {form}; or Parquet with these columns")
    return good("data", f"{name}: the first {len(examples)} examples can be read")
