"""A level on the workers of a cluster, each of which records its part: what they recorded is put together at the end.

While it runs, a worker says how far it is (`loadbench.engine.part_recorder`): counts, and what the progress line, the
abort rules and the length of the level need. All workers together say so some two hundred times a second at most,
however many they are and whatever they send. Once every worker has drained, all are told which window it was, and send
their recorders. Counts, histograms and timelines are added up: no percentile is made of percentiles.

What a lost worker recorded is lost with it. Its requests are known by their number, from its last report.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from loadbench.engine.lease import few, next_lease
from loadbench.engine.part_recorder import Progress, Recorded
from loadbench.engine.workers import LOOK_S, Close, DistributedLevel, Done, GiveLease, GiveLines, Lines, TakeBack
from loadbench.plan.load import Closed
from loadbench.record.histogram import Histogram
from loadbench.record.recorder import SO_FAR, Recorder, SoFar

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadbench.engine.level_length import LengthPart
    from loadbench.engine.workers import WorkerHandle
    from loadbench.record.recorder import LevelRecording

# From the moment when every worker has drained to its recorder, and from one part of its log to the next.
_SENDS_WITHIN_S = 30.0
# So many reports a second are read in a few hundredths of it; a worker alone reports as often as anybody looks.
_MOST_REPORTS_PER_S, LEAST_EVERY_S = 200, 0.25


def report_every_s(workers: int) -> float:
    """How often each of so many workers says how far it is."""
    return max(LEAST_EVERY_S, workers / _MOST_REPORTS_PER_S)


class MergedLevel(DistributedLevel):
    """One level, run once; as `DistributedLevel`."""

    def __init__(
        self,
        *args: object,
        on_progress: Callable[[Progress], None] = lambda _: None,
        take_lines: Callable[[bytes], None] | None = None,
        **kwargs: object,
    ) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._on_progress = on_progress
        self._take_lines = take_lines
        self._so_far = {name: Histogram() for name in SO_FAR}
        self._told_window = False
        # Requests of a closed loop by number that no worker has been given yet, where they have no count together.
        self._left: int | None = None
        if self.duration.requests is not None and isinstance(self.load, Closed) and self._workers[0].given:
            self._left = self.duration.requests - sum(worker.given for worker in self._workers)
        self._more_looks = 2 * math.ceil(report_every_s(len(self._workers)) / LOOK_S)

    def _obey(self, worker: WorkerHandle, report: object) -> bool:
        match report:
            case Progress():
                self._follow(worker, report)
            case Recorded():
                worker.recorded = report
                worker.done = Done(
                    began_ns=(report.part.began_ns or 0) + self.begin_ns,
                    due=report.due,
                    missed=report.missed,
                    health=report.health,
                )
                report.part.clock_error_ns, report.part.health = worker.part.clock_error_ns, report.health
                worker.part, worker.tokens_in_flight = report.part, 0
            case _:
                return False
        return True

    def _follow(self, worker: WorkerHandle, now: Progress) -> None:
        """A worker says how far it is."""
        before, worker.progress = worker.progress, now
        worker.reports += 1
        worker.until_ns, worker.measured = now.until_ns, now.due
        worker.tokens_in_flight, worker.lag_ns = now.tokens_in_flight, now.lag_ns or worker.lag_ns
        for name in ("done", "failed", "gave_up", "tokens"):
            since = 0 if before is None else getattr(before, name)
            setattr(self, name, getattr(self, name) + getattr(now, name) - since)
        self.failures += now.failures - (Counter() if before is None else before.failures)
        self._measured += now.due - (0 if before is None else before.due)
        for histogram, fresh in zip(self._so_far.values(), now.fresh, strict=True):
            histogram.merge(fresh)
        for _, request in now.started:
            self._on_start(request)
        for sample in now.ended:
            self._on_sample(sample)
        self._on_progress(now)
        if self._left is not None:
            self._share_requests(worker, before, now)
        elif now.closes_ns is not None and self.duration.requests is not None:
            # The earliest counts: the first user without work, whichever worker has it, or the arrival after the last.
            self._close_window(now.closes_ns)
        if now.drained:
            self._close_if_drained()

    def _share_requests(self, worker: WorkerHandle, before: Progress | None, now: Progress) -> None:
        """Give workers more of the requests that nobody has, where they need them. If there are none, and a user waits,
        have the others give some back. Once all have been taken, the window closes at the first user without work: who
        has been waiting is without from the last request on."""
        assert isinstance(self.load, Closed)  # noqa: S101 - arrivals are not shared by number
        if self._left is None or self.phases.closes_ns is not None:
            return
        came_back = now.returned - (0 if before is None else before.returned)
        self._left += came_back
        told = [(one, one.progress) for one in self._workers if one.progress is not None]

        def held(one: WorkerHandle, progress: Progress) -> int:
            return one.given - progress.returned - progress.taken

        takes = before is None or now.taken > before.taken
        for one, progress in told if came_back else [(worker, now)]:
            has = held(one, progress)
            # What came back is for users who wait; ahead of need only a worker gets some whose users take them.
            if self._left and (has < progress.waiting or (has <= few(one.lease) and takes and not came_back)):
                one.lease = next_lease(self._left, one.users, self.load.users, progress.waiting)
                one.given, self._left = one.given + one.lease, self._left - one.lease
                one.send(GiveLease(one.lease))
        if self._left or not any(progress.waiting for _, progress in told):
            return
        if sum(progress.taken for _, progress in told) == self.duration.requests:
            wants = [progress.wants_ns for _, progress in told if progress.wants_ns is not None]
            self._close_window(max(min(wants), max(progress.last_due_ns for _, progress in told) + 1))
        elif any(held(one, progress) < progress.waiting for one, progress in told):
            for one, progress in told:
                if held(one, progress) > progress.waiting and one.asked == progress.obeyed:
                    one.asked += 1
                    one.send(TakeBack())

    def _close_if_drained(self) -> None:
        """Once nothing is in flight anywhere, say which window it was."""
        working = [one for one in self._workers if not one.lost]
        if self._told_window or not all(one.progress is not None and one.progress.drained for one in working):
            return
        self._told_window = True
        if self.phases.closes_ns is None:
            self.phases.close(self._clock.now_ns())
        closes_ns = self.phases.closes_ns or self.phases.opens_ns
        for worker in working:
            worker.send(Close(self.phases.opens_ns, closes_ns))

    def _lose(self, worker: WorkerHandle) -> None:
        worker.in_flight = {}  # single requests are not known
        super()._lose(worker)
        self._close_if_drained()

    async def _unreported(self) -> int:
        """Requests that lost workers had sent, as far as that is known: none of them is in a figure."""
        lost = [worker for worker in self._workers if worker.lost]
        told = [0 if one.progress is None else one.progress.sent for one in lost]
        # All at once: of a machine that is gone, each takes as long as one waits.
        counted = await asyncio.gather(*(one.link.sent() for one in lost))
        return sum(max(before, sent or 0) for before, sent in zip(told, counted, strict=True))

    async def _recording(self, own_cpu_ns: int) -> LevelRecording:
        parts = [worker.recorded.recorder for worker in self._workers if worker.recorded is not None]
        if len(self._workers) == len(parts) == 1:
            (self._recorder,) = parts
        else:
            self._recorder = Recorder(
                self.phases, self._objectives, template_tokens=self._template_tokens, parts=max(2, len(self._workers))
            )
            for part in parts:
                self._recorder.absorb(part)
        for worker in self._workers:
            worker.recorded = None
        recording = await super()._recording(own_cpu_ns)
        if self._take_lines is None:
            return recording
        without = {worker.link.name: await self._gather(worker, self._take_lines) for worker in self._workers}
        return replace(recording, not_logged={name: lines for name, lines in without.items() if lines})

    async def _gather(self, worker: WorkerHandle, take: Callable[[bytes], None]) -> int:
        """Get the lines of a worker's requests, one part after another; how many did not come."""
        left = 0 if worker.progress is None or worker.lost else worker.progress.done
        while not worker.lost:
            report = None
            worker.send(GiveLines())
            with anyio.move_on_after(_SENDS_WITHIN_S):
                report = await worker.receive()
            if not isinstance(report, Lines):
                worker.lost = True
                worker.link.kill()
            elif not report.text:
                break
            else:
                await anyio.to_thread.run_sync(take, report.text)
                left -= report.text.count(b"\n")
        return left

    def _hear(self) -> None:
        parts: list[LengthPart] = [one.progress.length for one in self._workers if one.progress is not None]
        self._length.take(parts)

    @property
    def in_flight(self) -> int:
        """Requests sent that have not ended."""
        return sum(one.progress.in_flight for one in self._workers if one.progress is not None and not one.lost)

    def so_far(self) -> SoFar:
        """What has been measured until now, as far as the workers have reported it."""
        known = [one.progress for one in self._workers if one.progress is not None]
        censored, events = sum(one.censored for one in known), sum(one.events for one in known)
        return SoFar.of(self._so_far, censored=censored, events=events)
