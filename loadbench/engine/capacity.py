"""The capacity search under way: probe after probe, each a level that ends as soon as it has told what it was for.

Where users think, a ladder of short levels without think time comes first (`loadbench.plan.ladder`): what the server
does with so many at once says what is in the way, and where the search may begin. It proves nothing.

What to measure next is said by `loadbench.plan.search`, what a probe has shown by the reading arm, which is handed in
as a `ProbeJudge`. Here is what lies between: the time. Each probe has its share of the budget; it begins with a
warm-up of
an answer and the thinking before the next, over which the users' first requests are spread, so that the load is near
its usual state when the window opens. While it runs it is looked at again and again, ever a tenth more requests later.

A probe ends early when its decision is sure; where only the border is looked for, when it clearly leans to one side;
and where a proof is sought, when it would take several times the time that is left for it. What is in flight of a load
that surely fails is cut: it would keep the server busy for long, and tells nothing new.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import anyio

from loadbench.core.units import NS_PER_S
from loadbench.engine.level import Level, LevelSpec, level_plan
from loadbench.engine.sweep import first_answers, with_rise
from loadbench.plan.ladder import Ladder
from loadbench.plan.load import Closed, LevelDuration, Open, Phase
from loadbench.plan.scenario import LEAST_WARM_UP_NS
from loadbench.plan.search import Budget, Probe, Purpose, Rates, Search, Users

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from loadbench.client.client import Client
    from loadbench.core.clock import Clock
    from loadbench.engine.health import HealthProbe
    from loadbench.engine.level import LevelPlan
    from loadbench.engine.observers import ProbeJudge, ProbeMonitor, RunObserver
    from loadbench.engine.sweep import ModelUnderTest
    from loadbench.plan.ladder import CurveStep
    from loadbench.plan.load import Load
    from loadbench.plan.scenario import Scenario
    from loadbench.plan.search import Finding, Grid
    from loadbench.record.recorder import LevelRecording
    from loadbench.record.request import Request
    from loadbench.record.sample import Sample

# The seeds of two probes lie so far apart: think times and arrivals are drawn afresh in each.
_SEED_STEP = 1_000_003
# A probe that is to show where the border is ends when one side is likelier by so much, as a logarithm: 20 to 1.
_CLEARLY = 3.0
# And tells nothing before so many requests.
_FEWEST = 10
# Before a proof is given up.
_FEWEST_TO_GIVE_UP = 40
# A look, and the next when there is so much more to see.
_LOOK_AGAIN = 1.1
# A proof that would take more than so many times what is left for it is given up, but not before half-way.
_TOO_FAR = 2.0
# Answers differ: a warm-up lasts so much longer than one is expected to take.
_WARM_UP_SHARE = 1.25


@dataclass(slots=True)
class _Pace:
    """How long answers take, as far as it has been seen, by load; in ns."""

    alone_ns: int
    think_ns: int
    warm_up_ns: int | None
    by_rate: bool
    seen: dict[float, int]

    def answer_ns(self, amount: float) -> int:
        """Expected at this load: what it was at the nearest lighter one; nobody knows how much longer it will be."""
        lighter = max((one for one in self.seen if one <= amount), default=None)
        return self.alone_ns if lighter is None else self.seen[lighter]

    def cycle_ns(self, amount: float) -> int:
        """A user's: an answer, and the thinking."""
        return self.answer_ns(amount) + self.think_ns

    def warm_up(self, amount: float) -> int:
        """A cycle, and some more."""
        return self.warm_up_after(self.answer_ns(amount), self.think_ns)

    def warm_up_after(self, answer_ns: int, think_ns: int = 0) -> int:
        """For answers that take so long."""
        if self.warm_up_ns is not None:
            return self.warm_up_ns
        return max(LEAST_WARM_UP_NS, round(_WARM_UP_SHARE * answer_ns) + think_ns)


