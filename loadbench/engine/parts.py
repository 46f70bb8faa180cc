"""What a level does, made from the scenario: the same here as in a worker process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadbench.engine.level import LevelPlan
from loadbench.plan.distribution import Constant
from loadbench.plan.load import WHOLE, Open, Shard
from loadbench.plan.prompts import prompt_source, word_prompts
from loadbench.plan.traces import Replayed, TracePrompts

if TYPE_CHECKING:
    from loadbench.plan.load import LevelDuration, Load
    from loadbench.plan.prompts import Calibration, PromptSource
    from loadbench.plan.scenario import Scenario


def level_plan(
    scenario: Scenario,
    load: Load,
    *,
    key: str,
    calibration: Calibration | None,
    extent: LevelDuration | None = None,
    shard: Shard = WHOLE,
) -> LevelPlan:
    """What a level, or a worker's part of it, does; `key` sets its prompts apart from those of other levels.

    `extent` is the scenario's, unless another is given.
    """
    extent = extent or scenario.extent
    return LevelPlan(
        load=load,
        extent=extent,
        prompts=_prompts(scenario, load, key=key, calibration=calibration),
        max_tokens=scenario.work.max_tokens,
        seed=scenario.work.seed,
        ramp_ns=min(scenario.load.ramp, extent.warm_up_ns),
        most_in_flight=max(1, shard.share(scenario.load.max_in_flight)),
        shard=shard,
        objectives=scenario.objectives_at(load),
        keep_answers=scenario.keeps_answers,
        # The system message is the same for all, and a server may keep it.
        warm=scenario.work.system is not None,
        template_tokens=template_tokens(calibration),
    )


def template_tokens(calibration: Calibration | None) -> int:
    """What the server puts around each prompt; 0 where nobody found out."""
    return 0 if calibration is None or calibration.foreign else calibration.overhead_tokens


def _prompts(scenario: Scenario, load: Load, *, key: str, calibration: Calibration | None) -> PromptSource:
    """Those of the trace, where one is replayed, or those of the scenario."""
    if isinstance(load, Open) and isinstance(load.arrivals, Replayed):
        words = word_prompts(scenario.work, Constant(1), key=key, calibration=calibration)
        return TracePrompts(load.arrivals.trace, words)
    return prompt_source(scenario.work, key=key, calibration=calibration)
