"""How many independent values a series of requests is worth, and the intervals of quantiles that follow.

Requests that queue together or share batches say less than as many independent ones. The mean of n values with
autocorrelations ρ(k) varies like the mean of `n / (1 + 2 Σ ρ(k))` independent ones; this is the effective n, and its
divisor the *inefficiency*. For a quantile, what varies is the number of requests at or below it, so the series that
matters is that of ones and zeros: at or below it, or above.

The inefficiency is the largest of these estimates:

- *all lags*: the sum of ρ(k), truncated where the sums of neighbouring pairs reach zero and made monotone (Geyer,
  *Practical Markov chain Monte Carlo*, 1992). In an open loop it is corrected for the mean that was estimated from the
  same series, which takes inefficiency / n from each ρ(k) (Marriott and Pope, *Bias in the estimation of
  autocorrelations*, 1954);
- *batch means*: how much the means of about ten batches vary (Law and Kelton, *Simulation Modeling and Analysis*,
  chapter 9). In a closed loop a batch is made of whole rounds of its users, because what a user does is remembered for
  a round. Few batches know their variance badly, so it is multiplied by (t / 1.96)², with Student's t;
- *five batches* in an open loop whose requests are clearly correlated: ten batches of a queue with a long memory are
  correlated themselves.

What these rules hold, and how wide the intervals are, is measured by `python -m tests.coverage.intervals`.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from loadbench.analyze.stats.intervals import NORMAL_975, quantile_ranks
from loadbench.analyze.stats.student import quantile

if TYPE_CHECKING:
    from collections.abc import Sequence

    Series = Sequence[float] | Sequence[bool] | np.ndarray[Any, Any]

# As many batches as the t distribution needs to be near the normal one, and as long as a level's length allows.
_BATCHES = 10
_MIN_BATCHES = 2
_LONG_BATCHES = 5
# Independent requests seldom look more correlated than this.
_CLEARLY_CORRELATED = 2.0
# Fewer independent values than this have no 95 % interval of a median.
_FEWEST = 6
# From so many rounds of users on, what the users do is known well enough for the range of all values at least.
_ROUNDS = 3
# Users in lockstep: where the place explains this share of the variance, over so many periods at least. By chance it
# explains one part in the number of periods. For the median the root of that inefficiency was measured to be enough.
_EXPLAINED = 0.5
_PERIODS = 4
_CUTS = (0.5, 0.75, 0.9, 0.95)
# A quantile with fewer values beyond it says too little about how these come together: the median says more.
_FEW_BEYOND = 5
# A queue near its capacity has rare, long excursions, and a level that is not much longer than these has seen too few
# of them. It is known by a median that is uncertain by a large factor although the requests are many, of which few are
# independent: then its quantiles have no upper end, and with fewer still no interval. Measured on M/M/1.
_LONG_MEMORY = 40
_TOO_LONG_MEMORY = 22
_WIDE = 1.5
_TOO_WIDE = 2.0
# A queue at 90 % forgets within some 200 requests. Fewer show one calm or one busy stretch, and then look independent:
# whatever correlation was asked for, the levels that passed held .1 to .8. So, unless the median is known this well, so
# few requests have no interval, and up to twice as many no upper end.
SHORT = 250
_WELL_KNOWN = 1.2


def effective_n(hits: Series, *, round_size: int = 1) -> float:
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

    # ρ(0), ρ(1), … by the fast Fourier transform, and Geyer's initial monotone sequence of their pairs.
    length = 1 << (2 * n - 1).bit_length()
    spectrum = np.fft.rfft(series, length)
    rho = np.fft.irfft(spectrum * spectrum.conj(), length)[:n] / (n * variance)
    pairs = rho[: n // 2 * 2].reshape(-1, 2).sum(axis=1)
    negative = np.flatnonzero(pairs <= 0)
    positive = pairs[: negative[0]] if len(negative) else pairs
    inefficiency = max(1.0, float(2 * np.minimum.accumulate(positive).sum() - 1))
    if round_size == 1 and inefficiency > 1:  # in a series that alternates the pairs are tiny, and never negative
        inefficiency /= max(1 / n, 1 - 2 * (2 * len(positive)) / n)
    inefficiency = max(inefficiency, _by_batches(series, variance, _BATCHES, round_size))
    if round_size == 1 and inefficiency > _CLEARLY_CORRELATED:
        inefficiency = max(inefficiency, _by_batches(series, variance, _LONG_BATCHES, round_size))
    return max(1.0, n / inefficiency)


def _by_batches(series: np.ndarray[Any, Any], variance: float, batches: int, round_size: int) -> float:
    """The inefficiency by so many batches of whole rounds, as equal as rounds divide; what is left of one is unused."""
    rounds = len(series) // round_size
    batches = min(batches, rounds)
    if batches < _MIN_BATCHES:
        return 1.0
    edges = np.arange(batches + 1) * rounds // batches * round_size
    sizes = np.diff(edges)
    sums = np.add.reduceat(series[: edges[-1]], edges[:-1])
    rest = sums - sizes * (sums.sum() / edges[-1])
    between = float((rest * rest / sizes).sum()) / (batches - 1)
    return between / variance * (quantile(0.975, batches - 1) / NORMAL_975) ** 2


class CorrelatedSeries:
    """The values of the requests of a level in order of due time, and what they say about its quantiles.

    `users` is the number of users of a closed loop, `None` in an open loop.
    """

    def __init__(self, values: Series, *, users: int | None) -> None:
        self._values = np.asarray(values, np.float64)
        self._sorted = np.sort(self._values)
        self._users = users
        self._by_cut: dict[float, float] = {}

    def inefficiency(self, p: float) -> float:
        """How many values are worth one independent value, for the p-quantile; at least 1."""
        n = len(self._values)
        if not n:
            return 1.0
        own = self._at(p)
        if p != 0.5 and (self._users is None or n * min(p, 1 - p) < _FEW_BEYOND):
            own = max(own, self._median)
        own = max(own, math.sqrt(self._lockstep(p)) if p == 0.5 else max(map(self._lockstep, (*_CUTS, p))))
        bounded = n >= _ROUNDS * self._users if self._users else self._sorted[-1] <= _TOO_WIDE * self._sorted[0]
        return min(own, max(1.0, n / _FEWEST)) if bounded else own

    def ranks(self, n: int, p: float) -> tuple[int | None, int | None]:
        """Ranks (l, u), from 1, of the order statistics that bound the p-quantile of n values that are correlated like
        these; `None` is an open end.

        The ranks for the effective n are spread over the n values, as in surveys (Korn and Graubard, *Confidence
        intervals for proportions with small expected number of positive counts estimated from survey data*, 1998).
        """
        inefficiency = self.inefficiency(p)
        low, high = _spread(n, p, inefficiency)
        if self._users is None:
            if n / inefficiency < _FEWEST * (1 - 1e-9):
                return None, None
            if n < 2 * SHORT and self._factor > _WELL_KNOWN:
                if n < SHORT:
                    return None, None
                high = None
            if self._factor > _WIDE:
                memory = self._memory
                if n / memory < _TOO_LONG_MEMORY and self._factor > _TOO_WIDE:
                    return None, None
                if n / max(memory, self._median) < _LONG_MEMORY:
                    high = None
        return low, high

    def _at(self, p: float) -> float:
        bound = self._sorted[max(0, math.ceil(p * len(self._sorted)) - 1)]
        n = len(self._values)
        return n / effective_n(self._values <= bound, round_size=self._users or 1)

    @cached_property
    def _median(self) -> float:
        return self._at(0.5)

    def _lockstep(self, cut: float) -> float:
        """The inefficiency of users in lockstep, at this quantile.

        With lengths that are always the same, what happens in the first round happens in each one, in the order of the
        users or, where they wait, of the slots; how a level falls in step is one draw. It shows where the place within
        a period explains most of a 0/1 series, at any of several quantiles: one user may be alone beyond a high one,
        and then the values there only show how alike its own are.
        """
        if cut in self._by_cut:
            return self._by_cut[cut]
        n, found = len(self._values), 1.0
        # Thousands of users have thousands of periods: whole numbers as floats are added the fastest.
        hits = (self._values <= np.quantile(self._sorted, cut, method="inverted_cdf")).astype(np.float32)
        variance = float(hits.var(dtype=np.float64))
        for period in range(2, min(self._users or 1, n // _PERIODS) + 1) if variance else ():
            periods = n // period
            places = np.add.reduce(hits[: periods * period].reshape(periods, period)).astype(np.float64)
            between = float(places @ places) / period - (float(places.sum()) / period) ** 2
            explained = between / periods**2 / variance
            found = max(found, periods * explained if explained > _EXPLAINED else 1.0)
        self._by_cut[cut] = found
        return found

    @cached_property
    def _factor(self) -> float:
        """Upper end of the median's interval over its lower end."""
        low, high = _spread(len(self._values), 0.5, self.inefficiency(0.5))
        if low is None or high is None or self._sorted[low - 1] <= 0:
            return math.inf
        return float(self._sorted[high - 1] / self._sorted[low - 1])

    @cached_property
    def _memory(self) -> float:
        """The inefficiency by ρ(1) of the values themselves, as if each depended on the previous one only (Bayley and
        Hammersley, *The "effective" number of independent observations in an autocorrelated time series*, 1946)."""
        n, series = len(self._values), self._values - self._values.mean()
        square = float(series @ series)
        first = float(series[1:] @ series[:-1]) / square if square else 0.0
        first = min(first + (1 + 3 * first) / n, 1 - 1 / n)
        return max(1.0, (1 + first) / (1 - first))


def _spread(n: int, p: float, inefficiency: float) -> tuple[int | None, int | None]:
    """The ranks for n / inefficiency values, spread over n."""
    # A quotient that should be a whole number may lie below it by its rounding.
    low, high = quantile_ranks(int(n / inefficiency * (1 + 1e-9)), p)
    return (
        None if low is None else math.floor(inefficiency * (low - 1)) + 1,
        None if high is None else min(n, math.ceil(inefficiency * high)),
    )
