"""How much side b differs from side a, and how certain that is.

A latency or a throughput is compared by the logarithm of b / a, so that 2x and 0.5x are equally far from "no change".
Values of several runs are averaged as logarithms; their ratio is then the ratio of geometric means.

*Pairs* (`BetweenRuns`, paired). Both runs of a pair share their conditions, so the unit is the pair. The mean
difference over its standard error follows Student's t with n - 1 degrees of freedom. For the few runs that people can
afford, a percentile bootstrap is too narrow (Hesterberg, *What Teachers Should Know About the Bootstrap*, 2015);
`tests/coverage/compare.py` measures both.

*Saved runs* (`BetweenRuns` with sessions). A machine drifts: runs of one session are alike, and those of another
session are all faster or all slower. The unit is therefore the session (`sessions`), with the mean of its runs. The
spread between the sessions of both sides is that of one machine, so it is pooled (Student's t; Welch's is wrong in one
of fourteen comparisons of 6 sessions with 2), and one session is enough on a side if the other side has five. Fewer
than six sessions in all do not show the spread: `ASSUMED_DRIFT` stands for it, unless they show a larger one.

*One run a side* (`WithinRun`). The uncertainty comes from each side's own interval in `run.json`, which accounts for
correlated requests, and from the assumed drift. The distances to the limits are combined as independent errors (the
method of variance estimates recovery: Zou and Donner, *Construction of confidence limits about effect measures*, 2008).

*Ranks*. One slow run among ten hides a difference from Student's t, but not from a rank test. Where the runs are enough
for the exact rank test, the smaller of both p values counts, times `_TWO_TESTS`.

*Until* (`BetweenRuns.first`). If the number of pairs was not fixed beforehand, but pairs were added until the interval
was narrow enough, an ordinary interval is too narrow: one stops when the spread happens to look small. The spread that
counts is then never below that of the first pairs, with their degrees of freedom. As the mean is independent of the
spread, and the end is decided by the spread alone, the interval holds however often one looks (Stein, *A two-sample
test for a linear hypothesis whose power is independent of the variance*, 1945).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from loadbench.analyze.stats import ranks, student

if TYPE_CHECKING:
    from collections.abc import Sequence

    Values = np.ndarray[Any, np.dtype[np.float64]]

# A change is detectable if this share of comparisons would show it: the convention of planning (Cohen, 1988).
POWER = 0.8
# The standard deviation of a machine's speed between sessions, where too few sessions show it. Heat, other load, memory
# placement and clock rates make steps of 10 to 15 %; a step of 15 % either way on both sides is covered.
ASSUMED_DRIFT = 0.15
_SESSION_ERROR = math.log1p(ASSUMED_DRIFT)
# Fewer degrees of freedom (fewer than six sessions in all) do not show the drift: of a machine that is in one of two
# states, 2 sessions with 2, or 3 with 1, differ by chance alone in one of ten comparisons.
_FEWEST_FREEDOM = 4
# Two tests of one question mostly agree, so that the smaller p times 1.3 keeps the level; two unrelated ones would need
# 2 (Bonferroni). `python -m tests.coverage.compare` measures it. The rank test takes part where it can get this far.
_TWO_TESTS = 1.3
_RANKS_REACH = 0.02
_NORMAL_975 = 1.959964


@dataclass(frozen=True, slots=True)
class RankTest:
    """The exact rank test of the units of both sides."""

    a: Values
    b: Values
    paired: bool

    def p_value(self) -> float:
        """The two-sided p of no difference."""
        return ranks.signed_ranks(self.b - self.a) if self.paired else ranks.mann_whitney(self.a, self.b)

    def p_beyond(self, bound: float) -> float:
        """The one-sided p of a difference that is not above the bound."""
        if self.paired:
            return ranks.signed_ranks(self.b - self.a - bound, above=True)
        return ranks.mann_whitney(self.a + bound, self.b, b_above=True)

    def shift(self, confidence: float) -> tuple[float, tuple[float, float] | None]:
        """The difference by Hodges and Lehmann, and its interval, if there is one."""
        return ranks.shift(self.a, self.b, paired=self.paired, confidence=confidence)


@dataclass(frozen=True, slots=True)
class Effect:
    """A difference b - a, its standard errors below and above, and the degrees of freedom of these.

    `ranks` is the rank test that decides as well; `assumed` says that the error is mostly `ASSUMED_DRIFT`.
    """

    value: float
    below: float
    above: float
    freedom: float = math.inf
    ranks: RankTest | None = None
    assumed: bool = False

    def estimate(self, confidence: float, bound: float = 0.0) -> tuple[float, tuple[float, float]]:
        """The difference and its two-sided interval, which excludes the bound exactly where the tests do.

        They are those of the rank test where it alone excludes the bound.
        """
        alpha = (1 - confidence) / (_TWO_TESTS if self.ranks is not None else 1.0)
        t = student.quantile(1 - alpha / 2, self.freedom)
        low, high = self.value - t * self.below, self.value + t * self.above
        if self.ranks is not None and low <= bound <= high:
            shift, ends = self.ranks.shift(1 - alpha)
            if ends is not None and not ends[0] <= bound <= ends[1]:
                return shift, ends
        return self.value, (low, high)

    def interval(self, confidence: float, bound: float = 0.0) -> tuple[float, float]:
        """The two-sided interval."""
        return self.estimate(confidence, bound)[1]

    def ratio_interval(self, confidence: float, bound: float = 0.0) -> tuple[float, float] | None:
        """The interval of the ratio, for a difference of logarithms; `None` where it is unbounded."""
        low, high = self.interval(confidence, bound)
        return (math.exp(low), math.exp(high)) if math.isfinite(low) and math.isfinite(high) else None

    def p_value(self) -> float:
        """The two-sided p of no difference: 1 minus the confidence at which the interval just reaches 0."""
        p = student.two_sided(self._distance(0.0), self.freedom)
        return p if self.ranks is None else min(1.0, _TWO_TESTS * min(p, self.ranks.p_value()))

    def p_beyond(self, bound: float) -> float:
        """The one-sided p of a difference that is not above the bound."""
        p = student.above(self._distance(bound), self.freedom)
        return p if self.ranks is None else min(1.0, _TWO_TESTS * min(p, self.ranks.p_beyond(bound)))

    def _distance(self, bound: float) -> float:
        """How far the difference is above the bound, in standard errors."""
        above = self.value - bound
        error = self.below if above > 0 else self.above
        if above == 0 or math.isinf(error):
            return 0.0
        return math.copysign(math.inf, above) if error == 0 else above / error

    def detectable(self, confidence: float) -> float:
        """The difference that would be shown with a probability of `POWER`."""
        tail = (1 - confidence) / 2 / (_TWO_TESTS if self.ranks is not None else 1.0)
        return student.detectable_difference(tail, POWER, self.freedom) * max(self.below, self.above)

    def reversed(self) -> Effect:
        """The same effect as a - b."""
        swapped = None if self.ranks is None else replace(self.ranks, a=self.ranks.b, b=self.ranks.a)
        return replace(self, value=-self.value, below=self.above, above=self.below, ranks=swapped)


@dataclass(frozen=True, slots=True)
class BetweenRuns:
    """The value of each run of both sides; NaN for a run without one. If `paired`, a[i] was measured with b[i].

    `sessions` are the numbers of each run's session; without them each run is one. If pairs were added until the
    interval was narrow enough, `first` is the number of pairs after which that was first asked. `least` is the standard
    deviation of b - a that counting alone makes: runs that agree by chance do not differ by less.
    """

    a: Values
    b: Values
    paired: bool
    sessions: tuple[Sequence[int], Sequence[int]] | None = None
    first: int = 0
    least: float = 0.0

    def usable(self) -> tuple[Values, Values]:
        """The values that exist; of a pair both must exist."""
        if self.paired:
            both = np.isfinite(self.a) & np.isfinite(self.b)
            return self.a[both], self.b[both]
        return self.a[np.isfinite(self.a)], self.b[np.isfinite(self.b)]

    def by_session(self) -> tuple[list[Values], list[Values]]:
        """The values of each session that has any, by side; unpaired."""
        sides = []
        for side, values in enumerate((self.a, self.b)):
            numbers = np.arange(len(values)) if self.sessions is None else np.asarray(self.sessions[side])
            exist = np.isfinite(values)
            sides.append([values[exist & (numbers == number)] for number in dict.fromkeys(numbers[exist].tolist())])
        return sides[0], sides[1]

    def units(self) -> tuple[Values, Values]:
        """What is independent: the runs of the pairs, or the mean of each session."""
        if self.paired:
            return self.usable()
        a, b = (np.array([float(values.mean()) for values in side]) for side in self.by_session())
        return a, b

    def effect(self) -> Effect | None:
        """b minus a; `None` where a side has no run, and for a single pair of runs."""
        a, b = self.units()
        if min(len(a), len(b)) < (2 if self.paired else 1):
            return None
        value = float(b.mean() - a.mean())
        test = RankTest(a, b, self.paired)
        with_ranks = test if ranks.smallest_p(len(a), len(b), paired=self.paired) <= _RANKS_REACH else None
        if self.paired:
            spread, freedom = float((b - a).std(ddof=1)), len(a) - 1
            if 1 < self.first < len(a):
                # As wide as the ordinary interval of 95 %, and never below the spread of the first pairs.
                first = float((b - a)[: self.first].std(ddof=1))
                wider = student.quantile(0.975, freedom) / student.quantile(0.975, self.first - 1)
                spread, freedom = max(first, spread * wider), self.first - 1
            error = max(spread, self.least) / math.sqrt(len(a))
            return Effect(value, error, error, freedom, None if self.first else with_ranks)

        squares = [float(((side - side.mean()) ** 2).sum()) for side in (a, b)]
        counts = (len(a), len(b))
        between = sum(counts) - 2
        share = sum(1 / count for count in counts)
        pooled = max(sum(squares) / between, self.least**2 / 2) if between else 0.0
        if between < _FEWEST_FREEDOM and pooled <= _SESSION_ERROR**2:
            # Too few sessions: their drift is assumed, and the spread of the runs within the sessions comes on top.
            sides = self.by_session()
            within = sum(float(((values - values.mean()) ** 2).sum()) for side in sides for values in side)
            freedom = sum(len(values) - 1 for side in sides for values in side)
            drift = _SESSION_ERROR**2 * share
            if not freedom:
                return Effect(value, math.sqrt(drift), math.sqrt(drift), assumed=True)
            runs = within / freedom * sum(1 / len(values) / len(side) ** 2 for side in sides for values in side)
            error = math.sqrt(drift + runs)
            return Effect(value, error, error, error**4 / (runs**2 / freedom) if runs else math.inf, assumed=True)
        error = math.sqrt(pooled * share)
        return Effect(value, error, error, between, with_ranks)

    def side_mean(self, side: int) -> Effect | None:
        """The mean of side 0 (a) or 1 (b), with its error; `None` for fewer than two runs."""
        values = self.units()[side]
        if len(values) < 2:
            values = self.usable()[side]
        if len(values) < 2:
            return None
        error = float(values.std(ddof=1)) / math.sqrt(len(values))
        return Effect(float(values.mean()), error, error, len(values) - 1)

    def p_exact(self) -> float | None:
        """The p of the exact rank test; `None` without a value on each side."""
        a, b = self.units()
        return RankTest(a, b, self.paired).p_value() if len(a) and len(b) else None

    def interpolated(self, weight: float, other: BetweenRuns) -> BetweenRuns:
        """`weight` times this plus the rest times the other, run by run."""
        rest = 1 - weight
        least = math.hypot(weight * self.least, rest * other.least)
        return replace(self, a=weight * self.a + rest * other.a, b=weight * self.b + rest * other.b, least=least)


@dataclass(frozen=True, slots=True)
class WithinRun:
    """The value of each side as (low, value, high), 1.96 standard errors apart, and their degrees of freedom.

    If the sides `drift`, each may also be faster or slower than usual by `ASSUMED_DRIFT`, at all levels alike.
    """

    a: tuple[float, float, float]
    b: tuple[float, float, float]
    freedom: float = math.inf
    drift: bool = False

    def units(self) -> tuple[tuple[float], tuple[float]]:
        """The one value of each side."""
        return (self.a[1],), (self.b[1],)

    def effect(self) -> Effect:
        """b minus a."""
        value = self.b[1] - self.a[1]
        drift = math.sqrt(2) * _SESSION_ERROR if self.drift else 0.0
        below = math.hypot(self.b[1] - self.b[0], self.a[2] - self.a[1]) / _NORMAL_975
        above = math.hypot(self.b[2] - self.b[1], self.a[1] - self.a[0]) / _NORMAL_975
        return Effect(value, math.hypot(below, drift), math.hypot(above, drift), self.freedom, assumed=self.drift)

    def side_mean(self, side: int) -> Effect:
        """The value of side 0 (a) or 1 (b), with its errors."""
        low, value, high = (self.a, self.b)[side]
        return Effect(value, (value - low) / _NORMAL_975, (high - value) / _NORMAL_975, self.freedom)

    def interpolated(self, weight: float, other: WithinRun) -> WithinRun:
        """`weight` times this plus the rest times the other, which is independent of this."""

        def side(one: tuple[float, float, float], two: tuple[float, float, float]) -> tuple[float, float, float]:
            parts = [(share, part) for share, part in ((weight, one), (1 - weight, two)) if share]
            value = sum(share * part[1] for share, part in parts)
            below = math.hypot(*(share * (part[1] - part[0]) for share, part in parts))
            above = math.hypot(*(share * (part[2] - part[1]) for share, part in parts))
            return value - below, value, value + above

        return WithinRun(side(self.a, other.a), side(self.b, other.b), min(self.freedom, other.freedom), self.drift)


# The values of one figure on both sides.
FigureData = BetweenRuns | WithinRun


def mean_over_levels(parts: Sequence[FigureData]) -> FigureData:
    """The mean over levels; all parts are of the same type."""
    mean = parts[0]
    for count, part in enumerate(parts[1:], 1):
        # The mean of k + 1 parts weighs the mean of the first k by k / (k + 1).
        mean = mean.interpolated(count / (count + 1), part)  # type: ignore[arg-type]
    return mean


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values adjusted so that they bound the probability of any false positive among them (Holm, 1979)."""
    order = sorted(range(len(p_values)), key=lambda position: p_values[position])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, position in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = highest
    return adjusted


