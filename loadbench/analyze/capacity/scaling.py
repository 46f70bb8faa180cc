"""A curve through throughput over users: by which law a server bends, and where it breaks.

Three laws, all of the form X(N) = m / (B·u): `m` requests at work, and the time between two of their answers a sum of
parts u ≥ 0 that grow with them as the columns of B do.

    batch   X(N) = N / (a + bN)                          a step costs a, and b for each request in it
    slots   X(N) = m / (a + bm), m = min(N, c)           the same, and no more than c at work at once
    usl     X(N) = λN / (1 + α(N − 1) + βN(N − 1))       the universal scalability law: contention α, crosstalk β,
                                                         greatest at N = sqrt((1 − α)/β)

(Gunther, *Guerrilla Capacity Planning*, 2007, for the last; with β = 0 it is the first, so β = 0 is a valid answer and
the simpler law then wins.) Each is fitted to the relative error of X by Levenberg and Marquardt's method in the
logarithms of u, begun from the linear least squares of N/X. The law that best says levels which it has not seen is
taken; where the first, of two parts, does it hardly worse, the first. Intervals are by the bootstrap: throughputs are
drawn about the curve with the deviation that the levels have from it, made larger for the parts that were fitted and
for so few levels (Student's t over the normal), and with no less than their own measured spread.

*No law is smooth over a cliff.* Where memory runs out a server may fall to a fraction of what it did one user before. A
fit with one step between two levels finds it: if that explains far more than chance, and throughput does fall there, no
curve is offered and the place is told as the gap between the two levels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist, median
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from loadbench.analyze.capacity.measured_levels import measured_levels
from loadbench.results.prediction import Cliff, Estimate, Scaling

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from loadbench.analyze.capacity.measured_levels import MeasuredLevel
    from loadbench.results.prediction import ScalingModel
    from loadbench.results.run import LevelResult

    Floats: TypeAlias = NDArray[np.float64]

FEWEST_LEVELS = 6
# A step takes one level less to be seen than a curve to be believed.
_FEWEST_FOR_A_CLIFF = 5
_FURTHEST = 1.5
_RESAMPLES = 300
_ITERATIONS = 60
_SETTLED = 1e-7
# The longest step of the method, in logarithms; beyond it the linear picture says nothing.
_LONGEST_STEP = 2.0
# Two runs of one level differ by so much on a quiet machine: what is below is not seen.
_NOISE = 0.02
# The simpler law is kept unless the other errs by less than this share of its error, and unless it errs by more than
# measurement and fit together make of what the levels themselves vary by.
_ALIKE = 0.7
_BY_CHANCE = 1.5
# A cliff falls to less than this of what was expected, and explains so many times the variance that is left
# (chance alone: one in two thousand by the F distribution with many levels).
_FALL = 0.8
_SURELY = 12.0
_PLACES = 12  # of a slot limit, between two levels
_TINY = 1e-12
_NOTHING = 1e-9


class Found(NamedTuple):
    """Parts u of each row, the slot limit (or infinity) and the sum of squared relative errors."""

    parts: Floats
    limit: Floats
    rss: Floats


@dataclass(frozen=True, slots=True)
class _Law:
    name: ScalingModel
    parts: int  # with the slot limit

    def columns(self, users: Floats) -> Floats:
        """… × levels × parts."""
        ones = np.ones_like(users)
        return np.stack([ones, users - 1, users * (users - 1)] if self.name == "usl" else [ones, users], axis=-1)

    def limits(self, users: Floats) -> Floats:
        """The slot limits to be tried."""
        if self.name != "slots":
            return np.array([np.inf])
        # Above the last but one a limit is a guess; one level beyond it must have been seen to bring nothing.
        inside = [np.linspace(a, b, _PLACES, endpoint=False) for a, b in pairwise(users[:-1].tolist())]
        return np.concatenate([*inside, users[-2:-1]])

    def __call__(self, users: Floats, found: Found) -> Floats:
        """Rows × levels, per second."""
        at_work = np.minimum(users, found.limit[:, None])
        per: Floats = at_work / (self.columns(at_work) * found.parts[:, None, :]).sum(axis=-1)
        return per


BATCH, SLOTS, USL = _Law("batch", 2), _Law("slots", 3), _Law("usl", 3)
_LAWS = (BATCH, SLOTS, USL)


def fit_scaling(levels: Sequence[LevelResult], *, confidence: float = 0.95, seed: int = 0) -> Scaling:
    """The law of these levels' throughput, as `loadbench.analyze.capacity.measured_levels` collects it."""
    used = measured_levels(levels)
    broken = find_cliff(used)
    if broken is not None:
        note = (
            f"throughput falls off between {broken.above_users:g} and {broken.at_most_users:g} users, and no smooth "
            "curve leads over that"
        )
        return Scaling(cliff=broken, note=note)
    if len(used) < FEWEST_LEVELS:
        return Scaling(note=f"a curve takes {FEWEST_LEVELS} levels, and there are {len(used)}")
    users, per_s = _figures(used)
    errors = {law.name: _unseen_error(law, users, per_s) for law in _LAWS}
    law = _least(errors, _spread(used))
    return _described(law, used, errors, confidence=confidence, seed=seed)


