"""The main process's side of worker processes: one level on many of them, recorded as if it were one.

Each worker makes its part of the load (`loadbench.plan.load.Shard`) on a schedule that all share, for the monotonic
clock is one for all processes of a machine. What happens is told in batches and goes into the one recorder, which puts
it in order; so window, peak, histograms and outcomes are those that one process would have recorded.

A worker that dies is noticed by the end of its pipe. What it had under way is recorded as cancelled, the arrivals that
were to be its own as missed, and the level says that a worker was lost.
"""

from __future__ import annotations

import asyncio
import math
import sys
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio

from loadbench.core.errors import BadInput, LoadbenchError
from loadbench.engine.frames import HEAD_BYTES, Batch, Begin, Done, Ready, Started, Stop, body_bytes, pack, unpack
from loadbench.engine.parts import template_tokens
from loadbench.plan.load import Closed, Open, Phase, Phases, Shard
from loadbench.record.histogram import Histogram
from loadbench.record.outcome import Outcome
from loadbench.record.recorder import Health, LevelRecording, Recorder
from loadbench.record.sample import Sample

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from loadbench.core.clock import Clock
    from loadbench.plan.load import LevelDuration, Load
    from loadbench.plan.prompts import Calibration
    from loadbench.plan.scenario import Scenario
    from loadbench.targets.openai import Target

# From the order to its beginning: time for every worker to read it and to make its first prompts.
_LEAD_NS = 150_000_000
# Each gets a trace as a whole: 24 bytes a request, and its blocks.
_LEAD_PER_ROW_NS = 2_000
# Many times what a start takes on a busy machine.
_STARTS_WITHIN_S = 60.0
# The worst first.
_SOURCES = ("user", "kernel", "virtual")
# From the end of its commands a worker has this long to leave.
_LEAVES_WITHIN_S = 3.0
# One process keeps up with about this many streams of an everyday pace; beyond, more processes are worth their start.
_STREAMS_PER_WORKER = 128
# And with about this many requests a second, each with its stream of tokens.
_ARRIVALS_PER_WORKER = 100


def workers_for(scenario: Scenario, cores: int) -> int:
    """How many worker processes a scenario has: as many as it says, or as suit its load.

    One, which is none beside the main process, is enough until it has too much to read: many users, or many arrivals a
    second. One core is left to the main process and, if it is on this machine, to the server. Users of a closed loop
    that is measured by number share one count of requests, and so one process.

    Raises `BadInput` where workers are asked for that cannot share the load.
    """
    load = scenario.load
    counted = load.requests is not None and load.users is not None
    if scenario.target.adapter is not None:
        if (load.workers or 1) > 1:
            raise BadInput("--workers: one process holds the model of --adapter", hint="leave --workers out")
        return 1
    if load.workers is not None:
        if counted and load.workers > 1:
            raise BadInput("--workers: users cannot share a number of requests", hint="give --duration, or --workers 1")
        return load.workers
    if load.users is not None:
        wanted = 1 if counted else math.ceil(max(load.users) / _STREAMS_PER_WORKER)
    else:
        # Each worker has its part of the room for requests in flight; there must be some to spare.
        most = max(1, load.max_in_flight // _STREAMS_PER_WORKER)
        busiest = max(one.most_per_s for one in scenario.loads if isinstance(one, Open))
        wanted = min(most, math.ceil(busiest / _ARRIVALS_PER_WORKER))
    return max(1, min(cores - 1, wanted))


@dataclass(slots=True)
class _WorkerHandle:
    """One worker, as far as it is known here."""

    process: asyncio.subprocess.Process
    under_way: dict[int, Started] = field(default_factory=dict)
    tokens_under_way: int = 0
    told_ns: int = 0
    done: Done | None = None
    lost: bool = False

    def tell(self, record: object) -> None:
        """Send a command; one to a dead worker goes nowhere."""
        assert self.process.stdin is not None  # noqa: S101 - it is a pipe
        with suppress(OSError, RuntimeError):
            self.process.stdin.write(pack(record))

    async def hear(self) -> object:
        """What it tells next; `None` when it is gone."""
        assert self.process.stdout is not None  # noqa: S101 - it is a pipe
        try:
            head = await self.process.stdout.readexactly(HEAD_BYTES)
            return unpack(await self.process.stdout.readexactly(body_bytes(head)))
        except (asyncio.IncompleteReadError, OSError):
            return None


class WorkerPool:
    """Worker processes for the levels of one sweep."""

    def __init__(self, members: Sequence[_WorkerHandle], scenario: Scenario, target: Target) -> None:
        self._members = members
        self._scenario = scenario
        self._target = target

    @staticmethod
    @asynccontextmanager
    async def of(workers: int, scenario: Scenario, target: Target) -> AsyncIterator[WorkerPool]:
        """So many workers while the context lasts; raises `LoadbenchError` where one cannot be started."""
        members: list[_WorkerHandle] = []
        try:
            for _ in range(workers):
                members.append(_WorkerHandle(await _start()))  # noqa: PERF401 - those that did start must be ended
            for member in members:
                await _await_ready(member)
            yield WorkerPool(members, scenario, target)
        finally:
            with anyio.CancelScope(shield=True):
                for member in members:
                    await _end(member.process)

    def at(self, scenario: Scenario) -> WorkerPool:
        """The same workers, for levels of this scenario."""
        return WorkerPool(self._members, scenario, self._target)

    def level(
        self,
        load: Load,
        *,
        model: str,
        key: str,
        calibration: Calibration | None,
        clock: Clock,
        extent: LevelDuration | None = None,
        on_sample: Callable[[Sample], None] = lambda _: None,
    ) -> DistributedLevel:
        """One level on as many of the workers as there is work for."""
        extent = extent or self._scenario.extent
        members = [member for member in self._members if not member.lost]
        if not members:
            raise LoadbenchError("every worker process has ended", hint="see what ended them (memory?)")
        members = members[: load.users if isinstance(load, Closed) else None][: extent.requests]
        rows = load.arrivals.rows if isinstance(load, Open) else 0
        begin_ns = clock.now_ns() + _LEAD_NS + rows * _LEAD_PER_ROW_NS
        orders = [
            Begin(
                scenario=self._scenario,
                base_url=self._target.base_url,
                headers=self._target.headers,
                model=model,
                load=load,
                key=key,
                extent=extent,
                calibration=calibration,
                begin_ns=begin_ns,
                shard=Shard(index, len(members)),
            )
            for index in range(len(members))
        ]
        return DistributedLevel(
            list(zip(members, orders, strict=True)), extent=extent, clock=clock, on_sample=on_sample
        )


async def _start() -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "loadbench.engine.worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 20,
        )
    except OSError as error:
        raise LoadbenchError(f"cannot start a worker process: {error}", hint="try --workers 1") from None


