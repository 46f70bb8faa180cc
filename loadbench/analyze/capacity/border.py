"""Where the border between loads that meet an objective and loads that do not is likely to be.

The share of hits at a load is taken as a logistic curve in the logarithm of the load, `logit(p0) - b ln(load/m)`, that
comes down to the share asked for at the border m, with a steepness b. Of what m and b may be, on a grid of both, hits
and misses say how likely each is: the posterior. Every border is as likely beforehand. The curve is a guide only: by it
the search chooses where a proof is worth its time, and the best estimate is its median. The range is proven without it
(`loadbench.analyze.capacity.sequential`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    Values = np.ndarray[Any, np.dtype[np.float64]]

# Steepness, and how usual it is: queues that people can bear come down by 3 to 10, memory that runs out by more.
_STEEPNESS = {1.5: 1.0, 2.5: 2.0, 4.0: 3.0, 6.0: 3.0, 9.0: 2.0, 14.0: 1.0, 30.0: 0.5, 80.0: 0.25}
_BORDERS = 240
# A proof is tried where it is likely to succeed in its time with this probability.
_LIKELY = 0.7
# What proofs take beyond the best bet in hindsight, as a logarithm: one does not know which bet is best.
_LEARNING = 1.2


class LoadPoint(NamedTuple):
    """Hits and misses at a load, in independent requests."""

    amount: float
    hits: float
    misses: float


class FittedBorder:
    """The posterior of one objective's border, that asks for a share p0, between two loads."""

    def __init__(self, points: Sequence[LoadPoint], p0: float, *, least: float, most: float) -> None:
        self._asked = math.log(p0 / (1 - p0))
        self._p0 = p0
        # Beyond either end by half: the border may lie outside.
        self._log_m = np.linspace(math.log(least / 1.5), math.log(most * 1.5), _BORDERS)
        self._b = np.array(list(_STEEPNESS))
        logs = np.zeros((_BORDERS, len(_STEEPNESS))) + np.log(list(_STEEPNESS.values()))[None, :]
        for point in points:
            z = self._logits(point.amount)
            logs -= point.hits * np.logaddexp(0, -z) + point.misses * np.logaddexp(0, z)
        weights = np.exp(logs - logs.max())
        self._weights = weights / weights.sum()

    def _logits(self, amount: float) -> Values:
        logits: Values = self._asked - self._b[None, :] * (math.log(amount) - self._log_m[:, None])
        return logits

    def median(self) -> float:
        """The load at which the border is as likely to lie below as above."""
        below = np.cumsum(self._weights.sum(axis=1))
        return float(math.exp(self._log_m[int(np.searchsorted(below, 0.5))]))

    def share(self, amount: float) -> float:
        """The share of hits to be expected at a load."""
        return float((self._weights / (1 + np.exp(-self._logits(amount)))).sum())

    def share_interval(self, amount: float, confidence: float) -> tuple[float, float]:
        """Where that share lies, with this probability."""
        shares = (1 / (1 + np.exp(-self._logits(amount)))).ravel()
        order = np.argsort(shares)
        below = np.cumsum(self._weights.ravel()[order])
        tail = (1 - confidence) / 2
        low, high = np.searchsorted(below, [tail, 1 - tail]).clip(max=len(order) - 1)
        return float(shares[order[low]]), float(shares[order[high]])

    def proof_chance(self, amount: float, *, requests: float, evidence: float, passes: bool) -> float:
        """How likely so many independent requests at a load are to prove that it passes, or fails, where that takes so
        much evidence, as a logarithm."""
        share = provable_share(self._p0, (evidence + _LEARNING) / max(requests, 1e-9), above=passes)
        if share is None:
            return 0.0
        bound = math.inf if share >= 1 else math.log(share / (1 - share)) if share > 0 else -math.inf
        logits = self._logits(amount)
        return float(self._weights[(logits >= bound) if passes else (logits <= bound)].sum())


def provable_share(p0: float, gain: float, *, above: bool) -> float | None:
    """The share nearest to p0 of which each request tells so much: KL(share, p0) = gain. `None` where none does."""
    low, high = (p0, 1 - 1e-9) if above else (p0, 1e-9)
    if divergence(high, p0) < gain:
        return None
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if divergence(middle, p0) >= gain else (middle, high)
    return high


def divergence(share: float, p0: float) -> float:
    """KL(share, p0), what a request tells against p0 on average, by the best bet."""
    found = 0.0
    if share > 0:
        found += share * math.log(share / p0)
    if share < 1:
        found += (1 - share) * math.log((1 - share) / (1 - p0))
    return found


def aim(
    borders: Sequence[FittedBorder], loads: Sequence[tuple[float, float]], *, evidence: float, passes: bool
) -> float | None:
    """The load nearest to the border that is likely to be proven in time; of none so, the likeliest of all.

    `loads` are (load, independent requests that there is time for), ascending. `None` where no load has any chance.
    """
    best, chance = None, 0.0
    for amount, requests in reversed(loads) if passes else loads:
        chances = [one.proof_chance(amount, requests=requests, evidence=evidence, passes=passes) for one in borders]
        likely = min(chances) if passes else max(chances)
        if likely >= _LIKELY:
            return amount
        if likely > chance:
            best, chance = amount, likely
    return best
