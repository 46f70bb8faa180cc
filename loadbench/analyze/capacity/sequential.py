"""Whether a load meets its objectives, decided while it is measured, as often as one likes to look.

*Evidence.* An objective on a quantile says that a share of at least p0 of requests is within its bound; each request
is a hit or a miss. Bets against a hypothesis that cannot gain on average if it is true make a wealth that reaches 1/α
with probability α at most, at whatever moment one stops (Ville, *Étude critique de la notion de collectif*, 1939;
Waudby-Smith and Ramdas, *Estimating means of bounded random variables by betting*, 2024). The wealth here is the mean
of likelihood ratios over a fixed list of alternatives (Robbins, *Statistical methods related to the law of the iterated
logarithm*, 1970): the odds of a miss are so many times those at p0, with 0 among them for servers that never miss.
One such wealth speaks against "the share is too small" (PASS), one against "it is large enough" (FAIL).

*Many objectives.* A load passes when every objective is proven; it fails when one is refuted, each at its part of α.

*Many loads.* α is shared equally among the loads that a search may visit, and at each load only one of the two errors
can be made; so all decisions of a search hold together with its confidence (Bonferroni). Requests of a heavier load
may vouch for a lighter one, for it does no worse there, and those of a lighter one against a heavier. Half of the
wealth bets on the load's own requests, the rest on these with those of loads ever farther away on that side (`_POOLS`):
a mean of such wealths is one again.

*Requests that hang together* tell less than as many independent ones: hits and misses are divided by the inefficiency
(`loadbench.analyze.stats.effective_n`) of the series of misses, or of what comes near one by so and so much (`_MARKS`),
whichever
is largest. A calm stretch hardly shows a miss, and yet whether requests wait for each other. Where the bound is beyond
all reach of what is seen (`_OUT_OF_REACH`), it does not matter how that hangs together. No load passes before each user
has asked five times, and none fails before each has once: a queue takes its time to build up.

*Fair order.* Requests count in the order in which they became due, up to the first that has not ended: those that have
ended already are the quick ones.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, insort
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from loadbench.analyze.level.steady import MIN_QUEUE_GROWTH, series_trend
from loadbench.analyze.stats.effective_n import inefficiency
from loadbench.plan.load import Phase
from loadbench.plan.objective import FAILURES
from loadbench.plan.search import Finding
from loadbench.record.attainment import Tally
from loadbench.record.figures import MANY_A_REQUEST, weighted
from loadbench.record.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from loadbench.plan.objective import Objective
    from loadbench.record.sample import Sample
    from loadbench.results.run import Decision

# Odds of a miss, in multiples of those at the share that is asked for; each list has its weights.
_BETTER = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8)
_WORSE = (1.25, 1.6, 2.0, 3.0, 5.0, 8.0, 15.0, 40.0, 150.0)
# Servers that never miss far below their limit are usual, and each of their requests tells most by this bet.
_FLAWLESS = 0.3
_BETTER_WEIGHTS = (_FLAWLESS, *(7 * ((1 - _FLAWLESS) / 7,)))
_WORSE_WEIGHTS = 9 * (1 / 9,)
# (how far from the load those lie that vouch for it, as a factor; the part of the wealth that bets on them with it)
_POOLS = ((1.0, 0.5), (1.25, 0.2), (1.6, 0.15), (math.inf, 0.15))
# Fewer requests tell nothing of how they hang together.
_FEWEST = 20
_FEWEST_A_USER = 5
# Arrivals before a pile is looked for, and batches that it is looked for in, as in `loadbench.analyze.level.steady`.
_FEWEST_TO_PILE = 100
_BATCHES = 20
# Whether requests hang together is seen in what is above these shares of the bound: misses are rare, and what leads up
# to them is not.
_MARKS = (0.1, 0.3, 0.6, 1.0)
# Standard deviations from the mean to the bound.
_OUT_OF_REACH = 10.0


@dataclass(frozen=True, slots=True)
class HitCount:
    """How requests fared by one objective: `hits` of `n`, worth so many independent ones."""

    n: int = 0
    hits: int = 0
    worth: float = 0.0

    @property
    def share(self) -> float | None:
        """Of hits."""
        return self.hits / self.n if self.n else None

    @property
    def effective(self) -> tuple[float, float]:
        """(hits, misses), as many as independent ones would tell as much."""
        scale = self.worth / self.n if self.n else 0.0
        return self.hits * scale, (self.n - self.hits) * scale


def required_share(objective: Objective) -> float:
    """The share of hits that an objective asks for."""
    return 1 - objective.bound if objective.metric == FAILURES else objective.permille / 1000


def log_wealth(p0: float, hits: float, misses: float) -> tuple[float, float]:
    """(against "the share is below p0", against "it is p0 or more"), as natural logarithms of the wealth.

    Hits and misses are in independent requests, and need not be whole.
    """
    return _wealth(_BETTER, _BETTER_WEIGHTS, p0, hits, misses), _wealth(_WORSE, _WORSE_WEIGHTS, p0, hits, misses)


def _wealth(odds: Sequence[float], weights: Sequence[float], p0: float, hits: float, misses: float) -> float:
    found = []
    for times, weight in zip(odds, weights, strict=True):
        ratio = times * (1 - p0) / p0
        if not times and misses > 0:
            continue
        miss = misses * (math.log(times) - math.log1p(ratio) - math.log(p0)) if misses else 0.0
        found.append(math.log(weight) - hits * (math.log1p(ratio) + math.log(p0)) + miss)
    return _log_sum(found)


def _log_sum(logs: Sequence[float]) -> float:
    most = max(logs)
    return most + math.log(sum(math.exp(one - most) for one in logs))


class SequentialTest:
    """The counts of every probe of a search by load, and what they come to; `alpha` is the error of each load.

    Of a `closed` loop the loads are users.
    """

    def __init__(self, objectives: Sequence[Objective], *, alpha: float, closed: bool = True) -> None:
        self.objectives = tuple(objectives)
        self._closed = closed
        self._alpha = alpha
        self._counts: dict[float, list[tuple[HitCount, ...]]] = {}

    def add(self, amount: float, counts: Sequence[HitCount]) -> None:
        """A probe of so many users, or of this rate, is over; a count for each objective."""
        self._counts.setdefault(amount, []).append(tuple(counts))

    def total(self, amount: float) -> tuple[HitCount, ...]:
        """All probes of a load together."""
        return tuple(_sum(one[place] for one in self._counts.get(amount, ())) for place in range(len(self.objectives)))

    def assess(self, amount: float, counts: Sequence[HitCount] = ()) -> Finding:
        """What is known of a load, with the counts of a probe of it that is still under way."""
        passes, fails, gains = [], [], []
        for place, objective in enumerate(self.objectives):
            p0 = required_share(objective)
            now = [counts[place]] if counts else []
            own = _together_at([*now, *(one[place] for one in self._counts.get(amount, ()))])
            gains.append(_gain(p0, *own.effective))
            each = own.n / (amount if self._closed else 1.0)
            to_tell = own.n >= _FEWEST and each >= 1
            fails.append(self._pooled(place, amount, own, p0, heavier=False) if to_tell else -math.inf)
            to_tell = to_tell and each >= _FEWEST_A_USER
            passes.append(self._pooled(place, amount, own, p0, heavier=True) if to_tell else -math.inf)
        to_pass, to_fail = math.log(1 / self._alpha), math.log(len(self.objectives) / self._alpha)
        decision: Decision = "UNDECIDED"
        if max(fails) >= to_fail:
            decision = "FAIL"
        elif min(passes) >= to_pass:
            decision = "PASS"
        leaning = min(gains)
        return Finding(decision, leaning, (to_fail if leaning < 0 else to_pass) / max(abs(leaning), 1e-9))

    def _pooled(self, place: int, amount: float, own: HitCount, p0: float, *, heavier: bool) -> float:
        side = 0 if heavier else 1
        distant = {
            max(other / amount, amount / other): [one[place] for one in probes]
            for other, probes in self._counts.items()
            if other != amount and (other > amount) == heavier
        }
        found = []
        for reach, weight in _POOLS:
            pool = [own, *(one for distance, counts in distant.items() if distance <= reach for one in counts)]
            found.append(math.log(weight) + log_wealth(p0, *_effective(pool))[side])
        return _log_sum(found)


def _together_at(counts: Sequence[HitCount]) -> HitCount:
    """All probes of one load. A short one that lies within a single spell, good or bad, shows nothing of how requests
    hang together: each is taken to be no better in that than any longer one."""
    found, worst = [], 1.0
    for one in sorted(counts, key=lambda one: -one.n):
        if one.n:
            worst = max(worst, one.n / one.worth)
            found.append(HitCount(one.n, one.hits, one.n / worst))
    return _sum(found)


def _sum(counts: Iterable[HitCount]) -> HitCount:
    n, hits, worth = 0, 0, 0.0
    for one in counts:
        n, hits, worth = n + one.n, hits + one.hits, worth + one.worth
    return HitCount(n, hits, worth)


def _effective(counts: Iterable[HitCount]) -> tuple[float, float]:
    pairs = [one.effective for one in counts]
    return sum(hits for hits, _ in pairs), sum(misses for _, misses in pairs)


def _gain(p0: float, hits: float, misses: float) -> float:
    """n KL(share, p0), with the sign of share - p0: what so many requests tell, by the best bet in hindsight."""
    n = hits + misses
    if not n:
        return 0.0
    share = hits / n
    found = (hits * math.log(share / p0) if hits else 0.0) + (
        misses * math.log((1 - share) / (1 - p0)) if misses else 0.0
    )
    return math.copysign(max(0.0, found), share - p0)


class _Fared(NamedTuple):
    """One request by one objective: hits of so many values, the largest of them over the bound."""

    hits: int
    values: int
    over: float


class SequentialMonitor:
    """Watches the measured requests of one probe, and says what they come to, with all that was known before."""

    def __init__(self, ledger: SequentialTest, amount: float, *, opens_ns: int = 0, is_open: bool = False) -> None:
        self._ledger = ledger
        self._amount = amount
        self._opens_ns = opens_ns
        self._is_open = is_open
        self._in_flight: dict[int, int] = {}
        self._ended: list[tuple[int, int, tuple[_Fared | None, ...]]] = []
        self._ends = array("q")
        self._looked = 0
        self.overloaded = False

    def started(self, number: int, due_ns: int) -> None:
        """A measured request is on its way."""
        self._in_flight[number] = due_ns

    def add(self, sample: Sample) -> None:
        """A request has ended; one that the user cut tells nothing."""
        if sample.phase is not Phase.MEASURED:
            return
        self._in_flight.pop(sample.number, None)
        if sample.outcome is not Outcome.CANCELLED:
            self._ends.append(sample.end_ns)
            fared = tuple(_fared(objective, sample) for objective in self._ledger.objectives)
            insort(self._ended, (sample.due_ns, sample.number, fared), key=lambda one: one[:2])

    @property
    def ended(self) -> int:
        """Measured requests that have ended."""
        return len(self._ended)

    @property
    def known(self) -> int:
        """Requests that count so far: those that were due before any that is still under way."""
        if not self._in_flight:
            return len(self._ended)
        return bisect_left(self._ended, min(self._in_flight.values()), key=lambda one: one[0])

    def counts(self) -> tuple[HitCount, ...]:
        """How these fared, by objective."""
        known = self._ended[: self.known]
        return tuple(_count([fared[place] for _, _, fared in known]) for place in range(len(self._ledger.objectives)))

    def finding(self, now_ns: int) -> Finding:
        """What is known of the load by now. A rate at which requests pile up fails, however quick the first were."""
        found = self._ledger.assess(self._amount, self.counts())
        if self._is_open and (self.overloaded or self._piles_up(now_ns)):
            self.overloaded = True
            return Finding("FAIL", -math.inf, 1.0)
        return found

    def _piles_up(self, now_ns: int) -> bool:
        """By the rule for whole levels, looked at from time to time: whenever half as many again have come."""
        arrivals = len(self._ended) + len(self._in_flight)
        if arrivals < max(_FEWEST_TO_PILE, 1.5 * self._looked) or now_ns <= self._opens_ns:
            return False
        self._looked = arrivals
        due = np.array([*(one[0] for one in self._ended), *self._in_flight.values()], np.float64)
        edges = np.linspace(self._opens_ns, now_ns, _BATCHES + 1)
        pile = series_trend(
            _present(due, edges) - _present(np.frombuffer(self._ends, np.int64).astype(np.float64), edges)
        )
        return pile.exceeds_random_walk and pile.rise > MIN_QUEUE_GROWTH * arrivals


def _present(moments: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """How many of these have come by then, on average over each stretch between the edges."""
    since = np.clip(edges[None, :] - moments[:, None], 0, None).sum(axis=0)
    means: np.ndarray = np.diff(since) / np.diff(edges)
    return means


def _fared(objective: Objective, sample: Sample) -> _Fared | None:
    """`None` where the objective asks nothing of this request."""
    failed = sample.outcome is not Outcome.OK
    if objective.metric == FAILURES:
        return _Fared(not failed, 1, math.inf if failed else 0.0)
    many = objective.metric in MANY_A_REQUEST
    if failed:
        return None if many else _Fared(0, 1, math.inf)
    values = weighted(sample, objective.metric)
    if not values:
        return None
    hits = sum(weight for value, weight in values if value < objective.bound)
    return _Fared(hits, sum(weight for _, weight in values), max(value for value, _ in values) / objective.bound)


def _count(fared: Sequence[_Fared | None]) -> HitCount:
    told = [one for one in fared if one is not None]
    n, hits = sum(one.values for one in told), sum(one.hits for one in told)
    if not n:
        return HitCount()
    return HitCount(n, hits, min(_independent(told), n) / _together(told))


def _together(told: Sequence[_Fared]) -> float:
    """How many requests tell as much as one that is independent."""
    over = np.array([one.over for one in told])
    if np.isfinite(over).all() and over.mean() + _OUT_OF_REACH * over.std() < 1:
        return 1.0
    return max(inefficiency((over >= mark).tolist()) for mark in _MARKS)


def _independent(told: Sequence[_Fared]) -> float:
    """As how many values the spread among requests makes these appear, where a request brings many (Korn and Graubard,
    *Survey Methodology* 24, 1998); as one each where all are alike."""
    if all(one.values == 1 for one in told):
        return float(len(told))
    tally = Tally()
    for one in told:
        tally.add(one.hits, one.values)
    share, variance = tally.y / tally.m, tally.variance()
    return share * (1 - share) / variance if variance else float(len(told))