def hommel(p_values: Sequence[float]) -> list[float]:
    """Factors by which to multiply the p values, so that they bound the probability of any false positive among them.

    A p value is adjusted to the largest of Simes' tests of all sets that it belongs to (Hommel, *A stagewise rejective
    multiple test procedure based on a modified Bonferroni test*, 1988; the algorithm is Wright's, 1992). Figures that
    move together lose nothing by their number, unlike with Holm's method. It holds for figures that are independent or
    positively dependent, as those of one server are (Sarkar, 1998).
    """
    n = len(p_values)
    order = sorted(range(n), key=lambda position: p_values[position])
    p = [p_values[position] for position in order]
    factors = [float(n)] * n
    adjusted = [min((n * p[place] / (place + 1) for place in range(n)), default=1.0)] * n
    for size in range(n - 1, 1, -1):
        # The sets of this size with the largest p values: `first` is the place of the second one in them.
        first = n - size + 1
        least = min(size * p[place] / (2 + place - first) for place in range(first, n))
        of_set = [min(size * p[place], least) for place in range(first)]
        of_set += [of_set[-1]] * (n - first)
        adjusted = [max(pair) for pair in zip(adjusted, of_set, strict=True)]
    for place, position in enumerate(order):
        if p[place] > 0:
            factors[position] = max(1.0, adjusted[place] / p[place])
    return factors


