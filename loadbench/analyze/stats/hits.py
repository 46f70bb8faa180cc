"""What the hits and misses of one objective are worth: the one rule for objectives, gates and the capacity search.

A request hits an objective or misses it, and its value lies so far from the bound (`RequestHits`). Neighbours are
alike, so n requests say less than n independent ones: `effective_hits` says how many independent ones they equal.

*By counting.* The 0/1 series "within the bound" is constant where all requests hit, and then says nothing about how
much they depend on each other. So the smallest effective n (`loadbench.analyze.stats.effective_n`) of three series is
taken: below the sample's own quantile, within the bound, and below the median. Where a request has many values, they
equal at most the number of independent ones that would vary as much as the requests do (Korn and Graubard, *Survey
Methodology* 24, 1998). In a level of very many requests only the first are known one by one; there the sums of batches
of all of them say by how much these vary too, and the smaller effective n is taken. Where everything seen is far from
the bound (`_FAR`), dependence does not matter and each request counts.

*By distance.* Where all values lie close together and far from the bound, counting asks for more than anybody doubts:
28 responses between 0.35 and 0.36 s cannot prove by their number that 95 % are below 60 s. At most the share
m₄ / (bound - mean)⁴ of any distribution lies beyond the bound, with its fourth central moment m₄ (Markov's inequality,
1884), and the next of n exchangeable values exceeds them all with probability 1 / (n + 1) (Saw, Yang and Mo, *Chebyshev
inequality with estimated mean and variance*, 1984). `least_share` is one less `_MARGIN` times the former, with the
mean's own error, or less the latter. It is used where the sample cannot be a calm stretch of something else: in a
closed loop, whose users bound the queue, with a coefficient of variation of at most `_UNIFORM` or after `_MANY_ROUNDS`
rounds that are worth `_KNOWN` independent requests; and elsewhere where the bound is `_MANY_TIMES` the largest value.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from loadbench.analyze.stats.effective_n import effective_n
from loadbench.analyze.stats.intervals import NORMAL_975, share_interval
from loadbench.record.attainment import AllOver

if TYPE_CHECKING:
    from loadbench.record.attainment import HitRows, KeptHits

# Standard deviations from the mean, whose own error is added. M/M/1 at 90 % and 1,000 requests: no sample was as far
# from a bound that its true quantile exceeds.
_FAR = 10.0
# Queues at 50 to 90 % have calm stretches with such a coefficient of variation; closed loops of 1 to 32 users, with
# think times of up to 1 s, had none within 10 s (`tests.coverage.gates`).
_UNIFORM = 0.1
_MANY_TIMES = 10
# So long a closed loop has seen its busy stretches too.
_MANY_ROUNDS, _KNOWN = 30, 30
_MARGIN = 4
# In an open loop, whose queue has no bound, correlated requests count by half. A queue at 90 % forgets within some 200
# requests: fewer than `_SHORT` are one calm or busy stretch of it and look independent. They count by a quarter, and
# the bound must be three times as far. Queues at 90 % are else decided wrongly by 7 to 20 %.
_SHORT = 250
_CLEARLY_CORRELATED = 2.0
_FEWEST_BATCHES = 10
# Standard deviations by which places differ from chance, with any of so many numbers of places.
_CLEARLY = 5.0


class HitSeries(NamedTuple):
    """The requests of an objective (`loadbench.record.attainment.KeptHits`); `users` are those of a closed loop, `None`
    in an open one."""

    kept: KeptHits
    users: int | None

    def effective(self, values: int, share: float) -> int:
        """How many independent values so many of them are worth, if at least `share` of them must be hits."""
        rows, batches, size, _ = self.kept
        known = rows[:, 1].sum()
        if not known:
            return values
        part = effective_hits(rows, share, users=self.users) / known
        hits, of = batches.sum(axis=1)
        if 0 < hits < of and (variance := self.variance_by_batches()):
            independent, requests = hits / of * (1 - hits / of) / variance, batches.shape[1] * size
            is_correlated = self.users is None and requests > _CLEARLY_CORRELATED * independent
            part = min(part, independent / of / (2 if is_correlated else 1))
        return max(1, min(values, int(part * values)))

    def variance_by_batches(self) -> float:
        """The variance of the ratio of the sums, Σ hits / Σ values, by those of its batches; 0 where there are none."""
        hits, values = self.kept.batches
        if len(hits) < _FEWEST_BATCHES or not values.any():
            return 0.0
        of = float(values.sum())
        rest = hits - hits.sum() / of * values
        effective = effective_n(rest, round_size=max(1, round((self.users or 1) / self.kept.size)))
        return float((rest**2).sum()) / of**2 * len(rest) / effective

    def interval(self, hits: int, values: int, share: float, *, by_distance: bool = False) -> tuple[float, float]:
        """95 % interval of the share of hits, of which at least `share` are wanted."""
        n = self.effective(values, share)
        low, _ = share_interval(hits * n // values, n)
        _, high = share_interval(-(-hits * n // values), n)
        if by_distance and hits == values:
            low = max(low, least_share(self.kept.rows, users=self.users, over=self.kept.over))
        return low, high

    def needed(self, share: float) -> int:
        """So many requests, hits all of them and like these, would decide that at least `share` are."""
        n = len(self.kept.rows) if self.kept.over is None else self.kept.over.requests
        if least_share(self.kept.rows, users=self.users, over=self.kept.over) >= 1 - 1 / (n + 1):
            return math.ceil(round(share / (1 - share), 6))
        return fewest_hits(share)


def fewest_hits(share: float) -> int:
    """The least n whose Clopper-Pearson interval lies above this share if all n are hits."""
    return math.floor(math.log(0.025) / math.log(share)) + 1


def effective_hits(requests: HitRows, share: float, *, users: int | None) -> float:
    """The number of independent values that these requests, in the order in which they were due, are worth: from 1 to
    the number of their values; 0 without requests.

    `share` of the values must be hits. `users` are those of a closed loop, `None` in an open one.
    """
    n = len(requests)
    if not n:
        return 0.0
    hits, values, over = requests.T
    independent = float(n)
    if (values != 1).any():
        # Where all requests are alike, each counts as one.
        rate = hits.sum() / values.sum()
        variance = ((hits - rate * values) ** 2).sum() / values.sum() ** 2 * n / max(1, n - 1)
        independent = min(float(values.sum()), rate * (1 - rate) / variance) if variance > 0 else float(n)
    effective = float(n)
    if not _is_far(over, users):
        ordered = np.sort(over)
        own, middle = ordered[math.ceil(n * share) - 1], ordered[(n - 1) // 2]
        rounds = users or 1
        series = (over < own if ordered[0] < own else over <= own, over < 1, over <= middle)
        effective = min(min(effective_n(each, round_size=rounds), _by_place(each, rounds)) for each in series)
        if users is None:
            effective /= 4 if n < _SHORT else 2 if n > _CLEARLY_CORRELATED * effective else 1
    return max(1.0, independent * effective / n)


def _by_place(series: np.ndarray[Any, Any], users: int) -> float:
    """The number of independent values, n or less, where every k-th request hits and others miss, time and again: users
    in lockstep keep their places for a whole level, and so k places are the sample, not their requests."""
    n, most = len(series), 1.0
    variance = float(series.var())
    for places in range(2, min(users, n // 3) + 1) if variance else ():
        rounds = n // places
        means = series[: rounds * places].reshape(rounds, places).mean(axis=0)
        ratio = rounds * float(means.var(ddof=1)) / variance
        # Independent values have a ratio of 1 with this standard deviation.
        if ratio > 1 + _CLEARLY * math.sqrt(2 / (places - 1)):
            most = max(most, ratio)
    return n / most


def _is_far(over: np.ndarray, users: int | None) -> bool:
    if not np.isfinite(over).all():
        return False
    distance, deviation = abs(1 - over.mean()), over.std()
    if distance <= _FAR * deviation or users is not None:
        return bool(distance > _FAR * deviation)
    error = NORMAL_975 * deviation / math.sqrt(effective_n(over))
    return bool(distance - error > (3 if len(over) < _SHORT else 1) * _FAR * deviation)


def least_share(requests: HitRows, *, users: int | None, over: AllOver | None = None) -> float:
    """The lower end of the share of hits by distance; 0 where distance says nothing. `over` is of all requests, where
    `requests` are not all."""
    kept = requests[:, 2]
    if not len(kept) or not np.isfinite(kept).all():
        return 0.0
    if over is None:
        fourth = float(((kept - kept.mean()) ** 4).mean())
        over = AllOver(len(kept), float(kept.mean()), float(kept.std()), fourth, float(kept.max()))
    if over.largest >= 1:
        return 0.0
    effective = effective_n(kept, round_size=users or 1)
    is_known = users is not None and (
        over.deviation <= _UNIFORM * over.mean or (over.requests >= _MANY_ROUNDS * users and effective >= _KNOWN)
    )
    many_times = 3 * _MANY_TIMES if users is None and over.requests < _SHORT else _MANY_TIMES
    if not is_known and over.largest * many_times > 1:
        return 0.0
    distance = 1 - over.mean - NORMAL_975 * over.deviation / math.sqrt(effective)
    if distance <= 0:
        return 0.0
    beyond = _MARGIN * over.fourth / distance**4
    return max(0.0, 1 - max(beyond, 1 / (over.requests + 1)))
