"""Runs levels of a model, one at a time: in this process or on workers, with abort rules, and with the server's
counters from before the level to after its last request."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import anyio

from loadbench.core.alongside import run_alongside
from loadbench.engine.abort import AbortWatch
from loadbench.engine.level import Level, level_plan
from loadbench.record.outcome import Outcome
from loadbench.targets.scrape import total_rise

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadbench.engine.level import LevelSpec
    from loadbench.engine.observers import RunningLevel, RunObserver
    from loadbench.engine.part_recorder import Progress
    from loadbench.engine.target import ModelUnderTest, TargetSession
    from loadbench.engine.workers import DistributedLevel
    from loadbench.plan.scenario import Scenario
    from loadbench.record.recorder import LevelRecording
    from loadbench.record.request import Request
    from loadbench.record.sample import Sample

# Who presses Ctrl-C waits for no more than this after the last request.
_CLOSES_WITHIN_S = 1.0


class LevelRunner:
    """Runs levels under one scenario; `level` is the one that is running."""

    def __init__(self, scenario: Scenario, session: TargetSession, observer: RunObserver) -> None:
        self.level: RunningLevel | None = None
        self._closing: anyio.CancelScope | None = None
        self._scenario = scenario
        self._session = session
        self._observer = observer

    @property
    def is_running(self) -> bool:
        """Whether a level runs, or is being closed."""
        return self.level is not None or self._closing is not None

    def stop(self, scope: anyio.CancelScope) -> None:
        """End the level that is running, or what else runs in the scope."""
        if self._closing is not None:
            self._closing.deadline = min(self._closing.deadline, anyio.current_time() + _CLOSES_WITHIN_S)
        if self.level is not None:
            self.level.stop()
        else:
            scope.cancel()

    async def run(
        self,
        subject: ModelUnderTest,
        spec: LevelSpec,
        *,
        number: int,
        is_last: bool = True,
        on_start: Callable[[Request], None] = lambda _: None,
        on_sample: Callable[[Sample, RunningLevel], None] = lambda _, __: None,
    ) -> LevelRecording:
        """Run level `number` of the run; the observer has it when this returns.

        A level that an abort rule ends has that rule in `aborted`; what it measured until then is kept. Unless it
        `is_last`, it says that the model's other levels are skipped. Raises `TargetEnded` if a server that was started
        for this run has ended: when the observer has the level, which says so in `server_ended`.
        """
        session, observer = self._session, self._observer
        server = session.server
        if server is not None:
            await server.raise_if_ended()
        watch = AbortWatch.of(self._scenario, spec.load)

        def ended(sample: Sample) -> None:
            watch.add(sample)
            if subject.keep_warm is not None:
                subject.keep_warm.ended(sample.end_ns)
            observer.sample_ended(sample, number)
            on_sample(sample, level)

        def reported(progress: Progress) -> None:
            """The same of requests that a worker has recorded itself."""
            if progress.abort is not None:
                watch.absorb(progress.abort)
            if subject.keep_warm is not None:
                subject.keep_warm.ended(progress.latest_end_ns)

        def reported_one(sample: Sample) -> None:
            observer.sample_ended(sample, number)
            on_sample(sample, level)

        observer.level_planned(spec.load, subject.model, number)
        before = await session.counters()
        level: Level | DistributedLevel
        if session.workers is not None:
            level = await session.workers.level(
                self._scenario,
                spec,
                model=subject.model,
                mix=session.mix,
                clock=session.clock,
                number=number,
                on_progress=reported,
                on_sample=ended if session.workers.records is None else reported_one,
                on_start=on_start,
            )
        else:
            level = Level(
                level_plan(self._scenario, spec),
                client=subject.client,
                clock=session.clock,
                health=session.health(),
                on_sample=ended,
                on_start=on_start,
            )
        self.level = level
        observer.level_begins(level, subject.model, number)

        async def end_with_server() -> None:
            if server is not None:
                await server.until_ended()
                level.stop()  # the requests in flight have broken connections

        try:
            if watch.rules or server is not None:
                watches = [partial(watch.watch, level, session.clock)] if watch.rules else []
                recording = await run_alongside(level.run, *watches, end_with_server)
            else:
                recording = await level.run()
        finally:
            self.level = None
        # The level has yet to be kept, so a stop leaves this a moment. The server's counters may take longer than that.
        within_s = _CLOSES_WITHIN_S if recording.interrupted else math.inf
        with anyio.move_on_after(within_s, shield=True) as self._closing:
            await session.settled(recording.window[1])
            if server is not None:
                await server.look()
            if before is not None:
                # Read twice where needed: a busy server may time out once.
                rose = total_rise(before, await session.counters() or await session.counters())
                recording = replace(
                    recording,
                    server=rose,
                    server_restarted=rose is None and Outcome.CLIENT_LIMIT not in recording.outcomes,
                )
        self._closing = None
        if recording.in_flight_peak <= 1:
            # The connection is one that the first requests opened, and no request waits for another, like those.
            prompt_tokens = recording.input_tokens / max(1, recording.outcomes.get(Outcome.OK, 0))
            for sample in {id(sample): sample for sample in (subject.cold, *subject.samples)}.values():
                if sample.reused is False:
                    recording.connections.add_first(sample, prompt_tokens)
        skips = "" if is_last or not watch.broken else "; the model's further levels were not run"
        recording = replace(recording, aborted=watch.broken + skips)
        if server is not None and server.why_ended:
            recording = replace(recording, aborted="", server_ended=server.why_ended)
        observer.level_ended(recording, subject.model, spec.load)
        if server is not None:
            await server.raise_if_ended()
        return recording
