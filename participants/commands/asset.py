"""`superswarm asset`: seal datasets and base models, and look into sealed ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from participants.commands.asset_card import card
from participants.commands.common import PassphraseFile, remark, say, say_simulated, show_table
from participants.examples import Example, parse_examples, unread
from participants.sealing import Selection, select
from superswarm.assets.container import AssetHead, AssetHeader, Kind
from superswarm.errors import CannotOpen, Malformed, Misconfigured, Mismatch, UnusableDataset
from superswarm.io.console import size
from superswarm.io.files import explained
from superswarm.io.keystore import read_passphrase
from superswarm.io.progress import progress
from superswarm.io.sealing import (
    LocalFile,
    Sealed,
    Terms,
    digest_of,
    inspect,
    load_asset_key,
    seal_to_file,
    unseal_to_folder,
)
from superswarm.io.sources import open_source
from superswarm.values import Digest

DEMO = "This asset is sealed as a demo: simulated TEEs, which protect nothing, may get its key."

app = typer.Typer(
    help="Seal datasets and base models, and look into sealed ones.\n\n"
    "A sealed asset is one file of ciphertext that may lie anywhere: a disk, a web server, a bucket. Its digest goes "
    "into the manifest, its key to your broker, which releases it to attested TEEs on the manifest's terms.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Location = Annotated[
    str,
    typer.Argument(
        help="The sealed file: a path, an http(s) address, or another that fsspec knows (s3://, gs://, …).",
        metavar="FILE|URL",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command()
def seal(
    source: Annotated[
        Path,
        typer.Argument(
            help="A dataset: a .jsonl or .parquet file, or a folder. A base model: a folder with safetensors, or a "
            ".gguf file.",
            metavar="SRC",
            show_default=False,
        ),
    ],
    *,
    kind: Annotated[Kind, typer.Option(help="What it is.", show_default=False)],
    owner: Annotated[str, typer.Option(help="Your member id in the manifest.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="The sealed file to write.", show_default=False)],
    key: Annotated[
        Path,
        typer.Option(
            help="The file to write the key to, encrypted under a passphrase. It never leaves your premises.",
            show_default=False,
        ),
    ],
    version: Annotated[str, typer.Option(help="Your own count or word for this state of it.")] = "1",
    demo: Annotated[
        bool, typer.Option("--demo", help="Let simulated TEEs have the key too. They protect nothing.")
    ] = False,
    as_json: AsJson = False,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Encrypt a dataset or base model under a fresh key, and print its digest for the manifest.

    Anybody can read kind, owner and version, whether it is a demo, and the size, rounded up. Names are encrypted.

    If it is interrupted, run the same command again: it goes on where it was, or starts over if SRC changed.
    """
    terms = Terms(kind=kind, owner=owner, version=version, demo=demo)
    if kind == "dataset":
        _require_outside(source, out, key)
    selection = select(source, kind)
    if demo:
        say_simulated()
        remark(DEMO)
    _say_left_out(selection)
    if kind == "dataset":
        _say_unread(selection)
    passphrase = read_passphrase(passphrase_file, new=True)
    with progress(f"sealing {source.name}", selection.size, "bytes") as bar:
        sealed = seal_to_file(
            selection.files, terms, out=out, key_file=key, passphrase=passphrase, advance=bar.advance
        )
    _say_sealed(sealed, selection, out, key)
    if as_json:
        made = {"file": str(out), "key_file": str(key), "files": len(selection.files), "resumed": sealed.resumed}
        say(json.dumps({**_fields(sealed.key.header), "digest": str(sealed.key.digest), **made}))
    else:
        say(str(sealed.key.digest))


@app.command("inspect")
def inspect_(location: Location, *, as_json: AsJson = False) -> None:
    """Show the public header of a sealed asset, which takes no key. Proves nothing."""
    source = open_source(location)
    head = inspect(source)
    _say_if_demo(head)
    fields = {**_fields(head.header), "sealed_bytes": source.size, "whole": source.size == head.sealed_bytes}
    if as_json:
        say(json.dumps({"file": source.name, **fields}))
    else:
        show_table(source.name, ("", ""), [(name, _readable(name, value)) for name, value in fields.items()])
    if source.size != head.sealed_bytes:
        remark(f"the file has {source.size} bytes, where its header makes it {head.sealed_bytes}: it is not whole")
    remark("nothing of this is verified: `superswarm asset verify` compares all of it with the manifest's digest")


