"""`superswarm keys`: make a member's keys, and show what others may see of them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from participants.commands.common import (
    Consortium,
    PassphraseFile,
    open_keys,
    read_consortium,
    remark,
    require_key,
    say,
    say_simulated,
)
from participants.drafting import member_toml
from superswarm.consortium.manifest import Member
from superswarm.errors import Misconfigured
from superswarm.io.files import SECRET, write_bytes
from superswarm.io.keystore import (
    MemberKeys,
    carry_record,
    open_file,
    read_passphrase,
    save_keys,
    save_pairing,
    seal_file,
    signing_record,
)
from superswarm.values import LIMITS, Digest

AUTHORITY = "a development authority"

app = typer.Typer(
    help="Make a member's keys, and show what others may see of them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Contributes = Annotated[
    list[str],
    typer.Option(
        help="What the member brings: data, model or hosting. Once for each.", show_default=False, metavar="KIND"
    ),
]
Name = Annotated[str, typer.Option(help="The member's name, for people.")]
AuthorityDigest = Annotated[
    str | None,
    typer.Option(
        "--authority",
        help="Only for simulated attestation: digest of the member's development authority (`keys authority`).",
        show_default=False,
    ),
]


@app.command()
def new(
    member: Annotated[str, typer.Argument(help="The member's id: lower-case letters, digits and hyphens.")],
    *,
    name: Name,
    contributes: Contributes,
    authority: AuthorityDigest = None,
    folder: Annotated[Path, typer.Option(help="Where to write the files.")] = Path(),
    passphrase_file: PassphraseFile = None,
) -> None:
    """Make a member's keys. Writes three files, and overwrites none.

    MEMBER.keys (secret, encrypted under a passphrase) signs and reads for the member. Keep it on the member's own
    premises, with a copy in a safe: a member that loses it must leave and join again, and one that owns an asset
    cannot even leave.

    MEMBER.pairing (secret) goes to the member's trainer: by it the node knows its own trainer.

    MEMBER.member.toml (public) goes to whoever writes the manifest.
    """
    keys = MemberKeys.generate(member)
    card = _card(keys, name, contributes, authority)
    files = [folder / f"{member}.{suffix}" for suffix in ("keys", "pairing", "member.toml")]
    for file in files:
        if file.exists():
            raise Misconfigured(f"{file} exists already: keys are never overwritten")
    save_keys(files[0], keys, read_passphrase(passphrase_file, new=True))
    save_pairing(files[1], keys.pairing)
    write_bytes(files[2], f"{member_toml(card)}\n".encode())
    say(f"wrote {files[0]}  (secret, encrypted: keep it, and a copy of it, in a safe place)")
    say(f"wrote {files[1]}  (secret: for this member's trainer only)")
    say(f"wrote {files[2]}  (public: send it to whoever writes the manifest)")
    say(f"fingerprint {keys.signing.public.digest}")
    remark("Tell the others the fingerprint by another way than the file, so that nobody swaps it for another.")


@app.command()
def show(
    keys_file: Annotated[Path, typer.Argument(help="The member's key file.", metavar="KEYS")],
    *,
    name: Name,
    contributes: Contributes,
    authority: AuthorityDigest = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Print the public half of a key file, as the table that the manifest has of each member."""
    keys = open_keys(keys_file, passphrase_file)
    say(member_toml(_card(keys, name, contributes, authority)))
    remark(f"fingerprint {keys.signing.public.digest}")


@app.command()
def rotate(
    keys_file: Annotated[Path, typer.Argument(help="The member's key file so far.", metavar="KEYS")],
    *,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="New key file; its .pairing and .member.toml are written beside it.")
    ],
    consortium: Consortium,
    passphrase_file: PassphraseFile = None,
    new_passphrase_file: Annotated[
        Path | None,
        typer.Option(help="File with the new key file's passphrase. The same one by default.", show_default=False),
    ] = None,
) -> None:
    """Make new keys for a member that has some: for signing, for encryption, and for pairing with its trainer.

    They count from the epoch on that lists them, which the old keys sign and the new ones accept. What was signed is
    remembered for both. Keep the old file: results and shares that were sealed to it open with it only.
    """
    old = open_keys(keys_file, passphrase_file)
    _, current = read_consortium(consortium)
    require_key(old, current)
    entry = current.manifest.member(old.member)
    assert entry is not None  # noqa: S101 - require_key says so
    new = MemberKeys.generate(old.member)
    fresh = {"signing_key": str(new.signing.public), "encryption_key": str(new.kem.public)}
    card = Member.from_data(entry.model_dump(mode="json", exclude_none=True) | fresh)
    public, pairing = out.with_suffix(".member.toml"), out.with_suffix(".pairing")
    for file in (out, pairing, public, signing_record(out)):
        if file.exists():
            raise Misconfigured(f"{file} exists already: keys are never overwritten")
    passphrase = read_passphrase(new_passphrase_file or passphrase_file, new=True)
    carry_record(keys_file, out)
    save_keys(out, new, passphrase)
    save_pairing(pairing, new.pairing)
    write_bytes(public, f"{member_toml(card)}\n".encode())
    say(f"wrote {out}  (secret, encrypted: keep it, and a copy of it, in a safe place)")
    say(f"wrote {pairing}  (secret: for this member's trainer only, once the new epoch is approved)")
    say(f"wrote {public}  (public: send it to whoever writes the next epoch)")
    say(f"fingerprint {new.signing.public.digest}")
    for step in ROTATION:
        remark(step.format(old=keys_file, new=out, card=public, pairing=pairing, consortium=consortium))


