"""What a capacity search has found, worked out from its probes: the reading arm's side of it.

`SearchEvidence` takes each probe as it ends and says what is known by then. The range is what was proven
(`loadbench.analyze.capacity.sequential`). The point between is an estimate without a promise, the median of where
the border is
likely to be (`loadbench.analyze.capacity.border`), of several objectives the least. What people are told of all this
is made in
`loadbench.analyze.capacity.answer`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from loadbench.analyze.capacity.border import FittedBorder, LoadPoint, aim
from loadbench.analyze.capacity.sequential import HitCount, SequentialMonitor, SequentialTest, required_share
from loadbench.analyze.stats.intervals import share_interval
from loadbench.core.errors import BadInput
from loadbench.plan.load import Closed, Load, Open
from loadbench.plan.objective import FAILURES
from loadbench.plan.search import Purpose
from loadbench.results.capacity import ProbeResult, Shared

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadbench.plan.objective import Objective
    from loadbench.plan.search import Finding, Grid, Probe, Search
    from loadbench.record.recorder import LevelRecording

# So many requests tell little of how much they hang together.
_LITTLE = 50


def refuse_objectives(objectives: Sequence[Objective]) -> None:
    """Raises `BadInput` where a capacity cannot be searched by these."""
    if not objectives:
        raise BadInput(
            "what must hold at that load? there is no objective", hint="give some, as in --slo 'ttft_p95<1s'"
        )
    for one in objectives:
        if one.sense == ">":
            raise BadInput(
                f"{one.rule}: a throughput grows with the load, and bounds none", hint="bound a latency or the failures"
            )
        if one.at:
            raise BadInput(f"{one.rule}: the search chooses the loads itself", hint=f"leave @{one.at} out")
        if one.point in {"mean", "max"}:
            raise BadInput(
                f"{one.rule}: of a {one.point} nothing is sure, for one slow request can change it",
                hint=f"bound a quantile, as in {one.metric}_p95 or {one.metric}_p99",
            )


class Expected(NamedTuple):
    """A share, and where it lies."""

    share: float
    low: float
    high: float


class SearchEvidence:
    """What the probes of a search come to, one after another; error is shared among all loads that it may visit."""

    def __init__(self, objectives: Sequence[Objective], *, confidence: float, closed: bool = True) -> None:
        self._closed = closed
        self.probes: list[ProbeResult] = []
        self.alpha = 0.0
        self._objectives = tuple(objectives)
        self._confidence = confidence
        self._ledger = SequentialTest(objectives, alpha=1.0, closed=closed)

    def start(self, *, most_loads: int) -> None:
        """The search begins, or goes on with the probes that it has."""
        self.alpha = (1 - self._confidence) / most_loads
        self._ledger = SequentialTest(self._objectives, alpha=self.alpha, closed=self._closed)
        for probe in self.probes:
            if probe.purpose is not Purpose.VERIFY:
                self._ledger.add(probe.amount, self._counts(probe))

    def _counts(self, probe: ProbeResult) -> list[HitCount]:
        shared = [probe.attainment[one.rule] for one in self._objectives]
        return [HitCount(one.requests, one.hits, one.effective) for one in shared]

    def monitor(self, load: Load, *, opens_ns: int) -> SequentialMonitor:
        """Who watches a probe of this load."""
        return SequentialMonitor(self._ledger, amount_of(load), opens_ns=opens_ns, is_open=isinstance(load, Open))

    def add_probe(
        self, probe: Probe, load: Load, recording: LevelRecording, judge: SequentialMonitor, *, level: int
    ) -> Finding:
        """Keep a probe, the level of its run that `level` says.

        Raises `BadInput` where an objective asks for what no request has.
        """
        counts, closes_ns = judge.counts(), recording.window[1]
        self._refuse_undefined(counts, judge.known)
        found = judge.finding(closes_ns)
        alone = found if judge.overloaded else self._alone(load, counts)
        if probe.purpose is not Purpose.VERIFY:
            self._ledger.add(amount_of(load), counts)
        apart = probe.purpose in {Purpose.AGAIN, Purpose.VERIFY}
        self.probes.append(
            self._result(probe, load, recording, counts, alone if apart else found, judge=judge, level=level)
        )
        return found

    def _alone(self, load: Load, counts: Sequence[HitCount]) -> Finding:
        return SequentialTest(self._objectives, alpha=self.alpha, closed=self._closed).assess(amount_of(load), counts)

    def _refuse_undefined(self, counts: Sequence[HitCount], known: int) -> None:
        for one, count in zip(self._objectives, counts, strict=True):
            if known and not count.n:
                raise BadInput(
                    f"{one.rule}: none of {known} requests has a {one.metric}",
                    hint="ask for longer answers (--max-tokens), or see why all requests fail",
                )

    def _result(
        self,
        probe: Probe,
        load: Load,
        recording: LevelRecording,
        counts: Sequence[HitCount],
        found: Finding,
        *,
        judge: SequentialMonitor,
        level: int,
    ) -> ProbeResult:
        answer_ns = recording.histograms["e2e_response"].percentile(50)
        size = {"users": load.users} if isinstance(load, Closed) else {"rate_per_s": load.rate_per_s}
        return ProbeResult(
            **size,
            decision=found.decision,
            attainment={one.rule: _shared(one, count) for one, count in zip(self._objectives, counts, strict=True)},
            requests=judge.known,
            purpose=probe.purpose,
            visit=probe.visit,
            level=level,
            at=probe.at,
            leaning=max(-1e6, min(1e6, found.leaning)),
            window_s=recording.window_s,
            answer_s=None if answer_ns is None else answer_ns / 1e9,
            overloaded=judge.overloaded,
        )

    def best_estimate(self, search: Search) -> int | None:
        """The position of the best estimate, inside what is proven; `None` where nothing passes."""
        if search.border.passes is None:
            return None
        at = min(_floor(search.grid, border.median()) for border in self._borders(search.grid))
        at = max(at, search.grid.least)
        at = max(at, search.passed) if search.passed is not None else at
        return min(at, search.failed - 1) if search.failed is not None else at

    def aim(self, search: Search, requests: Callable[[float], float], *, passes: bool) -> int | None:
        """The position at which a proof is worth its time, where there is time for so many requests at a load."""
        grid, low, high = search.grid, search.passed, search.failed
        borders = self._borders(grid)
        middle = min(_floor(grid, border.median()) for border in borders)
        first = (grid.least if low is None else low + 1) if passes else max(middle + 1, grid.least)
        last = max(middle, grid.least) if passes else (grid.most if high is None else high - 1)
        worth = self._worth()
        loads = [(grid.amount(at), worth * requests(grid.amount(at))) for at in range(first, last + 1)]
        evidence = math.log((1 if passes else len(self._objectives)) / self.alpha)
        amount = aim(borders, loads, evidence=evidence, passes=passes)
        return None if amount is None else grid.nearest(amount)

    def _worth(self) -> float:
        """How many independent requests a request is worth, on the whole; a half, as long as little is known."""
        shared = [one for probe in self.probes for one in probe.attainment.values()]
        return (_LITTLE / 2 + sum(one.effective for one in shared)) / (_LITTLE + sum(one.requests for one in shared))

    def _borders(self, grid: Grid) -> list[FittedBorder]:
        least, most = grid.amount(grid.least), grid.amount(grid.most)
        return [
            FittedBorder(self._points(one), required_share(one), least=least, most=most) for one in self._objectives
        ]

    def _points(self, objective: Objective) -> list[LoadPoint]:
        return [
            _point(probe, objective, probe.attainment[objective.rule])
            for probe in self.probes
            if probe.purpose is not Purpose.VERIFY
        ]

    def expected(self, grid: Grid, amount: float, confidence: float) -> dict[str, Expected]:
        """The shares of hits that are to be expected at a load, by the probes."""
        found = zip(self._objectives, self._borders(grid), strict=True)
        return {
            one.rule: Expected(border.share(amount), *border.share_interval(amount, confidence))
            for one, border in found
        }


def _point(probe: ProbeResult, objective: Objective, shared: Shared) -> LoadPoint:
    hits, misses = HitCount(shared.requests, shared.hits, shared.effective).effective
    if probe.overloaded and objective.metric != FAILURES:
        # Those that are yet to wait would have missed.
        return LoadPoint(probe.amount, 0.0, max(hits + misses, 1.0))
    return LoadPoint(probe.amount, hits, misses)


def amount_of(load: Load) -> float:
    """Users, or requests per second."""
    return load.users if isinstance(load, Closed) else load.rate_per_s


def _shared(objective: Objective, count: HitCount) -> Shared:
    n = int(count.worth)
    hits = round(n * count.share) if count.share is not None else 0
    return Shared(
        share=count.share,
        asked=required_share(objective),
        requests=count.n,
        hits=count.hits,
        effective=count.worth,
        interval=share_interval(hits, n) if n else None,
    )


def _floor(grid: Grid, amount: float) -> int:
    """The last position at or below a load; one below the grid where none is."""
    at = grid.nearest(amount)
    return at - 1 if grid.amount(at) > amount * (1 + 1e-9) else at


class Range(NamedTuple):
    """What is proven, as positions: the last that passes, the first that fails; and what speaks against it."""

    passed: int | None
    failed: int | None
    contradictions: tuple[str, ...]


def proven(search: Search, probes: Sequence[ProbeResult]) -> Range:
    """The ends of the range, moved outward where they did not behave the same when they were measured again."""
    passed, failed, said = search.passed, search.failed, []
    if not search.monotone:
        said.append("a heavier load surely passes where a lighter one surely fails: more load is not always worse here")
    again = {probe.at: probe for probe in probes if probe.purpose is Purpose.AGAIN}
    decided = sorted((at, known.decision) for at, known in search.known.items())
    if passed in again and again[passed].decision == "FAIL":
        said.append(f"{again[passed].amount:g} had surely passed, and surely failed when measured again")
        passed = max((at for at, one in decided if one == "PASS" and at < passed), default=None)
    if failed in again and again[failed].decision == "PASS":
        said.append(f"{again[failed].amount:g} had surely failed, and surely passed when measured again")
        failed = min((at for at, one in decided if one == "FAIL" and at > failed), default=None)
    return Range(passed, failed, tuple(said))
