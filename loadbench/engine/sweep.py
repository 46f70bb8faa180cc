"""The sweep: every model at every load, one level after another.

A model that does not answer a first request is marked and the rest go on. Each level's recording is handed out as soon
as it is complete, so that it can be saved before the next begins. Stopped, the sweep ends with the level under way.
The server's own counters are read before a level begins and after its last request has ended.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

import anyio

from loadbench.core.alongside import run_alongside
from loadbench.core.errors import TargetUnavailable
from loadbench.core.units import NS_PER_S
from loadbench.engine.abort import AbortWatch
from loadbench.engine.keep_warm import KeepWarm
from loadbench.engine.level import Level, LevelSpec, level_plan
from loadbench.plan.load import Closed
from loadbench.plan.prompts import prompt_source
from loadbench.targets.openai import first_response
from loadbench.targets.scrape import rise

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from loadbench.client.client import Client
    from loadbench.core.clock import Clock
    from loadbench.engine.health import HealthProbe
    from loadbench.engine.workers import DistributedLevel, WorkerPool
    from loadbench.plan.load import LevelDuration, Load
    from loadbench.plan.prompts import Calibration
    from loadbench.plan.scenario import Scenario, WorkSettings
    from loadbench.record.recorder import LevelRecording
    from loadbench.record.sample import Sample


# Of the time that an answer is expected to take: some take longer.
_WARM_UP_SHARE = 1.25
# Who waits longer than this for an answer should say how long to warm up.
_LONGEST_WARM_UP_NS = 120 * NS_PER_S


class RunObserver(Protocol):
    """Who wants to know how the sweep goes. None of these may take long: the load is running, or is about to."""

    def level_begins(self, level: Level | DistributedLevel, model: str, number: int) -> None:
        """A level is about to start; `number` counts all levels of the run from 0."""
        ...

    def sample_ended(self, sample: Sample, number: int) -> None:
        """A request of level `number` has ended."""
        ...

    def level_ended(self, recording: LevelRecording, model: str, load: Load) -> None:
        """A level is complete; the next begins when this returns."""
        ...

    def model_failed(self, model: str, reason: str) -> None:
        """A model cannot be tested."""
        ...


@dataclass(slots=True)
class ModelUnderTest:
    """A model that has answered: what its tokens are like, and by what the next level's warm-up is reckoned."""

    model: str
    client: Client
    calibration: Calibration | None
    samples: list[Sample]  # of its first answers
    answer_ns: int
    before: Load = Closed(1)  # noqa: RUF009 - frozen
    again: Sample | None = None  # another first question, for its first token alone; none if that failed
    keeper: KeepWarm | None = None


async def first_answers(client: Client, model: str, *, scenario: Scenario) -> ModelUnderTest:
    """Ask a model for its first answers: proof that it works, what its tokens are like, how long one answer takes.

    Raises `TargetUnavailable` where it does not answer.
    """
    prompts = prompt_source(scenario.work, key="first", calibration=None)
    samples = [
        await first_response(client, prompt=probe.text, max_tokens=scenario.work.max_tokens)
        for probe in prompts.calibration_prompts()
    ]
    calibration = prompts.calibrated([sample.input_tokens for sample in samples])
    return ModelUnderTest(model, client, calibration, samples, answer_ns=samples[-1].end_ns - samples[-1].due_ns)


async def with_rise(
    recording: LevelRecording,
    before: Mapping[str, float] | None,
    counters: Callable[[], Awaitable[Mapping[str, float] | None]] | None,
) -> LevelRecording:
    """The recording with what the server's counters rose by. No stop cuts this: the level is yet to be kept."""
    if counters is None or before is None:
        return recording
    with anyio.CancelScope(shield=True):
        # Asked twice: a busy server may miss its time once.
        rose = rise(before, await counters() or await counters())
    return replace(recording, server=rose, server_restarted=rose is None)


def _first_prompt(work: WorkSettings, *, key: str) -> str:
    return prompt_source(work, key=key, calibration=None).calibration_prompts()[0].text


