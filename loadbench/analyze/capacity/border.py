"""Where the capacity likely is: the load at which an objective's share of hits falls to the required share.

The share of hits is modelled as a logistic curve in the logarithm of the load, `logit(p0) - b ln(load/m)`. It equals
the required share p0 at the border m and has the steepness b. The likelihood of the hits and misses on a grid
of m and b gives the posterior. Beforehand every m is equally likely, or those near the border that the requests' own
states lead to expect (`loadbench.analyze.capacity.in_flight`). No queue is assumed: what the hits at loads on
both sides of the border say holds for exponential and for fixed lengths alike, and for users in lockstep, whose share
falls in a step (large b). Far from the measured loads the curve says little, because its steepness is open.

*The next load* is the one where requests tell most about the border per second: the mutual information of the border
and a request's hit or miss (Lindley, *On a measure of the information provided by an experiment*, 1956).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadbench.analyze.capacity.in_flight import Expected

    Values = np.ndarray[Any, np.dtype[np.float64]]

# Steepness and its prior weight: queues of a usable server fall off with 3 to 10, exhausted memory with more.
_STEEPNESS = {1.5: 1.0, 2.5: 2.0, 4.0: 3.0, 6.0: 3.0, 9.0: 2.0, 14.0: 1.0, 30.0: 0.5, 80.0: 0.25}
# The model's steepness against the true one, as a standard deviation of the logarithm.
_STEEPNESS_ERROR = 0.4
# Borders are this far apart, as a factor; the grid of loads is 5 % wide.
_FINE = 0.015


class LoadPoint(NamedTuple):
    """Hits and misses at a load, in independent requests."""

    amount: float
    hits: float
    misses: float


class FittedBorder:
    """The posterior of the border of one objective that requires a share p0, between two loads.

    It lies below `limit`, a load and its relative standard error: what a server completes when it can do no more.
    """

    def __init__(
        self,
        points: Sequence[LoadPoint],
        p0: float,
        *,
        least: float,
        most: float,
        limit: tuple[float, float] | None = None,
        expect: Callable[[Values], Expected | None] | None = None,
    ) -> None:
        self._p0 = p0
        # The border may lie outside of the loads, by up to half.
        first, last = math.log(least / 1.5), math.log(most * 1.5)
        self.log_m = np.linspace(first, last, 2 + round((last - first) / _FINE))
        self._b = np.array(list(_STEEPNESS))
        logs = np.zeros((len(self.log_m), len(self._b))) + np.log(list(_STEEPNESS.values()))[None, :]
        if expect is not None and (expected := expect(self.log_m)) is not None:
            # Student's t with 4 degrees of freedom: where the data clearly disagree, they decide.
            z = (self.log_m - expected.log_m) / expected.deviation
            logs -= 2.5 * np.log1p(z * z / 4)[:, None]
            logs -= 2.5 * np.log1p((np.log(self._b / expected.steepness) / _STEEPNESS_ERROR) ** 2 / 4)[None, :]
        if limit is not None:
            logs -= 0.5 * (np.maximum(0, self.log_m - math.log(limit[0])) / limit[1])[:, None] ** 2
        for point in points:
            z = self._logits(point.amount)
            logs -= point.hits * np.logaddexp(0, -z) + point.misses * np.logaddexp(0, z)
        weights = np.exp(logs - logs.max())
        self._weights = weights / weights.sum()

    def _logits(self, amount: float) -> Values:
        logits: Values = math.log(self._p0 / (1 - self._p0)) - self._b * (math.log(amount) - self.log_m[:, None])
        return logits

    def below(self) -> Values:
        """The probability that the border is at or below each of `log_m`."""
        below: Values = np.cumsum(self._weights.sum(axis=1))
        return below

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

    def information(self, amount: float) -> float:
        """What a request at a load tells about the border, in nats."""
        by_border = self._weights.sum(axis=1)
        hits = (self._weights / (1 + np.exp(-self._logits(amount)))).sum(axis=1)
        within = np.divide(hits, by_border, out=np.full_like(hits, 0.5), where=by_border > 0)
        return float(_entropy(hits.sum()) - (by_border * _entropy(within)).sum())


def _entropy(share: Any) -> Any:
    share = np.clip(share, 1e-12, 1 - 1e-12)
    return -share * np.log(share) - (1 - share) * np.log1p(-share)


def likely_range(borders: Sequence[FittedBorder], confidence: float) -> tuple[float, float, float]:
    """(low, median, high) of the lowest of these borders, as loads; they hold it with this probability."""
    above = np.prod([1 - border.below() for border in borders], axis=0)
    tail = (1 - confidence) / 2
    at = np.searchsorted(-above, [-(1 - tail), -0.5, -tail]).clip(max=len(above) - 1)
    low, middle, high = np.exp(borders[0].log_m[at]).tolist()
    return low, middle, high
