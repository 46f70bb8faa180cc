"""What a capacity search makes of its levels without think time: where to look first, and what to expect at the answer.

The model is that of `loadbench.analyze.capacity.prediction`. It rests on these levels alone, and knows nothing of
the probes:
what it says beside what they found is two independent ways to one number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from loadbench.analyze.capacity.finite_source import between, met_on_arrival, rates_through
from loadbench.analyze.capacity.measured_levels import measured_levels
from loadbench.analyze.capacity.prediction import missed_share, predict, refusal, unpredictable
from loadbench.record.figures import MANY_A_REQUEST
from loadbench.results.run import ClosedLoad, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.plan.objective import Objective
    from loadbench.results.prediction import Fit, Prediction
    from loadbench.results.run import LevelResult

# Late reads blur the gaps between tokens, and change by one such gap at most what objectives on whole requests look at.
ITL_ONLY_CODES = frozenset({"late_reads"})
# The think times that are told beside the one asked for, by which it is multiplied; and where there is none.
_TIMES = (0.5, 1.0, 2.0, 4.0)
_WITHOUT_S = (0.0, 10.0, 20.0, 30.0, 40.0, 60.0)


def think_times(think_s: float) -> tuple[float, ...]:
    """Those that people are told of, ascending, in seconds."""
    return tuple(round(think_s * times, 6) for times in _TIMES) if think_s else _WITHOUT_S


def curve_levels(levels: Sequence[LevelResult], objectives: Sequence[Objective]) -> list[LevelResult]:
    """The levels without think time, each as good as it is for these objectives."""
    thoughtless = [one for one in levels if isinstance(one.load, ClosedLoad) and one.load.think is None]
    if any(one.metric in MANY_A_REQUEST for one in objectives):
        return thoughtless
    return [ignoring_itl(one) for one in thoughtless]


def ignoring_itl(level: LevelResult) -> LevelResult:
    """The level as good as it is for whole requests: late reads blur the gaps between tokens alone."""
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
    """By the model; `None` where the levels do not carry it."""
    found = predict(curve_levels(levels, objectives), objectives, think_s=think_s, confidence=confidence, seed=seed)
    return None if found.refused or not any(fit.users is not None for fit in found.fits) else found


def fit_of_all_objectives(prediction: Prediction | None, think_s: float | None) -> Fit | None:
    """What was predicted for a think time, of all objectives together."""
    if prediction is None or think_s is None:
        return None
    return next((fit for fit in prediction.fits if not fit.rule and abs(fit.think_s - think_s) < 1e-6), None)


def predicted_hit_shares(
    levels: Sequence[LevelResult], objectives: Sequence[Objective], *, users: int, think_s: float
) -> dict[str, float]:
    """By rule, the share of the requests of so many people that would be within its bound.

    Who meets more than was measured is taken to fare as those who meet as many as were. Empty where nothing is said.
    """
    levels = curve_levels(levels, objectives)
    used = measured_levels(levels)
    if refusal(levels, used):
        return {}
    knots = [one.users for one in used]
    rates = rates_through(knots, np.array([[one.ended_per_s for one in used]]))
    met = met_on_arrival(np.array([users]), rates, think_s)
    on_level, beyond = (met.within @ between(knots))[0], float(met.beyond[0])
    missed = {
        one.rule: np.array([missed_share(one, level) for level in used])
        for one in objectives
        if not unpredictable(one, used)
    }
    return {
        rule: 1 - (1 - beyond) * float(on_level @ shares) - beyond * float(shares[-1])
        for rule, shares in missed.items()
    }


def mostly_missed(level: LevelResult, objectives: Sequence[Objective]) -> bool:
    """Whether more than half of a level's requests miss one of the objectives."""
    used = measured_levels(curve_levels([level], objectives))
    return any(missed_share(one, level) > 0.5 for level in used for one in objectives if not unpredictable(one, used))
