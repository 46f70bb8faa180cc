"""A worker's part of a level, recorded where it is measured: what a cluster's workers report is bounded.

Such a worker does with each request what a main process alone would: it folds it into histograms, counts and timelines
of its own (`loadbench.record.recorder`), and writes its line into a log on its node. While the level runs, the main
process gets a `Progress` now and then, whose size does not grow with the load; at the end it gets the recorder, and
joins those of all workers. Only where single requests decide what is done next, as in a capacity search, are they
reported too, without their events unless those decide.

Everything that is recorded and reported is in the run's clock.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from loadbench.engine.abort import AbortWatch
from loadbench.engine.worker_link import SENT
from loadbench.plan.load import Phase, Phases
from loadbench.record.figures import FIGURES
from loadbench.record.histogram import Histogram
from loadbench.record.outcome import Outcome
from loadbench.record.recorder import SO_FAR, Recorder, WorkerPart

if TYPE_CHECKING:
    import mmap
    from collections import Counter

    from loadbench.engine.abort import AbortPart
    from loadbench.engine.level import Level, LevelSpec
    from loadbench.engine.level_length import LengthPart
    from loadbench.plan.scenario import Scenario
    from loadbench.record.recorder import Health
    from loadbench.record.request import Request
    from loadbench.record.sample import Sample
    from loadbench.results.requests import RequestLog


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOrder:
    """How lines of the request log are written: the level's number, its model and server, and the run's start in the
    run's clock. The log is `gathered` by the main process after each level; else it stays where it is."""

    number: int
    model: str
    url: str
    origin_ns: int
    keep_texts: bool
    gathered: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordOrder:
    """To a worker that records its part itself: it is called `name`, one of `parts`, and says every `every_s` how far
    it is. With `samples` it reports each request too, as `whole` as it is or without its events. Of a closed loop that
    is measured by number it has a first `lease` (`loadbench.engine.lease`), unless all take from one count."""

    name: str
    parts: int
    every_s: float
    samples: bool = False
    whole: bool = False
    log: LogOrder | None = None
    lease: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """From a worker that records its part itself: how far it was at `until_ns`. Counts are since the level's beginning;
    `fresh` histograms, `abort`, `started` and `ended` are since its last report."""

    until_ns: int
    sent: int
    in_flight: int
    done: int
    failed: int
    gave_up: int
    tokens: int
    tokens_in_flight: int
    failures: Counter[Outcome]
    due: int  # measured requests that became due
    events: int
    censored: int
    latest_end_ns: int
    closes_ns: int | None
    lag_ns: int | None
    length: LengthPart
    fresh: tuple[Histogram, ...]  # by name in `SO_FAR`
    abort: AbortPart | None
    started: list[tuple[int, Request]]
    ended: list[Sample]
    drained: bool = False  # nothing is in flight, and nothing will be
    taken: int = 0  # of its lease: `loadbench.engine.lease.Lease`
    returned: int = 0
    obeyed: int = 0
    last_due_ns: int = 0
    waiting: int = 0
    wants_ns: int | None = None  # since when the first of these waits


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """From such a worker, at the end of a level: what it recorded, and how it fared."""

    recorder: Recorder
    part: WorkerPart
    due: int
    missed: int
    health: Health


