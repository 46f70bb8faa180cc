"""What the tests of clusters share: levels without a server, and what of a recording must be the same."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from loadbench.core.clock import MonotonicClock
from loadbench.engine.level import Level, LevelSpec, level_plan
from loadbench.plan.arrivals import parse_arrivals
from loadbench.plan.distribution import Constant
from loadbench.plan.load import Closed, LevelDuration, Open
from loadbench.plan.sources import resolve
from loadbench.targets.target import Target
from tests.cluster.numbered.client import NumberedClient
from tests.engine.no_health import NoHealth

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from loadbench.record.recorder import LevelRecording

S = 1_000_000_000
NUMBERED = Path(__file__).with_name("numbered")
TARGET = Target(base_url="http://127.0.0.1:9/v1")
PLAN = resolve(flags={"users": "6", "max_tokens": "8", "url": "http://127.0.0.1:9", "ramp": "0s"}, environment={})
LOADS = {
    "users": (Closed(7), LevelDuration(duration_ns=2 * S, warm_up_ns=S // 2)),
    "users who think": (Closed(7, Constant(30e6)), LevelDuration(duration_ns=2 * S, warm_up_ns=S // 2)),
    "a rate": (Open(60.0, parse_arrivals("poisson")), LevelDuration(duration_ns=2 * S, warm_up_ns=S // 2)),
    "requests at a rate": (Open(60.0, parse_arrivals("constant")), LevelDuration(requests=90, warm_up_ns=S // 2)),
}


def spec_of(name: str) -> LevelSpec:
    """One of the loads."""
    load, duration = LOADS[name]
    return LevelSpec(load=load, key="k", duration=duration)


async def in_one_process(spec: LevelSpec) -> LevelRecording:
    """The level as it is without workers."""

    async def run() -> LevelRecording:
        clock = MonotonicClock()
        level = Level(
            level_plan(PLAN, spec),
            client=NumberedClient(clock),
            clock=clock,
            health=NoHealth(),
            begin_ns=clock.now_ns() + S // 10,
        )
        return await level.run()

    return await _in_time(run)


async def on_workers(pool, spec: LevelSpec) -> LevelRecording:
    """The same level on the workers of a pool."""

    async def run() -> LevelRecording:
        level = await pool.level(PLAN, spec, model="m", clock=MonotonicClock())
        return await level.run()

    return await _in_time(run)


async def _in_time(run: Callable[[], Awaitable[LevelRecording]]) -> LevelRecording:
    """A recording of which no request was held back by a busy machine until the load was over."""
    for _ in range(4):
        recording = await run()
        if not recording.missed:
            break
    return recording


def facts(recording: LevelRecording) -> dict[str, object]:
    """Every count, histogram and timeline that does not depend on how late a process was."""
    timeline = recording.timeline
    names = set(recording.histograms) - {"lateness", "connect"}
    return {
        "window": recording.window[1] - recording.window[0],
        "outcomes": recording.outcomes,
        "phases": recording.phases,
        "due": (recording.arrivals_due, recording.arrivals_sent, recording.missed),
        "production": recording.production,
        "tokens": (recording.input_tokens, recording.output_tokens, recording.tokens_by_slice),
        "answers": recording.answers_by_slice,
        "ttft": (timeline.ttft_ns, timeline.ttft_count),
        # Sums of fractions of a slice, which are rounded in the order in which they come.
        "decoding": [tuple(round(value, 9) for value in row) for row in (timeline.decoding, timeline.context)],
        "requests": timeline.kept,
        "histograms": {name: recording.histograms[name] for name in names},
    }
