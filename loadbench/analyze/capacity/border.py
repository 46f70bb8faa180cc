"""Estimates the border: the load at which an objective's share of hits falls to the required share.

The share of hits is modelled as a logistic curve in the logarithm of the load, `logit(p0) - b ln(load/m)`. It equals
the required share p0 at the border m and has the steepness b. The likelihood of the observed hits and misses on a grid
of m and b gives the posterior; every m is equally likely beforehand. The search uses the curve only as a guide: where a
test is worth its time, and the median as the best estimate. The range is proven without it
(`loadbench.analyze.capacity.sequential`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    Values = np.ndarray[Any, np.dtype[np.float64]]

# Steepness and its prior weight: queues of a usable server fall off with 3 to 10, exhausted memory with more.
_STEEPNESS = {1.5: 1.0, 2.5: 2.0, 4.0: 3.0, 6.0: 3.0, 9.0: 2.0, 14.0: 1.0, 30.0: 0.5, 80.0: 0.25}
_BORDERS = 240
# A test is tried where it succeeds within its time with this probability.
_LIKELY = 0.7
# Evidence that a test needs beyond the bet that is best in hindsight, as a logarithm: the best bet is not known before.
_LEARNING = 1.2


class LoadPoint(NamedTuple):
    """Hits and misses at a load, in independent requests."""

    amount: float
    hits: float
    misses: float


class FittedBorder:
    """The posterior of the border of one objective that requires a share p0, between two loads."""

    def __init__(self, points: Sequence[LoadPoint], p0: float, *, least: float, most: float) -> None:
        self._p0 = p0
        # The border may lie outside of the loads, by up to half.
        self._log_m = np.linspace(math.log(least / 1.5), math.log(most * 1.5), _BORDERS)
        self._b = np.array(list(_STEEPNESS))
        logs = np.zeros((_BORDERS, len(_STEEPNESS))) + np.log(list(_STEEPNESS.values()))[None, :]
        for point in points:
            z = self._logits(point.amount)
            logs -= point.hits * np.logaddexp(0, -z) + point.misses * np.logaddexp(0, z)
        weights = np.exp(logs - logs.max())
        self._weights = weights / weights.sum()

    def _logits(self, amount: float) -> Values:
        logits: Values = math.log(self._p0 / (1 - self._p0)) - self._b * (math.log(amount) - self._log_m[:, None])
        return logits

    def median(self) -> float:
        """The load that the border is below with probability 1/2."""
        below = np.cumsum(self._weights.sum(axis=1))
        return float(math.exp(self._log_m[int(np.searchsorted(below, 0.5))]))

    def share(self, amount: float) -> float:
        """The expected share of hits at a load."""
        return float((self._weights / (1 + np.exp(-self._logits(amount)))).sum())

    def share_interval(self, amount: float, confidence: float) -> tuple[float, float]:
        """The interval that holds this share with the given probability."""
        shares = (1 / (1 + np.exp(-self._logits(amount)))).ravel()
        order = np.argsort(shares)
        below = np.cumsum(self._weights.ravel()[order])
        tail = (1 - confidence) / 2
        low, high = np.searchsorted(below, [tail, 1 - tail]).clip(max=len(order) - 1)
        return float(shares[order[low]]), float(shares[order[high]])

    def proof_chance(self, amount: float, *, requests: float, evidence: float, passes: bool) -> float:
        """The probability that this many independent requests prove a load to pass (or to fail).

        `evidence` is the log wealth that the proof needs.
        """
        share = provable_share(self._p0, (evidence + _LEARNING) / max(requests, 1e-9), above=passes)
        if share is None:
            return 0.0
        bound = math.inf if share >= 1 else math.log(share / (1 - share)) if share > 0 else -math.inf
        logits = self._logits(amount)
        return float(self._weights[(logits >= bound) if passes else (logits <= bound)].sum())


def provable_share(p0: float, gain: float, *, above: bool) -> float | None:
    """The share nearest to p0 at which a request gives this evidence: KL(share, p0) = gain; `None` if none does."""
    low, high = (p0, 1 - 1e-9) if above else (p0, 1e-9)
    if divergence(high, p0) < gain:
        return None
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if divergence(middle, p0) >= gain else (middle, high)
    return high


def divergence(share: float, p0: float) -> float:
    """KL(share, p0): the mean evidence of a request against p0, by the best bet."""
    hits = share * math.log(share / p0) if share > 0 else 0.0
    misses = (1 - share) * math.log((1 - share) / (1 - p0)) if share < 1 else 0.0
    return hits + misses


def aim(
    borders: Sequence[FittedBorder], loads: Sequence[tuple[float, float]], *, evidence: float, passes: bool
) -> float | None:
    """The load nearest to the border where a test likely succeeds in time; else the load with the best chance.

    `loads` are (load, independent requests that there is time for), ascending. `None` where no load has a chance.
    """
    best, best_chance = None, 0.0
    for amount, requests in reversed(loads) if passes else loads:
        chances = [
            border.proof_chance(amount, requests=requests, evidence=evidence, passes=passes) for border in borders
        ]
        chance = min(chances) if passes else max(chances)
        if chance >= _LIKELY:
            return amount
        if chance > best_chance:
            best, best_chance = amount, chance
    return best
