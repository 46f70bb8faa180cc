"""Workers as the main process sees them: one level on many of them, recorded as if it were one.

Each worker runs its part of the load (`loadbench.plan.load.Shard`) on a schedule that all share. All prepare their
parts first; once the last is ready they are told when the level begins. The monotonic clock is one for all processes of
a machine; of a worker elsewhere it is known by how much its clock is ahead, and the worker gives and takes all times in
the run's clock. Workers report in batches, and what they report goes into one recorder, which puts it in order. So
window, peak, histograms and outcomes are those that one process would have recorded.

The requests of a closed loop that is measured by their number are counted in a file that all have mapped, and taken one
by one, by whichever user is free: so each is sent by the user who would send it in one process. As there, the window
closes at the first user without work, whichever worker has it; the users of the other workers then stop too. Workers of
several machines have no such file: each has some of them, and gets more (`loadbench.engine.lease`).

A worker that dies is noticed by the end of its link; one that is stopped, by its silence, and is killed then. Its
requests in flight are recorded as cancelled, its remaining arrivals as missed, and the level says that a worker was
lost. What it had sent since its last report is in no figure, but counted, where its count can still be read. Workers of
this machine go on without it. Those of a cluster end the level: the next one has the load that was meant, on the rest.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import anyio

from loadbench.core.alongside import run_alongside
from loadbench.core.errors import BadInput
from loadbench.core.units import NS_PER_S
from loadbench.engine.level_length import LOOK_NS, LevelLength
from loadbench.engine.worker_link import SAME_CLOCK, pack, unpack
from loadbench.plan.load import Closed, LevelDuration, Phase, Phases, Shard
from loadbench.plan.load_generator import workers_needed
from loadbench.plan.traces import Replayed
from loadbench.record.histogram import Histogram
from loadbench.record.outcome import Outcome
from loadbench.record.recorder import Health, LevelRecording, Recorder, WorkerPart
from loadbench.record.sample import Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from loadbench.core.clock import Clock
    from loadbench.engine.level import LevelSpec
    from loadbench.engine.part_recorder import Progress, Recorded, RecordOrder
    from loadbench.engine.stored_prompts import StoredPrompts
    from loadbench.engine.worker_link import ClockOffset, WorkerLink
    from loadbench.plan.scenario import Scenario
    from loadbench.record.recorder import SoFar
    from loadbench.record.request import Request
    from loadbench.targets.target import Target

# More processes than any machine has cores are a slip; a cluster has any number.
_MOST_LOCAL = 256
# The worst first.
_SOURCES = ("user", "kernel", "virtual")
# A worker reports ten times a second. One that is silent for so long has been stopped, or hangs; a busy machine delays
# it by less. Once the user has stopped the run, nobody should wait.
LOOK_S = 0.5
_MOST_SILENT_LOOKS, _MOST_WHEN_STOPPED = 30, 3
# From a kill to the end of the pipe.
_DIES_WITHIN_LOOKS = 4
# A level that has lost a worker on another machine is over: its other responses have this long to end.
_DRAINS_WITHIN_S = 2.0
# With four times that, a process has used most of a core of its own. Beyond, another one reads in time even where all
# cores are shared with the server: of 1,024 streams on two cores one process reads many too late, and two read all.
_MOST_TIMES = 4


def workers_for(scenario: Scenario, cores: int, *, taken: float = 0.0) -> int:
    """How many worker processes a scenario gets: as many as it says, or as many as its load needs and the cores bear.

    One, which means that the main process sends the requests itself, is enough until there is too much to read: many
    users, or many arrivals a second. One core is left to the main process, and of the others some are `taken`: by a
    server on this machine, by other programs. More than one process can read must be shared in any case.

    Raises `BadInput` where workers are requested that cannot share the load.
    """
    load = scenario.load
    arrivals = getattr(scenario.loads[0], "arrivals", None)
    if isinstance(arrivals, Replayed) and arrivals.has_sessions:
        if load.cluster is not None:
            raise BadInput("--cluster: a trace with sessions is replayed by one process", hint="leave --cluster out")
        if (load.workers or 1) > 1:
            raise BadInput("--workers: a trace with sessions is replayed by one process", hint="leave --workers out")
        return 1
    if scenario.target.adapter is not None:
        if (load.workers or 1) > 1:
            raise BadInput("--workers: one process holds the model of --adapter", hint="leave --workers out")
        return 1
    if load.workers is not None:
        if load.workers > _MOST_LOCAL and load.cluster is None:
            raise BadInput(
                f"--workers {load.workers}: one machine has {_MOST_LOCAL} at most", hint="give fewer, or --cluster"
            )
        return load.workers
    needed = workers_needed(scenario)
    least = min(cores, math.ceil(needed / _MOST_TIMES))
    return max(1, least, min(round(cores - 1 - taken), math.ceil(needed)))


# The frames.


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepare:
    """To a worker: prepare this part of this level, and say `Ready`. Targets have no TLS context and no list.

    `clock_ahead_ns` is by how much the worker's clock is ahead of the run's: all times in other frames are the run's.
    """

    scenario: Scenario
    targets: tuple[Target, ...]
    model: str
    mix: tuple[str, ...]
    spec: LevelSpec
    shard: Shard
    clock_ahead_ns: int
    given: StoredPrompts | None
    addresses: Mapping[str, Sequence[str]]
    record: RecordOrder | None = None  # where the worker records its part itself


@dataclass(frozen=True, slots=True)
class Begin:
    """To a worker: the level that it has prepared begins then."""

    at_ns: int


@dataclass(frozen=True, slots=True)
class Stop:
    """To a worker: stop the level (`RunningLevel.stop`), whose window closed then."""

    at_ns: int


@dataclass(frozen=True, slots=True)
class Finish:
    """To a worker: finish the level (`RunningLevel.finish`), whose window closed then."""

    cut: bool
    at_ns: int


@dataclass(frozen=True, slots=True)
class Close:
    """To a worker that records its part itself, once all have drained: this was the window."""

    opens_ns: int
    closes_ns: int


@dataclass(frozen=True, slots=True)
class GiveLease:
    """To such a worker: it may measure so many more (`loadbench.engine.lease`)."""

    more: int


@dataclass(frozen=True, slots=True)
class TakeBack:
    """To such a worker: give back those that have not begun."""


@dataclass(frozen=True, slots=True)
class GiveLines:
    """To such a worker: report the next lines of its request log."""


@dataclass(frozen=True, slots=True)
class Lines:
    """From such a worker: some lines of its request log; none after the last."""

    text: bytes


@dataclass(frozen=True, slots=True)
class MoveWindow:
    """To a worker: the window opens and closes then, where that was still to be known."""

    opens_ns: int
    closes_ns: int | None
    moves: bool


@dataclass(frozen=True, slots=True)
class Ready:
    """From a worker: it has started, or has prepared its part of a level, and waits for what to do next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """From a worker: what happened since its last batch, up to `until_ns`.

    `started` are requests with the moments at which they were sent, so that they are known of if the worker dies.
    `closes_ns` is when its window closed: with a share of the requests, at its first user without work.
    """

    started: list[tuple[int, Request]]
    ended: list[Sample]
    closes_ns: int | None
    until_ns: int
    tokens_in_flight: int
    lag_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """From a worker: its part of the level is over. `began_ns` is when it could send its first request."""

    began_ns: int
    due: int
    missed: int
    health: Health


