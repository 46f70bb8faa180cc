"""The evidence of a capacity search: what its probes prove, what they make likely, and the best estimate.

`SearchEvidence` collects the probes as they end. What is proven comes from one wealth per candidate
(`loadbench.analyze.capacity.sequential`), the likely range and the best estimate from the fitted borders
(`loadbench.analyze.capacity.border`), both from every request of every probe. The conclusion for the reader is made in
`loadbench.analyze.capacity.answer`.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from loadbench.analyze.capacity.border import FittedBorder, LoadPoint, likely_range
from loadbench.analyze.capacity.in_flight import InFlightStates, expected_border
from loadbench.analyze.capacity.sequential import (
    FEWEST,
    HitCount,
    ProbeCounts,
    SequentialMonitor,
    leaning,
    log_wealths,
    required_share,
)
from loadbench.analyze.stats.intervals import share_interval
from loadbench.core.errors import BadInput
from loadbench.plan.load import Closed, Load, Open
from loadbench.plan.objective import FAILURES
from loadbench.plan.search import CONTRADICTS, SAME_LOAD, Finding, Purpose, Standing
from loadbench.record.outcome import Outcome
from loadbench.results.capacity import HitShare, InFlight, ProbeResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.plan.objective import Objective
    from loadbench.plan.search import Grid, Probe
    from loadbench.record.recorder import LevelRecording
    from loadbench.results.capacity import Capacity

# The next load lies at most this far from the best estimate: the curve is a guess far away.
_NEAR = 1.45
# A verification could have contradicted if requests of which this many times as many miss as are allowed would have.
_CLEARLY_MORE = 4.0
# A probe that an abort rule ended leans to FAIL as clearly as bracketing asks for: 20 to 1, as a logarithm.
_ABORTED_LEANING = -3.0
# Few requests do not show how much they depend on each other: beforehand it is taken that a request is worth a third of
# an independent one, and that weighs as much as what this many requests show at loads at most this factor away.
_INEFFICIENCY, _FEW, _SIMILAR = 3.0, 60, 1.6
# The curve is an approximation, and the effective n an estimate: requests count this much less for the likely range.
_MODEL_ERROR = 1.8
# More requests than this are no advice.
_MOST_TO_PASS = 1_000_000


def refuse_objectives(objectives: Sequence[Objective]) -> None:
    """Raises `BadInput` for objectives that a capacity search cannot test."""
    if not objectives:
        raise BadInput("a capacity search needs an objective", hint="give one, as in --slo 'ttft_p95<1s'")
    for objective in objectives:
        if objective.sense == ">":
            raise BadInput(
                f"{objective.rule}: throughput rises with the load, so it sets no upper limit on the load",
                hint="use an objective on a latency or on failures",
            )
        if objective.point in {"mean", "max"}:
            raise BadInput(
                f"{objective.rule}: a {objective.point} cannot be proven, because a single slow request can change it",
                hint=f"use a percentile, as in {objective.metric}_p95 or {objective.metric}_p99",
            )


class ExpectedShare(NamedTuple):
    """A share of hits and its interval."""

    share: float
    low: float
    high: float


class SearchEvidence:
    """The probes of a search on a grid of loads, and what they show."""

    def __init__(
        self,
        objectives: Sequence[Objective],
        grid: Grid,
        *,
        confidence: float,
        closed: bool = True,
        think_s: float | None = None,
    ) -> None:
        self.probes: list[ProbeResult] = []
        self.refused: list[int] = []  # positions at which the load generator was the bottleneck
        self._closed = closed
        self._think_s = think_s
        self._states = InFlightStates(len(objectives))  # of all probes
        self.grid = grid
        self._objectives = tuple(objectives)
        self._p0s = [required_share(objective) for objective in objectives]
        self.confidence = confidence

    def resume(self, earlier: Capacity) -> None:
        """Continue from what an earlier search has found."""
        self.probes = list(earlier.probes)
        if (counts := earlier.in_flight) is not None:
            self._states.met, self._states.missed = np.array(counts.met), np.array(counts.missed)
            self._states.seconds, self._states.ended = np.array(counts.seconds), np.array(counts.ended)

    @property
    def in_flight(self) -> InFlight:
        """The counts by the number in flight, to be saved."""
        states = self._states
        return InFlight(
            met=states.met.tolist(),
            missed=states.missed.tolist(),
            seconds=states.seconds.round(6).tolist(),
            ended=states.ended.tolist(),
        )

    def monitor(self, probe: Probe, load: Load, *, opens_ns: int) -> SequentialMonitor:
        """The monitor of a new probe at this load, whose window opens at `opens_ns`."""
        amount = amount_of(load)
        assess = partial(self._assess, probe, amount)
        return SequentialMonitor(self._objectives, amount, assess, opens_ns=opens_ns, is_open=isinstance(load, Open))

    def _assess(self, probe: Probe, amount: float, counts: tuple[HitCount, ...], hopeless: bool) -> Finding:  # noqa: FBT001
        """What a running probe shows, together with all before it."""
        usual = [replace(count, effective_n=count.n / (count.inefficiency or 1.0)) for count in counts]
        leans = [leaning(p0, count) for p0, count in zip(self._p0s, usual, strict=True)]
        running = ProbeCounts(amount, counts, hopeless)
        standing = self.standing(running)
        decision = standing.decision(probe.at)
        informed = probe.purpose is not Purpose.VERIFY or self._informed(running)
        enough = min(count.effective_n * (1 - p0) for p0, count in zip(self._p0s, usual, strict=True))
        if hopeless:
            return Finding("FAIL", -math.inf, standing, enough)
        return Finding(decision, min(leans), standing, enough, informed)

    def _informed(self, running: ProbeCounts) -> bool:
        """Whether this verification, with earlier ones of about the same load, would on average contradict a load that
        clearly misses."""
        places = range(len(self._objectives))
        effective = [running.counts[place].effective_n for place in places]
        for probe, counted in zip(self.probes, self._counted(), strict=True):
            ratio = probe.amount / running.amount
            if probe.purpose is Purpose.VERIFY and SAME_LOAD <= ratio <= 1 / SAME_LOAD:
                effective = [n + counted.counts[place].effective_n for n, place in zip(effective, places, strict=True)]
        for p0, n in zip(self._p0s, effective, strict=True):
            share = max(0.0, 1 - _CLEARLY_MORE * (1 - p0))
            told = (share * math.log(share / p0) if share else 0.0) + (1 - share) * math.log((1 - share) / (1 - p0))
            if n * told < CONTRADICTS:
                return False
        return True

    def add_probe(
        self, probe: Probe, load: Load, recording: LevelRecording, monitor: SequentialMonitor, *, level: int
    ) -> Finding:
        """Add a finished probe; `level` is its position among the levels of the run.

        Raises `BadInput` where an objective names a figure that no request has.
        """
        counts = monitor.counts()
        for objective, count in zip(self._objectives, counts, strict=True):
            if monitor.known > monitor.left_out[objective] and not count.n:
                raise BadInput(
                    f"{objective.rule}: none of {monitor.known} requests has a {objective.metric}",
                    hint="request longer responses (--max-tokens), or find out why all requests fail",
                )
        finding = monitor.finding(recording.window[1])
        self._states.add(monitor.states)
        if recording.aborted:
            # By the user's own rule this load is too high, whatever its requests show.
            finding = finding._replace(decision="FAIL", leaning=min(finding.leaning, _ABORTED_LEANING))
        attainment = {}
        for objective, count in zip(self._objectives, counts, strict=True):
            n = int(count.effective_n)
            attainment[objective.rule] = HitShare(
                share=count.share,
                asked=required_share(objective),
                requests=count.n,
                hits=count.hits,
                effective=count.effective_n,
                inefficiency=count.inefficiency,
                interval=share_interval(round(n * (count.share or 0.0)), n) if n else None,
            )
        usual_ns = recording.histograms["e2e_response"].percentile(50)
        size = {"users": load.users} if isinstance(load, Closed) else {"rate_per_s": load.rate_per_s}
        self.probes.append(
            ProbeResult(
                **size,
                decision=finding.decision,
                attainment=attainment,
                requests=monitor.known,
                gave_up=recording.outcomes.get(Outcome.GAVE_UP, 0),
                purpose=probe.purpose,
                visit=probe.visit,
                level=level,
                at=probe.at,
                leaning=max(-1e6, min(1e6, finding.leaning)),
                window_s=recording.window_s,
                answer_s=None if usual_ns is None else usual_ns / 1e9,
                overloaded=monitor.overloaded,
                informed=finding.informed,
                aborted=recording.aborted,
            )
        )
        return finding._replace(standing=self.standing())

    def standing(self, running: ProbeCounts | None = None) -> Standing:
        """What all probes show, and the one that is running."""
        probes = self._counted(running)
        if not probes:
            return Standing()
        grid, (passed, failed, monotone) = self.grid, self._proven(probes)
        borders = self.borders(probes)
        low, middle, high = likely_range(borders, self.confidence)
        # The lowest load may fail, and the highest may pass.
        at_low, at, at_high = (max(grid.lowest - 1, _floor(grid, amount)) for amount in (low, middle, high))
        lowest_refused = min(self.refused, default=grid.highest + 1)
        at = min(at, lowest_refused - 1)
        if (limit := self._completes(probes)) is not None:
            at = min(at, _floor(grid, limit[0]))
            at_low = min(at_low, at)
        # What is proven is true whatever the curve says.
        if passed is not None:
            at_low, at, at_high = max(at_low, passed), max(at, passed), max(at_high, passed)
        if failed is not None:
            at_low, at, at_high = min(at_low, failed - 1), min(at, failed - 1), min(at_high, failed - 1)
        return Standing(passed, failed, at_low, at_high, at, monotone=monotone)

    def next_load(self, standing: Standing) -> int:
        """The position whose requests tell most about the border, per second, within the likely range."""
        grid, estimate = self.grid, max(standing.estimate or 0, self.grid.lowest)
        borders, middle = self.borders(self._counted()), grid.amount(estimate)
        first = max(standing.low or grid.lowest, grid.nearest(middle / _NEAR), grid.lowest)
        last = min((standing.high or estimate) + 1, grid.nearest(middle * _NEAR), grid.highest)
        positions = sorted(
            {grid.nearest(math.exp(x)) for x in _spread(grid.amount(first), grid.amount(max(first, last)))}
        )
        return max(
            positions, key=lambda at: max(border.information(grid.amount(at)) for border in borders) * grid.amount(at)
        )

    def _counted(self, running: ProbeCounts | None = None) -> list[ProbeCounts]:
        """The counts of all probes."""
        probes = [] if running is None else [running]
        for probe in self.probes:
            shares = [probe.attainment[objective.rule] for objective in self._objectives]
            counts = tuple(HitCount(one.requests, one.hits, one.effective, one.inefficiency) for one in shares)
            probes.append(ProbeCounts(probe.amount, counts, bool(probe.overloaded or probe.aborted)))
        return probes

    def _proven(self, probes: Sequence[ProbeCounts]) -> tuple[int | None, int | None, bool]:
        """The last position that is proven to pass, the first that is proven to fail, and whether that is possible.

        Between two measured loads all candidates rest on the same requests: their first and their last are tested.
        """
        grid = self.grid
        measured = sorted({grid.nearest(probe.amount) for probe in probes})
        hopeless = min((grid.nearest(probe.amount) for probe in probes if probe.hopeless), default=grid.highest + 1)
        starts, ends = [grid.lowest - 1, *measured], [*(at - 1 for at in measured), grid.highest]
        tested = sorted({*starts, *ends})
        amounts = [grid.amount(at) if at >= grid.lowest else grid.amount(grid.lowest) / 1.05 for at in tested]
        against = np.logaddexp(*log_wealths(probes, self._p0s, amounts, closed=self._closed)) - math.log(2)
        open_ = {at for at, log in zip(tested, against, strict=True) if log < math.log(1 / (1 - self.confidence))}
        left = [
            (first, last)
            for first, last in zip(starts, ends, strict=True)
            if first <= last and first < hopeless and (first in open_ or last in open_)
        ]
        if not left:
            return None, None, False
        passed, failed = left[0][0], min(left[-1][1] + 1, hopeless)
        return passed if passed >= grid.lowest else None, failed if failed <= grid.highest else None, True

    def requests_to_pass(self, at: int, *, first: int = FEWEST, step: float = 1.15) -> int | None:
        """About how many requests one more probe at this position takes until it is proven to pass, if they hit and
        depend on each other as those of the probes nearest to it; `None` where that proves nothing. Tried are `first`
        and then ever more by the factor `step`."""
        counted, amount = self._counted(), self.grid.amount(at)
        nearest = max((probe.amount for probe in counted), key=lambda other: -abs(math.log(other / amount)))
        near = [probe for probe in counted if probe.amount == nearest]
        shares = []
        for place in range(len(self._objectives)):
            counts = [probe.counts[place] for probe in near]
            n = max(1, sum(count.n for count in counts))
            # A short probe hardly shows how much its requests depend on each other.
            worth = min(1.0, sum(count.effective_n for count in counts) / n)
            shares.append((sum(count.hits for count in counts) / n, worth))
        n = first
        while n <= _MOST_TO_PASS:
            assumed = tuple(HitCount(n, round(share * n), max(1.0, worth * n)) for share, worth in shares)
            passed, _, _ = self._proven([*counted, ProbeCounts(amount, assumed)])
            if passed is not None and passed >= at:
                return n
            n = math.ceil(step * n)
        return None

    def borders(self, probes: Sequence[ProbeCounts] | None = None) -> list[FittedBorder]:
        """The fitted border of each objective. A probe counts as correlated as those at similar loads are on average: a
        short one that lies within one good or bad spell does not show its correlation."""
        probes, grid = self._counted() if probes is None else probes, self.grid
        limit, borders = self._completes(probes), []
        for place, (objective, p0) in enumerate(zip(self._objectives, self._p0s, strict=True)):
            points = []
            for probe in probes:
                count, weight, sum_ = probe.counts[place], float(_FEW), _FEW * _INEFFICIENCY
                for other in probes:
                    near = max(other.amount / probe.amount, probe.amount / other.amount) < _SIMILAR
                    if near and (shown := other.counts[place].inefficiency) is not None:
                        weight, sum_ = weight + other.counts[place].n, sum_ + other.counts[place].n * shown
                usual = _MODEL_ERROR * sum_ / weight
                hits, misses = count.hits / usual, (count.n - count.hits) / usual
                if probe.hopeless and objective.metric != FAILURES:
                    # In a growing queue all later requests would miss.
                    hits, misses = 0.0, max(hits + misses, 1.0)
                points.append(LoadPoint(probe.amount, hits, misses))
            least, most = grid.amount(grid.lowest), grid.amount(grid.highest)
            # Without think time all users are always in flight: there is nothing to model.
            models = not self._closed or (self._think_s or 0) > 0
            expect = partial(expected_border, self._states, place, p0, think_s=self._think_s) if models else None
            borders.append(FittedBorder(points, p0, least=least, most=most, limit=limit, expect=expect))
        return borders

    def _completes(self, probes: Sequence[ProbeCounts]) -> tuple[float, float] | None:
        """The rate that the server completes when it can do no more, and its relative error: no higher rate can last.

        `None` unless a higher rate was tried, or where a load that leans to PASS contradicts it.
        """
        if self._closed or (completed := self._states.most_per_s()) is None:
            return None
        per_s, error = completed
        passing = [probe.amount for probe in self.probes if probe.leaning > 0]
        tried = max(probe.amount for probe in probes)
        return completed if tried > (1 + 2 * error) * per_s > max(passing, default=0.0) else None

    def expected(self, amount: float, confidence: float) -> dict[str, ExpectedShare]:
        """The expected share of hits at a load, by rule."""
        return {
            objective.rule: ExpectedShare(border.share(amount), *border.share_interval(amount, confidence))
            for objective, border in zip(self._objectives, self.borders(), strict=True)
        }


def amount_of(load: Load) -> float:
    """Users, or requests per second."""
    return load.users if isinstance(load, Closed) else load.rate_per_s


def _spread(low: float, high: float) -> list[float]:
    """Up to a dozen loads between two, by ratio, as logarithms."""
    return [math.log(low) + number / 11 * math.log(high / low) for number in range(12)]


def _floor(grid: Grid, amount: float) -> int:
    """The last position at or below a load; one below the grid where there is none."""
    at = grid.nearest(amount)
    return at - 1 if grid.amount(at) > amount * (1 + 1e-9) else at
