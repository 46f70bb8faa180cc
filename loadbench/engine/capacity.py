"""The capacity search while it runs: probe after probe, each a level that ends as soon as its question is settled.

Where users think, the throughput curve comes first (`loadbench.plan.curve`): short levels without think time, which
show what limits the server and where to start. They prove nothing.

`loadbench.plan.search` says what to measure next; the reading arm, a `ProbeJudge`, assesses each probe. This module has
what lies between: the time. Each probe gets its share of the budget. Its users begin in the middle of their think
times, and a warm-up of a few responses and half a think time follows, so that the load is near its steady state when
the window opens. While it runs it is assessed again and again, each time after a tenth more requests.

A probe ends early: in bracketing, when the data favour one side; in refining, when the likely range is narrow or the
requests are enough to choose the next load; in a test, when it is decided or the opposite is likelier; in the
verification, after enough requests to contradict; always, when the load is clearly too high. Its requests in flight are
then cut: they would keep the server busy, and show nothing new. A probe that an abort rule ends fails, and its requests
so far count.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import anyio

from loadbench.core.units import NS_PER_S
from loadbench.engine.level import LevelSpec
from loadbench.engine.level_runner import LevelRunner
from loadbench.engine.target import prepare_model
from loadbench.plan.curve import ThroughputCurve
from loadbench.plan.load import Closed, LevelDuration, Open, Phase
from loadbench.plan.scenario import LEAST_WARM_UP_NS
from loadbench.plan.search import Budget, Purpose, Search, Users, grid_between

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadbench.engine.observers import ProbeJudge, ProbeMonitor, RunningLevel, RunObserver
    from loadbench.engine.target import ModelUnderTest, TargetSession
    from loadbench.plan.curve import CurveStep
    from loadbench.plan.load import Load
    from loadbench.plan.scenario import Scenario
    from loadbench.plan.search import Finding, Grid, Probe
    from loadbench.record.request import Request
    from loadbench.record.sample import Sample

# The seeds of two probes differ by this much, so that think times and arrivals differ in each.
_SEED_STEP = 1_000_003
# In bracketing and refining a probe ends when one side is this much likelier, as a logarithm: 20 to 1.
_CLEARLY = 3.0
# It is first assessed after this many requests,
_FEWEST = 20
# and then each time that there are this many times as many.
_ASSESS_AGAIN = 1.15
# A refining probe has enough requests for this many misses of independent ones that p0 allows, a verification for that.
_ENOUGH_TO_REFINE, _ENOUGH_TO_VERIFY = 5.0, 3.0
# A refining probe whose load is this clearly too high has said what it can, as a logarithm.
_FAR_TOO_HIGH = 8.0
# Response times vary, and a queue takes a few of them to reach its length.
_WARM_UP_RESPONSES = 3
# The last requests may take this many warm-ups, beyond the budget too.
_DRAIN_WARM_UPS = 3


@dataclass(slots=True)
class EarlierSearch:
    """What a search that is resumed has found before: the probes' findings, and response times by load, in ns.

    `steps` are those of the throughput curve by users, `step_responses` their response times, `steps_ns` their time.
    """

    findings: tuple[tuple[Probe, Finding], ...] = ()  # each probe's; the standing of the last one counts
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
        """A few responses and half a think time, unless the user set it."""
        if self.warm_up_ns is not None:
            return self.warm_up_ns
        return max(LEAST_WARM_UP_NS, _WARM_UP_RESPONSES * response_ns + think_ns // 2)

    def warm_up_at(self, amount: float) -> int:
        """The warm-up of a probe at this load."""
        return self.warm_up(self.response_ns(amount), self.think_ns)


def grid_of(scenario: Scenario) -> Grid:
    """The loads that a scenario's search may visit."""
    capacity = scenario.capacity
    return grid_between(by_rate=capacity.by == "rate", at_most=capacity.at_most, budget_s=capacity.budget / NS_PER_S)


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
        self._scope = anyio.CancelScope()

    @property
    def spent_ns(self) -> int:
        """Of the budget, by this run and those that it continues."""
        return self._earlier.spent_ns + self._clock.now_ns() - self._began_ns

    @property
    def _ends(self) -> bool:
        return self.stopped or self.client_limited

    async def run(self) -> None:
        """Search and verify the answer; raises `TargetUnavailable` if the model does not respond."""
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
        """Bracket, refine, verify, and test where proof is required."""
        grid, findings, settings = grid_of(self._scenario), self._earlier.findings, self._scenario.capacity
        # Start where the throughput curve says, or where about one request is in flight.
        start = pace.cycle_ns(0) / pace.alone_ns if isinstance(grid, Users) else NS_PER_S / (2 * pace.alone_ns)
        at = grid.nearest(self._judge.predicted_users() or start)
        self.search = Search(grid, at, self._judge.next_load, settings.precision, settings.require)
        for probe, finding in findings:
            self.search.add(probe, finding)
        while not self._ends and not self.out_of_time and (next_probe := self.search.next()) is not None:
            await self._probe(next_probe, subject, pace)

    async def _probe(self, probe: Probe, subject: ModelUnderTest, pace: _Pace) -> None:
        """Measure one probe, end it as soon as it is settled, and add its finding to the search."""
        search = self.search
        load, amount = load_at(self._scenario, search.grid, probe.at), search.grid.amount(probe.at)
        warm_up_ns = pace.warm_up_at(amount)
        at_edge = probe.at in {search.grid.lowest, search.grid.highest}
        measure_ns = self._budget.probe_ns(
            probe.purpose, spent_ns=self.spent_ns, warm_up_ns=warm_up_ns, at_edge=at_edge
        )
        if measure_ns is None:
            self.out_of_time = True
            return
        monitor = self._judge.monitor(probe, load, opens_ns=self._clock.now_ns() + warm_up_ns)
        early_end = _EarlyEnd(probe, monitor, search)

        def on_start(request: Request) -> None:
            monitor.started(request.number, request.due_ns, measured=request.phase is Phase.MEASURED)

        def on_sample(sample: Sample, level: RunningLevel) -> None:
            monitor.add(sample)
            early_end.check(level)

        drain_ns = self._scenario.load.drain
        if not self._scenario.is_set("load.drain"):
            # Beyond the budget, what has waited as long as this misses every bound anyway.
            bounds = [round(objective.bound) for objective in self._scenario.objectives if objective.is_latency]
            left_ns = self._budget.total_ns - self.spent_ns - warm_up_ns - measure_ns
            drain_ns = min(drain_ns, max(left_ns, _DRAIN_WARM_UPS * warm_up_ns, *bounds))
        spec = self._spec(load, subject, measure_ns=measure_ns, warm_up_ns=warm_up_ns, ramp_ns=pace.response_ns(amount))
        spec = replace(spec, duration=LevelDuration(duration_ns=measure_ns, warm_up_ns=warm_up_ns, drain_ns=drain_ns))
        recording = await self._runner.run(subject, spec, number=self._number, on_start=on_start, on_sample=on_sample)
        usual_ns = recording.histograms["e2e_response"].percentile(50)
        if usual_ns is not None:
            pace.seen[amount] = usual_ns
        finding = self._judge.probe_ended(probe, load, recording, monitor, spent_ns=self.spent_ns)
        self._number += 1
        if finding is None:
            # A short disturbance of the load generator passes; one that comes again is its limit.
            self._client_limited_at[probe.at] += 1
            self.client_limited = self._client_limited_at[probe.at] > 1
        elif recording.aborted or not recording.interrupted:
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
            thinks_first=settings.ramp is None,
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
    search: Search
    next: float = _FEWEST
    ended: bool = False

    def check(self, level: RunningLevel) -> None:
        """A request has ended: assess the probe if that is due, and finish its level if it is settled."""
        ended = self.monitor.ended
        if self.ended or ended < self.next:
            return
        self.next = max(ended + 1, ended * _ASSESS_AGAIN)
        finding = self.monitor.finding(level.now_ns)
        match self.probe.purpose:
            case Purpose.BRACKET:
                self.ended = abs(finding.leaning) >= _CLEARLY
            case Purpose.REFINE:
                narrow = self.search.is_narrow(finding.standing.low, finding.standing.high)
                self.ended = narrow or finding.misses >= _ENOUGH_TO_REFINE
            case Purpose.VERIFY:
                self.ended = finding.informed and finding.misses >= _ENOUGH_TO_VERIFY
            case _:
                wrong = finding.leaning if self.probe.expects == "FAIL" else -finding.leaning
                self.ended = finding.decision != "UNDECIDED" or wrong > _CLEARLY
        self.ended |= finding.leaning < -_FAR_TOO_HIGH and self.probe.purpose is not Purpose.TEST
        if self.ended:
            level.finish(cut=finding.leaning < -_CLEARLY)
