"""The sequential test of a load against its objectives: it may be evaluated at any time and as often as one likes.

*Evidence.* An objective on a quantile states that a share of at least p0 of the requests is within its bound. Each
request is a hit or a miss. A betting strategy against a hypothesis gains nothing on average if the hypothesis is true,
so its wealth ever reaches 1/α with a probability of at most α, at whatever moment one stops (Ville, *Étude critique de
la notion de collectif*, 1939; Waudby-Smith and Ramdas, *Estimating means of bounded random variables by betting*,
2024). The wealth is the mean of likelihood ratios over a fixed list of alternatives (Robbins, *Statistical methods
related to the law of the iterated logarithm*, 1970). Each alternative multiplies the odds of a miss at p0 by a factor;
factor 0 is a server that never misses. One wealth is evidence against "the share is too small" (PASS), another one
against "the share is large enough" (FAIL).

*Several objectives.* A load passes when every objective is proven. It fails when one objective is refuted; the
objectives share α.

*Several loads.* The loads that a search may visit share α equally, and only one of the two errors is possible at each
load. So all decisions of a search hold together with its confidence (Bonferroni). Requests of a heavier load also
count in favour of a lighter one, because it does no worse there; requests of a lighter load also count against a
heavier one. Half of the wealth bets on the load's own requests; the rest bets on these plus the requests of loads ever
farther away on that side (`_POOLS`). A mean of such wealths is again a wealth.

*Correlated requests* carry less information than independent ones: hits and misses count as the effective n that
`loadbench.analyze.stats.hits` finds, as they do for objectives and gates. No load passes before each user has sent five
requests, and none fails before each has sent one, because a queue takes time to build up.

*Order.* Requests count in the order in which they were due, up to the first one that has not ended. Counting every
ended request would favour the fast ones.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, insort
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from loadbench.analyze.level.steady import MIN_QUEUE_GROWTH, series_trend
from loadbench.analyze.stats.hits import effective_hits
from loadbench.plan.load import Phase
from loadbench.plan.objective import FAILURES
from loadbench.plan.search import Finding
from loadbench.record.attainment import hit_rows, hits_of, informs
from loadbench.record.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from loadbench.plan.objective import Objective
    from loadbench.record.attainment import RequestHits
    from loadbench.record.sample import Sample
    from loadbench.results.run import Decision

# Alternatives: factors on the odds of a miss at p0, each list with its weights. Servers that never miss are common, and
# their requests carry most information under factor 0; so it has the largest weight.
_BETTER = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8)
_BETTER_WEIGHTS = (0.3, *(7 * (0.1,)))
_WORSE = (1.25, 1.6, 2.0, 3.0, 5.0, 8.0, 15.0, 40.0, 150.0)
_WORSE_WEIGHTS = 9 * (1 / 9,)
# (how far the other loads of a pool may lie from this one, as a factor; the share of the wealth that bets on the pool)
_POOLS = ((1.0, 0.5), (1.25, 0.2), (1.6, 0.15), (math.inf, 0.15))
# Fewer requests do not show their correlation.
FEWEST = 20
FEWEST_PER_USER = 5  # for PASS
# Arrivals before a growing queue is looked for, and the batches used, as in `loadbench.analyze.level.steady`.
_FEWEST_TO_PILE = 100
_BATCHES = 20


@dataclass(frozen=True, slots=True)
class HitCount:
    """`hits` of `n` values met one objective; they carry as much information as `effective_n` independent ones."""

    n: int = 0
    hits: int = 0
    effective_n: float = 0.0

    @property
    def share(self) -> float | None:
        """Hits per value; `None` without a value."""
        return self.hits / self.n if self.n else None

    @property
    def independent(self) -> tuple[float, float]:
        """(hits, misses) in independent values."""
        scale = self.effective_n / self.n if self.n else 0.0
        return self.hits * scale, (self.n - self.hits) * scale


def required_share(objective: Objective) -> float:
    """The share of hits that an objective requires."""
    return 1 - objective.bound if objective.metric == FAILURES else objective.permille / 1000


def log_wealth(p0: float, hits: float, misses: float) -> tuple[float, float]:
    """(against "the share is below p0", against "it is p0 or more"), as natural logarithms of the wealth.

    Hits and misses are in independent requests and need not be whole numbers.
    """
    sides = []
    for factors, weights in ((_BETTER, _BETTER_WEIGHTS), (_WORSE, _WORSE_WEIGHTS)):
        logs = []
        for factor, weight in zip(factors, weights, strict=True):
            ratio = factor * (1 - p0) / p0
            if not factor and misses > 0:
                continue
            miss = misses * (math.log(factor) - math.log1p(ratio) - math.log(p0)) if misses else 0.0
            logs.append(math.log(weight) - hits * (math.log1p(ratio) + math.log(p0)) + miss)
        sides.append(_log_sum(logs))
    return sides[0], sides[1]


def _log_sum(logs: Sequence[float]) -> float:
    most = max(logs)
    return most + math.log(sum(math.exp(log - most) for log in logs))


class SequentialTest:
    """The counts of every probe of a search by load, and the decision they support; `alpha` is the error of each load.

    For a `closed` loop the loads are users, else requests per second.
    """

    def __init__(self, objectives: Sequence[Objective], *, alpha: float, closed: bool = True) -> None:
        self.objectives = tuple(objectives)
        self._closed = closed
        self._alpha = alpha
        self._counts: dict[float, list[tuple[HitCount, ...]]] = {}

    def add(self, amount: float, counts: Sequence[HitCount]) -> None:
        """Add a finished probe of this load, with one count for each objective."""
        self._counts.setdefault(amount, []).append(tuple(counts))

    def assess(self, amount: float, counts: Sequence[HitCount] = ()) -> Finding:
        """The decision for a load; `counts` are those of a probe of it that is still running."""
        passes, fails, gains = [], [], []
        for place, objective in enumerate(self.objectives):
            p0 = required_share(objective)
            running = [counts[place]] if counts else []
            own = _pooled_probes([*running, *(probe[place] for probe in self._counts.get(amount, ()))])
            gains.append(_gain(p0, *own.independent))
            per_user = own.n / (amount if self._closed else 1.0)
            decidable = own.n >= FEWEST and per_user >= 1
            fails.append(self._evidence(place, amount, own, p0, heavier=False) if decidable else -math.inf)
            decidable = decidable and per_user >= FEWEST_PER_USER
            passes.append(self._evidence(place, amount, own, p0, heavier=True) if decidable else -math.inf)
        to_pass, to_fail = math.log(1 / self._alpha), math.log(len(self.objectives) / self._alpha)
        decision: Decision = "UNDECIDED"
        if max(fails) >= to_fail:
            decision = "FAIL"
        elif min(passes) >= to_pass:
            decision = "PASS"
        leaning = min(gains)
        return Finding(decision, leaning, (to_fail if leaning < 0 else to_pass) / max(abs(leaning), 1e-9))

    def _evidence(self, place: int, amount: float, own: HitCount, p0: float, *, heavier: bool) -> float:
        """The log wealth for PASS with the help of heavier loads, or for FAIL with the help of lighter ones."""
        others = {
            max(other / amount, amount / other): [probe[place] for probe in probes]
            for other, probes in self._counts.items()
            if other != amount and (other > amount) == heavier
        }
        logs = []
        for reach, weight in _POOLS:
            pool = [own, *(count for distance, counts in others.items() if distance <= reach for count in counts)]
            hits, misses = map(sum, zip(*(count.independent for count in pool), strict=True))
            logs.append(math.log(weight) + log_wealth(p0, hits, misses)[0 if heavier else 1])
        return _log_sum(logs)


def _pooled_probes(counts: Iterable[HitCount]) -> HitCount:
    """All probes of one load. A short probe that lies within one good or bad spell does not show its correlation: each
    probe is taken to be no better in that respect than any longer one."""
    n, hits, effective_n, worst = 0, 0, 0.0, 1.0
    for count in sorted(counts, key=lambda count: -count.n):
        if count.n:
            worst = max(worst, count.n / count.effective_n)
            n, hits, effective_n = n + count.n, hits + count.hits, effective_n + count.n / worst
    return HitCount(n, hits, effective_n)


def _gain(p0: float, hits: float, misses: float) -> float:
    """n KL(share, p0) with the sign of share - p0: the evidence of n requests under the best bet in hindsight."""
    n = hits + misses
    if not n:
        return 0.0
    share = hits / n
    of_hits = hits * math.log(share / p0) if hits else 0.0
    of_misses = misses * math.log((1 - share) / (1 - p0)) if misses else 0.0
    return math.copysign(max(0.0, of_hits + of_misses), share - p0)


class SequentialMonitor:
    """Follows the measured requests of one running probe and applies the test to them and to all earlier probes."""

    def __init__(self, test: SequentialTest, amount: float, *, opens_ns: int = 0, is_open: bool = False) -> None:
        self._test = test
        self._amount = amount
        self._opens_ns = opens_ns
        self._is_open = is_open
        self._in_flight: dict[int, int] = {}
        self._ended: list[tuple[int, int, tuple[RequestHits | None, ...]]] = []
        self._ends = array("q")
        self._checked = 0
        # How many requests tell nothing about an objective: their users would not have waited as long as its bound.
        self.left_out: Counter[Objective] = Counter()
        self.overloaded = False

    def started(self, number: int, due_ns: int) -> None:
        """A measured request was sent."""
        self._in_flight[number] = due_ns

    def add(self, sample: Sample) -> None:
        """A request has ended. One that was cancelled by the user carries no information."""
        if sample.phase is not Phase.MEASURED:
            return
        self._in_flight.pop(sample.number, None)
        if sample.outcome is not Outcome.CANCELLED:
            self._ends.append(sample.end_ns)
            self.left_out.update(one for one in self._test.objectives if not informs(one, sample))
            hits = tuple(
                hits_of(objective, sample) if objective.metric == FAILURES or informs(objective, sample) else None
                for objective in self._test.objectives
            )
            insort(self._ended, (sample.due_ns, sample.number, hits), key=lambda entry: entry[:2])

    @property
    def ended(self) -> int:
        """Measured requests that have ended."""
        return len(self._ended)

    @property
    def known(self) -> int:
        """Requests that count so far: those that were due before every request still in flight."""
        if not self._in_flight:
            return len(self._ended)
        return bisect_left(self._ended, min(self._in_flight.values()), key=lambda entry: entry[0])

    def counts(self) -> tuple[HitCount, ...]:
        """The hits among these requests, by objective."""
        known, users = self._ended[: self.known], None if self._is_open else max(1, round(self._amount))
        counts = []
        for place, objective in enumerate(self._test.objectives):
            rows = hit_rows([own for _, _, hits in known if (own := hits[place]) is not None])
            effective = effective_hits(rows, required_share(objective), users=users)
            counts.append(HitCount(int(rows[:, 1].sum()), int(rows[:, 0].sum()), effective))
        return tuple(counts)

    def finding(self, now_ns: int) -> Finding:
        """The decision for the load so far. A rate at which the queue grows fails, however fast the first requests."""
        finding = self._test.assess(self._amount, self.counts())
        if self._is_open and (self.overloaded or self._queue_grows(now_ns)):
            self.overloaded = True
            return Finding("FAIL", -math.inf, 1.0)
        return finding

    def _queue_grows(self, now_ns: int) -> bool:
        """The rule for whole levels, applied each time the number of arrivals has grown by half."""
        arrivals = len(self._ended) + len(self._in_flight)
        if arrivals < max(_FEWEST_TO_PILE, 1.5 * self._checked) or now_ns <= self._opens_ns:
            return False
        self._checked = arrivals
        due = np.array([*(entry[0] for entry in self._ended), *self._in_flight.values()], np.float64)
        edges = np.linspace(self._opens_ns, now_ns, _BATCHES + 1)
        arrived, gone = _mean_counts(due, edges), _mean_counts(np.array(self._ends, np.float64), edges)
        queue = series_trend(arrived - gone)
        return queue.exceeds_random_walk and queue.rise > MIN_QUEUE_GROWTH * arrivals


def _mean_counts(moments: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """How many of these moments have passed, on average over each stretch between two edges."""
    since = np.clip(edges[None, :] - moments[:, None], 0, None).sum(axis=0)
    means: np.ndarray = np.diff(since) / np.diff(edges)
    return means