# The workers.


@dataclass(slots=True)
class WorkerHandle:
    """One worker, as far as the main process knows."""

    link: WorkerLink
    reports: int = 0  # since the level began, and how many requests they say were sent
    reported: int = 0
    listening: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    in_flight: dict[int, Request] = field(default_factory=dict)
    tokens_in_flight: int = 0
    lag_ns: int | None = None
    until_ns: int = 0
    measured: int = 0  # of those that were sent, in this level
    users: int = 0
    # Of a number of requests, if not all take from one count: how many it was given, the last of these leases, and how
    # often it was asked to give some back.
    given: int = 0
    lease: int = 0
    asked: int = 0
    part: WorkerPart = field(default_factory=lambda: WorkerPart(name=""))
    clock: ClockOffset = SAME_CLOCK
    done: Done | None = None
    progress: Progress | None = None  # its last, where it records its part itself, and what it has recorded
    recorded: Recorded | None = None
    lost: bool = False

    def send(self, record: object) -> None:
        """Send a command; one to a dead worker goes nowhere."""
        self.link.send(pack(record))

    async def receive(self) -> object:
        """The next record from it; `None` when it is gone, or what came is none."""
        body = await self.link.receive()
        try:
            return None if body is None else unpack(body)
        except Exception:  # noqa: BLE001 - bytes that are no record raise anything
            return None

    async def is_ready(self, within_s: float) -> bool:
        """Wait for `Ready`; a worker that does not say it in time is lost."""
        ready = None
        with anyio.move_on_after(within_s):
            ready = await self.receive()
        if not isinstance(ready, Ready):
            self.lost = True
            self.link.kill()
        return not self.lost