@app.command()
def verify(
    location: Location,
    *,
    digest: Annotated[
        str | None,
        typer.Option(help="What the manifest says: sha256:… Another one is an error.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Recompute the digest of a sealed asset from its ciphertext, and compare it. This takes no key."""
    expected = _digest(digest) if digest is not None else None
    source = open_source(location)
    with progress(f"reading {source.name}", source.size, "bytes") as bar:
        head, found = digest_of(source, bar.advance)
    if expected is not None and found != expected:
        raise Mismatch(f"{source.name} has the digest {found}, not {expected}: it is another asset, or was altered")
    _say_if_demo(head)
    if as_json:
        fields = {**_fields(head.header), "digest": str(found), "matches": expected is not None or None}
        say(json.dumps({"file": source.name, **fields}))
    else:
        say(str(found))
        remark("it is the expected one" if expected else "compare it with the manifest's, or give that with --digest")


@app.command()
def unseal(
    location: Location,
    *,
    key: Annotated[Path, typer.Option(help="The asset's key file, written by `superswarm asset seal`.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to make.", metavar="DIR", show_default=False)],
    passphrase_file: PassphraseFile = None,
) -> None:
    """Decrypt a sealed asset of your own into a new folder, which appears whole and verified, or not at all.

    If it is interrupted, it starts over: half of an asset is never taken for one.
    """
    opened = load_asset_key(key, read_passphrase(passphrase_file))
    source = open_source(location)
    if inspect(source).header.asset != opened.asset:
        raise CannotOpen(
            f"{key} is the key of another asset than {source.name} holds: give its own, or it was replaced"
        )
    with progress(f"unsealing {source.name}", source.size, "bytes") as bar:
        header = unseal_to_folder(source, opened.key, opened.digest, out, bar.advance)
    say(f"wrote {out}")
    remark(
        f"a {header.kind} of {header.owner}, version {header.version}: in the clear, so delete it when it has served"
    )


def _require_outside(source: Path, *written: Path) -> None:
    """Or the next sealing of the folder would hand the key file out with it."""
    for path in written:
        if source.is_dir() and path.resolve().is_relative_to(source.resolve()):
            raise Misconfigured(f"{path} lies in {source}, all of which is sealed: write it elsewhere")


def _digest(text: str) -> Digest:
    try:
        return Digest.parse(text)
    except Malformed as error:
        raise Misconfigured(f"--digest: {error}") from None


def _say_left_out(selection: Selection) -> None:
    if selection.left_out:
        remark(f"not sealed: {_some(selection.left_out)}")


def _say_unread(selection: Selection) -> None:
    """Better said now than by a trainer in its TEE, once the manifest names the digest."""
    try:
        ignored = _ignored(selection)
    except UnusableDataset as error:
        remark(f"superswarm's trainers will refuse this dataset: {error}")
        return
    if ignored:
        remark(f"sealed, but not read by superswarm's trainers: {_some(ignored)}")


def _ignored(selection: Selection) -> list[str]:
    """Which files no trainer reads. Raises UnusableDataset where the names, or the first examples, are not fit."""
    ignored = unread(file.name for file in selection.files)
    first = [_first_example(file) for file in selection.files if file.name not in ignored]
    if not any(first):
        raise UnusableDataset("it holds no examples")
    return ignored


def _first_example(file: LocalFile) -> Example | None:
    with explained(file.path), file.path.open("rb") as source:
        return next(parse_examples(source, file.name), None)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more


def _say_sealed(sealed: Sealed, selection: Selection, out: Path, key: Path) -> None:
    if sealed.resumed:
        remark("went on with the sealing that was interrupted")
    if sealed.restarted:
        remark(
            "what was to be sealed, or how, changed since an interrupted sealing: this started over under another key"
        )
    count = len(selection.files)
    remark(f"sealed {count} file{'s' * (count != 1)}, {size(selection.size)}")
    remark(f"wrote {out}  (ciphertext: host it anywhere)")
    remark(f"wrote {key}  (secret, encrypted: keep it, and a copy of it, in a safe place)")
    remark(f"next: `superswarm broker add {key}`, and `superswarm asset card {out}` for whoever writes the manifest")


def _say_if_demo(head: AssetHead) -> None:
    if head.header.demo:
        say_simulated()
        remark(DEMO)


def _fields(header: AssetHeader) -> dict[str, Any]:
    data: dict[str, Any] = header.model_dump(mode="json")
    return data


def _readable(name: str, value: object) -> str:
    if name in ("size", "sealed_bytes") and isinstance(value, int):
        return f"{size(value)} ({value} bytes)"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


app.command("card")(card)
