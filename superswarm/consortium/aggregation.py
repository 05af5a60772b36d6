"""How updates become the next global adapter."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from superswarm.consortium.clause import Clause, Count


class Aggregation(Clause):
    """How updates become the next global adapter."""

    rule: Literal["fedavg"]  # weighted mean (arXiv:1602.05629); more rules come with their modes
    weighting: Literal["examples", "equal"]
    minimum_cohort: Count  # members whose updates a round needs
    round_seconds: Annotated[int, Field(ge=1, le=30 * 86_400)]  # a round closes then with those that answered
