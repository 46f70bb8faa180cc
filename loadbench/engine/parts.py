"""The parts of a level, made from the scenario: the same here as in a worker process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadbench.client.client import Client, Timeouts
from loadbench.client.fast_transport import FastTransport
from loadbench.client.httpx_transport import HttpxTransport
from loadbench.engine.level import LevelPlan
from loadbench.plan.load import WHOLE, Shard
from loadbench.plan.prompts import prompt_source

if TYPE_CHECKING:
    from loadbench.client.transport import Transport
    from loadbench.core.clock import Clock
    from loadbench.plan.load import Extent, Load
    from loadbench.plan.prompts import Calibration
    from loadbench.plan.scenario import Scenario
    from loadbench.targets.openai import Target


def make_transport(scenario: Scenario, target: Target, clock: Clock) -> FastTransport | HttpxTransport:
    """How requests travel; it must be closed in the event loop that it is used in."""
    if scenario.target.transport == "httpx":
        return HttpxTransport(clock, tls=target.tls)
    return FastTransport(tls=target.tls)


def make_client(scenario: Scenario, target: Target, transport: Transport, *, model: str, clock: Clock) -> Client:
    """The client of one model."""
    limits = scenario.limits
    timeouts = Timeouts(
        connect_ns=limits.connect_timeout,
        first_token_ns=limits.first_token_timeout,
        idle_ns=limits.idle_timeout,
        total_ns=limits.timeout,
    )
    return Client(target.endpoint(model, scenario), transport, clock=clock, timeouts=timeouts)


def level_plan(
    scenario: Scenario,
    load: Load,
    *,
    key: str,
    calibration: Calibration | None,
    extent: Extent | None = None,
    shard: Shard = WHOLE,
) -> LevelPlan:
    """What a level, or a worker's part of it, does; `key` sets its prompts apart from those of other levels.

    `extent` is the scenario's, unless another is given.
    """
    extent = extent or scenario.extent
    return LevelPlan(
        load=load,
        extent=extent,
        prompts=prompt_source(scenario.work, key=key, calibration=calibration),
        max_tokens=scenario.work.max_tokens,
        seed=scenario.work.seed,
        ramp_ns=min(scenario.load.ramp, extent.warm_up_ns),
        most_in_flight=max(1, shard.share(scenario.load.max_in_flight)),
        shard=shard,
        objectives=scenario.objectives_at(load),
    )
