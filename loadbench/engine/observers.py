"""Who judges a capacity search while it is under way, as the search sees them: the reading arm's side of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadbench.engine.level import Level
    from loadbench.plan.ladder import CurveStep
    from loadbench.plan.load import Closed, Load
    from loadbench.plan.search import Finding, Probe, Search
    from loadbench.record.recorder import LevelRecording
    from loadbench.record.sample import Sample


class ProbeMonitor(Protocol):
    """Who judges one probe while it runs."""

    def started(self, number: int, due_ns: int) -> None:
        """A measured request is on its way."""
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
    """The reading arm's side of a search."""

    def opened(self, *, most_loads: int) -> None:
        """The search begins, or goes on; it visits so many loads at most."""
        ...

    def begins(self, load: Load, *, opens_ns: int) -> ProbeMonitor:
        """A probe is about to begin, whose window opens then."""
        ...

    def ended(
        self, probe: Probe, load: Load, recording: LevelRecording, watching: ProbeMonitor, *, spent_ns: int
    ) -> Finding | None:
        """A probe is complete, and is kept when this returns; `None`: the client was the limit."""
        ...

    def aim(self, search: Search, requests: Callable[[float], float], *, passes: bool) -> int | None:
        """The position at which a proof is worth its time, where that is enough for so many requests at a load."""
        ...

    def best(self, search: Search) -> int | None:
        """The position that is the best answer by all that is known."""
        ...

    def climbed(self, load: Closed, recording: LevelRecording, *, spent_ns: int, took_ns: int) -> CurveStep | None:
        """A rung of the ladder is complete, and took so long; `None`: the client was the limit."""
        ...

    def guess(self) -> float | None:
        """The load at which the border is to be looked for first, by the ladder; `None` where it does not say."""
        ...


class RunObserver(Protocol):
    """Who wants to know how it goes."""

    def level_begins(self, level: Level, model: str, number: int) -> None:
        """A level is about to start."""
        ...

    def sample_ended(self, sample: Sample, number: int) -> None:
        """A request of level `number` has ended."""
        ...
