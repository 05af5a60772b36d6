"""Documents that members send each other as files: strict to read, canonical (RFC 8785) to write.

Parsing proves nothing. Whatever the bytes, only Malformed or TooLarge is raised.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any

import rfc8785
from pydantic import ValidationError

from superswarm.crypto.signing import SIGNATURE_BYTES
from superswarm.errors import Malformed, TooLarge
from superswarm.values import LIMITS, MEMBER_ID, MemberId

FAULTS_SHOWN = 50
FAULTS_COUNTED = 5_000  # more than this is not a manifest with mistakes, but something else
ENTRIES = 4096  # of one list or table: as many assets as a manifest may have
DEPTH = 16


def load_json(raw: bytes, what: str, *, limit: int = LIMITS.document_bytes) -> dict[str, Any]:
    """Parse a JSON object; Malformed for anything else, duplicate names included; TooLarge over `limit` bytes."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        data = dict(pairs)
        if len(data) != len(pairs):
            raise Malformed(f"the {what} names a field twice")
        return data

    require_size(raw, what, limit)
    try:
        data = json.loads(raw, object_pairs_hook=unique)
    except (ValueError, RecursionError):
        raise Malformed(f"the {what} is not JSON") from None
    if not isinstance(data, dict):
        raise Malformed(f"the {what} is not a JSON object")
    return data


def dump_json(data: dict[str, Any]) -> bytes:
    """Canonical JSON (RFC 8785)."""
    return rfc8785.dumps(data)


def require_size(raw: bytes, what: str, limit: int) -> None:
    if len(raw) > limit:
        raise TooLarge(f"the {what} has {len(raw)} bytes; the limit is {limit}")


def require_bounded(data: object, what: str, depth: int = 0) -> None:
    """Refuse data whose faults alone would fill the memory: each is worth hundreds of bytes once it is described."""
    if depth > DEPTH or (isinstance(data, list | dict) and len(data) > ENTRIES):
        raise TooLarge(f"the {what} holds a list of more than {ENTRIES} entries, or nests deeper than {DEPTH}")
    for value in data.values() if isinstance(data, dict) else data if isinstance(data, list) else ():
        require_bounded(value, what, depth + 1)


def require_fields(data: dict[str, Any], what: str, format_: str, names: set[str]) -> None:
    """Refuse a document of another format, or one with a field missing or unknown."""
    if data.get("format") != format_:
        raise Malformed(f"the {what} does not say format {format_}")
    if data.keys() != {"format", *names}:
        raise Malformed(f"the {what} has exactly the fields format, {', '.join(sorted(names))}")


def signatures_to_json(signatures: Mapping[MemberId, bytes]) -> dict[str, str]:
    return {member: base64.b64encode(raw).decode() for member, raw in sorted(signatures.items())}


def signatures_from_json(data: object, what: str) -> dict[MemberId, bytes]:
    """Read a table of member to base64. What the signatures are worth, only their verifier says."""
    if not isinstance(data, dict) or len(data) > LIMITS.members:
        raise Malformed(f"the {what} does not hold a table of at most {LIMITS.members} signatures")
    signatures = {}
    for member, text in data.items():
        if not MEMBER_ID.fullmatch(member) or not isinstance(text, str) or len(text) > 2 * SIGNATURE_BYTES:
            raise Malformed(f"the {what} holds something that is not a member's signature")
        signatures[MemberId(member)] = decode_base64(text, what)
    return signatures


def decode_base64(text: str, what: str) -> bytes:
    """Decode base64 written in the one canonical way."""
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        raise Malformed(f"the {what} holds a text that is not base64") from None
    if base64.b64encode(raw).decode() != text:
        raise Malformed(f"the {what} holds base64 that is not canonical")
    return raw


def describe(error: ValidationError) -> str:
    """Pydantic's faults as lines `table.field: what is wrong`, without the offending values."""
    if error.error_count() > FAULTS_COUNTED:
        return f"  {error.error_count()} fields are wrong or unknown"
    lines: list[str] = []
    for fault in error.errors(include_url=False, include_input=False, include_context=False):
        where = ".".join(_plain(part) for part in fault["loc"]) or "manifest"
        if fault["type"] == "too_short" and any(line.startswith(f"  {where}.") for line in lines):
            continue  # pydantic counts only what is right
        lines += [f"  {where}: {what}" for what in _what(fault["type"], fault["msg"]).split("\n")]
    if len(lines) > FAULTS_SHOWN:
        lines[FAULTS_SHOWN:] = [f"  and {len(lines) - FAULTS_SHOWN} more"]
    return "\n".join(lines)


def _what(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "unknown field"
    if kind == "string_pattern_mismatch" and MEMBER_ID.pattern in message:
        return "must be 1 to 32 lower-case letters, digits and hyphens, with no hyphen at either end"
    return message.removeprefix("Value error, ")


def _plain(part: object) -> str:
    """A field's name as far as it is safe on a terminal: an unknown one is whatever the file says."""
    text = str(part)
    return text if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", text) else ascii(text[:64])