@dataclass(slots=True)
class PartRecorder:
    """Stands where a recorder does in a worker; its machine's clock is ahead of the run's by so much."""

    order: RecordOrder
    scenario: Scenario
    spec: LevelSpec
    counter: mmap.mmap
    begin_ns: int  # in the run's clock
    ahead_ns: int
    keep_texts: bool
    log: RequestLog | None
    in_flight: int = 0
    phases: Phases = field(init=False)
    recorder: Recorder = field(init=False)
    part: WorkerPart = field(init=False)
    _watch: AbortWatch = field(init=False)
    _level: Level = field(init=False)
    _sent: int = 0
    _latest_end_ns: int = 0
    _fresh: tuple[Histogram, ...] = field(default_factory=lambda: tuple(Histogram() for _ in SO_FAR))
    _started: list[tuple[int, Request]] = field(default_factory=list)
    _ended: list[Sample] = field(default_factory=list)

    def __post_init__(self) -> None:
        spec, scenario = self.spec, self.scenario
        self.phases = Phases(spec.duration or scenario.extent, self.begin_ns)
        objectives = scenario.objectives_at(spec.load)
        self.recorder = Recorder(self.phases, objectives, template_tokens=spec.template_tokens, parts=self.order.parts)
        self.part = WorkerPart(name=self.order.name)
        self._watch = AbortWatch.of(scenario, spec.load)

    def follow(self, level: Level) -> None:
        """Record this level, whose clock is that of this machine."""
        self._level = level

    def _move_bounds(self) -> None:
        """The window's bounds are those of the level."""
        theirs = self._level.phases
        self.phases.opens_ns, self.phases.moves = theirs.opens_ns - self.ahead_ns, theirs.moves
        self.phases.closes_ns = None if theirs.closes_ns is None else theirs.closes_ns - self.ahead_ns

    def started(self, at_ns: int, request: Request) -> None:
        """A request is in flight from now on."""
        self.in_flight += 1
        self._sent += 1
        SENT.pack_into(self.counter, 0, self._sent)
        self._move_bounds()
        self.recorder.started(at_ns - self.ahead_ns)
        if self.order.samples:
            moved = request.earlier_by(self.ahead_ns) if self.ahead_ns else request
            self._started.append((at_ns - self.ahead_ns, moved))

    def add(self, sample: Sample) -> None:
        """A request has ended."""
        self.in_flight -= 1
        self._move_bounds()
        if self.ahead_ns:
            sample = sample.earlier_by(self.ahead_ns)
        if sample.text is not None and not self.keep_texts:
            sample = replace(sample, text=None)
        self._latest_end_ns = max(self._latest_end_ns, sample.end_ns)
        self.recorder.add(sample)
        self.part.add(sample)
        self._watch.add(sample)
        if sample.phase is Phase.MEASURED and sample.outcome is Outcome.OK:
            for name, histogram in zip(SO_FAR, self._fresh, strict=True):
                value_ns = FIGURES[name](sample)
                if value_ns is not None:
                    histogram.record(round(value_ns))
        log = self.order.log
        if self.log is not None and log is not None:
            self.log.add_sample(sample, level=log.number, model=log.model, url=log.url)
        if self.order.samples:
            if not self.order.whole:
                first = None if sample.event_tokens is None else sample.event_tokens[:1]
                sample = replace(sample, event_ns=array("q"), event_tokens=first)
            self._ended.append(sample)

    def progress(self, *, until_ns: int, drained: bool, lag_ns: int | None) -> Progress:
        """How far it is."""
        level, lease, ahead_ns = self._level, self._level.lease, self.ahead_ns
        closes_ns = level.phases.closes_ns
        told = Progress(
            until_ns=until_ns - ahead_ns,
            sent=self._sent,
            in_flight=self.in_flight,
            done=level.done,
            failed=level.failed,
            gave_up=level.gave_up,
            tokens=level.tokens,
            tokens_in_flight=level.tokens_in_flight,
            failures=level.failures.copy(),
            due=level.due,
            events=self.part.events,
            censored=self.part.censored_events,
            latest_end_ns=self._latest_end_ns,
            closes_ns=None if closes_ns is None else closes_ns - ahead_ns,
            lag_ns=lag_ns,
            length=level.length.part(ahead_ns),
            fresh=self._fresh,
            abort=self._watch.take() if self._watch.rules else None,
            started=self._started,
            ended=self._ended,
            drained=drained,
        )
        if lease is not None:
            told = replace(
                told,
                taken=lease.taken,
                returned=lease.returned,
                obeyed=lease.obeyed,
                last_due_ns=lease.last_due_ns - ahead_ns,
                waiting=len(lease.waiting),
                wants_ns=min(lease.waiting) - ahead_ns if lease.waiting else None,
            )
        self._fresh = tuple(Histogram() for _ in SO_FAR)
        self._started, self._ended = [], []
        return told

    def close(self, opens_ns: int, closes_ns: int, *, began_ns: int, health: Health) -> Recorded:
        """What was recorded, of a level whose window was this one; `began_ns` is this machine's."""
        self.phases.opens_ns, self.phases.closes_ns, self.phases.moves = opens_ns, closes_ns, False
        self.recorder.finish()
        self.part.began_ns = began_ns - self.ahead_ns - self.begin_ns
        self.part.waited_ns = 0 if self._level.lease is None else self._level.lease.waited_ns
        if self.log is not None:
            self.log.flush()
            if self.order.log is not None and not self.order.log.gathered:
                self.part.log = str(self.log.path)
        return Recorded(
            recorder=self.recorder, part=self.part, due=self._level.due, missed=self._level.missed, health=health
        )
