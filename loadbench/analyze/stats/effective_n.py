"""How many independent values a series is worth, and quantile intervals that respect it.

Requests that queue together or share batches say less than as many independent ones. The mean of n values with
autocorrelations ρ(k) varies like the mean of `n / (1 + 2 Σ ρ(k))` independent ones; this is the effective n, and its
divisor the *statistical inefficiency*. If each value depends on the previous one only, `ρ(k) = ρ^k`, the effective n is
`n (1 - ρ) / (1 + ρ)` (Bayley and Hammersley, *The "effective" number of independent observations in an autocorrelated
time series*, 1946).

The larger of two estimates of the inefficiency is taken. One uses ρ(1) alone, corrected for the bias of short series
(Marriott and Pope, 1954); it is too small where the memory is longer than that. The other sums all lags, truncated
where the sums of neighbouring pairs reach zero and made monotone (Geyer, *Practical Markov chain Monte Carlo*, 1992);
it is noisy.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from loadbench.analyze.stats.intervals import CONFIDENCE, quantile_ranks

if TYPE_CHECKING:
    from collections.abc import Sequence

# Fewer values say nothing about their correlation.
_MIN_VALUES = 10
# ρ(1) of independent values is above 1.645 / sqrt(n) one time in twenty.
_CHANCE = 1.645
# A constant series has an autocovariance of rounding errors.
_ROUNDING = 1e-9
# Above this inefficiency the values are clearly correlated, and it is estimated from too few independent stretches to
# be believed when fewer effective values than this remain: no interval is given then.
_CLEARLY_CORRELATED = 2.0
_MIN_EFFECTIVE = 20


def inefficiency(values: Sequence[float]) -> float:
    """The statistical inefficiency of a series in its order: how many values are worth one independent value, ≥ 1."""
    series = np.asarray(values, np.float64)
    n = len(series)
    if n < _MIN_VALUES:
        return 1.0

    # ρ(0), ρ(1), … by the fast Fourier transform.
    length = 1 << (2 * n - 1).bit_length()
    spectrum = np.fft.rfft(series - series.mean(), length)
    covariances = np.fft.irfft(spectrum * spectrum.conj(), length)[:n]
    if covariances[0] <= n * (_ROUNDING * float(np.abs(series).max())) ** 2:
        return 1.0
    rho = covariances / covariances[0]
    if rho[1] <= _CHANCE / math.sqrt(n):
        return 1.0

    first = min(rho[1] + (1 + 3 * rho[1]) / n, 1 - 1 / n)
    by_first_lag = float((1 + first) / (1 - first))

    # Geyer's initial monotone sequence.
    pairs = rho[: n // 2 * 2].reshape(-1, 2).sum(axis=1)
    negative = np.flatnonzero(pairs <= 0)
    positive = pairs[: negative[0]] if len(negative) else pairs
    by_all_lags = float(2 * np.minimum.accumulate(positive).sum() - 1)
    return max(1.0, by_first_lag, by_all_lags)


def correlated_ranks(
    n: int, p: float, *, inefficiency: float, confidence: float = CONFIDENCE
) -> tuple[int, int] | None:
    """Ranks (l, u), from 1, of the order statistics that bound the p-quantile of n values with this inefficiency.

    The ranks for the effective n are spread over the n values, as in surveys (Korn and Graubard, *Confidence intervals
    for proportions with small expected number of positive counts estimated from survey data*, 1998). With an
    inefficiency of 1 they equal `quantile_ranks`. `None` where the effective n is too small.
    """
    effective = int(n / inefficiency)
    if inefficiency > _CLEARLY_CORRELATED and effective < _MIN_EFFECTIVE:
        return None
    ranks = quantile_ranks(effective, p, confidence)
    if ranks is None:
        return None
    low, high = ranks
    return math.floor(inefficiency * (low - 1)) + 1, min(n, math.ceil(inefficiency * high))
