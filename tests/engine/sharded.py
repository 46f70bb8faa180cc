"""A level in several parts, as worker processes run it, but in one process and with one recorder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from loadbench.engine.level import Level, level_plan
from loadbench.plan.load import Closed
from loadbench.record.recorder import Recorder
from tests.engine.no_health import NoHealth

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.client.client import Client
    from loadbench.core.clock import Clock
    from loadbench.engine.level import LevelSpec
    from loadbench.plan.load import Shard
    from loadbench.plan.scenario import Scenario
    from loadbench.record.sample import Sample


async def run_shards(
    scenario: Scenario, spec: LevelSpec, shards: Sequence[Shard], *, client: Client, clock: Clock
) -> tuple[list[Sample], list[Level], Recorder]:
    """(the samples as they ended, the parts, the recorder of all), once the load of every part has ended.

    Several parts of a closed loop by number of requests take them from one count, and end together, as on workers.
    """
    samples: list[Sample] = []
    levels: list[Level] = []
    recorder: Recorder | None = None
    left = [spec.duration.requests if spec.duration is not None else None]

    def take() -> bool:
        has_one = bool(left[0])
        left[0] = left[0] - 1 if has_one else 0
        if not has_one:
            for level in levels:
                level.phases.close(clock.now_ns())
                level._over.set()
        return has_one

    for shard in shards:
        level = Level(
            level_plan(scenario, spec, shard),
            client=client,
            clock=clock,
            health=NoHealth(),
            on_sample=samples.append,
            sink=recorder,
        )
        recorder = recorder or Recorder(level.phases)
        level._sink = recorder
        if len(shards) > 1 and left[0] is not None and isinstance(spec.load, Closed):
            level.phases.take = take
        levels.append(level)
    assert recorder is not None
    async with anyio.create_task_group() as group:
        for level in levels:
            group.start_soon(level.run_load)
    return samples, levels, recorder
