"""Writing manifests for people, and filling in templates as text, so that comments survive. Decides nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from participants.templates import PLACEHOLDER
from superswarm.consortium.manifest import Asset, Manifest, Member, Quorum, load_toml
from superswarm.errors import Malformed, Misconfigured

HEADER = re.compile(r"\s*\[\[?\s*([A-Za-z0-9_.-]+)\s*\]\]?\s*(#.*)?")
SETTING = re.compile(r"(?P<key>[A-Za-z0-9_-]+)(?P<equals>\s*=\s*)(?P<value>.*?)(?P<comment>\s+#[^\"']*)?")


def open_places(data: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Every value that a template left open, as (where, what belongs there)."""
    if isinstance(data, str) and data.startswith(PLACEHOLDER):
        yield path, data.removeprefix(PLACEHOLDER)
    elif isinstance(data, dict):
        for key, value in data.items():
            yield from open_places(value, f"{path}.{key}" if path else key)
    elif isinstance(data, list):
        for at, value in enumerate(data, 1):
            yield from open_places(value, f"{path} {at}" if isinstance(value, dict) else path)


def read_toml(text: str | bytes) -> Manifest:
    """Read a manifest that people wrote. A template that is not filled in is refused by what is missing."""
    data = load_toml(text)
    missing = "\n".join(f"  {where}: {what}" for where, what in open_places(data))
    if missing:
        raise Malformed(f"the manifest is not filled in yet:\n{missing}")
    return Manifest.from_data(data)


def fill(text: str, values: Mapping[tuple[str, str], Any]) -> str:
    """Set (table, key) to values, keeping everything else; the top of the file is the table ""."""
    lines, table = [], ""
    for line in text.splitlines():
        if header := HEADER.fullmatch(line):
            table = header[1]
        setting = SETTING.fullmatch(line)
        if setting and (place := (table, setting["key"])) in values:
            lines.append(f"{place[1]}{setting['equals']}{toml_value(values[place])}{setting['comment'] or ''}")
        else:
            lines.append(line)
    filled = "\n".join(lines) + "\n"
    _require(filled, values)
    return filled


def _require(filled: str, values: Mapping[tuple[str, str], Any]) -> None:
    """Hold what was filled in against what the file now says: people may have written it in another way."""
    try:
        data = load_toml(filled)
    except Malformed:
        data = {}
    for (table, key), value in values.items():
        node: Any = data
        for name in filter(None, table.split(".")):
            node = node.get(name, {}) if isinstance(node, dict) else {}
            node = node[0] if isinstance(node, list) and node else node
        if not isinstance(node, dict) or node.get(key) != value:
            where = f"{table}.{key}".strip(".")
            raise Misconfigured(f"{where} is not on one line of its own in this file: set it by hand to {value!r}")


def set_members(text: str, cards: Sequence[Member]) -> str:
    """Put members' tables in place of those with the same ids, then of tables that are still open, then behind."""
    return _set_entries(text, "members", "id", {card.id: member_toml(card) for card in cards})


def set_assets(text: str, cards: Sequence[Asset]) -> str:
    """Put assets' tables in place of those with the same names, then of tables that are still open, then behind."""
    return _set_entries(text, "assets", "name", {card.name: asset_toml(card) for card in cards})


def _set_entries(text: str, table: str, key: str, cards: Mapping[str, str]) -> str:
    lines = text.splitlines()
    tables = list(_entry_tables(lines, table))
    if not tables:
        raise Misconfigured(f"this file has no [[{table}]] table: add the {table} by hand")
    entries = [load_toml("\n".join(lines[start:stop]))[table][0] for start, stop in tables]
    named = {entry.get(key): at for at, entry in enumerate(entries)}
    free = iter([at for at, entry in enumerate(entries) if any(open_places(entry)) and entry.get(key) not in cards])
    blocks = {}
    behind = []
    for name, card in cards.items():
        at = named[name] if name in named else next(free, None)
        if at is None:
            behind.append(card)
        else:
            blocks[at] = card
    out = []
    for at, (start, stop) in enumerate(tables):
        out += lines[tables[at - 1][1] if at else 0 : start]
        out.append(blocks.get(at, "\n".join(lines[start:stop])))
    return "\n".join([*out, *("\n" + block for block in behind), *lines[tables[-1][1] :]]) + "\n"


