"""One measurement, in a process of its own: `python -m tests.bench.measure JOB` prints what was found, both as JSON.

The streams begin spread over a ramp. Counted is a window after that, from one reading of (CPU time, events, answers) to
another; what comes before and after, imports and connections among it, is not. What lives when the streams begin is
frozen out of the collector's sight, as in a measurement of ours, for every candidate.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from array import array
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn

import anyio
import msgspec

from loadbench.client.descriptors import ensure_descriptors
from loadbench.client.fast_transport import FastTransport
from loadbench.core.clock import MonotonicClock
from loadbench.core.event_loop import EventLoop
from loadbench.engine.level import LevelSpec
from loadbench.engine.selfcheck import measure as measure_ours
from loadbench.engine.stamp_errors import AnsweredStream, CheckLoad, LoadCheck, Recording, check
from loadbench.engine.worker_pool import WorkerPool
from loadbench.plan.load import Closed
from loadbench.plan.scenario import Scenario
from loadbench.plan.settings import LoadSettings
from loadbench.sim.truth import Pace, read_true_times
from loadbench.targets.target import Target
from tests.bench.candidates import Httpx, make
from tests.building import verdict_of

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from loadbench.record.recorder import LevelRecording
    from tests.bench.candidates import Counts

_S = 1_000_000_000
# Multiples of the golden ratio, modulo 1, fill an interval evenly however many there are.
_GOLDEN = (5**0.5 - 1) / 2


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure. `rate` counts in a window, `memory` holds open streams, `stamps` compares, `crew` judges."""

    kind: Literal["rate", "memory", "stamps", "crew"] = "rate"
    client: str
    streams: int
    url: str = ""
    core: int | None = 1
    ttft_ns: int = 50_000_000
    gap_ns: int = 20_000_000
    events: int = 100
    per_write: int = 1
    padded: bool = False
    numbered: bool = False
    answers: int = 1
    ramp_s: float = 1.0
    window_s: float = 3.0

    @property
    def pace(self) -> Pace:
        """How the answers shall come."""
        return Pace(
            ttft_ns=self.ttft_ns,
            gap_ns=self.gap_ns,
            events=self.events,
            per_write=self.per_write,
            padded=self.padded,
            numbered=self.numbered,
        )

    def begins_s(self, number: int) -> float:
        """When a stream begins, from the start."""
        return self.ramp_s * (number * _GOLDEN % 1)


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What was found, as far as it was asked for."""

    events: int = 0
    answers: int = 0
    cpu_s: float = 0.0
    wall_s: float = 0.0
    kib_per_stream: float = 0.0
    stamps: LoadCheck | None = None
    ttft_p50_s: float = 0.0
    ttft_p99_s: float = 0.0
    gap_p50_s: float = 0.0
    gap_p99_s: float = 0.0
    events_per_s: float = 0.0
    reasons: list[str] = []


class _Reading:
    """The state of things at one moment."""

    def __init__(self, counts: Counts) -> None:
        self.cpu_ns, self.wall_ns = time.process_time_ns(), time.perf_counter_ns()
        self.events, self.answers = counts.events(), counts.answers

    def until(self, later: _Reading) -> Found:
        """What happened between the two."""
        return Found(
            events=later.events - self.events,
            answers=later.answers - self.answers,
            cpu_s=(later.cpu_ns - self.cpu_ns) / _S,
            wall_s=(later.wall_ns - self.wall_ns) / _S,
        )


async def _rate(job: Job) -> Found:
    candidate = make(job.client, job.url, job.pace)
    _settle()

    async def keep_asking(number: int) -> None:
        await asyncio.sleep(job.begins_s(number))
        while True:
            await candidate.ask()

    tasks = [asyncio.create_task(keep_asking(number)) for number in range(job.streams)]
    await asyncio.sleep(job.ramp_s + job.ttft_ns / _S)
    before = _Reading(candidate)
    await asyncio.sleep(job.window_s)
    found = before.until(_Reading(candidate))
    _raise_if_broken(tasks)
    return found


def _raise_if_broken(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        if task.done():
            task.result()


def _epoll_rate(job: Job) -> Found:
    from tests.bench.epoll import EpollClient  # noqa: PLC0415 - Linux only

    begin_ns = time.perf_counter_ns() + _S // 2
    begins_ns = [begin_ns + round(job.begins_s(number) * _S) for number in range(job.streams)]
    client = EpollClient(job.url, job.pace, begins_ns=begins_ns)
    _settle()
    opens_ns = begin_ns + round(job.ramp_s * _S) + job.ttft_ns
    client.run_until(opens_ns)
    before = _Reading(client)
    client.run_until(opens_ns + round(job.window_s * _S))
    return before.until(_Reading(client))


async def _memory(job: Job) -> Found:
    """Resident memory before and after so many streams are open, each of which has had its first event."""
    candidate = make(job.client, job.url, job.pace)
    first = asyncio.create_task(candidate.ask())
    while not candidate.events():
        await asyncio.sleep(0.05)
    gc.collect()
    before = _resident_bytes()
    tasks = [asyncio.create_task(candidate.ask()) for _ in range(job.streams)]
    gone_s = time.perf_counter() + 60
    while candidate.streaming() < job.streams + 1:
        _raise_if_broken([first, *tasks])
        if time.perf_counter() > gone_s:
            raise RuntimeError(f"only {candidate.streaming()} streams after a minute")
        await asyncio.sleep(0.1)
    gc.collect()
    return Found(kib_per_stream=(_resident_bytes() - before) / 1024 / job.streams)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def _stamps(job: Job) -> Found:
    load = CheckLoad(users=job.streams, pace=job.pace, responses=job.answers)
    if job.client == "httpx":
        return Found(stamps=check(await _measure_httpx(load, job.url)))
    transport = FastTransport()
    try:
        return Found(stamps=check(await measure_ours(load, transport, urls=[job.url])))
    finally:
        await transport.aclose()


async def _measure_httpx(load: CheckLoad, url: str) -> Recording:
    """The load of `loadbench.engine.selfcheck.measure`, read by httpx and stamped where its chunks come out."""
    client = Httpx(url, load.pace)
    await client.ask()  # the first of all pays for all
    answers: list[AnsweredStream] = []
    cpu: list[tuple[int, int]] = []
    _settle()

    async def user(number: int) -> None:
        await asyncio.sleep(load.begins_ns(number) / _S)
        for _ in range(load.responses):
            parts: list[bytes] = []
            sent_ns, answer = await client.read(parts)
            arrived_ns, server_ns = read_true_times(b"".join(parts))
            answers.append(
                AnsweredStream(
                    user=number,
                    sent_ns=sent_ns,
                    arrived_ns=arrived_ns,
                    event_ns=answer.event_ns,
                    server_ns=array("q", server_ns),
                )
            )

    async def read_cpu() -> None:
        while True:
            cpu.append((time.perf_counter_ns(), time.process_time_ns()))
            await asyncio.sleep(0.02)

    reader = asyncio.create_task(read_cpu())
    await asyncio.gather(*(user(number) for number in range(load.users)))
    reader.cancel()
    return Recording(load=load, streams=answers, cpu=cpu)


async def _crew(job: Job) -> Found:
    """One closed level on two workers, as a sweep has it, and what its verdict says; the pace is the server's usual."""
    window_ns = round(job.window_s * _S)
    settings = LoadSettings(users=(job.streams,), duration=window_ns, warm_up=2 * _S, ramp=round(1.5 * _S), cool_down=0)
    plan = Scenario(load=settings)
    load = Closed(job.streams)
    async with WorkerPool.of(2, lambda: (Target(base_url=f"{job.url}/v1"),)) as crew:
        level = await crew.level(plan, LevelSpec(load=load, key="bench"), model="truth", clock=MonotonicClock())
        recording = await level.run()
    verdict = verdict_of(recording, load, failure_limit=0.01)
    return Found(
        answers=recording.production.answers,
        events_per_s=recording.production.output_tokens / recording.window_s,
        ttft_p50_s=_quantile_s(recording, "ttft", 50),
        ttft_p99_s=_quantile_s(recording, "ttft", 99),
        gap_p50_s=_quantile_s(recording, "event_gap", 50),
        gap_p99_s=_quantile_s(recording, "event_gap", 99),
        reasons=[reason.code for reason in verdict.reasons],
    )