class CapacitySearch:
    """One search, run once, or taken up again with what was told of it before."""

    def __init__(
        self,
        scenario: Scenario,
        *,
        model: str,
        client: Client,
        clock: Clock,
        health: Callable[[], HealthProbe],
        panel: ProbeJudge,
        observer: RunObserver,
        counters: Callable[[], Awaitable[Mapping[str, float] | None]] | None = None,
        before: Before | None = None,
    ) -> None:
        self.stopped = self.client_limited = self.out_of_time = False
        self.search: Search
        self._level: Level | None = None
        self.answer_ns = 0
        self._scenario = scenario
        self._model = model
        self._client = client
        self._clock = clock
        self._health = health
        self._panel = panel
        self._observer = observer
        self._counters = counters
        self._before = before or Before()
        self._budget = Budget(scenario.capacity.budget)
        self._began_ns = clock.now_ns()
        self._number = self._before.levels
        self._spoilt: Counter[int] = Counter()
        self._scope = anyio.CancelScope()

    async def run(self) -> None:
        """Search, measure both ends again, verify the answer; raises `TargetUnavailable` where there is no answer."""
        with self._scope:
            await self._run()

    async def _run(self) -> None:
        subject = await first_answers(self._client, self._model, scenario=self._scenario)
        pace = self._paced(subject)
        if self._scenario.climbs:
            await self._climb(subject, pace)
        search = self.search = self._opened(pace)
        while not self._over and (probe := search.next()) is not None:
            await self._measure(probe, subject, pace)
        for at in self._ends(search):
            if not self._stops:
                await self._measure(Probe(at, Purpose.AGAIN), subject, pace)
        if not self._stops:
            best = self._panel.best(search)
            if best is not None and best not in self._done(Purpose.VERIFY):
                await self._measure(Probe(best, Purpose.VERIFY), subject, pace)

    def _paced(self, subject: ModelUnderTest) -> _Pace:
        think = self._scenario.think
        by_rate = self._scenario.capacity.by == "rate"
        think_ns = 0 if think is None or by_rate else round(think.mean)
        self.answer_ns = self._before.answer_ns or subject.answer_ns
        return _Pace(self.answer_ns, think_ns, self._scenario.load.warm_up, by_rate, dict(self._before.seen))

    async def _climb(self, subject: ModelUnderTest, pace: _Pace) -> None:
        """Measure the rungs that there is time for. What is expected of the next is what those before it took."""
        ladder = Ladder(round(self._scenario.capacity.at_most), dict(self._before.rungs))
        gone_ns, took = self._before.rungs_ns, dict(self._before.rung_answers)
        while not self._stops and (users := ladder.next()) is not None:
            answer_ns = _at_rung(users, took, alone_ns=pace.alone_ns)
            warm_up_ns = pace.warm_up_after(answer_ns)
            measure_ns = self._budget.curve_ns(gone_ns=gone_ns, warm_up_ns=warm_up_ns, answer_ns=answer_ns)
            if measure_ns is None:
                ladder.left_out.add(users)
                continue
            began_ns, load = self._clock.now_ns(), Closed(users)
            extent = LevelDuration(duration_ns=measure_ns, warm_up_ns=warm_up_ns, drain_ns=self._scenario.load.drain)
            recording = await self._recorded(self._plan(load, subject, extent, ramp_ns=answer_ns))
            took_ns = self._clock.now_ns() - began_ns
            step = self._panel.climbed(load, recording, spent_ns=self.spent_ns, took_ns=took_ns)
            self._number += 1
            gone_ns += took_ns
            usual_ns = recording.histograms["e2e_response"].percentile(50)
            if step is None or usual_ns is None:
                return
            ladder.seen[users], took[users] = step, usual_ns

    def _opened(self, pace: _Pace) -> Search:
        """It begins where the ladder says, or about one request is under way, and is told what was found before."""
        grid, told = grid_of(self._scenario), self._before.told
        start = pace.cycle_ns(0) / pace.alone_ns if isinstance(grid, Users) else NS_PER_S / (2 * pace.alone_ns)
        at = told[0][0].at if told else grid.nearest(self._panel.guess() or start)
        search = Search(grid, at, partial(self._aim, pace), self._scenario.capacity.precision)
        self._panel.opened(most_loads=search.most_loads)
        for probe, found in self._before.told:
            if probe.purpose is not Purpose.VERIFY:
                search.told(probe, found)
        return search

    def _aim(self, pace: _Pace, *, passes: bool) -> int | None:
        def requests(amount: float) -> float:
            """That there is time for in a proof."""
            measure_ns = self._budget.probe_ns(
                Purpose.PROVE,
                spent_ns=self.spent_ns,
                warm_up_ns=pace.warm_up(amount),
                wants="PASS" if passes else "FAIL",
            )
            per_ns = amount / NS_PER_S if pace.by_rate else amount / pace.cycle_ns(amount)
            return (measure_ns or 0) * per_ns

        return self._panel.aim(self.search, requests, passes=passes)

    def _ends(self, search: Search) -> list[int]:
        """What is to be measured again: the ends of the range, as far as there are any and it has not been done."""
        again = self._done(Purpose.AGAIN)
        return [at for at in (search.passed, search.failed) if at is not None and at not in again]

    def _done(self, purpose: Purpose) -> set[int]:
        """Where this was done by the search that is taken up again."""
        return {probe.at for probe, _ in self._before.told if probe.purpose is purpose}

    @property
    def _stops(self) -> bool:
        return self.stopped or self.client_limited

    @property
    def _over(self) -> bool:
        return self._stops or self.out_of_time

    @property
    def spent_ns(self) -> int:
        """Of the budget, by this run and those that it goes on with."""
        return self._before.spent_ns + self._clock.now_ns() - self._began_ns

    async def _measure(self, probe: Probe, subject: ModelUnderTest, pace: _Pace) -> None:
        search = self.search
        load = load_at(self._scenario, search.grid, probe.at)
        amount = search.grid.amount(probe.at)
        warm_up_ns = pace.warm_up(amount)
        measure_ns = self._budget.probe_ns(
            probe.purpose, spent_ns=self.spent_ns, warm_up_ns=warm_up_ns, wants=probe.wants
        )
        if measure_ns is None:
            self.out_of_time |= probe.purpose not in {Purpose.AGAIN, Purpose.VERIFY}
            return
        extent = LevelDuration(duration_ns=measure_ns, warm_up_ns=warm_up_ns, drain_ns=self._scenario.load.drain)
        recording, watching = await self._level_of(probe, load, extent, subject, ramp_ns=pace.cycle_ns(amount))
        usual_ns = recording.histograms["e2e_response"].percentile(50)
        if usual_ns is not None:
            pace.seen[amount] = usual_ns
        found = self._panel.ended(probe, load, recording, watching, spent_ns=self.spent_ns)
        self._number += 1
        if found is None:
            # A hiccup of the client passes; what comes again is its limit.
            self._spoilt[probe.at] += 1
            self.client_limited = self._spoilt[probe.at] > 1
        elif probe.purpose is not Purpose.VERIFY and not recording.interrupted:
            search.told(probe, found)

    async def _level_of(
        self, probe: Probe, load: Load, extent: LevelDuration, subject: ModelUnderTest, *, ramp_ns: int
    ) -> tuple[LevelRecording, ProbeMonitor]:
        """The probe's level, watched, and ended as soon as may be."""
        watching = self._panel.begins(load, opens_ns=self._clock.now_ns() + extent.warm_up_ns)
        looks = _Looks(probe, watching, self._clock)

        def on_start(ask: Request) -> None:
            if ask.phase is Phase.MEASURED:
                watching.started(ask.number, ask.due_ns)

        def on_sample(sample: Sample, level: Level) -> None:
            watching.add(sample)
            looks.after(level)

        plan = self._plan(load, subject, extent, ramp_ns=ramp_ns)
        return await self._recorded(plan, on_start=on_start, on_sample=on_sample), watching

    async def _recorded(
        self,
        plan: LevelPlan,
        *,
        on_start: Callable[[Request], None] = lambda _: None,
        on_sample: Callable[[Sample, Level], None] = lambda _, __: None,
    ) -> LevelRecording:
        """One level, from the server's counters before it to those after it."""
        counted = None if self._counters is None else await self._counters()
        number = self._number

        def ended(sample: Sample) -> None:
            self._observer.sample_ended(sample, number)
            on_sample(sample, level)

        level = Level(
            plan, client=self._client, clock=self._clock, health=self._health(), on_sample=ended, on_start=on_start
        )
        self._level = level
        self._observer.level_begins(level, self._model, number)
        try:
            recording = await level.run()
        finally:
            self._level = None
        return await with_rise(recording, counted, self._counters)

    def _plan(self, load: Load, subject: ModelUnderTest, extent: LevelDuration, *, ramp_ns: int) -> LevelPlan:
        key = f"{self._model}/{self._number}"
        seed = self._scenario.work.seed + _SEED_STEP * (self._number + 1)
        spec = LevelSpec(
            load=load, key=key, calibration=subject.calibration, duration=extent, seed=seed, ramp_ns=ramp_ns
        )
        return level_plan(self._scenario, spec)

    def stop(self) -> None:
        """End the probe under way, keeping what it measured, and begin no other. Twice: cut its requests too."""
        self.stopped = True
        if self._level is not None:
            self._level.stop()
        else:
            self._scope.cancel()


