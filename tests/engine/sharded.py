"""A level in several parts, as worker processes run it, but in one process and with one recorder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from loadbench.engine.level import Level, level_plan
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
    """(the samples as they ended, the parts, the recorder of all), once the load of every part has ended."""
    samples: list[Sample] = []
    levels: list[Level] = []
    recorder: Recorder | None = None
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
        levels.append(level)
    assert recorder is not None
    async with anyio.create_task_group() as group:
        for level in levels:
            group.start_soon(level.run_load)
    return samples, levels, recorder
