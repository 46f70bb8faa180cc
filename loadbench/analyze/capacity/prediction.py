"""Predicts how many users fit at any think time, from levels of users without think time.

`loadbench.analyze.capacity.finite_source` gives the number of requests that a new one finds in flight when N users
think, send and wait. What happens to a request that finds n others is measured: it is what the requests of the level of
n + 1 users experienced. So the share of requests slower than a bound is

    P(TTFT > t | N users) = Σ_n p_{N−1}(n) · P(TTFT > t | level of n + 1 users)

and likewise for every other figure, and for failures, which count as slower than any bound. Between two levels the
shares are interpolated linearly. The model assumes that a busier server serves no request better. Where the measured
shares contradict this, they are averaged until they do not (isotonic regression; Barlow, Bartholomew, Bremner and
Brunk, 1972). Then the figures only get worse as N grows, and there is one largest N that meets every objective.

*Nothing is known beyond the levels.* For requests that find more in flight than the largest level had, the model
assumes only that they fare no better than those that find exactly as many. N users fit if they do even when every such
request is a miss; they do not fit if the other requests alone are too slow. In between, the answer is "at least".

*Intervals* come from resampling the measurement: each level's throughput from its own interval, each share of misses
from the Jeffreys distribution, Beta(misses + ½, hits + ½), with the effective number of requests (Brown, Cai and
DasGupta, *Interval estimation for a binomial proportion*, 2001), and each mean from its standard error. They include
the uncertainty of the measurement, not that of the model: see the caveats, and measure at the predicted number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from loadbench.analyze.capacity.finite_source import (
    between,
    in_flight,
    met_on_arrival,
    rates_through,
    response_s,
    throughput,
)
from loadbench.analyze.capacity.measured_levels import exclusion_reason, measured_levels
from loadbench.analyze.capacity.scaling import fit_scaling
from loadbench.plan.objective import FAILURES
from loadbench.record.figures import MANY_A_REQUEST
from loadbench.results.prediction import PredictedCapacity, PredictedCurve, Prediction
from loadbench.results.run import Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.analyze.capacity.finite_source import Floats, Ints
    from loadbench.analyze.capacity.measured_levels import MeasuredLevel
    from loadbench.plan.objective import Objective
    from loadbench.results.run import LevelResult

# Percentiles of a 95 % interval vary by a tenth of its width with so many draws.
_DRAWS = 400
FEWEST_LEVELS = 2
# A smaller share of requests changes no printed figure.
_NEGLIGIBLE = 1e-3
# More users than any server has, and still exact in a float.
_MOST_USERS = 10_000_000
# Points of a curve, and how far it extends beyond the answer.
_POINTS = 40
_MARGIN = 1.3
# The interactive response time law holds within this error in a steady level, apart from its edges.
_LAWFUL = 0.02
# A larger step between two levels makes the interpolation unreliable.
_WIDE_STEP = 2.0
_NORMAL_975 = 1.96


@dataclass(frozen=True, slots=True)
class _BoundedFigure:
    """What an objective bounds from above: the share of misses, or a mean in ns."""

    objective: Objective
    limit: float
    at_levels: Floats  # draws × levels; the first draw is the measurement
    worst: float  # for a request that finds more in flight than were measured


def predict(
    levels: Sequence[LevelResult],
    objectives: Sequence[Objective],
    *,
    think_s: Sequence[float] = (0.0,),
    confidence: float = 0.95,
    seed: int = 0,
) -> Prediction:
    """The largest number of users for each think time and objective, and for all objectives together.

    Only closed, valid levels of one model without think time are used; the caveats name the others. Objectives on one
    level (`@users=8`), on throughput and on a maximum cannot be predicted: the `note` of their fit says so, and they do
    not count for all objectives together. Raises `ValueError` for a confidence outside of 0 to 1 or a negative or
    infinite think time.
    """
    if not 0 < confidence < 1 or any(not 0 <= pause < math.inf for pause in think_s):
        raise ValueError(f"the confidence must be between 0 and 1, think times 0 or more: {confidence}, {think_s}")
    used = measured_levels(levels)
    refused = refusal(levels, used)
    if refused:
        return Prediction(confidence=confidence, refused=refused, caveats=_left_out(levels))
    rng = np.random.default_rng(seed)
    users = [level.users for level in used]
    spread = np.array([level.spread for level in used])
    noise = rng.standard_normal((_DRAWS, len(used))) * np.sqrt(np.log1p(spread**2))
    noise[0] = 0.0
    rates = rates_through(users, np.array([level.ended_per_s for level in used]) * np.exp(noise))
    notes = {objective.rule: unpredictable(objective, used) for objective in objectives}
    figures = [_bounded_figure(objective, used, rng) for objective in objectives if not notes[objective.rule]]
    fits, curves = [], []
    for pause in think_s:
        by_rule = [_fit(figure, users, rates, pause, confidence) for figure in figures]
        fits += _with_all_objectives(by_rule, pause)
        fits += [
            PredictedCapacity(think_s=pause, rule=rule, users=None, note=note) for rule, note in notes.items() if note
        ]
        top = max((fit.high or fit.users or 1 for fit in by_rule), default=users[-1])
        curves.append(_curve(used, [figure.objective for figure in figures], rates[:1], pause, top))
    return Prediction(
        confidence=confidence,
        measured_users=users,
        fits=fits,
        curves=curves,
        scaling=fit_scaling(levels, confidence=confidence, seed=seed),
        caveats=[*_caveats(used, figures), *_left_out(levels)],
    )


def refusal(levels: Sequence[LevelResult], used: Sequence[MeasuredLevel]) -> str:
    """Why nothing can be predicted from these levels; empty where something can."""
    if len({level.model for level in levels}) > 1:
        return "the levels are of several models: predict each model separately"
    if len(used) < FEWEST_LEVELS:
        return (
            f"a prediction needs {FEWEST_LEVELS} valid levels without think time, and there are {len(used)}: "
            "measure with --users 1,2,4,8 and without --think"
        )
    return ""


def unpredictable(objective: Objective, used: Sequence[MeasuredLevel]) -> str:
    """Why this objective cannot be predicted; empty where it can."""
    if objective.at:
        return "it applies to one level only"
    if not objective.is_latency:
        if objective.metric == FAILURES:
            # Levels without a failure do not show where failures would begin.
            return "" if any(level.failed for level in used) else "no request failed without think time"
        return "a minimum throughput sets no upper limit on the users"
    if objective.point == "max":
        return "the maximum of some requests does not predict the maximum of others"
    if not any(level.histogram(f"{objective.metric}_s").count for level in used):
        return f"no request has a {objective.metric}"
    return ""


def _bounded_figure(objective: Objective, used: Sequence[MeasuredLevel], rng: np.random.Generator) -> _BoundedFigure:
    weights = np.array([max(1.0, level.effective_n(f"{objective.metric}_s")) for level in used])
    if objective.point == "mean":
        # Infinite at a level with failures, because an objective on a mean counts them so.
        histograms = [level.histogram(f"{objective.metric}_s") for level in used]
        seen = [
            math.inf if histogram.mean is None or level.failed else histogram.mean
            for level, histogram in zip(used, histograms, strict=True)
        ]
        errors = np.array([histogram.stddev or 0.0 for histogram in histograms]) / np.sqrt(weights)
        drawn = np.maximum(0.0, np.array(seen) + errors * rng.standard_normal((_DRAWS, len(used))))
        limit, worst = objective.bound, math.inf
    else:
        seen = [missed_share(objective, level) for level in used]
        misses = np.array(seen) * weights
        drawn = rng.beta(misses + 0.5, weights - misses + 0.5, (_DRAWS, len(used)))
        limit, worst = (1 - objective.permille / 1000 if objective.is_latency else objective.bound), 1.0
    drawn[0] = seen
    return _BoundedFigure(objective, limit, isotonic(drawn, weights), worst)


def missed_share(objective: Objective, level: MeasuredLevel) -> float:
    """The share of a level's requests that miss the bound, failed ones included."""
    if not objective.is_latency:
        return level.failed / (level.answered + level.failed)
    histogram = level.histogram(f"{objective.metric}_s")
    failed = 0 if objective.metric in MANY_A_REQUEST else level.failed
    total = histogram.count + failed
    return (histogram.count_above(round(objective.bound)) + failed) / total if total else 1.0