@dataclass(slots=True)
class Before:
    """What a search that is taken up again has found before: `seen` are usual answer times by load.

    `rungs` are those of the ladder by their users, `rung_answers` their usual answer times, `rungs_ns` what they took.
    """

    told: tuple[tuple[Probe, Finding], ...] = ()
    seen: Mapping[float, int] = field(default_factory=dict)
    spent_ns: int = 0
    answer_ns: int = 0
    levels: int = 0
    rungs: Mapping[int, CurveStep] = field(default_factory=dict)
    rung_answers: Mapping[int, int] = field(default_factory=dict)
    rungs_ns: int = 0


def _at_rung(users: int, took: Mapping[int, int], *, alone_ns: int) -> int:
    """How long an answer will take: at the worst as much longer as there are more of them (Little)."""
    fewer = max((one for one in took if one <= users), default=None)
    if fewer is None:
        return alone_ns
    more = min((took[one] for one in took if one >= users), default=None)
    return more if more is not None else took[fewer] * users // fewer


def grid_of(scenario: Scenario) -> Grid:
    """The loads that a scenario's search may visit."""
    capacity = scenario.capacity
    if capacity.by == "users":
        return Users(max(1, round(capacity.at_most)))
    # Ten requests in the whole time are too few for any answer.
    return Rates.of(min(10 * NS_PER_S / capacity.budget, capacity.at_most), capacity.at_most)


