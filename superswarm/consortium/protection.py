"""How much of a single update the aggregator's TEE sees."""

from __future__ import annotations

from typing import Literal

from superswarm.consortium.clause import Clause


class Protection(Clause):
    mode: Literal["attested"]
