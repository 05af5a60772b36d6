"""How manifests, changes and signatures are shown to people."""

from __future__ import annotations

from participants.commands.common import flatten, readable, say, show_table
from superswarm.consortium.approval import SignedManifest, Standing
from superswarm.consortium.manifest import Manifest
from superswarm.consortium.rules import CLAUSES, Requirements, changed_clauses


def print_manifest(manifest: Manifest) -> None:
    """All that a manifest says, clause by clause."""
    say(f"{manifest.name}, epoch {manifest.epoch} ({manifest.attestation} attestation)", style="bold")
    say(f"consortium  {manifest.consortium}\ndigest      {manifest.digest}")
    say(f"predecessor {manifest.predecessor or 'none: the first epoch'}\n")
    for member in manifest.members:
        say(
            f"member {member.id}: {member.name}, contributes {', '.join(member.contributes) or 'nothing'}",
            style="bold",
        )
        say(f"  signing key     {readable(member.signing_key)}")
        say(f"  encryption key  {readable(member.encryption_key)}")
        if member.development_authority:
            say(f"  authority       {member.development_authority}")
    for asset in manifest.assets:
        say(f"{asset.kind} {asset.name}: owned by {asset.owner}, from {asset.source}", style="bold")
        say(f"  digest          {asset.digest}{' (of the sealed file)' if asset.release else ''}")
        if terms := asset.release:
            say(
                f"  key released    to the {' or '.join(terms.roles)} of {', '.join(terms.members)}, {terms.times} "
                f"times each, until {terms.not_after}"
            )
    data = manifest.to_data()
    for clause in CLAUSES:
        if clause not in ("members", "assets"):
            rows = [[key.removeprefix("."), value] for key, value in flatten({"": data[clause]}).items()]
            show_table(clause.capitalize(), ["", ""], rows)


def print_changes(before: Manifest, after: Manifest) -> None:
    """What differs, value by value."""
    old, new = flatten(before.to_data()), flatten(after.to_data())
    skip = {"epoch", "predecessor"}
    names = [name for name in dict.fromkeys([*old, *new]) if name not in skip and old.get(name) != new.get(name)]
    clauses = ", ".join(changed_clauses(before, after)) or "nothing"
    rows = [[name, old.get(name, "-"), new.get(name, "-")] for name in names]
    show_table(f"Changes {clauses}", ["", f"epoch {before.epoch}", f"epoch {after.epoch}"], rows)


def print_needs(required: Requirements, members: int) -> None:
    """Who must sign, and why."""
    of = ", ".join(required.voters) if len(required.voters) <= 12 else f"the {members} members"
    say(f"\nIt needs signatures of {required.quorum} of {of}.")
    if required.must and required.quorum < len(required.voters):
        show_table("Among them in any case", ["member", "why"], [[m, "; ".join(r)] for m, r in required.must.items()])
    if required.accept:
        rows = [
            [member, f"{why}: signs with the key that this manifest gives it"]
            for member, why in required.accept.items()
        ]
        show_table("And it must be accepted by", ["member", "why"], rows)


def print_standing(manifest: Manifest, found: Standing, signed: SignedManifest) -> None:
    """Who has signed, and who is missing."""
    rows = []
    for member in found.required.voters:
        have = "signed" if member in signed.signatures else "missing" if member in found.missing else "not yet"
        rows.append([member, have, "; ".join(found.required.must.get(member, ()))])
    for member, why in found.required.accept.items():
        rows.append([member, "accepted" if member in signed.acceptances else "missing", why])
    show_table(f"Signatures on epoch {manifest.epoch}", ["member", "", "must sign because"], rows)


def describe_missing(found: Standing) -> str:
    """Whom it waits for, in one line."""
    named = [*found.missing, *(m for m in found.missing_acceptances if m not in found.missing)]
    parts = [f"it waits for {', '.join(named)}"] if named else []
    if others := max(0, found.short - len(found.missing)):
        parts.append(
            f"{others} more of the members who have not signed" if named else f"{others} more signatures are needed"
        )
    return " and ".join(parts)
