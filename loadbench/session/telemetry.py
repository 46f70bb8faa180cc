"""What a run records about the machine: samples of it and of the server's metrics page, and its idle power."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

from loadbench.analyze.level.cost import meter_watts
from loadbench.analyze.level.machine import with_machine
from loadbench.results.readings import ReadingLog
from loadbench.targets.scrape import poll_gauges
from loadbench.telemetry.machine_use import MachineReader, load_between
from loadbench.telemetry.sampler import MachineSampler, is_local

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from loadbench.core.clock import Clock
    from loadbench.engine.worker_link import WorkerLink
    from loadbench.plan.scenario import Scenario
    from loadbench.results.folder import RunFolder
    from loadbench.results.run import LevelResult
    from loadbench.targets.target import Target
    from loadbench.telemetry.machine_use import MachineUse

# Long enough for meters that report ten times a second, short enough to wait for.
_IDLE_S = 3.0


class RunTelemetry:
    """The telemetry of one session. Nothing is written until `keep_in` names a folder; `say` reports to the user.
    `workers` make the load; `None` if this process makes it."""

    def __init__(
        self,
        scenario: Scenario,
        *targets: Target,
        clock: Clock,
        say: Callable[[str], None],
        workers: Sequence[WorkerLink] | None = None,
    ) -> None:
        self._settings = scenario.telemetry
        self._prices = scenario.cost
        self._simulated = scenario.simulated
        self._targets = targets
        # Energy and cost are for all tokens, so this machine says something only if all servers run on it.
        elsewhere = [target.base_url for target in targets if not is_local(target.base_url)]
        self._sampled = (elsewhere or [targets[0].base_url])[0]
        self._clock = clock
        self._say = say
        self._watch = MachineSampler(interval_ns=self._settings.interval)
        self._idle: Mapping[str, float] = {}
        # How fast the simulated server is does not depend on the machine's power.
        here = [target for target in targets if target.adapter is not None or is_local(target.base_url)]
        self._machine = MachineReader(
            [target.base_url for target in targets],
            server_pid=self._settings.server_pid,
            workers=[link.pid for link in workers or () if link.is_here],
            with_power=bool(here) and not scenario.simulated,
        )
        self._use: MachineUse | None = None
        # Only if all of the load is made on this machine, its other programs may be why some of it was late; and if
        # neither any of it is nor a server runs here, nothing of what is measured depends on this machine.
        self._makes_load = workers is None or all(link.is_here for link in workers)
        self._takes_part = workers is None or any(link.is_here for link in workers) or bool(here)

    def keep_in(self, folder: RunFolder, *, origin_ns: int) -> None:
        """Write the readings from now on into this run's folder, with times since `origin_ns`."""
        self._watch.keep_in(ReadingLog(folder, origin_ns=origin_ns))

    def leave_folder(self) -> None:
        """Write nothing more into the folder of a run that is over."""
        self._watch.keep_in(None)

    @property
    def about(self) -> Mapping[str, object] | None:
        """What is sampled, for the record; `None` if nothing is."""
        return self._watch.about or None

    @asynccontextmanager
    async def sampling(self) -> AsyncIterator[None]:
        """Sample this machine while the context lasts, if the settings want that and the server runs on it."""
        # The simulated server says nothing about any machine, so `auto` leaves it out.
        if self._settings.sampling == "off" or (self._settings.sampling == "auto" and self._simulated):
            yield
            return
        async with self._watch.sampling(url=self._sampled, pid=self._settings.server_pid):
            if isinstance(process := self._watch.about.get("process"), dict):
                self._machine.found(self._sampled, process["pid"])
            if len(self._targets) > 1 and self._watch.about:
                self._watch.about = {**self._watch.about, "server": self._sampled}
                self._say(f"telemetry: of the servers' processes, only that of {self._sampled} is sampled")
            if self._settings.sampling == "on" and not self._watch.about:
                local = is_local(self._sampled)
                which = "the server" if len(self._targets) == 1 else self._sampled
                reason = "the sampler did not start" if local else f"{which} is on another machine"
                self._say(f"telemetry: {reason}")
            elif self._settings.sampling == "on" and self._watch.about.get("process") is None:
                hint = "name it with --server-pid, or run loadbench as the server's user or as root"
                self._say(f"telemetry: the server's process was not found; {hint}")
            yield

    async def listen(self) -> None:
        """Read the sampler's messages until it ends; say so if it ends before the run."""
        await self._watch.listen()
        if any(self._watch.about.values()):
            self._say("telemetry: the sampler ended before the run did; its readings up to then are kept")

    async def poll_page(self) -> None:
        """Read the server's metrics page at the set interval, until cancelled."""
        interval_ns = self._settings.page_interval
        if interval_ns is not None and self._settings.sampling != "off":
            await poll_gauges(*self._targets, report=self._watch.add, clock=self._clock, interval_ns=interval_ns)

    async def measure_idle(self) -> None:
        """Measure the power without load, if there is a power meter. Call it before the first request."""
        if not any(self._watch.about.get(kind) for kind in ("boards", "packages", "batteries")):
            return
        self._say(f"measuring the idle power for {_IDLE_S:g} s")
        await self.caught_up(self._clock.now_ns())
        began_ns = self._clock.now_ns()  # the rise of a counter begins at a reading before this
        await anyio.sleep(_IDLE_S)
        await self.caught_up(ended_ns := self._clock.now_ns())
        self._idle = meter_watts(self._watch.window(began_ns, ended_ns), (ended_ns - began_ns) / 1e9)

    async def caught_up(self, at_ns: int) -> None:
        """Wait for the first sample after this moment."""
        await self._watch.caught_up(at_ns)

    def level_begins(self) -> None:
        """Read who has used this machine's CPUs so far."""
        self._use = self._machine.read() if self._takes_part else None

    def completed(self, level: LevelResult, window: tuple[int, int]) -> LevelResult:
        """The level with the machine's figures in its window, and what they cost."""
        load = load_between(self._use, self._machine.read() if self._takes_part else None)
        return with_machine(
            level,
            self._watch.window(*window),
            idle=self._idle,
            prices=self._prices,
            load=load,
            makes_load=self._makes_load,
        )

    def flush(self) -> None:
        """Write the readings that are still in memory."""
        self._watch.flush()
