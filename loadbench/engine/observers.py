"""Who watches a run: what they see of a level while it runs, and what the engine reports to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadbench.engine.target import ModelUnderTest
    from loadbench.plan.curve import CurveStep
    from loadbench.plan.load import Closed, LevelDuration, Load, Phases
    from loadbench.plan.search import Finding, Probe, Standing
    from loadbench.record.outcome import Outcome
    from loadbench.record.recorder import LevelRecording, SoFar
    from loadbench.record.sample import Sample


class RunningLevel(Protocol):
    """A level while it runs, in this process or on workers: what progress line, abort rules and searches see of it."""

    label: str  # the load: `users=8`, `rate=0.5`
    load: Load
    duration: LevelDuration
    begin_ns: int
    phases: Phases  # when its window opens and closes, and when its load ends
    done: int
    failed: int
    gave_up: int

    @property
    def failures(self) -> Mapping[Outcome, int]:
        """The failed requests by kind."""
        ...

    @property
    def now_ns(self) -> int:
        """The run's clock."""
        ...

    @property
    def in_flight(self) -> int:
        """Requests sent that have not ended."""
        ...

    @property
    def measured_left(self) -> int | None:
        """Requests still to be measured, in a level by number of requests."""
        ...

    @property
    def answers_left(self) -> int:
        """Responses that the window waits for beyond its duration, where nobody said how long to measure."""
        ...

    @property
    def tokens_so_far(self) -> int:
        """Output tokens received; of responses that have not ended, one per event."""
        ...

    @property
    def lag_ns(self) -> int | None:
        """The 99th percentile of how late the event loop runs that reads the responses: of several, the latest one."""
        ...

    def so_far(self) -> SoFar:
        """What has been measured until now. It takes as long for any number of requests."""
        ...

    def expected_closes_ns(self) -> int | None:
        """When the window is likely to close; `None` while nobody can know, and in a level by number of requests."""
        ...

    def stop(self) -> None:
        """End the load now and close the window; what is in flight is drained. The second time, cut that too."""
        ...

    def finish(self, *, cut: bool) -> None:
        """End the load and close the window, since enough has been measured. What is in flight is drained, or cut."""
        ...


class RunObserver(Protocol):
    """Follows a run. No call may take long: the load is running, or is about to."""

    def model_prepared(self, subject: ModelUnderTest) -> None:
        """A model has responded; its levels follow."""
        ...

    def level_planned(self, load: Load, model: str, number: int) -> None:
        """A level will be run next; its time has not begun."""
        ...

    def level_begins(self, level: RunningLevel, model: str, number: int) -> None:
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


class ProbeMonitor(Protocol):
    """Assesses one probe of a capacity search while it runs."""

    def started(self, number: int, due_ns: int, *, measured: bool = True) -> None:
        """A request has been sent."""
        ...

    def add(self, sample: Sample) -> None:
        """A request has ended."""
        ...

    @property
    def ended(self) -> int:
        """Measured requests that have ended."""
        ...

    def finding(self, now_ns: int) -> Finding:
        """What is known by now."""
        ...


class ProbeJudge(Protocol):
    """The reading arm's side of a capacity search: assesses each probe, and says where to test."""

    async def misses_alone(self, subject: ModelUnderTest) -> bool:
        """Whether even one request with no other load misses an objective, so that no load meets it."""
        ...

    def monitor(self, probe: Probe, load: Load, *, opens_ns: int) -> ProbeMonitor:
        """The monitor of a probe that is about to begin, whose window opens then."""
        ...

    def probe_ended(
        self, probe: Probe, load: Load, recording: LevelRecording, monitor: ProbeMonitor, *, spent_ns: int
    ) -> Finding | None:
        """Assess a complete probe; `None`: the load generator was the bottleneck."""
        ...

    def step_ended(self, load: Closed, recording: LevelRecording, *, spent_ns: int, took_ns: int) -> CurveStep | None:
        """Assess a complete step of the throughput curve, which took that long; `None` ends the curve."""
        ...

    def predicted_users(self) -> float | None:
        """The load at which to start bracketing, by the throughput curve; `None` where it says nothing."""
        ...

    def next_load(self, standing: Standing) -> int:
        """The position whose requests tell most about the capacity."""
        ...
