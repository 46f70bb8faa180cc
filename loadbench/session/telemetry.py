"""What a run watches beside its requests: this machine and the server's page while it goes, its power before it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

from loadbench.analyze.level.cost import meter_watts
from loadbench.analyze.level.machine import with_machine
from loadbench.core.clock import MonotonicClock
from loadbench.results.readings import ReadingLog
from loadbench.targets.scrape import watch_gauges
from loadbench.telemetry.watch import Watch, is_local

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from loadbench.core.clock import Clock
    from loadbench.plan.scenario import Scenario
    from loadbench.results.folder import RunFolder
    from loadbench.results.run import LevelResult
    from loadbench.targets.openai import Target

# Long enough for meters that tell ten times a second, short enough to be waited for.
_IDLE_S = 3.0


class RunTelemetry:
    """The watch over one run, or over several in turn. Without a folder nothing is written down."""

    def __init__(
        self,
        scenario: Scenario,
        target: Target,
        *,
        folder: RunFolder | None = None,
        clock: Clock | None = None,
        origin_ns: int = 0,
    ) -> None:
        self._settings = scenario.telemetry
        self._prices = scenario.cost
        self._simulated = scenario.simulated
        self._target = target
        self._clock = clock or MonotonicClock()
        self._watch = Watch(interval_ns=self._settings.interval)
        self._idle: Mapping[str, float] = {}
        if folder is not None:
            self.keep_in(folder, origin_ns=origin_ns)

    def keep_in(self, folder: RunFolder, *, origin_ns: int) -> None:
        """Write down what is read from now on in this run's folder, in its time."""
        self._watch.keep_in(ReadingLog(folder.path / "telemetry.jsonl", origin_ns=origin_ns))

    @property
    def about(self) -> Mapping[str, object] | None:
        """What is sampled, for the record; `None` where nothing is."""
        return self._watch.about or None

    @property
    def _wanted(self) -> bool:
        """The simulated server is no account of any machine."""
        return self._settings.sampling == "on" or (self._settings.sampling == "auto" and not self._simulated)

    @asynccontextmanager
    async def sampling(self, say: Callable[[str], None]) -> AsyncIterator[None]:
        """Have this machine sampled while the context lasts, if that is wanted and the server is on it."""
        if not self._wanted:
            yield
            return
        async with self._watch.sampling(url=self._target.base_url, pid=self._settings.server_pid):
            if self._settings.sampling == "on":
                self._tell_absent(say)
            yield

    def _tell_absent(self, say: Callable[[str], None]) -> None:
        """Who asked for it by name is told what is not there."""
        if not self._watch.about:
            local = is_local(self._target.base_url)
            say("telemetry: the sampler did not start" if local else "telemetry: the server is on another machine")
        elif self._watch.about.get("process") is None:
            say("telemetry: the server's process was not found; name it with --server-pid, or look as its user or root")

    async def listen(self, say: Callable[[str], None]) -> None:
        """Take what the sampler tells, until it ends; that is told where it had something to read."""
        await self._watch.listen()
        if any(self._watch.about.values()):
            say("telemetry: the sampler ended before the run did; what it read until then is kept")

    async def look_at_page(self) -> None:
        """Look at the server's page now and then, until cancelled."""
        interval_ns = self._settings.page_interval
        if interval_ns is not None and self._settings.sampling != "off":
            await watch_gauges(self._target, self._watch.add, clock=self._clock, interval_ns=interval_ns)

    async def measure_idle(self, say: Callable[[str], None]) -> None:
        """What the meters show before the first request, where there are meters."""
        if not any(self._watch.about.get(kind) for kind in ("boards", "packages")):
            return
        say(f"measuring the idle power for {_IDLE_S:g} s")
        await self.caught_up(self._clock.now_ns())
        began_ns = self._clock.now_ns()  # a counter's rise begins at a reading before it
        await anyio.sleep(_IDLE_S)
        await self.caught_up(ended_ns := self._clock.now_ns())
        self._idle = meter_watts(self._watch.window(began_ns, ended_ns), (ended_ns - began_ns) / 1e9)

    async def caught_up(self, at_ns: int) -> None:
        """Wait for the first sample after this moment."""
        await self._watch.caught_up(at_ns)

    def completed(self, level: LevelResult, window: tuple[int, int]) -> LevelResult:
        """The level with what was seen beside it."""
        return with_machine(level, self._watch.window(*window), idle=self._idle, prices=self._prices)

    def flush(self) -> None:
        """Write down what is still to be written."""
        self._watch.flush()