async def _await_ready(member: _WorkerHandle) -> None:
    """A worker that is still being imported would make the first requests late."""
    with anyio.move_on_after(_STARTS_WITHIN_S):
        if isinstance(await member.hear(), Ready):
            return
    raise LoadbenchError("a worker process did not start", hint="try --workers 1")


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ask by the end of its input, then kill."""
    assert process.stdin is not None  # noqa: S101 - it is a pipe
    with suppress(OSError, RuntimeError):
        process.stdin.close()
    with anyio.move_on_after(_LEAVES_WITHIN_S):
        await process.wait()
        return
    with suppress(ProcessLookupError):
        process.kill()
    await process.wait()


class DistributedLevel:
    """One level, run once, on several workers; to whoever looks on it is like `loadbench.engine.level.Level`."""

    def __init__(
        self,
        parts: Sequence[tuple[_WorkerHandle, Begin]],
        *,
        extent: LevelDuration,
        clock: Clock,
        on_sample: Callable[[Sample], None],
    ) -> None:
        self._parts = parts
        self._clock = clock
        self._on_sample = on_sample
        self._load = parts[0][1].load
        self.extent = extent
        self.begin_ns = parts[0][1].begin_ns
        self.phases = Phases(extent, self.begin_ns)
        self.done = self.failed = self.tokens = 0
        self._measured = 0
        first = parts[0][1]
        self._recorder = Recorder(
            self.phases,
            first.scenario.objectives_at(self._load),
            template_tokens=template_tokens(first.calibration),
        )
        self._interrupted = False

    async def run(self) -> LevelRecording:
        """Have the level made, and return what was recorded."""
        async with anyio.create_task_group() as listeners:
            for member, order in self._parts:
                member.done, member.under_way, member.told_ns = None, {}, self.begin_ns
                member.tell(order)
                listeners.start_soon(self._listen, member)
        closes_ns = self.phases.closes_ns
        if closes_ns is None:
            # Every worker was lost before it had made its part of a level by number.
            self.phases.close(self._clock.now_ns())
            closes_ns = self.phases.closes_ns or self.phases.opens_ns
        missed = [self._missed(member, order.shard, closes_ns) for member, order in self._parts]
        due = sum(member.done.due for member, _ in self._parts if member.done is not None)
        return self._recorder.close(
            window=(self.phases.opens_ns, closes_ns),
            arrivals_due=due + sum(lost_due for _, lost_due in missed),
            missed=sum(count for count, _ in missed),
            interrupted=self._interrupted,
            health=_together([member.done.health for member, _ in self._parts if member.done is not None]),
            lost_workers=sum(member.lost for member, _ in self._parts),
        )

    async def _listen(self, member: _WorkerHandle) -> None:
        while member.done is None:
            match await member.hear():
                case Batch() as batch:
                    self._take(member, batch)
                case Done() as done:
                    member.done = done
                    member.tokens_under_way = 0
                case _:
                    self._lose(member)
                    return

    def _take(self, member: _WorkerHandle, batch: Batch) -> None:
        if self.extent.requests is not None and batch.closes_ns is not None:
            self.phases.close(batch.closes_ns)
        for started in batch.started:
            member.under_way[started.number] = started
            self._measured += started.phase is Phase.MEASURED
            self._recorder.started(started.at_ns)
        for sample in batch.ended:
            member.under_way.pop(sample.number, None)
            self._record(sample)
        member.told_ns = batch.told_ns
        member.tokens_under_way = batch.tokens_under_way

    def _record(self, sample: Sample) -> None:
        self._recorder.add(sample)
        self.done += 1
        self.failed += sample.outcome.failed
        self.tokens += sample.output_tokens or 0
        self._on_sample(sample)

    def _lose(self, member: _WorkerHandle) -> None:
        """It is gone: what it had under way has an end too."""
        member.lost = True
        member.tokens_under_way = 0
        now_ns = self._clock.now_ns()
        for started in member.under_way.values():
            self._record(
                Sample(
                    number=started.number,
                    phase=started.phase,
                    outcome=Outcome.CANCELLED,
                    detail="the client's process ended",
                    due_ns=started.due_ns,
                    end_ns=now_ns,
                    user=started.user,
                    persona=started.persona,
                    turn=started.turn,
                )
            )
        member.under_way = {}

    def _missed(self, member: _WorkerHandle, shard: Shard, closes_ns: int) -> tuple[int, int]:
        """(missed, due) arrivals of a worker: what it told, or what it can no longer have sent."""
        if member.done is not None:
            return member.done.missed, 0
        load = self._load
        if isinstance(load, Closed):
            return 0, 0
        seed = self._parts[0][1].scenario.work.seed
        missed = due = 0
        for number, offset_ns in enumerate(load.offsets_ns(seed, lead_ns=self.phases.warm_up_ns)):
            due_ns = self.begin_ns + offset_ns
            if due_ns >= closes_ns:
                break
            if shard.holds(number) and due_ns >= self.phases.opens_ns:
                due += 1
                missed += due_ns > member.told_ns
        return missed, due

    def stop(self) -> None:
        """End the load now and close the window; what is in flight is drained. Asked again: cut that too."""
        self._interrupted = True
        self.phases.close(self._clock.now_ns())
        for member, _ in self._parts:
            member.tell(Stop())

    # What the progress line reads.

    @property
    def label(self) -> str:
        """The load in a few characters."""
        return self._load.label

    @property
    def in_flight(self) -> int:
        """Requests made and not yet ended."""
        return self._recorder.in_flight

    @property
    def now_ns(self) -> int:
        """The run's clock."""
        return self._clock.now_ns()

    @property
    def measured_left(self) -> int | None:
        """Requests still to be measured, in a level by number."""
        return None if self.extent.requests is None else max(0, self.extent.requests - self._measured)

    @property
    def tokens_so_far(self) -> int:
        """Output tokens received, those of unfinished answers counted by event."""
        return self.tokens + sum(member.tokens_under_way for member, _ in self._parts)


def _together(healths: Sequence[Health]) -> Health:
    """The health of all: every delay of each, and the CPU share of the one that had most to do."""
    lag, pauses, delays = Histogram(), Histogram(), Histogram()
    for health in healths:
        lag.merge(health.loop_lag)
        pauses.merge(health.gc_pauses)
        delays.merge(health.read_delay)
    shares = [health.cpu_share for health in healths if health.cpu_share is not None]
    return Health(
        # As good as the worst of them.
        stamp_source=min((health.stamp_source for health in healths), key=_SOURCES.index, default="user"),
        clock_steps=max((health.clock_steps for health in healths), default=0),
        loop_lag=lag,
        gc_pauses=pauses,
        cpu_share=max(shares, default=None),
        read_delay=delays,
    )
