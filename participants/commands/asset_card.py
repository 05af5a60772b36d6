"""`superswarm asset card`: what others may see of a sealed asset, as the table that the manifest has of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from participants.commands.common import Force, Out, remark, write_out
from participants.drafting import asset_toml
from superswarm.consortium.manifest import Asset
from superswarm.errors import Malformed, Misconfigured
from superswarm.io.clocks import SystemClock
from superswarm.io.progress import progress
from superswarm.io.sealing import digest_of
from superswarm.io.sources import open_source


def card(
    location: Annotated[str, typer.Argument(help="The sealed file, or its address.", metavar="FILE|URL")],
    *,
    name: Annotated[str, typer.Option(help="What the manifest calls it.")],
    source: Annotated[str, typer.Option(help="Where it is from, for people.")],
    release_to: Annotated[list[str], typer.Option(help="A member whose TEEs may have its key. Once for each.")],
    until: Annotated[str, typer.Option(help="The last day on which its key may be released, UTC.", metavar="DATE")],
    times: Annotated[int, typer.Option(help="How often, to each member, under one manifest.", min=1)],
    role: Annotated[list[str] | None, typer.Option(help="trainer or server. Once for each.")] = None,
    out: Out = None,
    force: Force = False,
) -> None:
    """Write what others may see of a sealed asset: its digest, and the terms on which you release its key.

    Send the file to whoever writes the manifest (`manifest draft --asset`). The terms bind once you have signed the
    manifest that holds them.
    """
    terms = _terms(name, source, release_to, until, times, role or ["trainer"])
    sealed = open_source(location)
    with progress(f"reading {sealed.name}", sealed.size, "bytes") as bar:
        head, digest = digest_of(sealed, bar.advance)
    asset = Asset.from_data(
        {
            **terms,
            "kind": head.header.kind,
            "owner": head.header.owner,
            "digest": str(digest),
        }
    )
    write_out(out or Path(f"{name}.asset.toml"), f"{asset_toml(asset)}\n".encode(), force=force)
    remark("next: send it to whoever writes the manifest, and `superswarm broker add` the key")


def _terms(
    name: str, source: str, members: list[str], until: str, times: int, roles: list[str]
) -> dict[str, str | dict[str, object]]:
    """What was typed, checked before all of a large asset is read. Raises Misconfigured."""
    terms: dict[str, str | dict[str, object]] = {
        "name": name,
        "source": source,
        "release": {"roles": roles, "members": members, "not_after": until, "times": times},
    }
    try:
        asset = Asset.from_data({**terms, "kind": "dataset", "owner": "public", "digest": f"sha256:{'0' * 64}"})
    except Malformed as error:
        raise Misconfigured(str(error)) from None
    if asset.release is not None and asset.release.ends < SystemClock().now():
        raise Misconfigured(f"--until: {until} has passed, so that the key would be released to nobody")
    return terms