# Above this number of runs a plan is precise enough to a tenth, and no plan needs more than the second number.
_STEP_FROM = 100
_MOST_REPEATS = 100_000


def plan_repeats(
    cv: float,
    effect: float,
    alpha: float = 0.05,
    power: float = 0.9,
    *,
    bound: float = 0.0,
    checks: int = 1,
    paired: bool = True,
) -> int:
    """The number of runs a side that separates a change of `effect` from one of `bound` (0.1 is 10 %).

    `cv` is the coefficient of variation of one side's runs; the `checks` (gates or levels) share alpha. Returns the
    smallest n that shows a difference this far from the bound with that power, and at least what the exact rank test
    would need, as runs are not always normal. Raises `ValueError` where the effect is not beyond the bound, or needs
    too many runs.
    """
    distance = abs(math.log1p(effect) - math.log1p(bound))
    if cv < 0 or distance == 0 or abs(effect) < abs(bound):
        raise ValueError(f"a change of {effect:g} cannot be separated from one of {bound:g}")
    n = 2
    while n <= _MOST_REPEATS:
        freedom = n - 1 if paired else 2 * (n - 1)
        needed = student.detectable_difference(alpha / checks / 2, power, freedom) * math.sqrt(2 / n)
        if ranks.smallest_p(n, n, paired=paired) <= alpha and needed * cv <= distance:
            return n
        n = n + 1 if n < _STEP_FROM else math.ceil(n * 1.1)
    raise ValueError(f"a change of {effect:g} needs more than {_MOST_REPEATS} runs a side")