ROTATION = (
    "next, to make the new keys count:",
    "  1. superswarm manifest init --after {consortium} --out next.toml",
    "  2. superswarm manifest draft next.toml --member {card}",
    "  3. superswarm manifest sign next.toml --after {consortium} --keys {old}  (the others sign, too)",
    "  4. superswarm manifest sign next.toml --after {consortium} --keys {new} --out accepts.signed.json",
    "  5. superswarm manifest combine ... --after {consortium} --out NEW-CONSORTIUM-FILE",
    "  6. give the node {new}, the trainer {pairing}, and all programs the new consortium's file; restart them",
    "Keep {old}, {old}.signed and {old}.releases: older results open, and are released, with the old keys only.",
)


def _card(keys: MemberKeys, name: str, contributes: list[str], authority: str | None) -> Member:
    if authority is not None:
        Digest.parse(authority)
    data = {
        "id": keys.member,
        "name": name,
        "contributes": contributes,
        "signing_key": str(keys.signing.public),
        "encryption_key": str(keys.kem.public),
    }
    return Member.from_data(data | ({"development_authority": authority} if authority else {}))


@app.command()
def authority(
    out: Annotated[Path, typer.Argument(help="File to write: secret, encrypted.", metavar="FILE")],
    *,
    show_only: Annotated[bool, typer.Option("--show", help="Print the digest of an authority made earlier.")] = False,
    passphrase_file: PassphraseFile = None,
) -> None:
    """SIMULATED ONLY: make a development authority, which plays the vendor of your TEE hardware.

    Its digest goes into the manifest, as the member's (or the coordinator's) development_authority. Each member, and
    the coordinator, makes one of its own. Evidence under it protects nothing.
    """
    from superswarm.attestation.simulated import DevelopmentAuthority

    if show_only:
        made = DevelopmentAuthority.parse(open_file(out, read_passphrase(passphrase_file), purpose=AUTHORITY))
    else:
        made = DevelopmentAuthority.create(at=_a_little_ago())
        seal_file(out, made.to_bytes(), read_passphrase(passphrase_file, new=True), purpose=AUTHORITY)
        remark(f"wrote {out}  (secret, encrypted)")
        say_simulated()
    say(str(made.spki_digest))


@app.command()
def platform(
    out: Annotated[Path, typer.Argument(help="File to write: secret, for one simulated machine.", metavar="FILE")],
    *,
    authority_file: Annotated[
        Path, typer.Option("--authority", help="The authority's file, made by `superswarm keys authority`.")
    ],
    days: Annotated[int, typer.Option(help="How long the credentials are valid.", min=1, max=3650)] = 30,
    passphrase_file: PassphraseFile = None,
) -> None:
    """SIMULATED ONLY: make the credentials of one simulated machine, for a trainer or an aggregator.

    They play the key that real TEE hardware has inside, and start with the program: the file is not encrypted.
    Whoever holds it can mint evidence for any code.
    """
    from superswarm.attestation.simulated import DevelopmentAuthority

    made = DevelopmentAuthority.parse(open_file(authority_file, read_passphrase(passphrase_file), purpose=AUTHORITY))
    write_bytes(out, made.issue(at=_a_little_ago(), valid_days=days).to_bytes(), mode=SECRET)
    say(f"wrote {out}  (secret: for one simulated machine)")
    say_simulated()


def _a_little_ago() -> int:
    """Members' clocks differ, and certificates should be valid by all of them. Unix seconds."""
    return int(time.time()) - LIMITS.clock_skew_seconds
