"""Users who give up: a share of the requests, and how long their users wait before they disconnect.

Queueing theory calls it reneging. Which users are impatient, and how impatient, is drawn by seed, level and number: it
does not depend on how long anything takes, nor on which worker sends the request.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadbench.core.units import parse_duration
from loadbench.plan.distribution import parse_distribution

if TYPE_CHECKING:
    from loadbench.plan.distribution import Distribution

# What comes before a patience that ends with the first token.
_FIRST = "first:"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one user waits, from when the request was due: for the whole response, or for its first token only."""

    within_ns: int
    first_token: bool = False


@dataclass(frozen=True, slots=True)
class Abandonment:
    """`share` of the requests have a user whose patience is drawn from `wait`, in ns."""

    share: float
    wait: Distribution
    first_token: bool = False

    def patience(self, key: str, number: int) -> Patience | None:
        """The patience of the user of request `number` of a level; `None`: the user waits as long as it takes."""
        rng = random.Random(f"{key}/{number}/abandon")
        if rng.random() >= self.share:
            return None
        return Patience(max(1, round(self.wait.sample(rng))), self.first_token)

    def __str__(self) -> str:
        return f"{100 * self.share:.6g}%@{_FIRST if self.first_token else ''}{self.wait}"


def parse_abandonment(text: str, *, share: float) -> Abandonment:
    """Users who give up; `text` is their patience, such as `2s`, `first:2s` or `lognormal:4s,0.5`.

    Raises `ValueError` with the reason.
    """
    patience = text.strip()
    first_token = patience.lower().startswith(_FIRST)
    wait = parse_distribution(patience[len(_FIRST) :] if first_token else patience, parse_value=parse_duration)
    if wait.mean <= 0:
        raise ValueError("with a patience of 0 no response could begin; write a duration above zero")
    return Abandonment(share, wait, first_token)
