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

# A change is detectable if this share of comparisons would show it: the convention of planning (Cohen, 1988).
POWER = 0.8
_NORMAL_975 = 1.959964


@dataclass(frozen=True, slots=True)
class Effect:
    """A difference b - a, its standard errors below and above, and the degrees of freedom of these."""

    value: float
    below: float
    above: float
    freedom: float = math.inf

    def interval(self, confidence: float) -> tuple[float, float]:
        """The two-sided interval."""
        t = student.quantile((1 + confidence) / 2, self.freedom)
        return self.value - t * self.below, self.value + t * self.above

    def ratio_interval(self, confidence: float) -> tuple[float, float] | None:
        """The interval of the ratio, for a difference of logarithms; `None` where it is unbounded."""
        low, high = self.interval(confidence)
        return (math.exp(low), math.exp(high)) if math.isfinite(low) and math.isfinite(high) else None

    def p_value(self) -> float:
        """The two-sided p of no difference: 1 minus the confidence at which the interval just reaches 0."""
        return student.two_sided(self._distance(0.0), self.freedom)

    def p_beyond(self, bound: float) -> float:
        """The one-sided p of a difference that is not above the bound."""
        return student.above(self._distance(bound), self.freedom)

    def _distance(self, bound: float) -> float:
        """How far the difference is above the bound, in standard errors."""
        above = self.value - bound
        error = self.below if above > 0 else self.above
        if above == 0 or math.isinf(error):
            return 0.0
        return math.copysign(math.inf, above) if error == 0 else above / error

    def detectable(self, confidence: float) -> float:
        """The difference that would be shown with a probability of `POWER`."""
        return student.detectable_difference((1 - confidence) / 2, POWER, self.freedom) * max(self.below, self.above)

    def reversed(self) -> Effect:
        """The same effect as a - b."""
        return Effect(-self.value, self.above, self.below, self.freedom)


@dataclass(frozen=True, slots=True)
class BetweenRuns:
    """The value of each run of both sides; NaN for a run without one. If `paired`, a[i] was measured with b[i]."""

    a: Values
    b: Values
    paired: bool

    def usable(self) -> tuple[Values, Values]:
        """The values that exist; of a pair both must exist."""
        if self.paired:
            both = np.isfinite(self.a) & np.isfinite(self.b)
            return self.a[both], self.b[both]
        return self.a[np.isfinite(self.a)], self.b[np.isfinite(self.b)]

    def effect(self) -> Effect | None:
        """b minus a; `None` for fewer than two runs on a side."""
        a, b = self.usable()
        if min(len(a), len(b)) < 2:
            return None
        if self.paired:
            differences = b - a
            error = float(differences.std(ddof=1)) / math.sqrt(len(a))
            return Effect(float(differences.mean()), error, error, len(a) - 1)
        variances = [float(side.var(ddof=1)) / len(side) for side in (a, b)]
        error, value = math.sqrt(sum(variances)), float(b.mean() - a.mean())
        if error == 0:
            return Effect(value, 0.0, 0.0, len(a) + len(b) - 2)
        squares = (variance**2 / (len(side) - 1) for variance, side in zip(variances, (a, b), strict=True))
        return Effect(value, error, error, sum(variances) ** 2 / sum(squares))

    def side_mean(self, side: int) -> Effect | None:
        """The mean of side 0 (a) or 1 (b), with its error; `None` for fewer than two runs."""
        values = self.usable()[side]
        if len(values) < 2:
            return None
        error = float(values.std(ddof=1)) / math.sqrt(len(values))
        return Effect(float(values.mean()), error, error, len(values) - 1)

    def p_exact(self) -> float | None:
        """The p of the exact rank test; `None` without a value on each side."""
        a, b = self.usable()
        if not len(a) or not len(b):
            return None
        return ranks.signed_ranks(b - a) if self.paired else ranks.mann_whitney(a, b)

    def too_few(self, confidence: float) -> bool:
        """Whether the runs are too few for the rank test to show any difference."""
        a, b = self.usable()
        return ranks.smallest_p(len(a), len(b), paired=self.paired) > 1 - confidence

    def interpolated(self, weight: float, other: BetweenRuns) -> BetweenRuns:
        """`weight` times this plus the rest times the other, run by run."""
        rest = 1 - weight
        return BetweenRuns(weight * self.a + rest * other.a, weight * self.b + rest * other.b, self.paired)


@dataclass(frozen=True, slots=True)
class WithinRun:
    """The value of each side as (low, value, high), 1.96 standard errors apart, and their degrees of freedom."""

    a: tuple[float, float, float]
    b: tuple[float, float, float]
    freedom: float = math.inf

    def effect(self) -> Effect:
        """b minus a."""
        value = self.b[1] - self.a[1]
        below = math.hypot(self.b[1] - self.b[0], self.a[2] - self.a[1]) / _NORMAL_975
        above = math.hypot(self.b[2] - self.b[1], self.a[1] - self.a[0]) / _NORMAL_975
        return Effect(value, below, above, self.freedom)

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

        return WithinRun(side(self.a, other.a), side(self.b, other.b), min(self.freedom, other.freedom))


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
    needs. Raises `ValueError` where the effect is not beyond the bound, or needs too many runs.
    """
    distance = abs(math.log1p(effect) - math.log1p(bound))
    if cv < 0 or distance == 0 or abs(effect) < abs(bound):
        raise ValueError(f"a change of {effect:g} cannot be separated from one of {bound:g}")
    n = 2
    while n <= _MOST_REPEATS:
        # Welch's degrees of freedom depend on the observed variances; for two equal ones this is about their mean.
        freedom = n - 1 if paired else 2 * n * (n - 1) / (n + 1)
        needed = student.detectable_difference(alpha / checks / 2, power, freedom) * math.sqrt(2 / n)
        if ranks.smallest_p(n, n, paired=paired) <= alpha and needed * cv <= distance:
            return n
        n = n + 1 if n < _STEP_FROM else math.ceil(n * 1.1)
    raise ValueError(f"a change of {effect:g} needs more than {_MOST_REPEATS} runs a side")
