"""The capacity search while it runs: probe after probe, each a level that ends as soon as its question is settled.

Where users think, the throughput curve comes first (`loadbench.plan.curve`): short levels without think time, which
show what limits the server and where to start. They prove nothing.

`loadbench.plan.search` says what to measure next; the reading arm, a `ProbeJudge`, assesses each probe. This module has
what lies between: the time. Each probe gets its share of the budget. It begins with a warm-up of one response and the
think time after it, over which the users start, so that the load is near its steady state when the window opens. While
it runs it is assessed again and again, each time after a tenth more requests.

A probe ends early when its decision is sure; in bracketing and refining, when the data favour one side; and in a
test, when that would take several times the time that is left for it. If a load is proven to fail, its requests in
flight are cut: they would keep the server busy, and show nothing new. A probe that an abort rule ends
fails, and its requests so far count.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import anyio

from loadbench.core.units import NS_PER_S
from loadbench.engine.level import LevelSpec
from loadbench.engine.level_runner import LevelRunner
from loadbench.engine.target import prepare_model
from loadbench.plan.curve import ThroughputCurve
from loadbench.plan.load import Closed, LevelDuration, Open, Phase
from loadbench.plan.scenario import LEAST_WARM_UP_NS
from loadbench.plan.search import Budget, Probe, Purpose, Rates, Search, Users

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadbench.engine.observers import ProbeJudge, ProbeMonitor, RunningLevel, RunObserver
    from loadbench.engine.target import ModelUnderTest, TargetSession
    from loadbench.plan.curve import CurveStep
    from loadbench.plan.load import Load
    from loadbench.plan.scenario import Scenario
    from loadbench.plan.search import Finding, Grid
    from loadbench.record.request import Request
    from loadbench.record.sample import Sample

# The seeds of two probes differ by this much, so that think times and arrivals differ in each.
_SEED_STEP = 1_000_003
# In bracketing and refining a probe ends when one side is this much likelier, as a logarithm: 20 to 1.
_CLEARLY = 3.0
# It is first assessed after this many requests,
_FEWEST = 10
# and then each time that there are this many times as many.
_ASSESS_AGAIN = 1.1
# Before a test is given up.
_FEWEST_TO_GIVE_UP = 40
# A test that would take this many times the time left for it is given up, but not before half-way.
_TOO_LONG = 2.0
# Response times vary: a warm-up lasts this many times what a response is expected to take.
_WARM_UP_SHARE = 1.25


@dataclass(slots=True)
class EarlierSearch:
    """What a search that is resumed has found before: the probes' findings, and response times by load, in ns.

    `steps` are those of the throughput curve by users, `step_responses` their response times, `steps_ns` their time.
    """

    findings: tuple[tuple[Probe, Finding], ...] = ()
    responses: Mapping[float, int] = field(default_factory=dict)
    spent_ns: int = 0
    response_ns: int = 0  # of the first response, with no other load
    levels: int = 0
    steps: Mapping[int, CurveStep] = field(default_factory=dict)
    step_responses: Mapping[int, int] = field(default_factory=dict)
    steps_ns: int = 0


@dataclass(slots=True)
class _Pace:
    """How long responses take, in ns: with no other load, and as seen at each load."""

    alone_ns: int
    think_ns: int
    warm_up_ns: int | None  # as the user set it
    by_rate: bool
    seen: dict[float, int]

    def response_ns(self, amount: float) -> int:
        """Expected at this load: as at the nearest lighter one, for nobody knows how much longer it will be."""
        lighter = max((load for load in self.seen if load <= amount), default=None)
        return self.alone_ns if lighter is None else self.seen[lighter]

    def cycle_ns(self, amount: float) -> int:
        """A user's cycle: a response, and the think time."""
        return self.response_ns(amount) + self.think_ns

    def warm_up(self, response_ns: int, think_ns: int) -> int:
        """A little longer than a cycle, unless the user set it."""
        if self.warm_up_ns is not None:
            return self.warm_up_ns
        return max(LEAST_WARM_UP_NS, round(_WARM_UP_SHARE * response_ns) + think_ns)

    def warm_up_at(self, amount: float) -> int:
        """The warm-up of a probe at this load."""
        return self.warm_up(self.response_ns(amount), self.think_ns)


def grid_of(scenario: Scenario) -> Grid:
    """The loads that a scenario's search may visit."""
    capacity = scenario.capacity
    if capacity.by == "users":
        return Users(max(1, round(capacity.at_most)))
    # Ten requests in the whole time are too few for any answer.
    return Rates.of(min(10 * NS_PER_S / capacity.budget, capacity.at_most), capacity.at_most)


def load_at(scenario: Scenario, grid: Grid, at: int) -> Load:
    """The load at a position of the grid."""
    if isinstance(grid, Users):
        return Closed(at, scenario.think)
    return Open(grid.amount(at), scenario.load.arrivals)


