"""The throughput curve of a capacity search: its levels without think time, and the predictions made from them.

The model is `loadbench.analyze.capacity.prediction`. It uses these levels alone and none of the probes, so that
prediction and search are two independent ways to the same number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from loadbench.analyze.capacity.finite_source import between, met_on_arrival, rates_through
from loadbench.analyze.capacity.measured_levels import measured_levels
from loadbench.analyze.capacity.prediction import missed_share, predict, refusal, unpredictable
from loadbench.analyze.level.verdict import ITL_ONLY_CODES
from loadbench.record.figures import MANY_A_REQUEST
from loadbench.results.run import ClosedLoad, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.plan.objective import Objective
    from loadbench.results.prediction import PredictedCapacity, Prediction
    from loadbench.results.run import LevelResult

# The reported think times: multiples of the one that was set, or these where none was set.
_MULTIPLES = (0.5, 1.0, 2.0, 4.0)
_WITHOUT_S = (0.0, 10.0, 20.0, 30.0, 40.0, 60.0)


def think_times(think_s: float) -> tuple[float, ...]:
    """The think times to report, ascending, in seconds."""
    return tuple(round(think_s * multiple, 6) for multiple in _MULTIPLES) if think_s else _WITHOUT_S


def curve_levels(levels: Sequence[LevelResult], objectives: Sequence[Objective]) -> list[LevelResult]:
    """The levels without think time; late reads count only for objectives on the times between tokens."""
    no_think_time = [level for level in levels if isinstance(level.load, ClosedLoad) and level.load.think is None]
    if any_per_token(objectives):
        return no_think_time
    return [ignoring_itl(level) for level in no_think_time]


def any_per_token(objectives: Sequence[Objective]) -> bool:
    """Whether late reads matter: they distort times between tokens, and whole requests by one such time at most."""
    return any(objective.metric in MANY_A_REQUEST for objective in objectives)


def ignoring_itl(level: LevelResult) -> LevelResult:
    """The level as far as whole requests are concerned: VALID where late reads are its only problem."""
    reasons = [reason for reason in level.verdict.reasons if reason.code not in ITL_ONLY_CODES]
    return level if reasons else msgspec.structs.replace(level, verdict=Verdict("VALID"))


def predict_from_curve(
    levels: Sequence[LevelResult],
    objectives: Sequence[Objective],
    *,
    think_s: Sequence[float],
    confidence: float,
    seed: int,
) -> Prediction | None:
    """The prediction of the model; `None` where the levels do not support one."""
    levels = curve_levels(levels, objectives)
    prediction = predict(levels, objectives, think_s=think_s, confidence=confidence, seed=seed)
    if prediction.refused or all(fit.users is None for fit in prediction.fits):
        return None
    return prediction


def fit_of_all_objectives(prediction: Prediction | None, think_s: float | None) -> PredictedCapacity | None:
    """The predicted number of users at a think time under all objectives together."""
    if prediction is None or think_s is None:
        return None
    return next((fit for fit in prediction.fits if not fit.rule and abs(fit.think_s - think_s) < 1e-6), None)


def predicted_hit_shares(
    levels: Sequence[LevelResult], objectives: Sequence[Objective], *, users: int, think_s: float
) -> dict[str, float]:
    """By rule, the predicted share of requests within the bound at this number of users.

    A request that finds more in flight than were measured is treated as if it found the most that were measured. Empty
    where nothing can be predicted.
    """
    levels = curve_levels(levels, objectives)
    used = measured_levels(levels)
    if refusal(levels, used):
        return {}
    knots = [level.users for level in used]
    rates = rates_through(knots, np.array([[level.ended_per_s for level in used]]))
    met = met_on_arrival(np.array([users]), rates, think_s)
    on_level, beyond = (met.within @ between(knots))[0], float(met.beyond[0])
    shares = {}
    for objective in objectives:
        if not unpredictable(objective, used):
            missed = np.array([missed_share(objective, level) for level in used])
            shares[objective.rule] = 1 - (1 - beyond) * float(on_level @ missed) - beyond * float(missed[-1])
    return shares


def mostly_missed(level: LevelResult, objectives: Sequence[Objective]) -> bool:
    """Whether more than half of a level's requests miss one of the objectives."""
    used = measured_levels(curve_levels([level], objectives))
    return any(
        missed_share(objective, measured) > 0.5
        for measured in used
        for objective in objectives
        if not unpredictable(objective, used)
    )
