"""What a search proves about the capacity, however often one looks.

*Evidence.* An objective on a quantile states that a share of at least p0 of the requests is within its bound. Each
request is a hit or a miss. A betting strategy against a hypothesis gains nothing on average if the hypothesis is true,
so its wealth ever reaches 1/α with a probability of at most α, at whatever moment one stops (Ville, *Étude critique de
la notion de collectif*, 1939; Waudby-Smith and Ramdas, *Estimating means of bounded random variables by betting*,
2024).

*One wealth for each candidate.* The hypothesis "the capacity is k" says that every load up to k meets the objectives
and every load above k misses one; only monotony is assumed. Half of the wealth bets that loads up to k miss too often,
the other half that loads above k hit often enough; the requests of all loads count. The candidates whose wealth has
not reached 1/α are a confidence set. The true capacity is one candidate and its wealth one game, so nothing is divided
among the loads that a search visits (a confidence sequence by inversion; Robbins, *Statistical methods related to the
law of the iterated logarithm*, 1970). A bet is a mean of likelihood ratios over a fixed list of alternatives: borders
on the other side of k, each with a steepness (`_CURVES`), and shares that are the same at all loads (`_LEVELS`).

*Several objectives.* A load misses when one objective is missed: the mean of their wealths bets on that. It meets them
when all do: the least of their wealths counts.

*Correlated requests* carry less information than independent ones: hits and misses count as the effective n that
`loadbench.analyze.stats.hits` finds, as they do for objectives and gates. No probe counts for PASS before each user has
sent five requests, and none for FAIL before each has sent one, because a queue takes time to build up.

*Order.* Requests count in the order in which they were due, up to the first one that has not ended. Counting every
ended request would favour the fast ones.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, insort
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from loadbench.analyze.capacity.in_flight import InFlightStates
from loadbench.analyze.level.steady import MIN_QUEUE_GROWTH, series_trend
from loadbench.analyze.stats.effective_n import effective_n
from loadbench.analyze.stats.hits import effective_hits
from loadbench.plan.load import Phase
from loadbench.plan.objective import FAILURES
from loadbench.record.attainment import hit_rows, hits_of, informs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadbench.plan.objective import Objective
    from loadbench.plan.search import Finding
    from loadbench.record.attainment import RequestHits
    from loadbench.record.sample import Sample

# Alternatives to a candidate: the border is this many times nearer or further, near ones with more weight than far
# ones, and the share falls with this steepness.
_RATIOS = (1.06, 1.13, 1.25, 1.45, *(1.7 * 1.2**step for step in range(36)))
_CURVES = tuple((ratio, b, 1 / (1 + place)) for place, ratio in enumerate(_RATIOS) for b in (2.5, 6.0, 20.0))
# Alternatives of one share at all loads: factors on the odds of a miss.
_LEVELS = (2.0, 6.0, 40.0)
_WEIGHTS = np.array([*(weight for _, _, weight in _CURVES), *(1.0 for _ in _LEVELS)])
_LOG_WEIGHTS = np.log(_WEIGHTS / _WEIGHTS.sum())[:, None]
# Fewer requests do not show their correlation.
FEWEST = 20
FEWEST_PER_USER = 5  # for PASS
# Arrivals before a growing queue is looked for, and the batches used, as in `loadbench.analyze.level.steady`.
_FEWEST_TO_PILE = 100
_BATCHES = 20


@dataclass(frozen=True, slots=True)
class HitCount:
    """`hits` of `n` values met one objective; they carry as much information as `effective_n` independent ones.

    `inefficiency` is how many in a row are worth an independent one, by their autocorrelation; `None` where all are
    alike. It is a best guess, and `effective_n` a cautious one, which also knows how few rounds of users there were.
    """

    n: int = 0
    hits: int = 0
    effective_n: float = 0.0
    inefficiency: float | None = None

    @property
    def share(self) -> float | None:
        """Hits per value; `None` without a value."""
        return self.hits / self.n if self.n else None

    @property
    def independent(self) -> tuple[float, float]:
        """(hits, misses) in independent values."""
        scale = self.effective_n / self.n if self.n else 0.0
        return self.hits * scale, (self.n - self.hits) * scale


class ProbeCounts(NamedTuple):
    """The counts of one probe at a load, one for each objective. `hopeless`: its queue grew, or a rule aborted it."""

    amount: float
    counts: tuple[HitCount, ...]
    hopeless: bool = False


def required_share(objective: Objective) -> float:
    """The share of hits that an objective requires."""
    return 1 - objective.bound if objective.metric == FAILURES else objective.permille / 1000


def log_wealths(
    probes: Sequence[ProbeCounts], p0s: Sequence[float], candidates: Sequence[float], *, closed: bool
) -> tuple[np.ndarray, np.ndarray]:
    """For each candidate, ascending, the log wealth of the bet that loads up to it miss, and that loads above it hit.

    A candidate stands for all capacities from its load to just below that of the next one. For a `closed` loop the
    loads are users, else requests per second.
    """
    loads, hopeless = np.array([probe.amount for probe in probes]), np.array([probe.hopeless for probe in probes])
    bounds = np.array(candidates, np.float64)
    beyond = np.append(bounds[1:], bounds[-1] * 1.05)
    misses_too_often: list[np.ndarray] = []
    hits_often_enough: list[np.ndarray] = []
    for place, p0 in enumerate(p0s):
        counts = [probe.counts[place] for probe in probes]
        hits, misses = np.array([count.independent for count in counts]).T
        n = np.array([count.n for count in counts])
        per_user = n / loads if closed else n
        fails = (n >= FEWEST) & (per_user >= 1) | (n >= 3) & (np.array([count.hits for count in counts]) == 0) & (
            loads <= 1
        )
        passes = (n >= FEWEST) & (per_user >= FEWEST_PER_USER)
        for gains, wanted, sign in ((misses_too_often, fails, 1), (hits_often_enough, passes, -1)):
            near = bounds if sign > 0 else beyond
            borders = [(near / ratio if sign > 0 else near * ratio, b) for ratio, b, _ in _CURVES]
            odds = [(1 - p0) / p0 * (loads[None, :] / border[:, None]) ** b for border, b in borders]
            odds += [np.full((len(near), len(loads)), (1 - p0) / p0 * level**sign) for level in _LEVELS]
            share = 1 / (1 + np.array(odds))
            share = np.minimum(share, p0) if sign > 0 else np.maximum(share, p0)
            share = np.clip(share, 1e-9, 1 - 1e-9)
            logs = hits * np.log(share / p0) + misses * np.log((1 - share) / (1 - p0))
            count = (
                (loads[None, :] <= bounds[:, None]) if sign > 0 else (loads[None, :] >= beyond[:, None] * (1 - 1e-9))
            )
            if sign < 0:
                # Where the queue grows, quick requests are only the first ones: they prove nothing of lower loads.
                logs = np.where(hopeless, np.minimum(logs, 0.0), logs)
            logs = np.where(count & wanted, logs, 0.0).sum(axis=2)
            logs += _LOG_WEIGHTS
            top = logs.max(axis=0)
            gains.append(top + np.log(np.exp(logs - top).sum(axis=0)))
    return np.logaddexp.reduce(misses_too_often) - math.log(len(p0s)), np.min(hits_often_enough, axis=0)


def leaning(p0: float, count: HitCount) -> float:
    """n KL(share, p0) with the sign of share - p0: the evidence of n requests under the best bet in hindsight."""
    hits, misses = count.independent
    n = hits + misses
    if not n:
        return 0.0
    share = hits / n
    of_hits = hits * math.log(share / p0) if hits else 0.0
    of_misses = misses * math.log((1 - share) / (1 - p0)) if misses else 0.0
    return math.copysign(max(0.0, of_hits + of_misses), share - p0)


class SequentialMonitor:
    """Follows the measured requests of one running probe. What they show beside all earlier probes, `assess` says."""

    def __init__(
        self,
        objectives: Sequence[Objective],
        amount: float,
        assess: Callable[[tuple[HitCount, ...], bool], Finding],
        *,
        opens_ns: int = 0,
        is_open: bool = False,
    ) -> None:
        self._objectives = tuple(objectives)
        self._amount = amount
        self._assess = assess
        self._opens_ns = opens_ns
        self._is_open = is_open
        self._in_flight: dict[int, int] = {}
        self.states = InFlightStates(len(self._objectives))
        self._met: dict[int, int] = {}
        self._present, self._since_ns = 0, opens_ns
        self._ended: list[tuple[int, int, tuple[RequestHits | None, ...]]] = []
        self._ends = array("q")
        self._checked = 0
        # How many requests tell nothing about an objective: their users would not have waited as long as its bound.
        self.left_out: Counter[Objective] = Counter()
        self.overloaded = False

    def started(self, number: int, due_ns: int, *, measured: bool = True) -> None:
        """A request was sent."""
        if measured:
            self._in_flight[number] = due_ns
            self._met[number] = self._present
        self._pass(due_ns, 1)

    def _pass(self, now_ns: int, change: int) -> None:
        """Time passes with as many requests in flight as there are, until one starts or ends."""
        self.states.reach(self._present)
        if now_ns > self._since_ns:
            self.states.seconds[self._present] += (now_ns - self._since_ns) / 1e9
            self._since_ns = now_ns
        self._present = max(0, self._present + change)

    def add(self, sample: Sample) -> None:
        """A request has ended. One that was cancelled by the user carries no information."""
        before = self._present
        self._pass(sample.end_ns, -1)
        if sample.end_ns > self._opens_ns and not sample.outcome.left_out:
            self.states.ended[before] += 1
        if sample.phase is not Phase.MEASURED:
            return
        self._in_flight.pop(sample.number, None)
        met = self._met.pop(sample.number, None)
        if not sample.outcome.left_out:
            self._ends.append(sample.end_ns)
            self.left_out.update(one for one in self._objectives if not informs(one, sample))
            hits = tuple(
                hits_of(objective, sample) if objective.metric == FAILURES or informs(objective, sample) else None
                for objective in self._objectives
            )
            if met is not None:
                self.states.met[met] += 1
                for place, own in enumerate(hits):
                    self.states.missed[place, met] += own is not None and own.hits < own.values
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
        for place, objective in enumerate(self._objectives):
            rows = hit_rows([own for _, _, hits in known if (own := hits[place]) is not None])
            effective = effective_hits(rows, required_share(objective), users=users)
            met = rows[:, 0] >= rows[:, 1]
            correlated = len(met) / effective_n(met, round_size=len(met)) if 0 < met.sum() < len(met) else None
            counts.append(HitCount(int(rows[:, 1].sum()), int(rows[:, 0].sum()), effective, correlated))
        return tuple(counts)

    def finding(self, now_ns: int) -> Finding:
        """What is known so far. A rate at which the queue grows is hopeless, however fast the first requests."""
        self.overloaded = self.overloaded or (self._is_open and self._queue_grows(now_ns))
        return self._assess(self.counts(), self.overloaded)

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
