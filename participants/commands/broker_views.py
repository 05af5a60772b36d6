"""How `superswarm broker` shows what it holds, on which terms, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from participants.broker.decisions import Decisions, Entry
from participants.broker.ledger import Missing
from participants.broker.vault import Document, Held
from participants.commands.common import say, show_table
from superswarm.consortium.approval import ApprovedManifest
from superswarm.consortium.manifest import Asset
from superswarm.values import Digest


def print_terms(manifest: ApprovedManifest, asset: Asset) -> None:
    """What the owner consents to."""
    terms = asset.release
    if terms is None:
        raise RuntimeError("print_terms() of an asset that is not sealed")
    jobs = [job.name for job in manifest.manifest.jobs if asset.kind == "dataset" or job.base_model == asset.name]
    rows = [
        ("consortium", f"{manifest.manifest.name}, epoch {manifest.manifest.epoch}, {manifest.digest}"),
        ("approved by", ", ".join(manifest.signers)),
        ("asset", f"{asset.name}, a {asset.kind} of {asset.owner}, {asset.digest}"),
        ("to the TEEs of", ", ".join(terms.members)),
        ("running", f"the manifest's approved code as {' or '.join(terms.roles)}"),
        ("for the jobs", ", ".join(jobs) or "none"),
        ("until", f"{terms.not_after}, end of day (UTC)"),
        ("at most", f"{terms.times} times to each member"),
    ]
    show_table("Terms of release", ("", ""), rows)


def print_status(document: Document, decisions: Decisions) -> None:
    """What is held and offered, and how often it was released."""
    say(f"The vault opens with a {document.opened_by.replace('-', ' ')}. Its log has {decisions.head.count} entries.")
    rows = [row for held in document.assets for row in _rows(held, decisions)]
    show_table("Assets", ("asset", "what", "offered as", "consortium", "released"), rows)
    for held in document.assets:
        say(f"{_short(held.asset)} is {held.asset}")


def _rows(held: Held, decisions: Decisions) -> list[tuple[str, ...]]:
    header = held.header
    what = f"{header.kind} of {header.owner}, version {header.version}{', demo' if header.demo else ''}"
    asset = Digest.parse(held.asset)
    offers = [one for one in held.offers if decisions.offered(asset, Digest.parse(one.manifest)) == one.entry]
    if not offers:
        return [(_short(held.asset), what, "nothing", "", "")]
    return [
        (
            _short(held.asset),
            what,
            one.name,
            f"{one.consortium[:8]}, epoch {one.epoch}",
            ", ".join(f"{member} {count}" for member, count in decisions.counts(held.asset, one.manifest)) or "never",
        )
        for one in offers
    ]


def print_log(entries: Sequence[Entry], *, json: bool) -> None:
    """The log, as JSON lines or for people."""
    if json:
        for entry in entries:
            say(entry.to_bytes().decode())
        return
    columns = ("entry", "time (UTC)", "event", "asset", "member", "run", "manifest", "why")
    rows = [_row(entry) for entry in entries]
    used = [at for at in range(len(columns)) if any(row[at] for row in rows)]
    show_table("", [columns[at] for at in used], [[row[at] for at in used] for row in rows])


def _row(entry: Entry) -> tuple[str, ...]:
    when = datetime.fromtimestamp(entry.time, UTC).strftime("%Y-%m-%d %H:%M:%S")
    run = f"{entry.run}, attempt {entry.attempt}" if entry.run is not None else ""
    why = entry.code or ""
    if entry.event == "restore":
        why = f"{entry.charged} releases missing" if entry.charged is not None else "unknown how many are missing"
    return (
        str(entry.number),
        when,
        entry.event,
        _short(entry.asset),
        entry.member or "",
        run,
        _short(entry.manifest),
        why,
    )


def _short(digest: str | None) -> str:
    return digest.removeprefix("sha256:")[:12] if digest is not None else ""


def print_missing(missing: Missing) -> None:
    """What a restored broker does not know, and what follows."""
    if missing.nothing:
        say("Nothing is missing: the log is the newest. The broker can start.")
    elif missing.entries is None:
        say("Nobody knows what is missing: all releases count as used up, in every epoch until now.")
    else:
        say(f"Entries of the log that are missing: up to {missing.entries}. Releases among them: {missing.releases}.")
        if missing.releases:
            say("Each of these releases counts for every asset and every member.")
    if not missing.nothing:
        say("Nothing is offered any more: offer each asset anew. Counts begin again with the next epoch.")