class CapacitySearch:
    """One search, run once; `earlier` is what it continues from."""

    search: Search

    def __init__(
        self,
        scenario: Scenario,
        session: TargetSession,
        *,
        model: str,
        judge: ProbeJudge,
        observer: RunObserver,
        earlier: EarlierSearch | None = None,
    ) -> None:
        self.stopped = self.client_limited = self.out_of_time = False
        self.response_ns = 0  # of the first response, with no other load
        self._scenario = scenario
        self._session = session
        self._model = model
        self._judge = judge
        self._observer = observer
        self._earlier = earlier or EarlierSearch()
        self._runner = LevelRunner(scenario, session, observer)
        self._clock = session.clock
        self._budget = Budget(scenario.capacity.budget)
        self._began_ns = self._clock.now_ns()
        self._number = self._earlier.levels
        self._client_limited_at: Counter[int] = Counter()
        self._aborted: set[int] = set()  # positions that an abort rule ended
        self._scope = anyio.CancelScope()

    @property
    def spent_ns(self) -> int:
        """Of the budget, by this run and those that it continues."""
        return self._earlier.spent_ns + self._clock.now_ns() - self._began_ns

    @property
    def _ends(self) -> bool:
        return self.stopped or self.client_limited

    async def run(self) -> None:
        """Search, test both ends again, verify the answer; raises `TargetUnavailable` if the model does not respond."""
        with self._scope:
            subject = await prepare_model(self._session, self._model, self._scenario)
            self._observer.model_prepared(subject)
            if await self._judge.misses_alone(subject):
                return
            think = self._scenario.think
            by_rate = self._scenario.capacity.by == "rate"
            self.response_ns = self._earlier.response_ns or subject.response_ns
            pace = _Pace(
                alone_ns=self.response_ns,
                think_ns=0 if think is None or by_rate else round(think.mean),
                warm_up_ns=self._scenario.load.warm_up,
                by_rate=by_rate,
                seen=dict(self._earlier.responses),
            )
            if self._scenario.measures_curve:
                await self._measure_curve(subject, pace)
            await self._search(subject, pace)

    async def _measure_curve(self, subject: ModelUnderTest, pace: _Pace) -> None:
        """Measure the steps of the throughput curve that there is time for."""
        curve = ThroughputCurve(round(self._scenario.capacity.at_most), dict(self._earlier.steps))
        gone_ns, responses = self._earlier.steps_ns, dict(self._earlier.step_responses)
        while not self._ends and (users := curve.next()) is not None:
            # With n times the users a response takes at most n times as long (Little).
            fewer = max((known for known in responses if known <= users), default=None)
            more = min((responses[known] for known in responses if known >= users), default=None)
            if fewer is None:
                response_ns = pace.alone_ns
            else:
                response_ns = more if more is not None else responses[fewer] * users // fewer
            warm_up_ns = pace.warm_up(response_ns, 0)
            measure_ns = self._budget.curve_ns(spent_ns=gone_ns, warm_up_ns=warm_up_ns, response_ns=response_ns)
            if measure_ns is None:
                curve.skipped.add(users)
                continue
            began_ns, load = self._clock.now_ns(), Closed(users)
            spec = self._spec(load, subject, measure_ns=measure_ns, warm_up_ns=warm_up_ns, ramp_ns=response_ns)
            # The curve is about the server, which works off whole responses.
            spec = replace(spec, patient=True)
            recording = await self._runner.run(subject, spec, number=self._number)
            took_ns = self._clock.now_ns() - began_ns
            step = self._judge.step_ended(load, recording, spent_ns=self.spent_ns, took_ns=took_ns)
            self._number += 1
            gone_ns += took_ns
            usual_ns = recording.histograms["e2e_response"].percentile(50)
            if step is None or usual_ns is None:
                return
            curve.measured[users], responses[users] = step, usual_ns

    async def _search(self, subject: ModelUnderTest, pace: _Pace) -> None:
        """Bracket, refine and test; then test both ends again, and verify the answer."""
        grid, findings = grid_of(self._scenario), self._earlier.findings
        # Start where the throughput curve says, or where about one request is in flight.
        start = pace.cycle_ns(0) / pace.alone_ns if isinstance(grid, Users) else NS_PER_S / (2 * pace.alone_ns)
        at = findings[0][0].at if findings else grid.nearest(self._judge.predicted_users() or start)
        search = self.search = Search(grid, at, partial(self._aim, pace), self._scenario.capacity.precision)
        self._judge.search_begins(most_loads=search.max_loads)
        done: dict[Purpose, set[int]] = {purpose: set() for purpose in Purpose}
        for probe, finding in findings:
            done[probe.purpose].add(probe.at)
            if probe.purpose is not Purpose.VERIFY:
                search.add(probe, finding)

        while not self._ends and not self.out_of_time and (next_probe := search.next()) is not None:
            await self._probe(next_probe, subject, pace)
        for end in (search.passed, search.failed):
            if end is not None and end not in done[Purpose.REPEAT] | self._aborted and not self._ends:
                await self._probe(Probe(end, Purpose.REPEAT), subject, pace)
        if not self._ends:
            best = self._judge.best_estimate(search)
            if best is not None and best not in done[Purpose.VERIFY]:
                await self._probe(Probe(best, Purpose.VERIFY), subject, pace)

    def _aim(self, pace: _Pace, *, passes: bool) -> int | None:
        def requests(amount: float) -> float:
            """How many there is time for in a test."""
            measure_ns = self._budget.probe_ns(
                Purpose.TEST,
                spent_ns=self.spent_ns,
                warm_up_ns=pace.warm_up_at(amount),
                expects="PASS" if passes else "FAIL",
            )
            per_ns = amount / NS_PER_S if pace.by_rate else amount / pace.cycle_ns(amount)
            return (measure_ns or 0) * per_ns

        return self._judge.aim(self.search, requests, passes=passes)

    async def _probe(self, probe: Probe, subject: ModelUnderTest, pace: _Pace) -> None:
        """Measure one probe, end it as soon as it is settled, and add its finding to the search."""
        search = self.search
        load, amount = load_at(self._scenario, search.grid, probe.at), search.grid.amount(probe.at)
        warm_up_ns = pace.warm_up_at(amount)
        measure_ns = self._budget.probe_ns(
            probe.purpose, spent_ns=self.spent_ns, warm_up_ns=warm_up_ns, expects=probe.expects
        )
        if measure_ns is None:
            self.out_of_time |= probe.purpose not in {Purpose.REPEAT, Purpose.VERIFY}
            return
        monitor = self._judge.monitor(load, opens_ns=self._clock.now_ns() + warm_up_ns)
        early_end = _EarlyEnd(probe, monitor)

        def on_start(request: Request) -> None:
            if request.phase is Phase.MEASURED:
                monitor.started(request.number, request.due_ns)

        def on_sample(sample: Sample, level: RunningLevel) -> None:
            monitor.add(sample)
            early_end.check(level)

        spec = self._spec(load, subject, measure_ns=measure_ns, warm_up_ns=warm_up_ns, ramp_ns=pace.cycle_ns(amount))
        recording = await self._runner.run(subject, spec, number=self._number, on_start=on_start, on_sample=on_sample)
        usual_ns = recording.histograms["e2e_response"].percentile(50)
        if usual_ns is not None:
            pace.seen[amount] = usual_ns
        finding = self._judge.probe_ended(probe, load, recording, monitor, spent_ns=self.spent_ns)
        self._number += 1
        self._aborted |= {probe.at} if recording.aborted else set()
        if finding is None:
            # A short disturbance of the load generator passes; one that comes again is its limit.
            self._client_limited_at[probe.at] += 1
            self.client_limited = self._client_limited_at[probe.at] > 1
        elif probe.purpose is not Purpose.VERIFY and (recording.aborted or not recording.interrupted):
            search.add(probe, finding)

    def _spec(
        self, load: Load, subject: ModelUnderTest, *, measure_ns: int, warm_up_ns: int, ramp_ns: int
    ) -> LevelSpec:
        """A level of the search, with a seed of its own; `ramp_ns` unless the user set another."""
        settings = self._scenario.load
        return LevelSpec(
            load=load,
            key=f"{self._model}/{self._number}",
            calibration=subject.calibration,
            further=subject.further,
            duration=LevelDuration(duration_ns=measure_ns, warm_up_ns=warm_up_ns, drain_ns=settings.drain),
            seed=self._scenario.work.seed + _SEED_STEP * (self._number + 1),
            ramp_ns=ramp_ns if settings.ramp is None else settings.ramp,
        )

    def stop(self) -> None:
        """End the probe that is running, keep what it measured, and start no other. Twice: cut its requests too."""
        self.stopped = True
        self._runner.stop(self._scope)


