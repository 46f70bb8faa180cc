"""How much side b differs from side a, and how certain that is.

A latency or a throughput is compared by the logarithm of b / a, so that 2x and 0.5x are equally far from "no change".
Values of several runs are averaged as logarithms; their ratio is then the ratio of geometric means.

*Several runs a side* (`BetweenRuns`). The unit is the run, not the request, because the requests of one run share its
conditions. With pairs, the mean difference over its standard error follows Student's t with n - 1 degrees of freedom.
Without pairs it is Welch's t (*The generalization of 'Student's' problem when several different population variances
are involved*, 1947) with Satterthwaite's degrees of freedom. For the few runs that people can afford, a percentile
bootstrap is too narrow (Hesterberg, *What Teachers Should Know About the Bootstrap*, 2015); `tests/coverage/compare.py`
measures both.

*One run a side* (`WithinRun`). The uncertainty comes from each side's own interval in `run.json`, which accounts for
correlated requests. The distances to the limits are combined as independent errors (the method of variance estimates
recovery: Zou and Donner, *Construction of confidence limits about effect measures*, 2008). Differences from run to run,
such as heat, other load or memory placement, are not included.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from loadbench.analyze.stats import ranks, student

if TYPE_CHECKING:
    from collections.abc import Sequence

    Values = np.ndarray[Any, np.dtype[np.float64]]

# A change is detectable that so many comparisons in ten would see: the custom of planning (Cohen, 1988).
POWER = 0.8
_NORMAL_975 = 1.959964


@dataclass(frozen=True, slots=True)
class Effect:
    """A difference, its standard error to either side, and the degrees of freedom of that."""

    value: float
    below: float
    above: float
    freedom: float = math.inf

    def interval(self, confidence: float) -> tuple[float, float]:
        """Two-sided."""
        reach = student.quantile((1 + confidence) / 2, self.freedom)
        return self.value - reach * self.below, self.value + reach * self.above

    def ratio_interval(self, confidence: float) -> tuple[float, float] | None:
        """Of a difference of logarithms, as a ratio; `None` where a side's doubt is without limit."""
        low, high = self.interval(confidence)
        return (math.exp(low), math.exp(high)) if math.isfinite(low) and math.isfinite(high) else None

    def p_value(self) -> float:
        """Two-sided, of no difference: 1 minus the confidence at which the interval just touches 0."""
        return student.two_sided(self._distance(0.0), self.freedom)

    def p_beyond(self, bound: float) -> float:
        """One-sided, of a difference that is not above the bound."""
        return student.above(self._distance(bound), self.freedom)

    def _distance(self, bound: float) -> float:
        """In standard errors, from the bound up."""
        away = self.value - bound
        error = self.below if away > 0 else self.above
        if away == 0 or math.isinf(error):
            return 0.0
        return math.copysign(math.inf, away) if error == 0 else away / error

    def detectable(self, confidence: float) -> float:
        """The difference that would be seen with a probability of `POWER`."""
        return student.detectable_difference((1 - confidence) / 2, POWER, self.freedom) * max(self.below, self.above)

    def turned(self) -> Effect:
        """The same, of a over b."""
        return Effect(-self.value, self.above, self.below, self.freedom)


@dataclass(frozen=True, slots=True)
class BetweenRuns:
    """The values of each run of both sides, in one order; NaN for a run that has none. Paired, a[i] is b[i]'s."""

    a: Values
    b: Values
    paired: bool

    def kept(self) -> tuple[Values, Values]:
        """Without those that have none; of a pair both must have one."""
        if self.paired:
            both = np.isfinite(self.a) & np.isfinite(self.b)
            return self.a[both], self.b[both]
        return self.a[np.isfinite(self.a)], self.b[np.isfinite(self.b)]

    def effect(self) -> Effect | None:
        """`None` for fewer than two runs on a side."""
        a, b = self.kept()
        if min(len(a), len(b)) < 2:
            return None
        if self.paired:
            differences = b - a
            error = float(differences.std(ddof=1)) / math.sqrt(len(a))
            return Effect(float(differences.mean()), error, error, len(a) - 1)
        parts = [float(side.var(ddof=1)) / len(side) for side in (a, b)]
        error, value = math.sqrt(sum(parts)), float(b.mean() - a.mean())
        if error == 0:
            return Effect(value, 0.0, 0.0, len(a) + len(b) - 2)
        freedom = sum(parts) ** 2 / sum(part**2 / (len(side) - 1) for part, side in zip(parts, (a, b), strict=True))
        return Effect(value, error, error, freedom)

    def alone(self, side: int) -> Effect | None:
        """The mean of one side; `None` for fewer than two runs of it."""
        values = self.kept()[side]
        if len(values) < 2:
            return None
        error = float(values.std(ddof=1)) / math.sqrt(len(values))
        return Effect(float(values.mean()), error, error, len(values) - 1)

    def p_exact(self) -> float | None:
        """Of the rank test."""
        a, b = self.kept()
        if not len(a) or not len(b):
            return None
        return ranks.signed_ranks(b - a) if self.paired else ranks.mann_whitney(a, b)

    def too_few(self, confidence: float) -> bool:
        """Whether the rank test could not tell any difference by so many runs."""
        a, b = self.kept()
        return ranks.smallest_p(len(a), len(b), paired=self.paired) > 1 - confidence

    def blended(self, weight: float, other: BetweenRuns) -> BetweenRuns:
        """So much of this and the rest of the other, run by run."""
        rest = 1 - weight
        return BetweenRuns(weight * self.a + rest * other.a, weight * self.b + rest * other.b, self.paired)