def _figures(used: Sequence[MeasuredLevel]) -> tuple[Floats, Floats]:
    return np.array([float(one.users) for one in used]), np.array([one.per_s for one in used])


def _spread(used: Sequence[MeasuredLevel]) -> float:
    """The relative error that a level's throughput usually has."""
    return median(one.spread for one in used)


def _least(errors: Mapping[ScalingModel, float], noise: float) -> _Law:
    """The simplest law if it errs hardly more than the best, or no more than two measurements differ; else the best."""
    best = min(_LAWS, key=lambda law: errors[law.name])
    simple = errors[BATCH.name]
    return BATCH if simple * _ALIKE <= errors[best.name] or simple <= _BY_CHANCE * noise else best


def fit(law: _Law, users: Floats, rows: Floats, *, step: int | None = None) -> Found:
    """The parts of least squares for each row of throughputs; with `step`, levels from there on have a factor more.

    The factor is then the last of the parts. All limits of all rows are worked out together, and the best is kept.
    """
    limits = law.limits(users)
    at_work = np.tile(np.minimum(users, limits[:, None]), (len(rows), 1))
    parts, rss = _solve(law, at_work, np.repeat(rows, len(limits), axis=0), step)
    best = rss.reshape(len(rows), len(limits)).argmin(axis=1)
    kept = np.arange(len(rows)) * len(limits) + best
    return Found(parts[kept], limits[best], rss[kept])


def _solve(law: _Law, at_work: Floats, rows: Floats, step: int | None) -> tuple[Floats, Floats]:
    """Levenberg and Marquardt, each row of its own, all together: their parts and squared errors."""
    columns = law.columns(at_work)
    after = np.zeros(rows.shape[1]) if step is None else (np.arange(rows.shape[1]) >= step).astype(np.float64)
    logs = _begin(columns, at_work, rows)
    if step is not None:
        logs = np.concatenate([logs, np.zeros((len(rows), 1))], axis=1)
    seen = _residuals(logs, columns, at_work, rows, after)
    damping = np.full(len(rows), 1e-2)
    for _ in range(_ITERATIONS):
        move = _move(_slopes(logs, columns, seen + 1, after), seen, damping)
        if np.abs(move).max() < _SETTLED:
            break
        tried = logs + np.clip(move, -_LONGEST_STEP, _LONGEST_STEP)
        fresh = _residuals(tried, columns, at_work, rows, after)
        closer = (fresh**2).sum(axis=1) < (seen**2).sum(axis=1)
        logs, seen = np.where(closer[:, None], tried, logs), np.where(closer[:, None], fresh, seen)
        damping = np.clip(np.where(closer, damping / 3, damping * 4), 1e-9, 1e9)
    return np.exp(logs), (seen**2).sum(axis=1)