@dataclass(slots=True)
class _EarlyEnd:
    """Ends a probe as soon as its question is settled; assesses it after ever more requests."""

    probe: Probe
    monitor: ProbeMonitor
    next: float = _FEWEST
    ended: bool = False

    def check(self, level: RunningLevel) -> None:
        """A request has ended: assess the probe if that is due, and finish its level if it is settled."""
        ended = self.monitor.ended
        if self.ended or ended < self.next:
            return
        self.next = max(ended + 1, ended * _ASSESS_AGAIN)
        now_ns = level.now_ns
        finding = self.monitor.finding(now_ns)
        decided, clear = finding.decision != "UNDECIDED", abs(finding.leaning) >= _CLEARLY
        match self.probe.purpose:
            case Purpose.VERIFY:
                self.ended = False
            case Purpose.BRACKET | Purpose.REFINE:
                self.ended = decided or clear
            case Purpose.REPEAT:
                self.ended = clear
            case Purpose.TEST:
                self.ended = decided or self._is_futile(finding, level, now_ns)
        if self.ended:
            level.finish(cut=finding.decision == "FAIL")

    def _is_futile(self, finding: Finding, level: RunningLevel, now_ns: int) -> bool:
        """Whether the test will not succeed in its time: the opposite is likelier, or it is too close."""
        if self.monitor.ended < _FEWEST_TO_GIVE_UP:
            return False
        if (finding.leaning < -1) if self.probe.expects == "PASS" else (finding.leaning > 1):
            return True
        gone_ns, left_ns = now_ns - level.phases.opens_ns, (level.phases.closes_ns or 0) - now_ns
        return gone_ns > left_ns and (finding.effort - 1) * gone_ns > _TOO_LONG * left_ns
