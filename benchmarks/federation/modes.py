"""The manifest's tables for each protection mode: what `benchmarks.overhead --mode` compares with plain Flower."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

MODES: Final = ("attested", "masked", "he")
KEY_HOLDERS: Final = 3


def protected(
    tables: Mapping[str, Any], mode: str, members: int, *, clip_norm: float, max_weight: int
) -> dict[str, Any]:
    """`tables` with this mode's protection. Nobody colludes and nobody may vanish: all members are waited for."""
    protection: dict[str, Any] = {"mode": mode}
    if mode != "attested":
        protection["encoding"] = {"clip_norm": clip_norm, "max_weight": max_weight}
        agreement = {"threshold": members // 2 + 1, "colluders": 0, "dropouts": 0}
        if mode == "masked":
            protection["masking"] = agreement
        else:
            protection["homomorphic"] = {**agreement, "key_holders": KEY_HOLDERS}
    return {**tables, "protection": protection}