def _quantile_s(recording: LevelRecording, name: str, percent: float) -> float:
    return (recording.histograms[name].percentile(percent) or 0) / _S


def _settle() -> None:
    gc.collect()
    gc.freeze()


def run(job: Job) -> Found:
    """Measure."""
    if job.core is not None and hasattr(os, "sched_setaffinity"):
        with suppress(OSError):  # fewer cores than that
            os.sched_setaffinity(0, {job.core})
    ensure_descriptors(job.streams)
    match job.kind:
        case "rate":
            return _epoll_rate(job) if job.client == "epoll" else _in_loop(job, _rate(job))
        case "memory":
            return _in_loop(job, _memory(job))
        case "stamps":
            return anyio.run(_stamps, job)
        case "crew":
            return anyio.run(_crew, job)


def _in_loop(job: Job, measured: Coroutine[object, object, Found]) -> NoReturn:
    """Ours in the event loop that a sweep has, the others in asyncio's."""
    ours = job.client in {"loadbench", "recorded", "prepared"}
    with asyncio.Runner(loop_factory=EventLoop if ours else None) as runner:
        runner.run(_and_leave(measured))
    raise AssertionError("it has left")


async def _and_leave(measured: Coroutine[object, object, Found]) -> NoReturn:
    _leave(await measured)


def _leave(found: Found) -> NoReturn:
    """Say it and be gone: hundreds of streams are open, and to close them one by one proves nothing."""
    _say(found)
    os._exit(0)


def _say(found: Found) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(found) + b"\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _say(run(msgspec.json.decode(sys.argv[1], type=Job)))
