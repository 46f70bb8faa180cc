"""How the requests of a level meet its objectives, exactly and request by request.

For each objective on a latency the sums are kept that its share or its mean, and their confidence interval, need. Let m
be the number of values that a request has, and y how many of them are below the bound or, for a mean, their sum. Share
and mean are Σy / Σm, and their variance also needs Σy², Σym and Σm² (Cochran, *Sampling Techniques*, chapter 6: the
ratio of two sums over clusters). A figure of which a request has one value has m = 1.

The requests that ended first are also kept one by one (`RequestHits`): correlated ones say less than their number
(`loadbench.analyze.stats.hits`). Where there are more than `_MOST_KEPT`, the sums of batches of all of them are kept
too: failures that come together late in a long level are no other than those that do so early. Of a load that several
workers share, the batches are stretches of time, which are the same for all of them.

A request is *good* if it succeeded and meets every objective. An objective on a quantile requires of a single request
what it requires of most: `ttft_p95<1s` requires that its TTFT is below 1 s. For a figure with many values per request
it requires that share of the request's own values (`itl_p99<50ms`: 99 % of them). An undefined figure is a miss.

Slow responses are those that impatient users give up. So the requests of users who would give up before the bound are
kept apart for each objective, however they ended. Patience is drawn at random, so the remaining ones are as slow as all
are: with censoring times that do not depend on the response times, their share is unbiased. A user among them who gave
up without the figure is a miss.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from loadbench.plan.objective import FAILURES
from loadbench.record.figures import MANY_A_REQUEST, weighted
from loadbench.record.first_numbers import FirstRows
from loadbench.record.outcome import Outcome
from loadbench.record.slices import Slices

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadbench.plan.objective import Objective
    from loadbench.record.sample import Sample

    # A row for each request in the order in which they were due: hits, values, over.
    HitRows = np.ndarray[Any, np.dtype[np.float64]]
    Batches = np.ndarray[Any, np.dtype[np.float64]]

_MOST_KEPT = 16_384
# Even. Enough to see how batches depend on each other, too.
_MOST_BATCHES = 4096
# Waits that are over with the first token, and all waits.
UNTIL_FIRST = frozenset({"ttfb", "ttft", "ttft_response", "ttfo"})
_WAITS = UNTIL_FIRST | {"e2e", "e2e_response", "stream_end"}


class RequestHits(NamedTuple):
    """One request under one objective: hits among its values (for a mean, their sum), and its largest value (for a
    mean, its own) divided by the bound; infinite for a request that failed or was given up."""

    hits: float
    values: int
    over: float


class AllOver(NamedTuple):
    """`RequestHits.over` of many requests: number, mean, standard deviation, fourth central moment and largest one."""

    requests: int
    mean: float
    deviation: float
    fourth: float
    largest: float


class KeptHits(NamedTuple):
    """The requests of one objective: those that ended first one by one, in the order in which they were due.

    Where these are not all, `batches` are the sums of hits and of values of every `size` requests, or of as many on
    average, in the order of their ends, and `over` is of all. `over` is `None` also where a request failed.
    """

    rows: HitRows
    batches: Batches = np.empty((2, 0))
    size: int = 1
    over: AllOver | None = None


def hit_rows(requests: Sequence[RequestHits]) -> HitRows:
    """The rows of these requests."""
    return np.array(requests, np.float64).reshape(-1, len(RequestHits._fields))


@dataclass(slots=True)
class Tally:
    """The sums of one objective over the requests that have its figure; y counts values, or is in ns.

    Of users who would wait as long as the bound, `gave_up` left without the figure; they are among the requests, as
    misses. Of requests that are kept apart these are not among them, since nothing is known; `failed` of these failed.
    """

    requests: int = 0
    gave_up: int = 0
    failed: int = 0
    y: float = 0
    m: int = 0
    yy: float = 0
    ym: float = 0
    mm: int = 0

    def add(self, y: float, m: int) -> None:
        """Add one request."""
        self.requests += 1
        self.y += y
        self.m += m
        self.yy += y * y
        self.ym += y * m
        self.mm += m * m

    def plus(self, other: Tally) -> Tally:
        """The sums over the requests of both."""
        return Tally(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))

    def variance(self) -> float | None:
        """The variance of Σy / Σm, by the spread among requests; `None` for fewer than two."""
        if self.requests < 2:
            return None
        ratio = self.y / self.m
        spread = max(0.0, self.yy - 2 * ratio * self.ym + ratio * ratio * self.mm)
        return spread / self.m**2 * self.requests / (self.requests - 1)


@dataclass(frozen=True, slots=True)
class Attained:
    """The tallies of a level by objective, and how many of its requests were good.

    `others` are those of users who would not have waited as long as the bound. `kept` are the requests one by one;
    those of the goodput have `over` 0 if they were good.
    """

    tallies: Mapping[Objective, Tally]
    others: Mapping[Objective, Tally]
    requests: int  # measured ones, without those that the user cut
    good: int
    good_tokens: int
    kept: Mapping[Objective, KeptHits] = field(default_factory=dict)
    kept_good: KeptHits = field(default_factory=lambda: KeptHits(hit_rows([])))

    @property
    def by_request(self) -> bool:
        """Whether any of the objectives applies to a single request."""
        return any(objective.is_latency or objective.metric == FAILURES for objective in self.tallies)


class Attainment:
    """Takes the measured samples of one level that begins then, or of one of its `parts`."""

    def __init__(self, objectives: Sequence[Objective], *, begin_ns: int = 0, parts: int = 1) -> None:
        self._tallies = {objective: Tally() for objective in objectives}
        self._others = {objective: Tally() for objective in objectives}
        self._by_request = [
            objective for objective in objectives if objective.is_latency or objective.metric == FAILURES
        ]
        self._kept = {objective: _KeptHits(begin_ns, parts) for objective in self._by_request}
        self._kept_good = _KeptHits(begin_ns, parts, "f")  # which holds its values exactly
        self._requests = self._good = self._tokens = 0

    def add(self, sample: Sample) -> None:
        """Compare one ended request with every objective."""
        if sample.outcome.left_out:
            return
        self._requests += 1
        # All of them, also after a miss: each tally must be complete.
        met = [self._meets(objective, sample) for objective in self._by_request]
        good = sample.outcome is Outcome.OK and all(met)
        self._kept_good.add(sample, RequestHits(good, 1, 0.0 if good else math.inf))
        if good:
            self._good += 1
            self._tokens += sample.output_tokens or 0

    def absorb(self, other: Attainment) -> None:
        """Add what a part of the load attained, under the same objectives."""
        for mine, theirs in ((self._tallies, other._tallies), (self._others, other._others)):
            for objective in mine:
                mine[objective] = mine[objective].plus(theirs[objective])
        for objective in self._kept:
            self._kept[objective].absorb(other._kept[objective])
        self._kept_good.absorb(other._kept_good)
        self._requests += other._requests
        self._good += other._good
        self._tokens += other._tokens

    def attained(self) -> Attained:
        """The sums so far."""
        tallies, others = (
            {objective: replace(tally) for objective, tally in kept.items()} for kept in (self._tallies, self._others)
        )
        hits = {objective: kept.hits() for objective, kept in self._kept.items()}
        return Attained(tallies, others, self._requests, self._good, self._tokens, hits, self._kept_good.hits())

    def _meets(self, objective: Objective, sample: Sample) -> bool:
        """Whether the request has the figure and meets the bound; its tally gets it."""
        hits = hits_of(objective, sample)
        gave_up, failed = sample.outcome is Outcome.GAVE_UP, sample.outcome.failed
        lacks_it = gave_up and (hits is None or hits.over == math.inf)
        informing = objective.metric == FAILURES or informs(objective, sample)
        if hits is not None and (informing or not (failed or lacks_it)):
            self._kept[objective].add(sample, hits)
        if objective.metric == FAILURES:
            return not failed
        if failed:
            self._others[objective].failed += not informing
            return False
        tally = (self._tallies if informing else self._others)[objective]
        tally.gave_up += lacks_it
        if hits is None or (lacks_it and not informing):
            return False
        tally.add(hits.hits, hits.values)
        if objective.point == "mean":
            return hits.over < 1
        return 1000 * hits.hits >= objective.permille * hits.values


class _KeptHits:
    """What is kept of the requests, as they end."""

    def __init__(self, begin_ns: int, parts: int, code: Literal["d", "f"] = "d") -> None:
        # When it was due, and a row.
        self._kept = FirstRows(_MOST_KEPT, "q" + code * len(RequestHits._fields), parts=parts)
        self._by_time = (Slices(begin_ns), Slices(begin_ns)) if parts > 1 else ()  # of hits and values
        self._hits, self._values, self._size = array("d", [0.0]), array("d", [0.0]), 1  # by batches, the last not whole
        self._last = 0  # requests in that one
        self._powers = [0.0] * 5  # sums of powers of `over`, less the first
        self._first = self._largest = 0.0

    def add(self, sample: Sample, hits: RequestHits) -> None:
        if self._by_time:
            for by_time, number in zip(self._by_time, hits, strict=False):
                by_time.add(sample.end_ns, number)
            self._last = 0  # batches are by time
        elif self._last == self._size:
            if len(self._hits) == _MOST_BATCHES:
                self._hits, self._values = (
                    array("d", np.asarray(sums).reshape(-1, 2).sum(axis=1).tobytes())
                    for sums in (self._hits, self._values)
                )
                self._size *= 2
            self._hits.append(0.0)
            self._values.append(0.0)
            self._last = 0
        self._hits[-1] += hits.hits
        self._values[-1] += hits.values
        self._last += 1
        if not self._powers[0]:
            self._first = hits.over if math.isfinite(hits.over) else 0.0
        self._largest = max(self._largest, hits.over)
        power, away = 1.0, hits.over - self._first
        for exponent in range(5):
            self._powers[exponent] += power
            power *= away
        self._kept.add(sample.end_ns, sample.due_ns, *hits)

    def absorb(self, other: _KeptHits) -> None:
        self._kept.absorb(other._kept)
        for mine, theirs in zip(self._by_time, other._by_time, strict=True):
            mine.absorb(theirs)
        if not self._powers[0]:
            self._first = other._first
        self._largest = max(self._largest, other._largest)
        away = other._first - self._first
        for exponent in range(5):
            terms = (math.comb(exponent, k) * away ** (exponent - k) * other._powers[k] for k in range(exponent + 1))
            self._powers[exponent] += sum(terms)

    def hits(self) -> KeptHits:
        due_ns, *columns = self._kept.columns()
        rows = np.stack(columns, axis=1).astype(np.float64)[np.argsort(due_ns, kind="stable")]
        n = self._powers[0]
        if n <= len(rows):
            return KeptHits(rows)
        whole, over = len(self._hits) - (self._last < self._size), None
        batches, size = np.array([self._hits[:whole], self._values[:whole]]), self._size
        if self._by_time:
            batches = np.concatenate([by_time.all_rows() for by_time in self._by_time])
            used = np.flatnonzero(batches[1])
            batches = batches[:, used[0] : used[-1] + 1]
            size = max(1, round(n / batches.shape[1]))
        if math.isfinite(self._largest):
            mean, square, cube, fourth = (power / n for power in self._powers[1:])
            fourth += 6 * mean**2 * square - 4 * mean * cube - 3 * mean**4
            deviation = math.sqrt(max(0.0, square - mean**2))
            over = AllOver(round(n), self._first + mean, deviation, max(0.0, fourth), self._largest)
        return KeptHits(rows, batches, size, over)


def hits_of(objective: Objective, sample: Sample) -> RequestHits | None:
    """How a request fares; `None` where the objective does not apply to it, or it lacks the figure."""
    gave_up, failed = sample.outcome is Outcome.GAVE_UP, sample.outcome.failed
    if objective.metric == FAILURES:
        return None if gave_up else RequestHits(not failed, 1, math.inf if failed else 0.0)
    if failed:
        return None if objective.metric in MANY_A_REQUEST else RequestHits(0, 1, math.inf)
    values = values_of(objective, sample)
    if not values:
        return None
    weight = sum(weight for _, weight in values)
    if objective.point == "mean":
        total = sum(value * weight for value, weight in values)
        return RequestHits(total, weight, total / weight / objective.bound)
    below = sum(weight for value, weight in values if value < objective.bound)
    return RequestHits(below, weight, max(value for value, _ in values) / objective.bound)


def informs(objective: Objective, sample: Sample) -> bool:
    """Whether the request's user would have waited as long as the bound of this objective on a latency."""
    patience = sample.request.patience
    return patience is None or reaches(objective, patience.within_ns)


def reaches(objective: Objective, patience_ns: float) -> bool:
    """Whether a patience reaches the bound. A mean needs every value, and how long a token takes is no wait."""
    return objective.metric in _WAITS and objective.point != "mean" and patience_ns >= objective.bound


def values_of(objective: Objective, sample: Sample) -> Sequence[tuple[float, int]]:
    """(value, weight) pairs by which a request that ended ok, or was given up, counts towards such an objective."""
    if sample.outcome is Outcome.OK:
        return weighted(sample, objective.metric)
    if objective.metric in MANY_A_REQUEST:
        return []
    values = weighted(sample, objective.metric) if objective.metric in UNTIL_FIRST else []
    return values or [(math.inf, 1)]
