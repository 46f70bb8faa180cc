"""What the curve of a finished search says of any load, for its report: the share of requests that meets an objective,
how likely the limit is lower, and what a proof would take.

It is fitted again to the saved probes. Where today's rules do not give the answer that was saved, there is no curve:
it would contradict the answer beside it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from loadbench.analyze.capacity.search_evidence import ExpectedShare, SearchEvidence
from loadbench.core.errors import BadInput
from loadbench.plan.objective import parse_objective
from loadbench.plan.search import grid_between

if TYPE_CHECKING:
    from loadbench.results.capacity import Capacity

# More users or requests per second than this are in no search of ours.
_MOST = 1e9


class FittedCurve:
    """The curves of all objectives of a search."""

    def __init__(self, evidence: SearchEvidence, of_one: dict[str, SearchEvidence]) -> None:
        self._confidence = evidence.confidence
        self._grid = evidence.grid
        self._of_one = of_one
        self._borders = dict(zip(of_one, evidence.borders(), strict=True))

    def share(self, rule: str, amount: float) -> ExpectedShare:
        """The share of requests that meets an objective at a load, as likely more as less, and its interval. Where this
        median falls to the share that is needed, the limit of this objective is as likely lower as higher, as the best
        estimate is; a mean would fall to it earlier, since the shares that are possible reach further down than up."""
        border = self._borders[rule]
        median, _ = border.share_interval(amount, 0.0)
        return ExpectedShare(median, *border.share_interval(amount, self._confidence))

    def chance_below(self, amount: float) -> float:
        """The probability that the limit, the lowest of all objectives, is below this load."""
        above = 1.0
        for border in self._borders.values():
            at = int(np.searchsorted(border.log_m, math.log(amount)))
            above *= 1.0 - (float(border.below()[at - 1]) if at else 0.0)
        return 1.0 - above

    def requests_to_pass(self, rule: str, amount: float) -> int | None:
        """About how many requests one more probe at this load takes to prove that it meets this objective; `None` where
        requests like those that were measured do not."""
        at, evidence = self._grid.nearest(amount), self._of_one[rule]
        about = evidence.requests_to_pass(at)
        return None if about is None else evidence.requests_to_pass(at, first=math.ceil(about / 1.15), step=1.01)


def fitted_curve(capacity: Capacity) -> FittedCurve | None:
    """The curve of a search with a likely range; `None` where it cannot be had."""
    answer, probes, rules = capacity.answer, capacity.probes, capacity.objectives
    if answer is None or answer.likely_low is None or not probes or capacity.contradictions:
        return None
    at_most, counts = capacity.conditions.get("capacity.at_most"), capacity.in_flight
    if not isinstance(at_most, float | int) or not 0 < at_most <= _MOST or capacity.budget_s <= 0:
        return None
    if any(not 0 < probe.amount <= _MOST or not probe.attainment.keys() >= {*rules} for probe in probes):
        return None
    if counts is not None:
        sizes = {len(row) for row in (counts.met, counts.seconds, counts.ended, *counts.missed)}
        if len(sizes) != 1 or len(counts.missed) != len(rules):
            return None
    try:
        objectives = [parse_objective(rule) for rule in rules]
    except BadInput:
        return None
    by_rate = probes[0].label.startswith("rate=")
    grid = grid_between(by_rate=by_rate, at_most=at_most, budget_s=capacity.budget_s)
    of_one = {}
    for rule, objective in zip(rules, objectives, strict=True):
        of_one[rule] = SearchEvidence([objective], grid, confidence=answer.confidence, closed=not by_rate)
        of_one[rule].probes = probes
    evidence = SearchEvidence(
        objectives, grid, confidence=answer.confidence, closed=not by_rate, think_s=answer.think_s
    )
    evidence.resume(capacity)
    standing = evidence.standing()
    low = None if standing.low is None or standing.low < grid.lowest else grid.amount(standing.low)
    high = None if standing.high is None or standing.high >= grid.highest else grid.top(standing.high)
    return FittedCurve(evidence, of_one) if (low, high) == (answer.likely_low, answer.likely_high) else None