def load_at(scenario: Scenario, grid: Grid, at: int) -> Load:
    """The load at a position."""
    if isinstance(grid, Users):
        return Closed(at, scenario.think)
    return Open(grid.amount(at), scenario.load.arrivals)


@dataclass(slots=True)
class _Looks:
    """When a probe is looked at, and whether it may end."""

    probe: Probe
    watching: ProbeMonitor
    clock: Clock
    next: float = _FEWEST
    done: bool = False

    def after(self, level: Level) -> None:
        """A request has ended: look, if there is enough to see, and end the level if it has told what it was for."""
        ended = self.watching.ended
        if self.done or ended < self.next:
            return
        self.next = max(ended + 1, ended * _LOOK_AGAIN)
        now_ns = self.clock.now_ns()
        found = self.watching.finding(now_ns)
        if self._told(found, level, now_ns):
            self.done = True
            level.finish(cut=found.decision == "FAIL")

    def _told(self, found: Finding, level: Level, now_ns: int) -> bool:
        match self.probe.purpose:
            case Purpose.VERIFY:
                return False
            case Purpose.BRACKET | Purpose.BISECT:
                return found.decision != "UNDECIDED" or abs(found.leaning) >= _CLEARLY
            case Purpose.AGAIN:
                return abs(found.leaning) >= _CLEARLY
            case Purpose.PROVE:
                return found.decision != "UNDECIDED" or self._futile(found, level, now_ns)

    def _futile(self, found: Finding, level: Level, now_ns: int) -> bool:
        """Whether the proof that is wanted is not to be had in the time: it is the other way round, or too near."""
        if self.watching.ended < _FEWEST_TO_GIVE_UP:
            return False
        if (found.leaning < -1) if self.probe.wants == "PASS" else (found.leaning > 1):
            return True
        gone_ns, left_ns = now_ns - level.phases.opens_ns, (level.phases.closes_ns or 0) - now_ns
        return gone_ns > left_ns and (found.effort - 1) * gone_ns > _TOO_FAR * left_ns
