"""How many people fit, at any think time, from levels of users who do not think.

`loadbench.analyze.capacity.finite_source` says how many requests a new one meets when N people think, ask and wait.
What became
of a request that met n others was measured: it is what befell those of the level of n + 1 users. So the share of
requests that take longer than a bound is

    P(TTFT > t | N people) = Σ_n p_{N−1}(n) · P(TTFT > t | level of n + 1 users)

and so with every other figure and with failures, which are longer than any bound. Between two levels the shares are
taken on a straight line. That a fuller server serves nobody better is taken for granted: where the measured shares say
otherwise they are averaged until they do not (isotonic regression; Barlow, Bartholomew, Bremner and Brunk, 1972). Then
what N people see only gets worse as N grows, and there is one largest N that every objective allows.

*Beyond the levels nothing is known.* Of requests that would meet more than the largest level had, it is taken for
granted only that they fare no better than those that meet just as many. N people fit if they do though every such
request were a miss; they do not fit if the others alone are too slow. Where it is neither, the answer is "at least".

*Intervals* come from drawing the measurement anew: each level's throughput from its own interval, each share of misses
from Jeffreys' distribution, Beta(misses + ½, hits + ½), for as many requests as tell independently (Brown, Cai and
DasGupta, *Interval estimation for a binomial proportion*, 2001), and each mean from its standard error. They hold the
doubt of the measurement, and none about the model: that is for the caveats, and for a run at the predicted number.
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
from loadbench.results.prediction import Curve, Fit, Prediction
from loadbench.results.run import Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.analyze.capacity.finite_source import Floats, InFlight, Ints
    from loadbench.analyze.capacity.measured_levels import MeasuredLevel
    from loadbench.plan.objective import Objective
    from loadbench.results.run import LevelResult

# Percentiles of a 95 % interval vary by a tenth of its width with so many draws.
_DRAWS = 400
_FEWEST_LEVELS = 2
# A share of requests so small changes no figure that is printed.
_NEGLIGIBLE = 1e-3
# More than anybody will ask about, and fewer than a float can count.
_MOST_USERS = 10_000_000
# Points of a curve, and how far beyond the answer it goes.
_POINTS = 40
_MARGIN = 1.3
# The law that ties users, throughput and time holds this well in a steady level, its edges apart.
_LAWFUL = 0.02
# A wider step between two levels says too little of what lies between.
_WIDE_STEP = 2.0
_NORMAL_975 = 1.96


@dataclass(frozen=True, slots=True)
class _Cost:
    """What an objective bounds from above, at each level: a share of misses, or a mean in ns."""

    objective: Objective
    limit: float
    at_levels: Floats  # draws × levels; the first draw is what was measured
    worst: float  # of a request that meets more than was measured


def predict(
    levels: Sequence[LevelResult],
    objectives: Sequence[Objective],
    *,
    think_s: Sequence[float] = (0.0,),
    confidence: float = 0.95,
    seed: int = 0,
) -> Prediction:
    """The largest number of users for each think time and objective, and for all objectives together.

    Of `levels` those of one model that are closed, without think time and valid are used; the others are named in the
    caveats. Objectives of one level (`@users=8`), of a throughput and of a maximum cannot be predicted: their fits say
    so, and they do not count for all together. Raises `ValueError` for a confidence or a think time that is none.
    """
    if not 0 < confidence < 1 or any(not 0 <= pause < math.inf for pause in think_s):
        raise ValueError(f"a confidence lies between 0 and 1, a think time is not negative: {confidence}, {think_s}")
    used = measured_levels(levels)
    refused = refusal(levels, used)
    if refused:
        return Prediction(confidence=confidence, refused=refused, caveats=_left_out(levels))
    rng = np.random.default_rng(seed)
    users = [one.users for one in used]
    rates = rates_through(users, _throughputs(used, rng))
    notes = {one.rule: unpredictable(one, used) for one in objectives}
    costs = [_cost(one, used, rng) for one in objectives if not notes[one.rule]]
    fits, curves = [], []
    for pause in think_s:
        found = [_fit(cost, users, rates, pause, confidence) for cost in costs]
        fits += _together(found, pause)
        fits += [Fit(think_s=pause, rule=rule, users=None, note=note) for rule, note in notes.items() if note]
        top = max((fit.high or fit.users or 1 for fit in found), default=users[-1])
        curves.append(_curve(used, [cost.objective for cost in costs], rates[:1], pause, top))
    return Prediction(
        confidence=confidence,
        measured_users=users,
        fits=fits,
        curves=curves,
        scaling=fit_scaling(levels, confidence=confidence, seed=seed),
        caveats=[*_caveats(used, costs), *_left_out(levels)],
    )


def refusal(levels: Sequence[LevelResult], used: Sequence[MeasuredLevel]) -> str:
    """Why nothing is predicted from these; empty where something is."""
    if len({level.model for level in levels}) > 1:
        return "the levels are of several models: each is predicted by itself"
    if len(used) < _FEWEST_LEVELS:
        return (
            f"there are {len(used)} valid levels of users who do not think, and {_FEWEST_LEVELS} are the least: "
            "measure with --users 1,2,4,8 and so on, without --think"
        )
    return ""


def _throughputs(used: Sequence[MeasuredLevel], rng: np.random.Generator) -> Floats:
    """Draws × levels, of requests that ended per second."""
    spread = np.array([one.spread for one in used])
    noise = rng.standard_normal((_DRAWS, len(used))) * np.sqrt(np.log1p(spread**2))
    noise[0] = 0.0
    drawn: Floats = np.array([one.ended_per_s for one in used]) * np.exp(noise)
    return drawn


def unpredictable(objective: Objective, used: Sequence[MeasuredLevel]) -> str:
    """Why nothing is said of this objective; empty where something can be."""
    if objective.at:
        return "it speaks of one level alone"
    if not objective.is_latency:
        return "" if objective.metric == FAILURES else "a throughput to be reached bounds users from below, not above"
    if objective.point == "max":
        return "the greatest of some requests says nothing of the greatest of others"
    if not any(one.histogram(f"{objective.metric}_s").count for one in used):
        return f"no request has a {objective.metric}"
    return ""


def _cost(objective: Objective, used: Sequence[MeasuredLevel], rng: np.random.Generator) -> _Cost:
    weights = np.array([max(1.0, one.independent(f"{objective.metric}_s")) for one in used])
    if objective.point == "mean":
        drawn, limit, worst = _means(objective, used, weights, rng), objective.bound, math.inf
    else:
        shares = np.array([missed_share(objective, one) for one in used])
        drawn = rng.beta(shares * weights + 0.5, (1 - shares) * weights + 0.5, (_DRAWS, len(used)))
        drawn[0] = shares
        limit, worst = (1 - objective.permille / 1000 if objective.is_latency else objective.bound), 1.0
    return _Cost(objective, limit, isotonic(drawn, weights), worst)


def missed_share(objective: Objective, one: MeasuredLevel) -> float:
    """The share of requests at this level that miss the bound, the failed among them."""
    if not objective.is_latency:
        return one.failed / (one.answered + one.failed)
    histogram = one.histogram(f"{objective.metric}_s")
    failed = 0 if objective.metric in MANY_A_REQUEST else one.failed
    total = histogram.count + failed
    return (histogram.count_above(round(objective.bound)) + failed) / total if total else 1.0


def _means(objective: Objective, used: Sequence[MeasuredLevel], weights: Floats, rng: np.random.Generator) -> Floats:
    """Draws × levels; infinite where a request failed, as an objective of a mean has it."""
    histograms = [one.histogram(f"{objective.metric}_s") for one in used]
    means = np.array(
        [h.mean if h.mean is not None and not one.failed else math.inf for one, h in zip(used, histograms, strict=True)]
    )
    errors = np.array([h.stddev or 0.0 for h in histograms]) / np.sqrt(weights)
    drawn: Floats = np.maximum(0.0, means + errors * rng.standard_normal((_DRAWS, len(used))))
    drawn[0] = means
    return drawn


def isotonic(rows: Floats, weights: Floats) -> Floats:
    """Each row made to rise, by the least weighted change: the largest over j ≤ i of the least mean of j … k ≥ i."""
    levels = rows.shape[1]
    finite = np.where(np.isfinite(rows), rows, np.finfo(np.float64).max / (4 * weights.sum()))
    sums = np.concatenate([np.zeros((len(rows), 1)), np.cumsum(finite * weights, axis=1)], axis=1)
    over = np.concatenate([[0.0], np.cumsum(weights)])
    made = np.empty_like(rows)
    for i in range(levels):
        blocks = (sums[:, None, i + 1 :] - sums[:, : i + 1, None]) / (over[None, i + 1 :] - over[: i + 1, None])
        made[:, i] = blocks.min(axis=2).max(axis=1)
    return made


def _fit(cost: _Cost, users: Sequence[int], rates: Floats, think_s: float, confidence: float) -> Fit:
    """Bracket and halve, all draws at once."""
    at_each = cost.at_levels @ between(users).T

    def fits(wanted: Ints) -> tuple[np.ndarray, np.ndarray]:
        return _verdicts(met_on_arrival(wanted, rates, think_s), at_each, cost)

    low, high = np.zeros(len(rates), np.int64), np.ones(len(rates), np.int64)
    while (growing := fits(high)[0] & (high < _MOST_USERS)).any():
        low, high = np.where(growing, high, low), np.where(growing, 2 * high, high)
    while (high - low > 1).any():
        middle = np.maximum((low + high) // 2, 1)
        yes, _ = fits(middle)
        low, high = np.where(yes, middle, low), np.where(yes, high, np.maximum(middle, low + 1))
    _, no = fits(low + 1)
    tail = (1 - confidence) / 2
    ordered = np.sort(np.where(no, low, _MOST_USERS))
    top = int(ordered[min(len(ordered) - 1, math.ceil((1 - tail) * len(ordered)) - 1)])
    bottom = int(np.sort(low)[math.floor(tail * len(low))])
    at_least, likely = not no[0], int(low[0])
    return Fit(
        think_s=think_s,
        rule=cost.objective.rule,
        users=likely,
        low=min(likely, bottom),
        high=None if at_least or top >= _MOST_USERS else max(likely, top),
        at_least=at_least,
        note=_beyond_note(users[-1]) if at_least else "",
    )


def _verdicts(met: InFlight, at_each: Floats, cost: _Cost) -> tuple[np.ndarray, np.ndarray]:
    """(they surely fit, they surely do not) of each row, whatever befalls those who meet more than was measured."""
    # Infinite costs that nobody meets cost nothing.
    seen = (met.within * np.where(met.within > 0, at_each, 0.0)).sum(axis=1)
    if math.isfinite(cost.worst):
        yes = seen * (1 - met.beyond) + cost.worst * met.beyond <= cost.limit
    else:
        yes = (seen < cost.limit) & (met.beyond < _NEGLIGIBLE)
    return yes, seen > cost.limit


def _beyond_note(most: int) -> str:
    return f"more people would have more than {most} requests in flight, and no level shows what becomes of those"


def _together(found: Sequence[Fit], think_s: float) -> list[Fit]:
    """Of all objectives together, then each."""
    known = [fit for fit in found if fit.users is not None and fit.low is not None]
    if not known:
        return list(found)
    least = min(known, key=lambda fit: (fit.users, fit.at_least))
    highs = [fit.high for fit in known if fit.high is not None]
    every = Fit(
        think_s=think_s,
        users=least.users,
        low=min(fit.low or 0 for fit in known),
        high=None if least.at_least or not highs else max(least.users or 0, min(highs)),
        at_least=least.at_least,
        note=least.note or f"bound by {least.rule}",
    )
    return [every, *found]


def _curve(
    used: Sequence[MeasuredLevel], objectives: Sequence[Objective], rates: Floats, think_s: float, top: int
) -> Curve:
    """From one user to somewhat beyond the answer, as long as most requests meet what was measured."""
    last = max(used[-1].users, math.ceil(_MARGIN * min(top, _MOST_USERS / 2)))
    points = sorted({round(x) for x in np.geomspace(1, last, _POINTS)}) if last > _POINTS else range(1, last + 1)
    counts = np.array(list(points), np.int64)
    rows = np.repeat(rates, len(counts), axis=0)
    met = met_on_arrival(counts, rows, think_s)
    shown = met.beyond <= 0.5
    counts, rows, met = counts[shown], rows[shown], met._replace(within=met.within[shown], beyond=met.beyond[shown])
    per_s = throughput(counts, rows, think_s)
    on_level = met.within @ between([one.users for one in used])
    state = in_flight(counts, rows, think_s)
    mean_inside = (state.within * np.arange(state.within.shape[1])).sum(axis=1)
    response = response_s(counts, per_s, think_s)
    return Curve(
        think_s=think_s,
        users=counts.tolist(),
        requests_per_s=per_s.tolist(),
        response_s=response.tolist(),
        in_flight=np.where(state.beyond > 0, per_s * response, mean_inside).tolist(),
        figures={one.rule: _figures(one, used, on_level) for one in objectives},
        beyond=met.beyond.tolist(),
    )


def _figures(objective: Objective, used: Sequence[MeasuredLevel], on_level: Floats) -> list[float | None]:
    """What the rule names, for each row of weights of the levels."""
    if not objective.is_latency:
        shares = np.array([missed_share(objective, one) for one in used])
        return [float(share) for share in on_level @ shares]
    if objective.point == "mean":
        means = [one.mean_s(f"{objective.metric}_s") for one in used]
        return [_weighted(weights, means) for weights in on_level]
    failed = [0 if objective.metric in MANY_A_REQUEST else one.failed for one in used]
    histograms = [one.histogram(f"{objective.metric}_s") for one in used]
    parts = [histogram.nonzero() for histogram in histograms]
    values = np.concatenate([values for values, _ in parts])
    shares = np.concatenate(
        [counts / max(1, h.count + lost) for (_, counts), h, lost in zip(parts, histograms, failed, strict=True)]
    )
    whose = np.repeat(np.arange(len(used)), [len(counts) for _, counts in parts])
    order = np.argsort(values)
    return [
        _quantile(values[order], shares[order] * weights[whose[order]], objective.permille / 1000)
        for weights in on_level
    ]


def _weighted(weights: Floats, means: Sequence[float | None]) -> float | None:
    """`None` where one that counts is not known."""
    pairs = [(weight, mean) for weight, mean in zip(weights.tolist(), means, strict=True) if weight > 0]
    return None if any(mean is None for _, mean in pairs) else sum(weight * (mean or 0.0) for weight, mean in pairs)


def _quantile(values: Ints, shares: Floats, p: float) -> float | None:
    """In seconds; `None` is infinite: it lies among the failures."""
    below = np.cumsum(shares)
    at = int(np.searchsorted(below, p * (1 - 1e-12)))
    return float(values[at]) / 1e9 if at < len(values) else None


def _caveats(used: Sequence[MeasuredLevel], costs: Sequence[_Cost]) -> list[Reason]:
    found = [
        Reason(
            "shared_evenly",
            "the model is exact for a server that divides itself evenly among the requests in flight, whatever their "
            "lengths and the pauses; one that takes prompts in turn, or has slots, comes near it but is not it",
            "measure at the predicted number, with the think time",
        )
    ]
    users = [one.users for one in used]
    wide = [(a, b) for a, b in pairwise(users) if b > _WIDE_STEP * a]
    if wide:
        steps = ", ".join(f"{a} to {b}" for a, b in wide)
        found.append(Reason("wide_steps", f"between levels a straight line is drawn: {steps} users", "measure between"))
    if users[0] > 1:
        what = f"of fewer than {users[0]} users nothing was measured: they are taken to see what {users[0]} see"
        found.append(Reason("no_single_user", what, "measure one user as well"))
    lawless = [one.users for one in used if not _lawful(one)]
    if lawless:
        what = (
            f"at {', '.join(map(str, lawless))} users N/X is not the time that requests took: the level was not steady"
        )
        found.append(Reason("interactive_law", what, "measure for longer, after a longer warm-up"))
    if any(_falls(cost, used) for cost in costs):
        what = "a fuller level served people better than an emptier one, by more than chance: they were averaged"
        found.append(
            Reason("not_monotone", what, "see whether the server caches, warms up or wakes, and measure again")
        )
    return found


def _lawful(one: MeasuredLevel) -> bool:
    """R = N/X without think time; a request of each user may be cut by the window's edge, and X has its own spread."""
    took_s = one.mean_s("stream_end_s") or one.mean_s("e2e_s")
    if took_s is None or one.failed:
        return True
    edge = took_s / sum(level.window_s for level in one.levels)
    return abs(one.ended_per_s * took_s / one.users - 1) <= _LAWFUL + edge + 2 * one.spread


def _falls(cost: _Cost, used: Sequence[MeasuredLevel]) -> bool:
    """Whether a share of misses falls from one level to a fuller one by more than twice its standard error."""
    if cost.objective.point == "mean":
        return False
    seen = [missed_share(cost.objective, one) for one in used]
    counts = [max(1.0, one.independent(f"{cost.objective.metric}_s")) for one in used]
    errors = [share * (1 - share) / n for share, n in zip(seen, counts, strict=True)]
    return any(
        seen[i] - seen[j] > 2 * _NORMAL_975 * math.sqrt(errors[i] + errors[j])
        for i in range(len(seen))
        for j in range(i + 1, len(seen))
    )


def _left_out(levels: Sequence[LevelResult]) -> list[Reason]:
    """The levels that were not used, and why."""
    left = [(level, reason) for level in levels if (reason := exclusion_reason(level))]
    if not left:
        return []
    named = ", ".join(f"{level.load.label} {reason}" for level, reason in left)
    advice = "closed, valid levels without think time are what a prediction is made from"
    return [Reason("left_out", f"not used: {named}", advice)]
