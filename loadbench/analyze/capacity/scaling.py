"""Scaling laws: a curve of throughput over users, and cliffs that no smooth law explains.

All three laws have the form X(N) = m / (B·u): `m` requests running, and the time between two of their completions is a
sum of coefficients u ≥ 0 that grow with m as the columns of B do.

    batch   X(N) = N / (a + bN)                          a step costs a, plus b for each request in it
    slots   X(N) = m / (a + bm), m = min(N, c)           the same, with at most c requests running
    usl     X(N) = λN / (1 + α(N − 1) + βN(N − 1))       the universal scalability law: contention α, crosstalk β,
                                                         maximum at N = sqrt((1 − α)/β)

(Gunther, *Guerrilla Capacity Planning*, 2007, for the last one; with β = 0 it equals the first one, which is then
preferred.) Each law is fitted to the relative error of X by the Levenberg–Marquardt method in the logarithms of u,
starting from the linear least squares of N/X. The law with the smallest cross-validation error is chosen, or *batch*,
with only two coefficients, where its error is hardly larger. Intervals come from a parametric bootstrap: throughputs
are drawn around the curve with the standard deviation of the residuals, corrected for the degrees of freedom (Student's
t over the normal), and with at least the measured spread of the levels.

*Cliffs.* Where memory runs out, a server may drop to a fraction of its throughput with one more user. A fit with a step
between two levels detects this: if the step explains far more than chance, and throughput does fall there, no curve is
reported, but the two levels that the cliff lies between.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from loadbench.analyze.capacity.measured_levels import measured_levels
from loadbench.analyze.stats import student
from loadbench.results.prediction import Cliff, Estimate, Scaling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from loadbench.analyze.capacity.measured_levels import MeasuredLevel
    from loadbench.results.prediction import ScalingModel
    from loadbench.results.run import LevelResult

    Floats: TypeAlias = NDArray[np.float64]

FEWEST_LEVELS = 6
# A cliff shows with one level less than a reliable curve needs.
_FEWEST_FOR_A_CLIFF = 5
# How far beyond the last level a curve may be used.
_FURTHEST = 1.5
_RESAMPLES = 300
_ITERATIONS = 60
_SETTLED = 1e-7
# The longest step of the method, in logarithms; beyond it the linear approximation is meaningless.
_LONGEST_STEP = 2.0
# Repeated levels differ by this much on a quiet machine, so a smaller difference is not visible.
_NOISE = 0.02
# *batch* is kept unless another law's error is below this share of its error, and unless its error exceeds the usual
# spread of a level by this factor, which measurement and fit together make.
_ALIKE = 0.7
_BY_CHANCE = 1.5
# A cliff drops below this share of the expected throughput, and reduces the residual variance by this multiple of what
# is left (chance alone: one in two thousand by the F distribution with many levels).
_FALL = 0.8
_F_LIMIT = 12.0
_SLOT_STEPS = 12  # slot limits to try between two levels
_TINY = 1e-12
_NEGLIGIBLE = 1e-9


class FittedLaw(NamedTuple):
    """For each row: the coefficients u, the slot limit (or infinity) and the sum of squared relative errors."""

    parts: Floats
    limit: Floats
    rss: Floats


@dataclass(frozen=True, slots=True)
class ScalingLaw:
    """One of the laws; `parts` is its number of fitted values, including the slot limit."""

    name: ScalingModel
    parts: int

    def columns(self, users: Floats) -> Floats:
        """B: … × levels × coefficients."""
        ones = np.ones_like(users)
        return np.stack([ones, users - 1, users * (users - 1)] if self.name == "usl" else [ones, users], axis=-1)

    def limits(self, users: Floats) -> Floats:
        """The slot limits to try."""
        if self.name != "slots":
            return np.array([np.inf])
        # A limit needs at least one level beyond it that added nothing.
        inside = [np.linspace(a, b, _SLOT_STEPS, endpoint=False) for a, b in pairwise(users[:-1].tolist())]
        return np.concatenate([*inside, users[-2:-1]])

    def __call__(self, users: Floats, fitted: FittedLaw) -> Floats:
        """The throughput: rows × levels, per second."""
        running = np.minimum(users, fitted.limit[:, None])
        per_s: Floats = running / (self.columns(running) * fitted.parts[:, None, :]).sum(axis=-1)
        return per_s


BATCH, SLOTS, USL = ScalingLaw("batch", 2), ScalingLaw("slots", 3), ScalingLaw("usl", 3)
_LAWS = (BATCH, SLOTS, USL)


def fit_scaling(levels: Sequence[LevelResult], *, confidence: float = 0.95, seed: int = 0) -> Scaling:
    """The scaling law of the successful requests per second, of the levels that `measured_levels` selects."""
    used = measured_levels(levels)
    cliff = find_cliff(used)
    if cliff is not None:
        note = (
            f"throughput drops between users={cliff.above_users:g} and users={cliff.at_most_users:g}, which no smooth "
            "curve describes"
        )
        return Scaling(cliff=cliff, note=note)
    if len(used) < FEWEST_LEVELS:
        return Scaling(note=f"a curve needs {FEWEST_LEVELS} levels, and there are {len(used)}")
    users, per_s, spread = _throughput(used)

    # Cross-validation: the root mean square of the relative error at each inner level, fitted without that level.
    errors = {}
    for law in _LAWS:
        squares = 0.0
        for left in range(1, len(users) - 1):
            kept = np.arange(len(users)) != left
            fitted = fit(law, users[kept], per_s[None, kept])
            squares += float(law(users[left : left + 1], fitted)[0, 0] / per_s[left] - 1) ** 2
        errors[law.name] = math.sqrt(squares / (len(users) - 2))
    law = min(_LAWS, key=lambda law: errors[law.name])
    if errors[BATCH.name] * _ALIKE <= errors[law.name] or errors[BATCH.name] <= _BY_CHANCE * spread:
        law = BATCH

    # Bootstrap. No draw is so far off that nothing of the throughput is left.
    fitted = fit(law, users, per_s[None])
    freedom = max(1, len(users) - law.parts)
    tail = (1 + confidence) / 2
    deviation = math.sqrt(float(fitted.rss[0]) / freedom) * student.quantile(tail, freedom)
    deviation = max(deviation / student.quantile(tail, math.inf), spread)
    noise = np.random.default_rng(seed).standard_normal((_RESAMPLES, len(users)))
    drawn = fit(law, users, law(users, fitted) * np.maximum(1 + deviation * noise, 0.05))
    values, draws = _parameters(law, fitted), _parameters(law, drawn)
    peak, most = _peak(law, values, draws, users, confidence)
    rising = f"throughput is highest at users={users[-1]:g} or above: no level shows a peak"
    return Scaling(
        model=law.name,
        parameters={name: _estimate(value[0], draws[name], confidence) for name, value in values.items()},
        peak_users=peak,
        most_per_s=most,
        reach_users=_FURTHEST * float(users[-1]),
        errors=errors,
        note=rising if most is None else "",
    )


def _throughput(used: Sequence[MeasuredLevel]) -> tuple[Floats, Floats, float]:
    """(users, requests per second, the usual relative error of a level)."""
    users, per_s = np.array([float(level.users) for level in used]), np.array([level.per_s for level in used])
    return users, per_s, median(level.spread for level in used)


def fit(law: ScalingLaw, users: Floats, rows: Floats, *, step: int | None = None) -> FittedLaw:
    """The least squares fit for each row of throughputs; with `step`, levels from there on have an additional factor.

    The factor is then the last of the coefficients. All slot limits of all rows are fitted together, and the best is
    kept.
    """
    limits = law.limits(users)
    running = np.tile(np.minimum(users, limits[:, None]), (len(rows), 1))
    parts, rss = _solve(law, running, np.repeat(rows, len(limits), axis=0), step)
    best = rss.reshape(len(rows), len(limits)).argmin(axis=1)
    kept = np.arange(len(rows)) * len(limits) + best
    return FittedLaw(parts[kept], limits[best], rss[kept])


def _solve(law: ScalingLaw, running: Floats, rows: Floats, step: int | None) -> tuple[Floats, Floats]:
    """Levenberg–Marquardt for all rows at once, each independent of the others: coefficients and squared errors."""
    columns = law.columns(running)
    parts = columns.shape[2]
    after = np.zeros(rows.shape[1]) if step is None else (np.arange(rows.shape[1]) >= step).astype(np.float64)

    def residuals(logs: Floats) -> Floats:
        """Relative errors, rows × levels."""
        time = np.einsum("rlk,rk->rl", columns, np.exp(logs[:, :parts]))
        factor = np.exp(logs[:, parts:] * after) if step is not None else 1.0
        errors: Floats = running * factor / time / rows - 1
        return errors

    # Start at the linear least squares of N/X; a coefficient of 0 starts at a hundredth of its usual size. A small
    # diagonal keeps the system solvable where the levels are so alike that they do not separate two coefficients.
    weighted = columns * (rows / running)[:, :, None]
    square = np.einsum("rlk,rlm->rkm", weighted, weighted)
    square += 1e-9 * np.einsum("rkk->rk", square)[:, :, None] * np.eye(parts)
    start = np.linalg.solve(square, weighted.sum(axis=1)[:, :, None])[:, :, 0]
    logs = np.log(np.maximum(start, 0.01 / np.maximum(weighted.max(axis=1), _TINY)))
    if step is not None:
        logs = np.concatenate([logs, np.zeros((len(rows), 1))], axis=1)

    errors, damping = residuals(logs), np.full(len(rows), 1e-2)
    for _ in range(_ITERATIONS):
        # The derivatives of the residuals with respect to the logarithms.
        each, ratio = np.exp(logs[:, None, :parts]) * columns, errors + 1
        slopes = -ratio[:, :, None] * each / each.sum(axis=2, keepdims=True)
        if step is not None:
            slopes = np.concatenate([slopes, (ratio * after)[:, :, None]], axis=2)
        square = np.einsum("rlk,rlm->rkm", slopes, slopes)
        scale = np.einsum("rkk->rk", square) + _TINY
        square += (damping[:, None] * scale)[:, :, None] * np.eye(slopes.shape[2])
        move = np.linalg.solve(square, -np.einsum("rlk,rl->rk", slopes, errors)[:, :, None])[:, :, 0]
        if np.abs(move).max() < _SETTLED:
            break
        tried = logs + np.clip(move, -_LONGEST_STEP, _LONGEST_STEP)
        tried_errors = residuals(tried)
        closer = (tried_errors**2).sum(axis=1) < (errors**2).sum(axis=1)
        logs = np.where(closer[:, None], tried, logs)
        errors = np.where(closer[:, None], tried_errors, errors)
        damping = np.clip(np.where(closer, damping / 3, damping * 4), 1e-9, 1e9)
    return np.exp(logs), (errors**2).sum(axis=1)


def _parameters(law: ScalingLaw, fitted: FittedLaw) -> dict[str, Floats]:
    """The parameters of each row, named as in the formulas above."""
    parts = fitted.parts
    if law.name == "usl":
        return {"lambda": 1 / parts[:, 0], "alpha": parts[:, 1] / parts[:, 0], "beta": parts[:, 2] / parts[:, 0]}
    named = {"a": parts[:, 0], "b": parts[:, 1]}
    return {**named, "c": fitted.limit} if law.name == "slots" else named


def _estimate(value: Any, draws: Floats, confidence: float) -> Estimate:
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist()
    ends = (float(value), min(low, float(value)), max(high, float(value)))
    # The logarithm of a coefficient of 0 does not exist: the method stops somewhere far below what matters.
    likely, low, high = (0.0 if end < _NEGLIGIBLE else end for end in ends)
    return Estimate(value=likely, low=low, high=high)


def _peak(
    law: ScalingLaw, values: dict[str, Floats], draws: dict[str, Floats], users: Floats, confidence: float
) -> tuple[Estimate | None, Estimate | None]:
    """(users at the highest throughput, that throughput), where the levels extend beyond it."""
    if law.name == "slots":
        most = [at["c"] / (at["a"] + at["b"] * at["c"]) for at in (values, draws)]
        return None, _estimate(most[0][0], most[1], confidence)
    if law.name == "batch":
        return None, None
    places, most = [], []
    for law_values in (values, draws):
        alpha, beta = law_values["alpha"], law_values["beta"]
        place = np.sqrt(np.maximum(1 - alpha, 0.0) / np.maximum(beta, _TINY))
        n = np.maximum(place, 1.0)
        places.append(place)
        most.append(law_values["lambda"] * n / (1 + alpha * (n - 1) + beta * n * (n - 1)))
    if not 1 <= places[0][0] <= users[-1]:
        return None, None
    peak = _estimate(places[0][0], places[1], confidence)
    if peak.high is not None and peak.high > users[-1]:
        peak = Estimate(value=peak.value, low=peak.low, high=None)
    return peak, _estimate(most[0][0], most[1], confidence)


def find_cliff(used: Sequence[MeasuredLevel]) -> Cliff | None:
    """A drop of throughput that a step between two levels explains and no smooth law does."""
    if len(used) < _FEWEST_FOR_A_CLIFF:
        return None
    users, per_s, spread = _throughput(used)
    noise = max(_NOISE, spread)
    smooth = min(float(fit(law, users, per_s[None]).rss[0]) for law in _LAWS)
    best, best_rss = None, math.inf
    for law in _LAWS:
        for at in range(law.parts, len(used)):
            stepped = fit(law, users, per_s[None], step=at)
            rss, fall = float(stepped.rss[0]), float(stepped.parts[0, -1])
            left = max(rss / max(1, len(used) - law.parts - 1), noise**2)
            falls = fall < _FALL and used[at].per_s < used[at - 1].per_s * (1 - 2 * noise)
            if falls and smooth - rss > _F_LIMIT * left and rss < best_rss:
                expected = law(users, stepped._replace(parts=stepped.parts[:, :-1]))[0, at]
                best_rss = rss
                best = Cliff(
                    above_users=float(used[at - 1].users),
                    at_most_users=float(used[at].users),
                    expected_per_s=float(expected),
                    measured_per_s=used[at].per_s,
                )
    return best