def _entry_tables(lines: Sequence[str], table: str) -> Iterator[tuple[int, int]]:
    """First line and end of each [[table]] with its sub-tables, without the comments that follow it."""
    start = None
    end = 0
    for at, line in enumerate([*lines, "[end]"]):
        header = HEADER.fullmatch(line)
        if header and not header[1].startswith(f"{table}."):
            if start is not None:
                yield start, end
            start = at if header[1] == table else None
        if line.strip() and not line.lstrip().startswith("#"):
            end = at + 1


def fit_quorums(text: str) -> tuple[str, list[str]]:
    """Bring quorums that the number of members no longer allows to the nearest that it does; say which."""
    data = load_toml(text)
    n = len(data.get("members", []))
    quorum = data.get("quorum")
    if not isinstance(quorum, dict):
        return text, []
    wrong = {
        clause: max(n // 2 + 1, min(n, value))
        for clause, value in quorum.items()
        if clause in Quorum.model_fields and isinstance(value, int) and not n // 2 < value <= n
    }
    notes = [f"quorum.{clause}: {quorum[clause]} → {value} of {n}" for clause, value in wrong.items()]
    return fill(text, {("quorum", clause): value for clause, value in wrong.items()}), notes


def read_card(text: bytes) -> Member:
    """Read a member's public file: one [[members]] table. Proves nothing but that somebody wrote it."""
    data = load_toml(text)
    entries = data.get("members")
    if data.keys() != {"members"} or not isinstance(entries, list) or len(entries) != 1:
        raise Malformed("not a member's public file: it holds one [[members]] table and nothing else")
    if missing := [f"{where}: {what}" for where, what in open_places(entries[0])]:
        raise Malformed(f"the member's public file is not filled in: {'; '.join(missing)}")
    return Member.from_data(entries[0])


def read_asset_card(text: bytes) -> Asset:
    """Read an asset's public file: one [[assets]] table. Proves nothing but that somebody wrote it."""
    data = load_toml(text)
    entries = data.get("assets")
    if data.keys() != {"assets"} or not isinstance(entries, list) or len(entries) != 1:
        raise Malformed("not an asset's public file: it holds one [[assets]] table and nothing else")
    return Asset.from_data(entries[0])


def asset_toml(asset: Asset) -> str:
    """An asset's [[assets]] table."""
    return to_toml({"assets": [asset.model_dump(mode="json", exclude_none=True)]}).strip()


def member_toml(member: Member) -> str:
    """A member's [[members]] table."""
    data = member.model_dump(mode="json", exclude_none=True)
    return "\n".join(["[[members]]", *(f"{key} = {toml_value(value)}" for key, value in data.items())])


def to_toml(manifest_data: Mapping[str, Any]) -> str:
    """A manifest as TOML, without comments."""
    return "\n".join(_table(manifest_data, "")).lstrip("\n") + "\n"


def _table(data: Mapping[str, Any], path: str) -> Iterator[str]:
    for key, value in data.items():
        if not _is_table(value):
            yield f"{key} = {toml_value(value)}"
    for key, value in data.items():
        where = f"{path}.{key}".strip(".")
        if isinstance(value, dict):
            yield f"\n[{where}]"
            yield from _table(value, where)
        elif _is_table(value):
            for entry in value:
                yield f"\n[[{where}]]"
                yield from _table(entry, where)


def _is_table(value: object) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def toml_value(value: object) -> str:
    """A text, number, or list of them. JSON's way of writing them is TOML's, as long as texts are printable."""
    return json.dumps(value, ensure_ascii=False)
