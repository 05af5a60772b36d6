"""What the members' commands share: options, reading of documents, and how they show things."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from participants.drafting import read_toml
from superswarm.consortium.approval import (
    CHAIN_FORMAT,
    SIGNED_FORMAT,
    ApprovedManifest,
    SignedManifest,
    approve,
    parse_chain,
)
from superswarm.consortium.documents import load_json
from superswarm.consortium.manifest import Job, Manifest
from superswarm.crypto.hpke import PREFIX as KEM_PREFIX
from superswarm.crypto.hpke import KemPublicKey
from superswarm.crypto.signing import PREFIX as SIGNING_PREFIX
from superswarm.crypto.signing import VerifyingKey
from superswarm.errors import Error, Misconfigured
from superswarm.io.console import messages, output
from superswarm.io.files import read_bytes, write_bytes
from superswarm.io.keystore import MemberKeys, load_keys, read_passphrase
from superswarm.values import LIMITS, SIMULATED_WARNING

KeysFile = Annotated[Path, typer.Option("--keys", help="Your key file, made by `superswarm keys new`.")]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        help="File whose first line is the passphrase. Otherwise SUPERSWARM_PASSPHRASE, or you are asked.",
        show_default=False,
    ),
]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="File to write.", show_default=False)]
Force = Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before signing.")]
Consortium = Annotated[
    Path,
    typer.Option(
        "--consortium", "-c", help="The consortium's approved file, written by `superswarm manifest combine`."
    ),
]
After = Annotated[
    Path | None,
    typer.Option(
        "--after",
        help="The consortium's approved file so far. Needed from epoch 2 on.",
        show_default=False,
    ),
]


def say(text: str, *, style: str = "") -> None:
    """One line on standard output. Never read as markup: names come from other people's files."""
    output().print(Text(text, style=style))


def remark(text: str) -> None:
    """One line on standard error: not what was asked for, but good to know."""
    messages().print(Text(text))


def show_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(title=Text(title), title_justify="left", title_style="bold", show_header=any(columns))
    for column in columns:
        table.add_column(Text(column), overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    output().print(table)


def say_simulated() -> None:
    """Loudly, whatever the logs do: somebody is about to decide something."""
    messages().print(Text(SIMULATED_WARNING, style="bold red"))


def warn_if_simulated(manifest: Manifest) -> None:
    if manifest.simulated:
        say_simulated()


def read_manifest(path: Path) -> Manifest:
    """A manifest from TOML, or the last epoch of a signed document. Proves nothing."""
    return read_signed(path)[-1].manifest


def read_signed(path: Path) -> tuple[SignedManifest, ...]:
    """The epochs in a file with what signatures they bear: none in TOML. Proves nothing."""
    raw = read_bytes(path, limit=LIMITS.chain_bytes)
    try:
        if not raw.lstrip().startswith(b"{"):
            return (SignedManifest(read_toml(raw)),)
        if load_json(raw, "file", limit=LIMITS.chain_bytes).get("format") in (SIGNED_FORMAT, CHAIN_FORMAT):
            return parse_chain(raw)
        return (SignedManifest(Manifest.from_json(raw)),)
    except Error as error:
        raise _within(path, error) from None


def read_consortium(path: Path) -> tuple[tuple[SignedManifest, ...], ApprovedManifest]:
    """A consortium's epochs, all of them approved."""
    chain = read_signed(path)
    try:
        return chain, approve(chain)
    except Error as error:
        raise _within(path, error) from None


def read_epoch(path: Path, epoch: int) -> tuple[ApprovedManifest, ApprovedManifest]:
    """One epoch of a consortium, and the newest in its file; all of them approved."""
    chain, newest = read_consortium(path)
    if epoch > len(chain):
        raise Misconfigured(f"{path} ends with epoch {len(chain)}, and epoch {epoch} is needed: get the newer file")
    return approve(chain[:epoch]), newest


def require_key(keys: MemberKeys, manifest: ApprovedManifest) -> None:
    """Raise Misconfigured unless the manifest lists this signing key for the member."""
    epoch = manifest.manifest.epoch
    if manifest.manifest.member(keys.member) is None:
        raise Misconfigured(f"{keys.member} is no member under epoch {epoch}")
    if manifest.verifying_key(keys.member) != keys.signing.public:
        raise Misconfigured(
            f"epoch {epoch} lists another key for {keys.member}: use the key file that belongs to that epoch"
        )


def read_before(after: Path | None, manifest: Manifest) -> tuple[tuple[SignedManifest, ...], ApprovedManifest | None]:
    """The epochs before this manifest; none before the first."""
    if manifest.epoch == 1:
        if after is not None:
            raise Misconfigured("this is the first epoch, which follows no other: leave --after away")
        return (), None
    if after is None:
        raise Misconfigured(
            f"this is epoch {manifest.epoch}: give the consortium's approved file so far with --after, "
            "since who must sign depends on it"
        )
    return read_consortium(after)


def _within(path: Path, error: Error) -> Error:
    """The same error, saying which file."""
    try:
        return type(error)(f"{path}: {error}")
    except TypeError:
        return error


def open_keys(path: Path, passphrase_file: Path | None) -> MemberKeys:
    return load_keys(path, read_passphrase(passphrase_file))


def write_out(path: Path, data: bytes, *, force: bool) -> None:
    write_bytes(path, data, replace=force)
    say(f"wrote {path}")


def readable(value: Any) -> str:
    """A value for people. Digests are never cut, since who compares only a beginning can be fooled."""
    if isinstance(value, list):
        return ", ".join(map(readable, value))
    text = str(value)
    for prefix, key in ((SIGNING_PREFIX, VerifyingKey), (KEM_PREFIX, KemPublicKey)):
        if text.startswith(prefix):
            return f"fingerprint {key.parse(text).digest}"
    return text


def flatten(data: Mapping[str, Any], path: str = "") -> dict[str, str]:
    """Leaves of a manifest by their dotted names; members by id and assets by name, not by position."""
    leaves: dict[str, str] = {}
    for key, value in data.items():
        where = f"{path}.{key}" if path else key
        if isinstance(value, dict):
            leaves |= flatten(value, where)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for entry in value:
                leaves |= flatten(entry, f"{where}.{entry.get('id') or entry.get('name')}")
        else:
            leaves[where] = readable(value)
    return leaves


def choose_job(manifest: Manifest, name: str | None) -> Job:
    """The job of this name, or the only one. Misconfigured where that is not clear."""
    names = ", ".join(job.name for job in manifest.jobs)
    if name is None and len(manifest.jobs) > 1:
        raise Misconfigured(f"the manifest has several jobs ({names}): say which with --job")
    job = manifest.jobs[0] if name is None else manifest.job(name)
    if job is None:
        raise Misconfigured(f"the manifest has no job {name}; it has {names}")
    return job