def _begin(columns: Floats, at_work: Floats, rows: Floats) -> Floats:
    """Linear least squares of the relative error of N/X; a part that comes out at nothing begins at a hundredth."""
    weighted = columns * (rows / at_work)[:, :, None]
    square = np.einsum("rlk,rlm->rkm", weighted, weighted)
    # A whisper on the diagonal, for levels so alike that they tell no two parts from each other.
    square += 1e-9 * np.einsum("rkk->rk", square)[:, :, None] * np.eye(columns.shape[2])
    parts = np.linalg.solve(square, weighted.sum(axis=1)[:, :, None])[:, :, 0]
    logs: Floats = np.log(np.maximum(parts, 0.01 / np.maximum(weighted.max(axis=1), _TINY)))
    return logs


def _move(slopes: Floats, seen: Floats, damping: Floats) -> Floats:
    """The step that each row's linear picture asks for."""
    square = np.einsum("rlk,rlm->rkm", slopes, slopes)
    scale = np.einsum("rkk->rk", square) + _TINY
    square += (damping[:, None] * scale)[:, :, None] * np.eye(slopes.shape[2])
    move: Floats = np.linalg.solve(square, -np.einsum("rlk,rl->rk", slopes, seen)[:, :, None])[:, :, 0]
    return move


def _residuals(logs: Floats, columns: Floats, at_work: Floats, rows: Floats, after: Floats) -> Floats:
    """Relative errors, rows × levels."""
    parts = columns.shape[2]
    time = np.einsum("rlk,rk->rl", columns, np.exp(logs[:, :parts]))
    factor = np.exp(logs[:, parts:] * after) if logs.shape[1] > parts else 1.0
    wrong: Floats = at_work * factor / time / rows - 1
    return wrong


def _slopes(logs: Floats, columns: Floats, ratio: Floats, after: Floats) -> Floats:
    """Of the residuals by the logarithms; `ratio` is fitted over measured."""
    parts = columns.shape[2]
    each = np.exp(logs[:, None, :parts]) * columns
    slopes = -ratio[:, :, None] * each / each.sum(axis=2, keepdims=True)
    return np.concatenate([slopes, (ratio * after)[:, :, None]], axis=2) if logs.shape[1] > parts else slopes


def _unseen_error(law: _Law, users: Floats, per_s: Floats) -> float:
    """Root mean square of the relative error at each inner level, fitted without it."""
    wrong = []
    for left in range(1, len(users) - 1):
        kept = np.arange(len(users)) != left
        found = fit(law, users[kept], per_s[None, kept])
        wrong.append(float(law(users[left : left + 1], found)[0, 0] / per_s[left] - 1))
    return math.sqrt(sum(error**2 for error in wrong) / len(wrong))


def _described(
    law: _Law, used: Sequence[MeasuredLevel], errors: Mapping[ScalingModel, float], *, confidence: float, seed: int
) -> Scaling:
    users, per_s = _figures(used)
    found = fit(law, users, per_s[None])
    wrong = _deviation(law, found, len(users), confidence)
    noise = np.random.default_rng(seed).standard_normal((_RESAMPLES, len(users)))
    # No draw is so far off that nothing is left of it.
    drawn = fit(law, users, law(users, found) * np.maximum(1 + max(wrong, _spread(used)) * noise, 0.05))
    values, draws = _parameters(law, found), _parameters(law, drawn)
    parameters = {name: _estimate(value[0], draws[name], confidence) for name, value in values.items()}
    peak, most = _peak(law, values, draws, users, confidence)
    rising = f"throughput is greatest at {users[-1]:g} users at least: no level shows a peak"
    return Scaling(
        model=law.name,
        parameters=parameters,
        peak_users=peak,
        most_per_s=most,
        reach_users=_FURTHEST * float(users[-1]),
        errors=dict(errors),
        note=rising if most is None else "",
    )


