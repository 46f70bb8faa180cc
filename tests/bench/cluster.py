"""How a cluster fares on this machine: `python -m tests.bench.cluster`, with loadbench[ray].

It starts local nodes of Ray, and prints how far apart the workers begin a level, how far off round trips find a clock
that is the same, and how many requests a second the main process records that workers only report.
"""

from __future__ import annotations

import os
import pickle
import statistics
import time
from array import array
from pathlib import Path
from tempfile import TemporaryDirectory

from loadbench.cluster.connection import cluster_workers
from loadbench.core import event_loop
from loadbench.core.clock import MonotonicClock
from loadbench.engine.level import LevelSpec
from loadbench.engine.worker_link import SAME_CLOCK, pack, unpack
from loadbench.engine.worker_pool import WorkerPool
from loadbench.engine.workers import Batch, Begin, Done, Prepare, Ready
from loadbench.plan.cluster import Cluster
from loadbench.plan.load import Closed, LevelDuration, Phase
from loadbench.record.outcome import Outcome, TokenSource
from loadbench.record.request import Request
from loadbench.record.sample import Sample
from tests.bench.running import say
from tests.cluster.parts import NUMBERED, PLAN, TARGET
from tests.engine.no_health import NoHealth

S, MS = 1_000_000_000, 1_000_000
STARTS, NODES = 20, 2
# Of everyday responses: so many tokens, and so many requests in each of a worker's reports.
TOKENS, OF_A_REPORT = 128, 10


async def starts() -> None:
    """Short levels, one after another, on nodes of this machine."""
    began_s = time.monotonic()
    with TemporaryDirectory() as name:
        async with cluster_workers(Cluster(local_nodes=NODES), None, most=9, sides=1, insecure=False) as found:
            pool = await WorkerPool.over(found.links, lambda: (TARGET,), Path(name))
            say(f"{NODES} local nodes with a worker on each: ready in {time.monotonic() - began_s:.1f} s")
            skews_ms, errors_ms, offsets_ms = [], [], []
            for number in range(STARTS):
                duration = LevelDuration(duration_ns=S // 2, warm_up_ns=S // 10)
                spec = LevelSpec(load=Closed(4), key=str(number), duration=duration)
                level = await pool.level(PLAN, spec, model="m", clock=MonotonicClock())
                recording = await level.run()
                skews_ms.append((recording.start_skew_ns or 0) / MS)
                errors_ms += [link.offset.error_ns / MS for link in found.links]
                offsets_ms += [abs(link.offset.ahead_ns) / MS for link in found.links]
    ranked = sorted(skews_ms)
    within = sum(skew <= 5 for skew in skews_ms)
    say(f"start skew of {STARTS} levels: median {statistics.median(ranked):.2f} ms, 19th {ranked[18]:.2f} ms, "
          f"largest {ranked[-1]:.2f} ms; {within} of {STARTS} within 5 ms")  # fmt: skip
    say(f"a clock that is the same is found {max(offsets_ms):.3f} ms ahead at most, "
          f"to {statistics.median(errors_ms):.2f} ms (median), {max(errors_ms):.2f} ms (largest)")  # fmt: skip


class Reporting:
    """A worker that sends nothing, and reports as fast as it is read."""

    name, shares_count = "reporting", True

    def __init__(self, reports: int) -> None:
        self._left, self._number, self._frames = reports, 0, [pack(Ready())]

    def begin(self, left: int) -> None:
        """Nothing to do."""

    def send(self, frame: bytes) -> None:
        """Obey."""
        match unpack(frame[4:]):
            case Prepare(shard=shard):
                self._number, self._step = shard.index, shard.of
                self._frames.append(pack(Ready()))
            case Begin(at_ns):
                self._begin_ns = at_ns

    async def receive(self) -> bytes | None:
        """The next report: its bytes are made as a worker makes them, in advance of what is timed by little."""
        if self._frames:
            return self._frames.pop(0)[4:]
        if not self._left:
            done = Done(began_ns=self._begin_ns, due=0, missed=0, health=NoHealth().close())
            return pickle.dumps(done, protocol=pickle.HIGHEST_PROTOCOL)
        self._left -= 1
        requests = []
        for _ in range(OF_A_REPORT):
            due_ns = self._begin_ns + self._number * 1_000
            requests.append(Request(number=self._number, phase=Phase.MEASURED, due_ns=due_ns, max_tokens=TOKENS))
            self._number += self._step
        return pickle.dumps(
            Batch(
                started=[(one.due_ns, one) for one in requests],
                ended=[sample_of(one) for one in requests],
                closes_ns=None,
                until_ns=requests[-1].due_ns + S,
                tokens_in_flight=0,
            ),
            protocol=pickle.HIGHEST_PROTOCOL,
        )

    async def sent(self) -> int | None:
        """Nobody knows."""
        return None

    async def clock_offset(self):
        """The same clock."""
        return SAME_CLOCK

    async def give(self, path: Path) -> None:
        """Nothing to do."""

    def kill(self) -> None:
        """Nothing to do."""


def sample_of(request: Request) -> Sample:
    """An everyday response."""
    events = array("q", range(request.due_ns + 100 * MS, request.due_ns + 100 * MS + TOKENS * 20 * MS, 20 * MS))
    return Sample(
        request=request,
        outcome=Outcome.OK,
        sent_ns=request.due_ns,
        first_byte_ns=events[0],
        first_token_ns=events[0],
        first_visible_ns=events[0],
        last_token_ns=events[-1],
        end_ns=events[-1],
        event_ns=events,
        event_tokens=array("q", [1] * TOKENS),
        output_tokens=TOKENS,
        token_source=TokenSource.USAGE,
        input_tokens=100,
    )


async def coordinator(workers: int, reports: int) -> None:
    """Have the main process record what so many workers report, and nothing else."""
    links = [Reporting(reports) for _ in range(workers)]
    with TemporaryDirectory() as name:
        pool = await WorkerPool.over(links, lambda: (TARGET,), Path(name))
        spec = LevelSpec(load=Closed(workers), key="k", duration=LevelDuration(duration_ns=100 * S))
        level = await pool.level(PLAN, spec, model="m", clock=MonotonicClock())
        cpu_s = time.process_time()
        await level.run()
        cpu_s = time.process_time() - cpu_s
    made_s = time.process_time()
    for link in links[: max(1, workers // 10)]:
        link._left, link._begin_ns = reports, 0
        for _ in range(reports):
            await link.receive()
    made_s = (time.process_time() - made_s) * workers / max(1, workers // 10)
    count = workers * reports * OF_A_REPORT
    say(f"{workers:5,} workers: {count / (cpu_s - made_s):8,.0f} requests/s of {TOKENS} tokens on one core "
          f"({(cpu_s - made_s) / count * 1e6:.0f} µs each), {level.done:,} of {count:,} recorded")  # fmt: skip


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = str(NUMBERED)
    for workers, reports in ((1, 1000), (10, 100), (100, 10), (1000, 1)):
        event_loop.run(coordinator, workers, reports)
    event_loop.run(starts)