class Sweep:
    """One sweep, run once. `client_for` makes the client of a model, `health` the probe of a level.

    `counters` reads those of the server; it returns `None` where there are none. `ready` is awaited before a model is
    asked for anything, and raises `TargetUnavailable` where it cannot be tested. `settled` is awaited after a level,
    with the moment at which its window closed: by then whatever is sampled beside it must be known. `answered` is told
    of each model that has answered, before its levels.
    """

    def __init__(  # noqa: PLR0913 - the parts of a run, each by its name
        self,
        scenario: Scenario,
        *,
        models: Sequence[str],
        client_for: Callable[[str], Client],
        clock: Clock,
        health: Callable[[], HealthProbe],
        observer: RunObserver,
        missing: Mapping[str, str] | None = None,
        crew: WorkerPool | None = None,
        counters: Callable[[], Awaitable[Mapping[str, float] | None]] | None = None,
        ready: Callable[[str], Awaitable[None]] | None = None,
        settled: Callable[[int], Awaitable[None]] | None = None,
        answered: Callable[[ModelUnderTest], None] = lambda _: None,
    ) -> None:
        self._scenario = scenario
        self._models = models
        self._missing = missing or {}
        self._client_for = client_for
        self._clock = clock
        self._health = health
        self._observer = observer
        self._crew = crew
        self._counters = counters
        self._ready = ready
        self._settled = settled
        self._answered = answered
        self._level: Level | DistributedLevel | None = None
        self._scope = anyio.CancelScope()
        self.stopped = False

    async def run(self) -> None:
        """Run every level of every model; raises `TargetUnavailable` if no model at all could be tested."""
        with self._scope:
            await self._run()

    async def _run(self) -> None:
        reasons = []
        tested = 0
        for model in self._models:
            if self.stopped:
                return
            try:
                await self._test(model, first_level=tested * len(self._scenario.loads))
                tested += 1
            except TargetUnavailable as error:
                reasons.append(f"{model}: {error}")
                self._observer.model_failed(model, str(error))
        if not tested:
            raise TargetUnavailable("; ".join(reasons), hint="see `loadbench doctor`")

    async def _test(self, model: str, *, first_level: int) -> None:
        if model in self._missing:
            raise TargetUnavailable(self._missing[model])
        if self._ready is not None:
            await self._ready(model)
        subject = await first_answers(self._client_for(model), model, scenario=self._scenario)
        subject.again = await self._ask_again(subject)
        every_ns = self._scenario.load.keep_warm
        if every_ns is not None:
            subject.keeper = KeepWarm(subject.client, self._clock, every_ns=every_ns, busy=self._is_busy)
        self._answered(subject)
        levels = partial(self._levels, subject, first_level)
        await (levels() if subject.keeper is None else run_alongside(levels, subject.keeper.keep))

    async def _levels(self, subject: ModelUnderTest, first_level: int) -> None:
        for position, load in enumerate(self._scenario.loads):
            if self.stopped or (await self.measure(subject, load, number=first_level + position)).aborted:
                return

    async def _ask_again(self, subject: ModelUnderTest) -> Sample | None:
        """Another first question of the same length: what its first token takes when warm, and no prefix is cached.

        `None` where it fails: the model has answered before, and a token that shows no text, say, is no reason to leave
        it out.
        """
        work = self._scenario.work
        first, again = (_first_prompt(work, key=key) for key in ("first", "again"))
        if again == first and work.unique:
            again = " ".join(reversed(first.split()))  # a calibration's words are the same for all, and mean nothing
        try:
            return await first_response(subject.client, prompt=again, max_tokens=1)
        except TargetUnavailable:
            return None

    def _is_busy(self) -> bool:
        return self._level is not None and self._level.in_flight > 0

    async def measure(
        self, subject: ModelUnderTest, load: Load, *, number: int, key: str = "", extent: LevelDuration | None = None
    ) -> LevelRecording:
        """One level, handed to the observer when it is complete.

        `key` sets its prompts apart from those of other levels; it is made of model and number unless it is given.
        """
        model = subject.model
        extent = extent or self.extent(subject, load)
        counted = None if self._counters is None else await self._counters()
        watch = AbortWatch([rule for rule in self._scenario.slo.abort_on or () if rule.applies(load)])
        key = key or f"{model}/{number}"
        self._level = self._make_level(load, subject, watch, key=key, extent=extent, number=number)
        self._observer.level_begins(self._level, model, number)
        try:
            recording = await self._run_watched(self._level, watch)
        finally:
            self._level = None
        with anyio.CancelScope(shield=True):
            if self._settled is not None:
                await self._settled(recording.window[1])
        recording = await with_rise(recording, counted, self._counters)
        self._observer.level_ended(recording, model, load)
        subject.before = load
        subject.answer_ns = recording.histograms["e2e_response"].percentile(95) or subject.answer_ns
        return recording

    async def _run_watched(self, level: Level | DistributedLevel, watch: AbortWatch) -> LevelRecording:
        """The level, given up where a rule says so. What it measured until then is kept."""
        if not watch.rules:
            return await level.run()
        recording = await run_alongside(level.run, partial(watch.keep, level, self._clock))
        return replace(recording, aborted=watch.held)

    def extent(self, subject: ModelUnderTest, load: Load) -> LevelDuration:
        """How long a level goes on. Where no warm-up is asked for it lasts a whole answer: everybody has had one then.

        How long an answer will take is not known; at so many times the users it takes at most about so many times as
        long as it did before.
        """
        extent = self._scenario.extent
        if self._scenario.load.warm_up is not None:
            return extent
        before = subject.before
        growth = load.users / before.users if isinstance(load, Closed) and isinstance(before, Closed) else 1.0
        expected_ns = round(_WARM_UP_SHARE * max(1.0, growth) * subject.answer_ns)
        return replace(extent, warm_up_ns=max(extent.warm_up_ns, min(expected_ns, _LONGEST_WARM_UP_NS)))

    def _make_level(
        self,
        load: Load,
        subject: ModelUnderTest,
        watch: AbortWatch,
        *,
        key: str,
        extent: LevelDuration,
        number: int,
    ) -> Level | DistributedLevel:
        def on_sample(sample: Sample) -> None:
            watch.add(sample)
            if subject.keeper is not None:
                subject.keeper.heard(sample.end_ns)
            self._observer.sample_ended(sample, number)

        spec = LevelSpec(load=load, key=key, calibration=subject.calibration, duration=extent)
        if self._crew is not None:
            return self._crew.level(self._scenario, spec, model=subject.model, clock=self._clock, on_sample=on_sample)
        return Level(
            level_plan(self._scenario, spec),
            client=subject.client,
            clock=self._clock,
            health=self._health(),
            on_sample=on_sample,
        )

    @property
    def measuring(self) -> bool:
        """Whether a level is under way."""
        return self._level is not None

    def stop(self) -> None:
        """End the level under way, keeping what it measured, and start no other. Twice: cut its requests too."""
        self.stopped = True
        if self._level is not None:
            self._level.stop()
        else:
            self._scope.cancel()