def _deviation(law: _Law, found: Found, levels: int, confidence: float) -> float:
    """Of the levels from the curve, for the parts that were fitted and the few that are left."""
    freedom = max(1, levels - law.parts)
    return math.sqrt(float(found.rss[0]) / freedom) * student_over_normal(freedom, confidence)


def student_over_normal(freedom: int, confidence: float) -> float:
    """How much wider Student's t makes an interval (Cornish and Fisher's expansion; within 10 % from 2 on)."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return (z + first / freedom + second / freedom**2) / z


def _parameters(law: _Law, found: Found) -> dict[str, Floats]:
    """By the names of the formulas above."""
    parts = found.parts
    if law.name == "usl":
        return {"lambda": 1 / parts[:, 0], "alpha": parts[:, 1] / parts[:, 0], "beta": parts[:, 2] / parts[:, 0]}
    named = {"a": parts[:, 0], "b": parts[:, 1]}
    return {**named, "c": found.limit} if law.name == "slots" else named


def _estimate(value: Any, draws: Floats, confidence: float) -> Estimate:
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist()
    ends = (float(value), min(low, float(value)), max(high, float(value)))
    # A part that is nothing has no logarithm: the method stops somewhere far below what matters.
    likely, low, high = (0.0 if end < _NOTHING else end for end in ends)
    return Estimate(value=likely, low=low, high=high)


def _peak(
    law: _Law, values: dict[str, Floats], draws: dict[str, Floats], users: Floats, confidence: float
) -> tuple[Estimate | None, Estimate | None]:
    """(users of the greatest throughput, that throughput), where the levels reach beyond it."""
    if law.name == "slots":
        most = [one["c"] / (one["a"] + one["b"] * one["c"]) for one in (values, draws)]
        return None, _estimate(most[0][0], most[1], confidence)
    if law.name == "batch":
        return None, None
    places = [np.sqrt(np.maximum(1 - one["alpha"], 0.0) / np.maximum(one["beta"], _TINY)) for one in (values, draws)]
    if not 1 <= places[0][0] <= users[-1]:
        return None, None
    most = [_usl(np.maximum(n, 1.0), one) for n, one in zip(places, (values, draws), strict=True)]
    place = _estimate(places[0][0], places[1], confidence)
    if place.high is not None and place.high > users[-1]:
        place = Estimate(value=place.value, low=place.low, high=None)
    return place, _estimate(most[0][0], most[1], confidence)


def _usl(n: Floats, by: dict[str, Floats]) -> Floats:
    per: Floats = by["lambda"] * n / (1 + by["alpha"] * (n - 1) + by["beta"] * n * (n - 1))
    return per


def find_cliff(used: Sequence[MeasuredLevel]) -> Cliff | None:
    """The fall that a step between two levels explains and no law does."""
    if len(used) < _FEWEST_FOR_A_CLIFF:
        return None
    users, per_s = _figures(used)
    noise = max(_NOISE, _spread(used))
    smooth = min(float(fit(law, users, per_s[None]).rss[0]) for law in _LAWS)
    found: list[tuple[float, Cliff]] = []
    for law in _LAWS:
        for at in range(law.parts, len(used)):
            stepped = fit(law, users, per_s[None], step=at)
            rss, fall = float(stepped.rss[0]), float(stepped.parts[0, -1])
            left = max(rss / max(1, len(used) - law.parts - 1), noise**2)
            falls = fall < _FALL and used[at].per_s < used[at - 1].per_s * (1 - 2 * noise)
            if falls and smooth - rss > _SURELY * left:
                expected = law(users, stepped._replace(parts=stepped.parts[:, :-1]))[0, at]
                found.append((rss, _cliff(used, at, float(expected))))
    return min(found, key=lambda one: one[0])[1] if found else None


def _cliff(used: Sequence[MeasuredLevel], at: int, expected_per_s: float) -> Cliff:
    return Cliff(
        above_users=float(used[at - 1].users),
        at_most_users=float(used[at].users),
        expected_per_s=expected_per_s,
        measured_per_s=used[at].per_s,
    )
