"""Whether the load generator's own delay could have changed what a probe of a capacity search shows.

A request is *in doubt* if it is nearer to a bound than the load generator may have delayed it: by its own lateness or
that of 99 % of the requests, whichever is larger, and by the lag of the event loop where stamps are taken by it. Sent
later by at most this much, no request of a server that serves in order ends later by more than this much.

A probe that fails without the misses in doubt fails, however late they were. One that passes does so with the delay,
and so without it. In a closed loop it must also pass without the hits in doubt, since users who send late make less
load: `N = X (R + Z + d)` with the delay d, and X does not fall without it, so that R grows by d at most (Little, *A
proof for the queuing formula L = λW*, 1961). Only in between does a probe say more about the load generator than the
server.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from loadbench.analyze.capacity.curve import any_per_token
from loadbench.analyze.capacity.sequential import required_share
from loadbench.analyze.level.verdict import CLIENT_CODES, LESS_LOAD_CODES, client_reasons
from loadbench.plan.load import Closed, Phase
from loadbench.plan.objective import FAILURES
from loadbench.record.attainment import informs, values_of
from loadbench.record.figures import MANY_A_REQUEST
from loadbench.record.outcome import Outcome
from loadbench.results.run import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.plan.load import Load
    from loadbench.plan.objective import Objective
    from loadbench.record.recorder import LevelRecording
    from loadbench.record.sample import Sample
    from loadbench.results.run import LevelResult

# Sums of floats are equal up to this.
_NOTHING = 1e-9


class _Values(NamedTuple):
    """Values of one objective, in the order in which their requests ended."""

    beyond_ns: list[float]  # how far beyond the bound; negative within it, infinite where the request failed
    late_ns: list[int]
    weights: list[int]


class ClientDelays:
    """The measured requests of one probe: how far they are from the bounds, and how late they were sent."""

    def __init__(self, objectives: Sequence[Objective]) -> None:
        self._objectives = tuple(objectives)
        self._values = {objective: _Values([], [], []) for objective in objectives}

    def add(self, sample: Sample) -> None:
        """A request has ended."""
        if sample.phase is not Phase.MEASURED or sample.outcome.left_out:
            return
        gave_up, failed = sample.outcome is Outcome.GAVE_UP, sample.outcome.failed
        for objective, values in self._values.items():
            if objective.metric == FAILURES:
                beyond = [] if gave_up else [(math.inf if failed else -math.inf, 1)]
            elif failed:
                beyond = [] if objective.metric in MANY_A_REQUEST else [(math.inf, 1)]
            else:
                beyond = [(value - objective.bound, weight) for value, weight in values_of(objective, sample)]
            if informs(objective, sample) or objective.metric == FAILURES:
                values.beyond_ns.extend(distance for distance, _ in beyond)
                values.weights.extend(weight for _, weight in beyond)
                values.late_ns.extend([sample.lateness() or 0] * len(beyond))

    def limited(self, level: LevelResult, load: Load, recording: LevelRecording) -> str:
        """Why the probe says more about the load generator than about the server; empty where it does not."""
        reasons = client_reasons(level.verdict, per_token=any_per_token(self._objectives))
        codes = {reason.code for reason in reasons}
        passes, users_late = codes.isdisjoint(LESS_LOAD_CODES), isinstance(load, Closed) and "late_start" in codes
        usual_ns = recording.histograms["lateness"].percentile(99) or 0
        lag_ns = 0 if codes <= {"late_start"} | LESS_LOAD_CODES else recording.health.loop_lag.percentile(99) or 0
        for objective, values in self._values.items() if reasons else ():
            beyond_ns, weights = np.array(values.beyond_ns), np.array(values.weights, np.float64)
            missed = beyond_ns >= 0
            in_doubt = np.abs(beyond_ns) < np.maximum(values.late_ns, usual_ns) + lag_ns
            surplus = weights[missed].sum() - (1 - required_share(objective)) * weights.sum()
            # Those in doubt must not be what a decision rests on: without them, half of the surplus is still there.
            if weights.size and surplus > 2 * weights[missed & in_doubt].sum():
                return ""
            hits_in_doubt = weights[~missed & in_doubt].sum() if users_late else 0.0
            passes = passes and bool(weights.size) and surplus + hits_in_doubt <= _NOTHING
        return reasons[0].message if reasons and not passes else ""


def without_client_reasons(level: LevelResult) -> LevelResult:
    """The level as far as the server is concerned: VALID where the load generator was its only problem."""
    reasons = [reason for reason in level.verdict.reasons if reason.code not in CLIENT_CODES]
    verdict = msgspec.structs.replace(level.verdict, reasons=reasons) if reasons else Verdict("VALID")
    return msgspec.structs.replace(level, verdict=verdict)