def isotonic(rows: Floats, weights: Floats) -> Floats:
    """Each row made nondecreasing by the least weighted change: at i, max over j ≤ i of min over k ≥ i of the mean of
    j … k."""
    finite = np.where(np.isfinite(rows), rows, np.finfo(np.float64).max / (4 * weights.sum()))
    sums = np.concatenate([np.zeros((len(rows), 1)), np.cumsum(finite * weights, axis=1)], axis=1)
    over = np.concatenate([[0.0], np.cumsum(weights)])
    rising = np.empty_like(rows)
    for i in range(rows.shape[1]):
        blocks = (sums[:, None, i + 1 :] - sums[:, : i + 1, None]) / (over[None, i + 1 :] - over[: i + 1, None])
        rising[:, i] = blocks.min(axis=2).max(axis=1)
    return rising


def _fit(
    figure: _BoundedFigure, users: Sequence[int], rates: Floats, think_s: float, confidence: float
) -> PredictedCapacity:
    """Bracketing and bisection, for all draws at once."""
    at_each = figure.at_levels @ between(users).T

    def decided(wanted: Ints) -> tuple[np.ndarray, np.ndarray]:
        """(certain to fit, certain not to fit) for each row, whatever happens to requests beyond the levels."""
        met = met_on_arrival(wanted, rates, think_s)
        # An infinite mean of a state that no request finds does not count.
        value = (met.within * np.where(met.within > 0, at_each, 0.0)).sum(axis=1)
        if math.isfinite(figure.worst):
            fits = value * (1 - met.beyond) + figure.worst * met.beyond <= figure.limit
        else:
            fits = (value < figure.limit) & (met.beyond < _NEGLIGIBLE)
        return fits, value > figure.limit

    low, high = np.zeros(len(rates), np.int64), np.ones(len(rates), np.int64)
    while (growing := decided(high)[0] & (high < _MOST_USERS)).any():
        low, high = np.where(growing, high, low), np.where(growing, 2 * high, high)
    while (high - low > 1).any():
        middle = np.maximum((low + high) // 2, 1)
        fits, _ = decided(middle)
        low, high = np.where(fits, middle, low), np.where(fits, high, np.maximum(middle, low + 1))
    _, not_fitting = decided(low + 1)
    tail = (1 - confidence) / 2
    ordered = np.sort(np.where(not_fitting, low, _MOST_USERS))
    top = int(ordered[min(len(ordered) - 1, math.ceil((1 - tail) * len(ordered)) - 1)])
    bottom = int(np.sort(low)[math.floor(tail * len(low))])
    at_least, likely = not not_fitting[0], int(low[0])
    beyond = f"with more users, more than {users[-1]} requests would be in flight, and no level measured that"
    return PredictedCapacity(
        think_s=think_s,
        rule=figure.objective.rule,
        users=likely,
        low=min(likely, bottom),
        high=None if at_least or top >= _MOST_USERS else max(likely, top),
        at_least=at_least,
        note=beyond if at_least else "",
    )


def _with_all_objectives(fits: Sequence[PredictedCapacity], think_s: float) -> list[PredictedCapacity]:
    """The fit of all objectives together, then each."""
    known = [fit for fit in fits if fit.users is not None and fit.low is not None]
    if not known:
        return list(fits)
    least = min(known, key=lambda fit: (fit.users, fit.at_least))
    highs = [fit.high for fit in known if fit.high is not None]
    together = PredictedCapacity(
        think_s=think_s,
        users=least.users,
        low=min(fit.low or 0 for fit in known),
        high=None if least.at_least or not highs else max(least.users or 0, min(highs)),
        at_least=least.at_least,
        note=least.note or f"bound by {least.rule}",
    )
    return [together, *fits]


def _curve(
    used: Sequence[MeasuredLevel], objectives: Sequence[Objective], rates: Floats, think_s: float, top: int
) -> PredictedCurve:
    """From one user to somewhat beyond the answer, as long as most requests find a number that was measured."""
    last = max(used[-1].users, math.ceil(_MARGIN * min(top, _MOST_USERS / 2)))
    points = sorted({round(x) for x in np.geomspace(1, last, _POINTS)}) if last > _POINTS else range(1, last + 1)
    counts = np.array(list(points), np.int64)
    rows = np.repeat(rates, len(counts), axis=0)
    met = met_on_arrival(counts, rows, think_s)
    kept = met.beyond <= 0.5
    counts, rows, met = counts[kept], rows[kept], met._replace(within=met.within[kept], beyond=met.beyond[kept])
    per_s = throughput(counts, rows, think_s)
    on_level = met.within @ between([level.users for level in used])
    state = in_flight(counts, rows, think_s)
    mean_inside = (state.within * np.arange(state.within.shape[1])).sum(axis=1)
    response = response_s(counts, per_s, think_s)
    return PredictedCurve(
        think_s=think_s,
        users=counts.tolist(),
        requests_per_s=per_s.tolist(),
        response_s=response.tolist(),
        in_flight=np.where(state.beyond > 0, per_s * response, mean_inside).tolist(),
        figures={objective.rule: _figures(objective, used, on_level) for objective in objectives},
        beyond=met.beyond.tolist(),
    )


def _figures(objective: Objective, used: Sequence[MeasuredLevel], on_level: Floats) -> list[float | None]:
    """The figure that the rule names, for each row of weights of the levels; in seconds, or a share."""
    if not objective.is_latency:
        shares = np.array([missed_share(objective, level) for level in used])
        return [float(share) for share in on_level @ shares]
    figures: list[float | None] = []
    if objective.point == "mean":
        means = [level.mean_s(f"{objective.metric}_s") for level in used]
        for weights in on_level.tolist():
            pairs = [(weight, mean) for weight, mean in zip(weights, means, strict=True) if weight > 0]
            unknown = any(mean is None for _, mean in pairs)
            figures.append(None if unknown else sum(weight * (mean or 0.0) for weight, mean in pairs))
        return figures
    # A quantile of the levels' histograms, mixed by weight; `None` is infinite: it lies among the failures.
    failed = [0 if objective.metric in MANY_A_REQUEST else level.failed for level in used]
    histograms = [level.histogram(f"{objective.metric}_s") for level in used]
    parts = [histogram.nonzero() for histogram in histograms]
    values = np.concatenate([values for values, _ in parts])
    shares = np.concatenate(
        [counts / max(1, h.count + lost) for (_, counts), h, lost in zip(parts, histograms, failed, strict=True)]
    )
    of_level = np.repeat(np.arange(len(used)), [len(counts) for _, counts in parts])
    order = np.argsort(values)
    for weights in on_level:
        below = np.cumsum(shares[order] * weights[of_level[order]])
        at = int(np.searchsorted(below, objective.permille / 1000 * (1 - 1e-12)))
        figures.append(float(values[order[at]]) / 1e9 if at < len(values) else None)
    return figures


def _caveats(used: Sequence[MeasuredLevel], figures: Sequence[_BoundedFigure]) -> list[Reason]:
    """What the model assumes about the server, and what in the levels contradicts it."""
    caveats = [
        Reason(
            "shared_evenly",
            "approximate if the server has slots or a memory limit, or reads prompts in turn (exact if it shares "
            "itself evenly among all requests in flight); its range covers measurement noise only",
            "measure at the predicted number of users, with the think time",
        )
    ]
    users = [level.users for level in used]
    wide = [(a, b) for a, b in pairwise(users) if b > _WIDE_STEP * a]
    if wide:
        steps = ", ".join(f"users={a} and users={b}" for a, b in wide)
        message = f"the model interpolates linearly over a large step, between {steps}"
        caveats.append(Reason("wide_steps", message, "measure a level in between"))
    if users[0] > 1:
        message = f"no level below users={users[0]} was measured: fewer users are taken to see the same figures"
        caveats.append(Reason("no_single_user", message, "measure users=1 as well"))
    unsteady = []
    for level in used:
        # R = N/X without think time. The window's edge cuts a request of each user, and X has its own spread.
        took_s = level.mean_s("stream_end_s") or level.mean_s("e2e_s")
        if took_s is None or level.failed:
            continue
        edge = took_s / sum(part.window_s for part in level.levels)
        if abs(level.ended_per_s * took_s / level.users - 1) > _LAWFUL + edge + 2 * level.spread:
            unsteady.append(f"users={level.users}")
    if unsteady:
        message = (
            f"{', '.join(unsteady)}: users divided by throughput is not the response time, so the level was not steady"
        )
        caveats.append(Reason("interactive_law", message, "measure for longer, after a longer warm-up"))
    if any(_falls(figure, used) for figure in figures):
        message = "a busier server served requests better, by more than chance; the model averages such levels"
        advice = "check whether the server caches, warms up or wakes up, and measure again"
        caveats.append(Reason("not_monotone", message, advice))
    return caveats


def _falls(figure: _BoundedFigure, used: Sequence[MeasuredLevel]) -> bool:
    """Whether a share of misses falls from one level to a busier one by more than twice its standard error."""
    if figure.objective.point == "mean":
        return False
    shares = [missed_share(figure.objective, level) for level in used]
    counts = [max(1.0, level.effective_n(f"{figure.objective.metric}_s")) for level in used]
    variances = [share * (1 - share) / n for share, n in zip(shares, counts, strict=True)]
    return any(
        shares[i] - shares[j] > 2 * _NORMAL_975 * math.sqrt(variances[i] + variances[j])
        for i in range(len(shares))
        for j in range(i + 1, len(shares))
    )


def _left_out(levels: Sequence[LevelResult]) -> list[Reason]:
    """The levels that were not used, and why."""
    left_out = [f"{level.load.label} {reason}" for level in levels if (reason := exclusion_reason(level))]
    if not left_out:
        return []
    advice = "a prediction needs valid closed levels without think time"
    return [Reason("left_out", f"not used: {', '.join(left_out)}", advice)]
