"""What the tests of clusters share: levels without a server, and what of a recording must be the same."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from loadbench.core.clock import MonotonicClock
from loadbench.engine.level import LevelSpec, level_plan
from loadbench.plan.arrivals import parse_arrivals
from loadbench.plan.distribution import Constant
from loadbench.plan.load import Closed, LevelDuration, Open
from loadbench.plan.sources import resolve
from loadbench.targets.target import Target
from tests.cluster.numbered.client import SLOW, STOPPING, NumberedClient, NumberedLevel
from tests.engine.no_health import NoHealth
from tests.record.levels import differences

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from loadbench.record.outage import Outage
    from loadbench.record.recorder import LevelRecording

S = 1_000_000_000
NUMBERED = Path(__file__).with_name("numbered")
TARGET = Target(base_url="http://127.0.0.1:9/v1")
FLAGS = {"users": "6", "max_tokens": "8", "url": "http://127.0.0.1:9", "ramp": "0s"}
PLAN = resolve(flags=FLAGS, environment={})
# Conversations of two personas, some of whose users give up, with a server that stops; and objectives of each kind.
MIX = {"mix": ("chat,code",), "turns": "3", "input_tokens": "20", "max_tokens": str(STOPPING), "abandon": "30%@70ms"}
RULES = ("ttft_p95<60ms", "itl_p99<4ms", "tpot_mean<4ms", "e2e_response_p90<90ms", "failures<1%")
SLOWLY = resolve(flags=FLAGS | {"max_tokens": str(SLOW)}, environment={})
PLANS = {"k": PLAN, "slowly": SLOWLY, "mixed": resolve(flags=FLAGS | MIX | {"objectives": RULES}, environment={})}
BY_TIME = LevelDuration(duration_ns=S, warm_up_ns=3 * S // 10)
BY_NUMBER = LevelDuration(requests=120, warm_up_ns=3 * S // 10)
LOADS = {
    "users": (Closed(7), BY_TIME),
    "users who think": (Closed(7, Constant(30e6)), BY_TIME),
    "a rate": (Open(120.0, parse_arrivals("poisson")), BY_TIME),
    "requests at a rate": (Open(120.0, parse_arrivals("constant")), BY_NUMBER),
    "a mix": (Closed(7), BY_TIME),
}
# What is not compared of a recording, and why.
LEFT_OUT = {"health": "how the processes fared", "workers": "one process has none", "lost_before": "as workers"}


def spec_of(name: str) -> LevelSpec:
    """One of the loads."""
    load, duration = LOADS[name]
    return LevelSpec(load=load, key="mixed" if name == "a mix" else "k", duration=duration)


async def in_one_process(spec: LevelSpec) -> LevelRecording:
    """The level as it is without workers."""

    clock = MonotonicClock()
    level = NumberedLevel(
        level_plan(PLANS[spec.key], spec),
        client=NumberedClient(clock),
        clock=clock,
        health=NoHealth(),
        begin_ns=clock.now_ns() + S // 10,
    )
    return await level.run()


async def on_workers(pool, spec: LevelSpec) -> LevelRecording:
    """The same level on the workers of a pool."""

    level = await pool.level(PLANS[spec.key], spec, model="m", clock=MonotonicClock())
    return await level.run()


class Facts:
    """What of a recording does not depend on when it was made, nor on how late a process was. Those that are not equal
    say where they differ."""

    def __init__(self, recording: LevelRecording) -> None:
        opens_ns, closes_ns = recording.window
        self.known = {each.name: getattr(recording, each.name) for each in fields(recording)}
        self.known |= {
            "window": closes_ns - opens_ns,
            "outages": {to: _since(outage, opens_ns) for to, outage in recording.outages.items()},
        }
        self.differ: list[str] = []

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, Facts)
        self.differ = [
            difference
            for name in self.known.keys() - LEFT_OUT.keys()
            for difference in differences(self.known[name], other.known[name], f".{name}")
        ]
        return not self.differ

    __hash__ = None  # type: ignore[assignment] # nothing looks it up

    def __repr__(self) -> str:
        return "\n".join(self.differ[:40])


def facts(recording: LevelRecording) -> Facts:
    """All that is known of a level, to be compared. What its workers say of themselves adds up to the whole."""
    if recording.workers:
        parts = recording.workers
        assert sum(part.events for part in parts) == recording.events
        assert sum(part.lateness.count for part in parts) == recording.histograms["lateness"].count
    return Facts(recording)


_OF_ONE: dict[str, Facts] = {}  # what one process records, by the load: it is always the same


async def assert_as_one_process(load: str, measured: Callable[[], Awaitable[LevelRecording]]) -> None:
    """What is `measured` of this load is what one process records."""
    recorded = facts(await measured())
    if load not in _OF_ONE:
        _OF_ONE[load] = facts(await in_one_process(spec_of(load)))
    assert recorded == _OF_ONE[load], load


def _since(outage: Outage, opens_ns: int) -> tuple[object, ...]:
    """What an outage is, by its distance from that moment."""
    marks = (outage.began_ns, *(outage._last_ok_ns or ()))
    failures = [(one.first_ns - opens_ns, one.waits_ns - opens_ns, one.end_ns - opens_ns) for one in outage._since]
    counts = outage._ok, outage._failed, outage._longest_ok_ns, outage.silent_ns, dict(outage.failures)
    return (*counts, failures, [None if at_ns is None else at_ns - opens_ns for at_ns in marks])