@dataclass(frozen=True, slots=True)
class WithinRun:
    """The value of each side as (low, value, high), 1.96 standard errors apart, and the degrees of freedom of those."""

    a: tuple[float, float, float]
    b: tuple[float, float, float]
    freedom: float = math.inf

    def effect(self) -> Effect:
        """b minus a."""
        value = self.b[1] - self.a[1]
        below = math.hypot(self.b[1] - self.b[0], self.a[2] - self.a[1]) / _NORMAL_975
        above = math.hypot(self.b[2] - self.b[1], self.a[1] - self.a[0]) / _NORMAL_975
        return Effect(value, below, above, self.freedom)

    def alone(self, side: int) -> Effect:
        """One side."""
        low, value, high = (self.a, self.b)[side]
        return Effect(value, (value - low) / _NORMAL_975, (high - value) / _NORMAL_975, self.freedom)

    def blended(self, weight: float, other: WithinRun) -> WithinRun:
        """So much of this and the rest of the other; both are independent."""
        freedom = min(self.freedom, other.freedom)
        return WithinRun(_blend(self.a, other.a, weight), _blend(self.b, other.b, weight), freedom)


def _blend(
    one: tuple[float, float, float], other: tuple[float, float, float], weight: float
) -> tuple[float, float, float]:
    rest = 1 - weight
    value = weight * one[1] + rest * other[1]
    low = math.hypot(*(part * (side[1] - side[0]) if part else 0 for part, side in ((weight, one), (rest, other))))
    high = math.hypot(*(part * (side[2] - side[1]) if part else 0 for part, side in ((weight, one), (rest, other))))
    return value - low, value, value + high


FigureData = BetweenRuns | WithinRun


def mean_over_levels(parts: Sequence[FigureData]) -> FigureData:
    """The mean over levels; all are of one kind."""
    total = parts[0]
    for seen, part in enumerate(parts[1:], 1):
        # The mean of k + 1 is k parts of the mean so far, and one of the next.
        total = total.blended(seen / (seen + 1), part)  # type: ignore[arg-type]
    return total


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted so that the chance of any false finding is what one is held against (Holm, 1979)."""
    order = sorted(range(len(p_values)), key=lambda position: p_values[position])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, position in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = highest
    return adjusted


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
    """How many runs a side it takes to tell a change of `effect` from one of `bound` (0.1 and 0.05 for 10 % and 5 %).

    `cv` is the coefficient of variation of one side's runs; of `checks` gates or levels each has its share of alpha.
    The least n at which a difference as far from the bound is found with that power; never fewer than the exact rank
    test needs. Raises `ValueError` where the effect is not beyond the bound.
    """
    distance = abs(math.log1p(effect) - math.log1p(bound))
    if cv < 0 or distance == 0 or abs(effect) < abs(bound):
        raise ValueError(f"a change of {effect:g} cannot be told from one of {bound:g}")
    n = 2
    while ranks.smallest_p(n, n, paired=paired) > alpha or _reach(n, alpha / checks, power, paired) * cv > distance:
        n = n + 1 if n < _STEP_FROM else math.ceil(n * 1.1)
        if n > _MOST_REPEATS:
            raise ValueError(f"a change of {effect:g} would take more than {_MOST_REPEATS} runs a side")
    return n


# Plans beyond this need no more precision than a tenth; and nobody carries out one beyond that.
_STEP_FROM = 100
_MOST_REPEATS = 100_000


def _reach(n: int, alpha: float, power: float, paired: bool) -> float:  # noqa: FBT001 - an arm of plan_repeats
    """In standard deviations of a run."""
    # Welch's degrees of freedom hang on the variances that are seen: for two equal ones about this on average.
    freedom = n - 1 if paired else 2 * n * (n - 1) / (n + 1)
    return student.detectable_difference(alpha / 2, power, freedom) * math.sqrt(2 / n)