# The level.


class DistributedLevel:
    """One level, run once, on several workers: `loadbench.engine.observers.RunningLevel`, as `Level` is."""

    def __init__(
        self,
        parts: Sequence[tuple[WorkerHandle, Prepare]],
        *,
        lead_ns: int,
        duration: LevelDuration,
        clock: Clock,
        on_sample: Callable[[Sample], None],
        on_start: Callable[[Request], None],
    ) -> None:
        order = parts[0][1]
        self._parts = parts
        self._workers = [worker for worker, _ in parts]
        self._clock = clock
        self._on_sample = on_sample
        self._on_start = on_start
        self._seed = order.scenario.work.seed if order.spec.seed is None else order.spec.seed
        self.load = self._load = order.spec.load
        self.label, self.duration = self._load.label, duration
        self.done = self.failed = self.gave_up = self.tokens = 0
        self.failures: Counter[Outcome] = Counter()
        self._measured = 0
        self._objectives, self._template_tokens = order.scenario.objectives_at(self._load), order.spec.template_tokens
        self._lead_ns = lead_ns
        self._agree()
        self._interrupted = False
        self._more_looks = 0  # between two reports of a worker
        self._node_lost = anyio.Event()
        self.lost_before: tuple[str, ...] = ()  # workers, by name

    def _agree(self) -> None:
        """The level begins as soon as every worker can know of it."""
        self.begin_ns = self._clock.now_ns() + self._lead_ns
        self.phases = Phases(self.duration, self.begin_ns)
        self._length = LevelLength(self.phases, self.duration, self._load)
        self._recorder = Recorder(self.phases, self._objectives, template_tokens=self._template_tokens)

    async def run(self) -> LevelRecording:
        """Have the level run, and return what was recorded."""
        if self._clock.now_ns() > self.begin_ns - self._lead_ns // 2 and not self._interrupted:
            self._agree()  # since that was said, this process had other things to do

        async def listen() -> None:
            async with anyio.create_task_group() as listeners:
                for worker in self._workers:
                    worker.done, worker.in_flight, worker.until_ns, worker.measured = None, {}, self.begin_ns, 0
                    worker.reports, worker.reported, worker.listening = 0, 0, anyio.CancelScope()
                    worker.lag_ns, worker.progress, worker.recorded = None, None, None
                    worker.part = WorkerPart(name=worker.link.name, clock_error_ns=worker.clock.error_ns)
                    worker.send(Begin(self.begin_ns))
                    listeners.start_soon(self._listen, worker)

        async def decide_length() -> None:
            while self.phases.moves:
                await anyio.sleep(LOOK_NS / NS_PER_S)
                self._hear()
                if self._length.look(self._clock.now_ns()):
                    moved = MoveWindow(self.phases.opens_ns, self.phases.closes_ns, self.phases.moves)
                    for worker in self._workers:
                        worker.send(moved)

        cpu_ns = time.process_time_ns()

        async def end_with_node() -> None:
            """The level is invalid: keep what there is. Long responses would hold that up for half a minute."""
            await self._node_lost.wait()
            self.finish(cut=False)
            await anyio.sleep(_DRAINS_WITHIN_S)
            self.finish(cut=True)

        await run_alongside(listen, decide_length, self._end_silent_workers, end_with_node)
        cpu_ns = time.process_time_ns() - cpu_ns
        if self.phases.closes_ns is None:
            # Every worker was lost before the requests of a level by number were measured.
            self.phases.close(self._clock.now_ns())
        return replace(await self._recording(cpu_ns), lost_before=self.lost_before)

    async def _recording(self, own_cpu_ns: int) -> LevelRecording:
        """What was recorded of the level, which has ended."""
        closes_ns = self.phases.closes_ns or self.phases.opens_ns
        reports = [worker.done for worker in self._workers if worker.done is not None]
        health = _merged([report.health for report in reports], own_cpu_ns=own_cpu_ns)
        lost = [self._lost_arrivals(worker, order.shard, closes_ns) for worker, order in self._parts if not worker.done]
        return self._recorder.close(
            window=(self.phases.opens_ns, closes_ns),
            arrivals_due=sum(report.due for report in reports) + sum(lost_due for lost_due, _ in lost),
            missed=sum(report.missed for report in reports) + sum(missed for _, missed in lost),
            interrupted=self._interrupted,
            # What a lost worker used is not known.
            health=health if len(reports) == len(self._workers) else replace(health, cpu_ns=None),
            workers=[worker.part for worker in self._workers],
            unreported=await self._unreported(),
        )

    def _hear(self) -> None:
        """Know what is known of the level's length."""

    async def _listen(self, worker: WorkerHandle) -> None:
        with worker.listening:
            while worker.done is None:
                if not self._obey(worker, await worker.receive()):
                    break
        if worker.done is None:
            self._lose(worker)

    async def _end_silent_workers(self) -> None:
        """Kill each worker that has reported nothing for too long; what it had reported before is still read.

        Looks are counted, and not time: while this process was stopped, nobody looked.
        """
        silent: dict[int, tuple[int, int]] = {}  # (reports, looks since they came), by the worker's place
        while True:
            await anyio.sleep(LOOK_S)
            most = self._more_looks + (_MOST_WHEN_STOPPED if self._interrupted else _MOST_SILENT_LOOKS)
            for place, worker in enumerate(self._workers):
                reports, looks = silent.get(place, (0, 0))
                if worker.done is not None or worker.reports > reports or self._clock.now_ns() < self.begin_ns:
                    silent[place] = worker.reports, 0
                    continue
                silent[place] = reports, looks + 1
                if looks >= most:
                    worker.link.kill()
                if looks >= most + _DIES_WITHIN_LOOKS:
                    worker.listening.cancel()

    def _obey(self, worker: WorkerHandle, report: object) -> bool:
        """Take a report; false for what is none."""
        match report:
            case Batch() as batch:
                self._take(worker, batch)
            case Done() as done:
                worker.done = done
                worker.part.began_ns, worker.part.health = done.began_ns - self.begin_ns, done.health
                worker.tokens_in_flight = 0
            case _:
                return False
        return True

    def _take(self, worker: WorkerHandle, batch: Batch) -> None:
        worker.reports += 1
        worker.reported += len(batch.started)
        # One that lacks a core for long reports what the others did long after.
        working = (one for one in self._workers if one.done is None and not one.lost)
        self._recorder.reported_until(min(one.until_ns for one in working))
        for at_ns, request in batch.started:
            worker.in_flight[request.number] = request
            worker.measured += request.phase is Phase.MEASURED
            self._measured += request.phase is Phase.MEASURED
            self._recorder.started(at_ns, request)
            self._length.started(request.due_ns)
            self._on_start(request)
        for sample in batch.ended:
            worker.in_flight.pop(sample.number, None)
            worker.part.add(sample)
            self._record(sample)
        worker.until_ns = batch.until_ns
        worker.tokens_in_flight, worker.lag_ns = batch.tokens_in_flight, batch.lag_ns or worker.lag_ns
        if batch.closes_ns is not None and self.duration.requests is not None:
            # The earliest counts: the first user without work, whichever worker has it, or the arrival after the last.
            self._close_window(batch.closes_ns)

    def _close_window(self, at_ns: int) -> None:
        """Of a level by number; its users need not wait for their next turn to see that."""
        was_open = self.phases.closes_ns is None
        self.phases.close(at_ns)
        if was_open and isinstance(self.load, Closed):
            for worker in self._workers:
                worker.send(Finish(cut=False, at_ns=at_ns))

    def _record(self, sample: Sample) -> None:
        self._recorder.add(sample)
        self._length.ended(sample)
        self.done += 1
        if sample.outcome.failed:
            self.failed += 1
            self.failures[sample.outcome] += 1
        self.gave_up += sample.outcome is Outcome.GAVE_UP
        self.tokens += sample.output_tokens or 0
        self._on_sample(sample)

    def _lose(self, worker: WorkerHandle) -> None:
        """The worker is gone, or cannot be understood any more: its requests in flight end now."""
        worker.lost = True
        worker.link.kill()
        worker.tokens_in_flight = 0
        now_ns = self._clock.now_ns()
        for request in worker.in_flight.values():
            self._record(
                Sample(request=request, outcome=Outcome.CANCELLED, detail="the client's process ended", end_ns=now_ns)
            )
        worker.in_flight = {}
        if not worker.link.shares_count:
            self._node_lost.set()

    async def _unreported(self) -> int:
        """Requests that lost workers had sent and not reported, as far as their counts can still be read."""
        counts = [(await one.link.sent(), one.reported) for one in self._workers if one.lost]
        return sum(sent - reported for sent, reported in counts if sent is not None)

    def _lost_arrivals(self, worker: WorkerHandle, shard: Shard, closes_ns: int) -> tuple[int, int]:
        """(due, missed) arrivals of a worker that was lost: missed is what was due after its last batch."""
        load = self._load
        if isinstance(load, Closed):
            return worker.measured, 0
        due = missed = 0
        for number, offset_ns in enumerate(load.offsets_ns(self._seed, lead_ns=self.phases.warm_up_ns)):
            due_ns = self.begin_ns + offset_ns
            if due_ns >= closes_ns:
                break
            if shard.holds(number) and due_ns >= self.phases.opens_ns:
                due += 1
                missed += due_ns > worker.until_ns
        return due, missed

    # `loadbench.engine.observers.RunningLevel`.

    def stop(self) -> None:
        """End the load now and close the window; what is in flight is drained. The second time, cut that too."""
        self._interrupted = True
        self._end(Stop(self._clock.now_ns()))

    def finish(self, *, cut: bool) -> None:
        """End the load and close the window, since enough has been measured. What is in flight is drained, or cut."""
        self._end(Finish(cut, self._clock.now_ns()))

    def _end(self, command: Stop | Finish) -> None:
        self.phases.close(command.at_ns)
        for worker in self._workers:
            worker.send(command)

    @property
    def now_ns(self) -> int:
        """The run's clock."""
        return self._clock.now_ns()

    @property
    def in_flight(self) -> int:
        """Requests sent that have not ended."""
        return self._recorder.in_flight

    @property
    def measured_left(self) -> int | None:
        """Requests still to be measured, in a level by number of requests."""
        return None if self.duration.requests is None else max(0, self.duration.requests - self._measured)

    @property
    def answers_left(self) -> int:
        """Responses that the window waits for beyond its duration, where nobody said how long to measure."""
        return self._length.answers_left

    @property
    def tokens_so_far(self) -> int:
        """Output tokens received; of responses that have not ended, one per event."""
        return self.tokens + sum(worker.tokens_in_flight for worker in self._workers)

    @property
    def lag_ns(self) -> int | None:
        """The 99th percentile of how late the event loops run: that of the worker which is the latest."""
        return max((worker.lag_ns for worker in self._workers if worker.lag_ns is not None), default=None)

    def so_far(self) -> SoFar:
        """What has been measured until now, as far as the workers have reported it."""
        return self._recorder.so_far()

    def expected_closes_ns(self) -> int | None:
        """When the window is likely to close; `None` while nobody can know, and in a level by number of requests."""
        return self._length.expected_closes_ns(self._clock.now_ns())


def _merged(healths: Sequence[Health], *, own_cpu_ns: int = 0) -> Health:
    """The health of all workers: every delay of each, and the CPU share of the busiest. The CPU time is that of all of
    them and of this process, which records."""
    lag, pauses, delays = Histogram(), Histogram(), Histogram()
    for health in healths:
        lag.merge(health.loop_lag)
        pauses.merge(health.gc_pauses)
        delays.merge(health.read_delay)
    shares = [health.cpu_share for health in healths if health.cpu_share is not None]
    used_ns = [health.cpu_ns for health in healths if health.cpu_ns is not None]
    return Health(
        # As good as the worst of them.
        stamp_source=min((health.stamp_source for health in healths), key=_SOURCES.index, default="user"),
        clock_steps=max((health.clock_steps for health in healths), default=0),
        slept_ns=max((health.slept_ns for health in healths), default=0),
        loop_lag=lag,
        gc_pauses=pauses,
        cpu_share=max(shares, default=None),
        cpu_ns=own_cpu_ns + sum(used_ns) if len(used_ns) == len(healths) else None,
        read_delay=delays,
    )
