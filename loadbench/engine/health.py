"""How the load generator itself fares: how late its event loop runs, how long the garbage collector stops it, its CPU.

A probe sleeps 10 ms at a time and records how late it wakes. One long stall makes one late wake-up, so a plain record
would hide it (the coordinated omission of the probe itself): each lateness is recorded together with the wake-ups that
it displaced. The bytes of a stream need several turns of the loop, so `loop_lag` is a lower bound of their delay.
"""

from __future__ import annotations

import gc
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

import anyio

from loadbench.client.stamping import StampStats
from loadbench.core.clock import TICK_NS, slept_ns
from loadbench.record.histogram import Histogram
from loadbench.record.recorder import Health

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from loadbench.targets.clients import MeasuringTransport

_PROBE_NS = 10_000_000
# New objects from one collection of young ones to the next. At Python's usual hundreds, collections and the record of
# them take 5 % of a level of short requests; ten thousand objects still take less than a millisecond.
_YOUNG = 10_000
# With 10,000 streams a full collection takes half a second. What lives through one of this length is left alone then;
# cycles in it that are dropped later stay until the level ends, so it happens a few times only.
_LONG_PAUSE_NS, _MOST_FREEZES = 20_000_000, 16
# Up to this share of reads without a kernel stamp the quantiles up to p99 are the kernel's.
_MOST_UNSTAMPED = 0.01


class HealthProbe(Protocol):
    """Watches the load generator during one level."""

    def watching(self) -> AbstractAsyncContextManager[None]:
        """Watch while the context lasts."""
        ...

    @property
    def lag_ns(self) -> int | None:
        """The 99th percentile of the event loop's lag until now."""
        ...

    def close(self) -> Health:
        """What was seen."""
        ...


class LoopHealth:
    """Watches the running event loop, this process, and the reads of its transport."""

    def __init__(self, transport: MeasuringTransport) -> None:
        # A full collection takes some 50 ms: before the level begins, or its first request would be late.
        gc.collect()
        self._transport = transport
        self._reads = StampStats(Histogram())
        self._lag = Histogram()
        self._pauses = Histogram()
        self._pause_began_ns = self._freezes = 0
        self._cpu_share: float | None = None
        self._cpu_ns: int | None = None
        self._slept_ns = 0

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Probe the loop, the collector and the CPU while the context lasts."""
        # What is alive now stays alive through the level: the collector need not visit it again.
        gc.freeze()
        gc.callbacks.append(self._on_gc)
        usual = gc.get_threshold()
        gc.set_threshold(_YOUNG, *usual[1:])
        self._transport.take_stamp_stats()
        cpu_ns, wall_ns, before_ns = time.process_time_ns(), time.perf_counter_ns(), slept_ns()
        try:
            async with anyio.create_task_group() as probe:
                probe.start_soon(self._probe)
                yield
                probe.cancel_scope.cancel()
        finally:
            wall_ns, self._slept_ns = time.perf_counter_ns() - wall_ns, slept_ns() - before_ns
            self._cpu_ns = time.process_time_ns() - cpu_ns
            self._cpu_share = self._cpu_ns / wall_ns if wall_ns else None
            gc.callbacks.remove(self._on_gc)
            gc.set_threshold(*usual)
            self._reads = self._transport.take_stamp_stats()
            gc.unfreeze()

    async def _probe(self) -> None:
        while True:
            asleep_ns = time.perf_counter_ns()
            await anyio.sleep(_PROBE_NS / 1e9)
            late_ns = time.perf_counter_ns() - asleep_ns - _PROBE_NS
            self._lag.record_corrected(max(0, late_ns - TICK_NS), _PROBE_NS)

    def _on_gc(self, phase: str, _info: dict[str, int]) -> None:
        now_ns = time.perf_counter_ns()
        if phase == "start":
            self._pause_began_ns = now_ns
        else:
            took_ns = now_ns - self._pause_began_ns
            self._pauses.record(took_ns)
            if took_ns > _LONG_PAUSE_NS and self._freezes < _MOST_FREEZES:
                # Thousands of streams have been opened, and stay: the next collection need not visit them again.
                self._freezes += 1
                gc.freeze()

    @property
    def lag_ns(self) -> int | None:
        """The 99th percentile of the event loop's lag until now."""
        return self._lag.percentile(99)

    def close(self) -> Health:
        """What was seen."""
        unstamped = self._reads.unstamped
        # With more than a few reads that the kernel did not stamp, a level is as good as its worst stamps.
        is_stamped = unstamped <= _MOST_UNSTAMPED * (self._reads.delays.count + unstamped)
        return Health(
            stamp_source=self._transport.stamp_source if is_stamped else "user",
            loop_lag=self._lag,
            gc_pauses=self._pauses,
            cpu_share=self._cpu_share,
            cpu_ns=self._cpu_ns,
            read_delay=self._reads.delays,
            clock_steps=self._reads.clock_steps,
            slept_ns=self._slept_ns,
        )
