"""Bounds of quantiles where a test wants a yes or no, and where requests hang together.

*Early stopping.* A quantile p is below a bound with a confidence c, if so few of n requests were above it as would be
seen with probability `1 - c` at most were the quantile at the bound: `P(Bin(n, 1 - p) <= over) <= 1 - c`. This is the
rule of MLPerf's LoadGen (`early_stopping.cc`, with its tolerance 0). It is for one look at a sample whose size was not
chosen by looking.

*Requests that hang together* tell less than as many independent ones. The mean of n values with autocorrelations ρ(k)
varies as that of `n / (1 + 2 Σ ρ(k))` independent ones; if each depends on the last alone, `ρ(k) = ρ^k`, these are
`n (1 - ρ) / (1 + ρ)` (Bayley and Hammersley, *The "effective" number of independent observations in an autocorrelated
time series*, 1946). The divisor is the inefficiency. Of two estimates the larger is taken: by ρ(1) alone, corrected for
the bias that short series have (Marriott and Pope, 1954), which falls short where memory is longer than that; and by
the sum over all lags, cut where pairs of neighbours come to nothing and made to fall (Geyer, *Practical Markov chain
Monte Carlo*, 1992), which is noisy. Order statistics for the lesser number, spread over the true one, bound a quantile
as in surveys (Korn and Graubard, *Confidence intervals for proportions with small expected number of positive counts
estimated from survey data*, 1998).

*Moving blocks* keep neighbours together as they resample (Künsch, *The jackknife and the bootstrap for general
stationary observations*, 1989), in the length by which the spread is estimated best (Politis and White, *Automatic
block-length selection for the dependent bootstrap*, 2004, as corrected by Patton and them in 2009).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from loadbench.analyze.stats.intervals import CONFIDENCE, binomial_cdf, quantile_ranks

if TYPE_CHECKING:
    from collections.abc import Sequence

    Values = np.ndarray[Any, np.dtype[np.float64]]

# Probabilities that should be equal differ by the rounding of their sums.
_ROUNDING = 1e-9
# Fewer values tell nothing about how they hang together.
_FEWEST = 10
# Of independent values ρ(1) is above 1.645 / sqrt(n) one time in twenty.
_CHANCE = 1.645
# A quantile by fewer effective values than this is not stated where values clearly hang together: their inefficiency is
# then estimated from too few stretches to be believed.
_FEWEST_EFFECTIVE = 20
_CLEARLY = 2.0
_RESAMPLES = 1000
_DRAWN_AT_ONCE = 1_000_000
# A ρ(k) within 2 sqrt(log10(n) / n) of nothing, for five lags on end, is nothing (Politis and White).
_NOTHING = 2.0
_ON_END = 5


def fewest_requests(over: int, p: float, *, confidence: float = 0.99) -> int:
    """The least n at which the p-quantile is below a bound though `over` requests were above it."""
    low, high = over, over + 1
    while not bound_holds(high, over, p, confidence=confidence):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if bound_holds(middle, over, p, confidence=confidence) else (middle, high)
    return high


def most_over(n: int, p: float, *, confidence: float = 0.99) -> int | None:
    """How many of n requests may be above a bound that the p-quantile is below; `None` where n is too small for any."""
    low, high = -1, n
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if bound_holds(n, middle, p, confidence=confidence) else (low, middle)
    return None if low < 0 else low


def bound_holds(n: int, over: int, p: float, *, confidence: float = 0.99) -> bool:
    """Whether the p-quantile is below a bound that `over` of n requests were above."""
    if not 0 < p < 1 or not 0 < confidence < 1:
        raise ValueError(f"p and confidence lie between 0 and 1, not {p} and {confidence}")
    first, cumulative = binomial_cdf(n, 1 - p)
    if over < first:
        return True
    chance = float(cumulative[over - first]) if over < first + len(cumulative) else 1.0
    return chance <= (1 - confidence) * (1 + _ROUNDING)


def inefficiency(values: Sequence[float]) -> float:
    """How many of these values, in their order, tell as much as one independent value; 1 at the least."""
    series = np.asarray(values, np.float64)
    n = len(series)
    if n < _FEWEST:
        return 1.0
    rho = _autocorrelations(series)
    if rho[1] <= _CHANCE / math.sqrt(n):
        return 1.0
    first = min(rho[1] + (1 + 3 * rho[1]) / n, 1 - 1 / n)
    return max(1.0, float((1 + first) / (1 - first)), _by_all_lags(rho))


def _autocorrelations(series: Values) -> Values:
    """ρ(0), ρ(1), …, by the fast Fourier transform; those of a constant are 0."""
    n = len(series)
    length = 1 << (2 * n - 1).bit_length()
    spectrum = np.fft.rfft(series - series.mean(), length)
    covariances = np.fft.irfft(spectrum * spectrum.conj(), length)[:n]
    if covariances[0] <= n * (_ROUNDING * float(np.abs(series).max())) ** 2:
        return np.concatenate(([1.0], np.zeros(n - 1)))
    rho: Values = covariances / covariances[0]
    return rho


def _by_all_lags(rho: Values) -> float:
    """Geyer's initial monotone sequence."""
    pairs = rho[: len(rho) // 2 * 2].reshape(-1, 2).sum(axis=1)
    negative = np.flatnonzero(pairs <= 0)
    positive = pairs[: negative[0]] if len(negative) else pairs
    return float(2 * np.minimum.accumulate(positive).sum() - 1)


def correlated_ranks(
    n: int, p: float, *, inefficiency: float, confidence: float = CONFIDENCE
) -> tuple[int, int] | None:
    """Ranks (l, u), from 1, of the order statistics that bound the p-quantile of n values which hang together so much.

    `None` where they are worth too few. With an inefficiency of 1 they are those of `quantile_ranks`.
    """
    effective = int(n / inefficiency)
    if inefficiency > _CLEARLY and effective < _FEWEST_EFFECTIVE:
        return None
    ranks = quantile_ranks(effective, p, confidence)
    if ranks is None:
        return None
    low, high = ranks
    return math.floor(inefficiency * (low - 1)) + 1, min(n, math.ceil(inefficiency * high))


def bootstrap_interval(
    values: Sequence[float], p: float, *, seed: int, confidence: float = CONFIDENCE
) -> tuple[float, float] | None:
    """Interval of the p-quantile of a stationary series, by moving blocks; `None` for fewer than ten blocks of it.

    The blocks' length is that for the mean of what a quantile hangs on: whether a value is below it.
    """
    series = np.asarray(values, np.float64)
    n = len(series)
    if n < _FEWEST:
        return None
    length = block_length(series <= np.quantile(series, p))
    blocks = -(-n // length)
    if blocks < _FEWEST:
        return None
    rng = np.random.default_rng(seed)
    at_once = max(1, _DRAWN_AT_ONCE // n)
    quantiles: list[float] = []
    while len(quantiles) < _RESAMPLES:
        begins = rng.integers(0, n - length + 1, (min(at_once, _RESAMPLES - len(quantiles)), blocks, 1))
        places = (begins + np.arange(length)).reshape(len(begins), -1)[:, :n]
        quantiles.extend(np.quantile(series[places], p, axis=1).tolist())
    low, high = np.quantile(quantiles, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def block_length(values: Sequence[float] | np.ndarray[Any, Any]) -> int:
    """The length of blocks by which the spread of the series' mean is estimated best, by Politis and White."""
    series = np.asarray(values, np.float64)
    n = len(series)
    longest = max(1, math.ceil(min(3 * math.sqrt(n), n / 3)))
    rho = _autocorrelations(series)
    small = np.abs(rho[1:]) < _NOTHING * math.sqrt(math.log10(n) / n)
    run = max(_ON_END, math.ceil(math.sqrt(math.log10(n))))
    ends = np.flatnonzero(np.convolve(small, np.ones(run), "valid") == run) if len(small) >= run else np.zeros(0, int)
    reach = min(2 * max(1, int(ends[0]) if len(ends) else n), n - 1)
    lags = np.arange(1, reach + 1)
    weights = np.clip(2 * (1 - lags / reach), 0, 1)  # flat, then falling to 0
    memory = 2 * float((weights * lags * rho[1 : reach + 1]).sum())
    power = 1 + 2 * float((weights * rho[1 : reach + 1]).sum())
    if power <= 0:
        return longest
    best = math.cbrt(1.5 * memory**2 / power**2 * n)
    return min(longest, max(1, round(best)))
