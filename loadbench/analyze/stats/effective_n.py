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
from typing import TYPE_CHECKING, Any

import numpy as np

from loadbench.analyze.stats.intervals import CONFIDENCE, NORMAL_975, quantile_ranks
from loadbench.analyze.stats.student import quantile

if TYPE_CHECKING:
    from collections.abc import Sequence

# Fewer values say nothing about their correlation.
_MIN_VALUES = 10
# As many batches as the t distribution needs to be near the normal one, and as long as a level's length allows.
_BATCHES = 10
_MIN_BATCHES = 2
# ρ(1) of independent values is above 1.645 / sqrt(n) one time in twenty.
_CHANCE = 1.645
# A constant series has an autocovariance of rounding errors.
_ROUNDING = 1e-9
# Above this inefficiency the values are clearly correlated, and it is estimated from too few independent stretches to
# be believed when fewer effective values than this remain: no interval is given then.
_CLEARLY_CORRELATED = 2.0
_MIN_EFFECTIVE = 20


def effective_n(hits: Sequence[bool] | np.ndarray[Any, Any], *, round_size: int = 1) -> float:
    """How many independent values a 0/1 series in order of due time is worth, from 1 to n.

    `round_size` is the number of users of a closed loop, 1 in an open loop. A constant series shows no correlation and
    is worth n: do not ask for one where the number matters.
    """
    series = np.asarray(hits, np.float64)
    n = len(series)
    series = series - series.mean() if n else series
    variance = float((series * series).mean()) if n else 0.0
    if variance == 0:
        return float(max(1, n))

    # Geyer's initial monotone sequence of ρ(0), ρ(1), … by the fast Fourier transform; more than n says nothing more.
    length = 1 << (2 * n - 1).bit_length()
    spectrum = np.fft.rfft(series, length)
    rho = np.fft.irfft(spectrum * spectrum.conj(), length)[:n] / (n * variance)
    pairs = rho[: n // 2 * 2].reshape(-1, 2).sum(axis=1)
    negative = np.flatnonzero(pairs <= 0)
    positive = pairs[: negative[0]] if len(negative) else pairs
    by_lags = min(float(n), float(2 * np.minimum.accumulate(positive).sum() - 1))

    # Batch means: whole rounds, spread over the batches as evenly as they divide; the rest of a round is left out.
    rounds = n // round_size
    batches = min(_BATCHES, rounds)
    if batches < _MIN_BATCHES:
        return n / max(1.0, by_lags)
    edges = np.arange(batches + 1) * rounds // batches * round_size
    sizes = np.diff(edges)
    sums = np.add.reduceat(series[: edges[-1]], edges[:-1])
    rest = sums - sizes * (sums.sum() / edges[-1])
    by_batches = float((rest * rest / sizes).sum()) / (batches - 1) / variance
    # Few batches know their own variance badly: Student's t instead of the normal distribution.
    widened = by_batches * (quantile(0.975, batches - 1) / NORMAL_975) ** 2 if by_batches > by_lags else by_lags
    return max(1.0, n / max(1.0, widened))


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
    low, high = quantile_ranks(effective, p, confidence)
    if low is None or high is None:
        return None
    return math.floor(inefficiency * (low - 1)) + 1, min(n, math.ceil(inefficiency * high))
