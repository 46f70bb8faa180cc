"""How a cluster fares here, with loadbench[ray]: `python -m tests.bench.cluster [reports] [starts] [levels] [loss]
[results]`.

What the main process has to do for workers that only say how far they are; how far apart the workers on local nodes of
Ray begin a level, and how far off round trips find a clock that is the same; what different numbers of workers measure
of one level; how soon the level of a node that was killed is kept; how long the results of a thousand workers take,
from Ray's object store to one recording.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from array import array
from collections import Counter
from importlib import import_module
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import anyio.to_thread
import numpy as np
import psutil

from loadbench.cluster.connection import cluster_workers
from loadbench.cluster.local_nodes import local_nodes
from loadbench.core import event_loop
from loadbench.core.clock import MonotonicClock
from loadbench.engine.level import LevelSpec
from loadbench.engine.level_length import LengthPart
from loadbench.engine.merged_level import report_every_s
from loadbench.engine.part_recorder import Progress, Recorded
from loadbench.engine.worker_link import SAME_CLOCK, pack, unpack
from loadbench.engine.worker_pool import Records, WorkerPool
from loadbench.engine.workers import Begin, Close, Prepare, Ready
from loadbench.plan.cluster import Cluster
from loadbench.plan.load import Closed, LevelDuration, Phase, Phases
from loadbench.plan.objective import parse_objective
from loadbench.record.histogram import Histogram
from loadbench.record.outcome import Outcome, TokenSource
from loadbench.record.recorder import SO_FAR, Recorder, WorkerPart
from loadbench.record.request import Request
from loadbench.record.sample import Sample
from loadbench.report.values import counted
from tests.bench.running import say
from tests.cli.running import loadbench
from tests.cluster.parts import NUMBERED, PLAN, TARGET
from tests.engine.no_health import NoHealth

S, MS = 1_000_000_000, 1_000_000
STARTS, NODES = 20, 2
LEVELS = (1, 2, 4)
LEVEL = ("sweep", "--users", "12", "--duration", "30s", "--warm-up", "3s", "--seed", "7", "--json", "--quiet")
# Everyday responses; so many requests of each worker in a minute.
TOKENS, OF_A_WORKER = 128, 600
RESULTS, ACTORS, AT_ONCE, TURNS = 1_000, 4, 100, 3
OBJECTIVES = [parse_objective(rule) for rule in ("ttft_p95<1s", "tpot_p95<80ms", "failures<1%")]


async def starts() -> None:
    """Short levels, one after another, on nodes of this machine."""
    began_s = time.monotonic()
    with TemporaryDirectory() as name:
        async with cluster_workers(Cluster(local_nodes=NODES), None, most=9, sides=1, insecure=False) as found:
            pool = await WorkerPool.over(found.links, lambda: (TARGET,), Path(name), records=Records())
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


def levels() -> None:
    """One level against the simulated server, by different numbers of workers."""
    for workers in LEVELS:
        with TemporaryDirectory() as name:
            run = loadbench(*LEVEL, "--cluster", f"local:{max(LEVELS)}", "--workers", str(workers), cwd=Path(name))
        (level,) = json.loads(run.stdout)["levels"]
        shown = []
        for metric in ("e2e_s", "ttft_s"):
            p50, (low, high) = level["metrics"][metric]["p50"], level["metrics"][metric]["interval"]["p50"]
            shown.append(f"{metric[:-2].upper()} p50 {1000 * p50:.0f} ms ({1000 * low:.0f} to {1000 * high:.0f})")
        rate, (low, high) = (
            level["throughput"]["output_tokens_per_s"],
            level["throughput"]["interval"]["output_tokens_per_s"],
        )
        shown += [f"{rate:.0f} tok/s ({low:.0f} to {high:.0f})", level["verdict"]["status"]]
        say(f"{counted(workers, 'worker')}: {', '.join(shown)}")


async def loss() -> None:
    """Kill a node in the middle of a level, and take the time until what was measured is there."""
    with TemporaryDirectory() as name:
        async with cluster_workers(Cluster(local_nodes=NODES), None, most=9, sides=1, insecure=False) as found:
            pool = await WorkerPool.over(found.links, lambda: (TARGET,), Path(name), records=Records())
            spec = LevelSpec(load=Closed(8), key="k", duration=LevelDuration(duration_ns=600 * S, warm_up_ns=S // 2))
            level = await pool.level(PLAN, spec, model="m", clock=MonotonicClock())
            killed_s: list[float] = []

            async def kill() -> None:
                await anyio.sleep(3)
                own = import_module("ray").get_runtime_context().get_node_id()
                (lost,) = (link.node.node for link in found.links if link.node.node != own)
                raylets = [one for one in psutil.Process().children(recursive=True) if one.name() == "raylet"]
                killed_s.append(time.monotonic())
                next(one for one in raylets if lost in " ".join(one.cmdline())).kill()

            async with anyio.create_task_group() as group:
                group.start_soon(kill)
                recording = await level.run()
            took_s = time.monotonic() - killed_s[0]
            kept = sum(recording.outcomes.values())
            say(f"a node was killed: {took_s:.1f} s later its level is there, with {kept} requests")


def recorder_of(seed: int) -> Recorder:
    """What one of very many workers records in a minute: a few everyday requests a second, and all that is kept."""
    rng = np.random.default_rng(seed)
    recorder = Recorder(minute(), OBJECTIVES, parts=RESULTS)
    moves: list[tuple[int, int, Sample | None]] = []
    for number, due_ns in enumerate(rng.integers(0, 62 * S, OF_A_WORKER).tolist()):
        first_ns = due_ns + int(rng.lognormal(0, 0.5) * 200 * MS)
        gaps = (rng.lognormal(0, 0.3, TOKENS - 1) * 20 * MS).astype(np.int64)
        events = array("q", [first_ns, *(first_ns + np.cumsum(gaps)).tolist()])
        phase = Phase.WARM_UP if due_ns < 2 * S else Phase.MEASURED
        sample = Sample(
            request=Request(number=number, phase=phase, due_ns=due_ns, max_tokens=TOKENS),
            outcome=Outcome.OK,
            sent_ns=due_ns + 50_000,
            first_byte_ns=first_ns,
            first_token_ns=first_ns,
            first_visible_ns=first_ns,
            last_token_ns=events[-1],
            end_ns=events[-1] + 1_000,
            event_ns=events,
            event_tokens=array("q", [1] * TOKENS),
            output_tokens=TOKENS,
            token_source=TokenSource.USAGE,
            input_tokens=100,
        )
        moves += [(due_ns, number, None), (sample.end_ns, -1 - number, sample)]
    for at_ns, _, ended in sorted(moves, key=itemgetter(0, 1)):
        if ended is None:
            recorder.started(at_ns)
        else:
            recorder.add(ended)
    recorder.finish()
    return recorder


def minute() -> Phases:
    """A level of a minute."""
    return Phases(LevelDuration(duration_ns=60 * S, warm_up_ns=2 * S), 0)


class Putting:
    """An actor that puts results of workers into the object store of its node."""

    def put(self, count: int, seed: int) -> list[object]:
        """So many, of which some are alike."""
        import ray  # noqa: PLC0415 - in an actor it is there

        frames = [pack(recorder_of(seed + number)) for number in range(4)]
        return [ray.put(frames[number % 4]) for number in range(count)]


async def results() -> None:
    """Have a few actors put the results of very many workers into the object store, fetch them all, and join them."""
    async with local_nodes(NODES, store_bytes=400_000_000) as address:
        import ray  # noqa: PLC0415 - it reads its environment now

        os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
        await anyio.to_thread.run_sync(lambda: ray.init(address=address, log_to_driver=False, logging_level="error"))
        try:
            actors = [ray.remote(num_cpus=0.5)(Putting).remote() for _ in range(ACTORS)]
            puts = [actor.put.remote(RESULTS // ACTORS, 10 * place) for place, actor in enumerate(actors)]
            references = [one for put in puts for one in await anyio.to_thread.run_sync(ray.get, put)]
            for turn in range(TURNS):
                began_s, cpu_s, size = time.perf_counter(), time.process_time(), 0
                whole = Recorder(minute(), OBJECTIVES, parts=RESULTS)
                for start in range(0, len(references), AT_ONCE):
                    for frame in ray.get(references[start : start + AT_ONCE]):
                        size += len(frame)
                        whole.absorb(unpack(frame[4:]))  # type: ignore[arg-type]
                recording = whole.close(
                    window=(2 * S, 62 * S), arrivals_due=0, missed=0, interrupted=False, health=NoHealth().close()
                )
                took_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
                say(f"{turn + 1}. {len(references):,} results of {size / len(references) / 1000:,.0f} kB, put into the "
                    f"object store by {ACTORS} actors, fetched and joined in {took_s:.2f} s ({cpu_s:.2f} s of CPU): "
                    f"{sum(recording.outcomes.values()):,} requests")  # fmt: skip
        finally:
            await anyio.to_thread.run_sync(ray.shutdown)


class Telling:
    """A worker that sends nothing, and says how far it is as fast as it is read."""

    name, shares_count = "telling", True

    def __init__(self, reports: int) -> None:
        self._left, self._frames, self._closed = reports, [pack(Ready())], False
        rng = np.random.default_rng(1)
        fresh = tuple(Histogram() for _ in SO_FAR)
        for histogram in fresh:
            histogram.record_many((rng.lognormal(0, 0.5, 25) * 100 * MS).astype(np.int64))
        self._fresh = fresh

    def begin(self, left: int) -> None:
        """Nothing to do."""

    def send(self, frame: bytes) -> None:
        """Obey."""
        match unpack(frame[4:]):
            case Prepare(record=record):
                self._parts = record.parts
                self._frames.append(pack(Ready()))
            case Begin(at_ns):
                self._begin_ns = at_ns
            case Close():
                part = WorkerPart(name=self.name, began_ns=0)
                recorder = Recorder(minute(), parts=self._parts)
                health = NoHealth().close()
                self._frames.append(pack(Recorded(recorder=recorder, part=part, due=0, missed=0, health=health)))

    async def receive(self) -> bytes | None:
        """The next report."""
        while not self._frames and self._left <= 0:
            await anyio.sleep(0.01)
        if self._frames:
            return self._frames.pop(0)[4:]
        self._left -= 1
        return self.report()

    def report(self) -> bytes:
        """How far it says it is."""
        told = Progress(
            until_ns=self._begin_ns, sent=25, in_flight=0, done=25, failed=0, gave_up=0, tokens=3200,
            tokens_in_flight=0, failures=Counter(), due=25, events=3200, censored=0, latest_end_ns=self._begin_ns,
            closes_ns=None, lag_ns=100_000, length=LengthPart(0, 0, 0, None, 0, 0, self._begin_ns), fresh=self._fresh,
            abort=None, started=[], ended=[], drained=not self._left,
        )  # fmt: skip
        return pack(told)[4:]

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


async def coordinator(workers: int, reports: int) -> None:
    """Have the main process follow so many workers, which only say how far they are."""
    links = [Telling(reports) for _ in range(workers)]
    with TemporaryDirectory() as name:
        pool = await WorkerPool.over(links, lambda: (TARGET,), Path(name), records=Records())
        spec = LevelSpec(load=Closed(workers), key="k", duration=LevelDuration(duration_ns=100 * S))
        level = await pool.level(PLAN, spec, model="m", clock=MonotonicClock())
        cpu_s = time.process_time()
        await level.run()
        cpu_s = time.process_time() - cpu_s
    made_s = time.process_time()
    for _ in range(200):
        links[0].report()
    made_s = (time.process_time() - made_s) / 200
    own_s = cpu_s / (workers * reports) - made_s
    rate, size = workers / report_every_s(workers), len(links[0].report()) / 1000
    say(f"{workers:5,} workers: {rate:.0f} reports/s of {size:.1f} kB take {100 * own_s * rate:.1f} % of a core "
        f"({own_s * 1e6:.0f} µs each)")  # fmt: skip


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = str(NUMBERED)
    wanted = sys.argv[1:] or ["reports", "starts", "levels", "loss", "results"]
    if "reports" in wanted:
        for workers, reports in ((1, 400), (10, 100), (100, 40), (1000, 20)):
            event_loop.run(coordinator, workers, reports)
    if "starts" in wanted:
        event_loop.run(starts)
    if "levels" in wanted:
        levels()
    if "loss" in wanted:
        event_loop.run(loss)
    if "results" in wanted:
        event_loop.run(results)
