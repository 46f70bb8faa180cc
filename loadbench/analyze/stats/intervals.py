"""Distribution-free confidence intervals of quantiles, shares and means, and how many requests a bound needs.

The number of values below the p-quantile of a population is Bin(n, p) in a sample of n independent values, whatever the
distribution. The interval between the l-th and the u-th smallest value therefore covers the quantile with probability
P(l <= Bin(n, p) < u). Ranks are chosen with at most (1 - confidence) / 2 in each tail (Hahn and Meeker, *Statistical
Intervals*, chapter 5). Where the sample is too small for such a rank, this end of the interval is open.

The requests of one level are correlated: they queue together and share batches. `loadbench.analyze.stats.effective_n`
widens the intervals for it. Values of which one request has many, such as gaps between events, have no interval here.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from loadbench.analyze.stats.student import quantile

if TYPE_CHECKING:
    from collections.abc import Sequence

CONFIDENCE = 0.95
# Half a 95 % interval of a normal variable, in standard deviations.
NORMAL_975 = 1.96
# Probabilities that should be equal differ by the rounding of their sums.
_ROUNDING = 1e-9
# Days of requests at any rate that a machine can send; a file may say more, and would take all memory.
_MOST = 1 << 32


@lru_cache(maxsize=4096)
def quantile_ranks(n: int, p: float, confidence: float = CONFIDENCE) -> tuple[int | None, int | None]:
    """Ranks (l, u), from 1, of the order statistics that bound the p-quantile of n values; `None` is an open end."""
    if not 0 < p < 1 or not 0 < confidence < 1:
        raise ValueError(f"p and confidence must lie between 0 and 1, not {p} and {confidence}")
    if n < 1:
        return None, None
    tail = (1 - confidence) / 2
    first, cumulative = binomial_cdf(n, p)
    # P(Bin < l) <= tail: l is the number of outcomes whose cumulative probability is within the tail.
    low = first + int(np.searchsorted(cumulative, tail, side="right"))
    # P(Bin < u) >= 1 - tail: u is one above the first outcome that reaches it.
    high = first + int(np.searchsorted(cumulative, 1 - tail, side="left")) + 1
    return low if low >= 1 else None, high if high <= n else None


def bound_holds(n: int, over: int, p: float, *, confidence: float) -> bool:
    """Whether the p-quantile is below a bound with this confidence, when `over` of n requests were above the bound.

    It is, if so few would be above it with a probability of at most `1 - confidence` were the quantile at the bound:
    `P(Bin(n, 1 - p) <= over) <= 1 - confidence`. This is the early-stopping rule of MLPerf's LoadGen
    (`early_stopping.cc`, with tolerance 0). It is valid for one look at a sample whose size was not chosen by looking.
    """
    if not 0 < p < 1 or not 0 < confidence < 1:
        raise ValueError(f"p and confidence must lie between 0 and 1, not {p} and {confidence}")
    first, cumulative = binomial_cdf(n, 1 - p)
    if over < first:
        return True
    chance = float(cumulative[over - first]) if over < first + len(cumulative) else 1.0
    return chance <= (1 - confidence) * (1 + _ROUNDING)


def fewest_requests(over: int, p: float, *, confidence: float = 0.99) -> int:
    """The least n for which `bound_holds` although `over` requests were above the bound."""
    low, high = over, over + 1
    while not bound_holds(high, over, p, confidence=confidence):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if bound_holds(middle, over, p, confidence=confidence) else (middle, high)
    return high


def share_interval(hits: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Interval of a share, of which `hits` of `n` were observed, by Clopper and Pearson: exact, never too narrow.

    Its bounds are the shares at which that many hits, or that few, are just as rare as the tail allows. By duality it
    lies above p wherever the interval of the p-quantile (`quantile_ranks`) lies below the bound that the hits met.
    Raises `ValueError` for impossible counts.
    """
    if not 0 <= hits <= n or n < 1 or not 0 < confidence < 1:
        raise ValueError(f"{hits} of {n} is no share, or {confidence} no confidence")
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else _share_at(hits - 1, n, 1 - tail)
    high = 1.0 if hits == n else _share_at(hits, n, tail)
    return low, high


def _share_at(k: int, n: int, cumulative: float) -> float:
    """The p for which P(Bin(n, p) <= k), which falls as p rises, is `cumulative`; by bisection to float precision."""
    low, high = 0.0, 1.0
    while low < (middle := (low + high) / 2) < high:
        first, below = binomial_cdf(n, middle)
        reached = 0.0 if k < first else float(below[min(k - first, len(below) - 1)])
        low, high = (middle, high) if reached > cumulative else (low, middle)
        if high - low < 1e-15 * high:
            break
    return low


_BATCHES = 20
# Means of fewer hardly show how much they vary.
_MIN_BATCHES = 5


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """95 % interval of the mean of a stationary series, by batch means; `None` where it is too short.

    Neighbours depend on each other; means of long batches hardly do (Law and Kelton, *Simulation Modeling and
    Analysis*, chapter 9). The series is cut into twenty batches, or fewer if it has fewer values, whose lengths differ
    by one value at most, and the batch means are treated as independent, with their lengths as weights.
    """
    batches = min(_BATCHES, len(values))
    if batches < _MIN_BATCHES:
        return None
    series = np.asarray(values, np.float64)
    mean = float(series.mean())
    between = sum(len(part) * (float(part.mean()) - mean) ** 2 for part in np.array_split(series, batches))
    reach = quantile(0.975, batches - 1) * math.sqrt(between / (batches - 1) / len(series))
    return mean - reach, mean + reach


def binomial_cdf(n: int, p: float) -> tuple[int, np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """(k0, P(Bin(n, p) <= k) for k = k0, k0 + 1, …) over all k whose probability is not negligible.

    Less than 1e-30 lies beyond twelve standard deviations; summing the rest costs O(sqrt(n)).
    """
    if n > _MOST:
        raise ValueError(f"{n} requests are more than any level has")
    reach = 12 * math.sqrt(n * p * (1 - p)) + 30
    first, last = max(0, math.floor(n * p - reach)), min(n, math.ceil(n * p + reach))
    ks = np.arange(first, last, dtype=np.float64)
    steps = np.log(n - ks) - np.log(ks + 1) + math.log(p) - math.log1p(-p)
    # Relative to the first one; their sum is known.
    logs = np.concatenate(([0.0], np.cumsum(steps)))
    weights = np.exp(logs - logs.max())
    return first, np.cumsum(weights) / weights.sum()
