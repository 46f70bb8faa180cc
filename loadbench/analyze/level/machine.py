"""A level with what was seen beside its requests: telemetry, energy and cost, and what a reader must know of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from loadbench.analyze.level.cost import cost, energy, meter_watts
from loadbench.results.run import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from loadbench.plan.scenario import CostSettings
    from loadbench.results.run import LevelResult
    from loadbench.results.telemetry import Telemetry

# Models whose names say that they run on an accelerator, as in `qwen2.5-0.5b-instruct-cuda-gpu:3`.
_ACCELERATED = re.compile(r"(?<![a-z])(gpu|cuda|trtrtx|tensorrt|webgpu|rocm|migraphx)(?![a-z])", re.IGNORECASE)
# A desktop alone uses as much of its board; a model that decodes on it uses far more.
IDLE_USE = 0.02
# Held down for less of the time than this the clocks change no figure that is told.
_HELD_SHARE = 0.05


def with_machine(
    level: LevelResult, telemetry: Telemetry | None, *, idle: Mapping[str, float], prices: CostSettings
) -> LevelResult:
    """The level with all that its telemetry and the prices say of it; `idle` are the meters' watts before the load."""
    used = energy(level, meter_watts(telemetry, level.window_s), idle=idle, estimate=prices.watts)
    return msgspec.structs.replace(
        level,
        telemetry=telemetry,
        energy=used,
        cost=cost(level, used, prices),
        caveats=[*level.caveats, *([] if telemetry is None else _caveats(level, telemetry))],
    )


def _caveats(level: LevelResult, telemetry: Telemetry) -> Iterator[Reason]:
    uses = [gauge.mean for name, gauge in telemetry.gauges.items() if re.fullmatch(r"gpu\d+_use", name)]
    decoding = level.throughput.output_tokens_per_s > 0
    if uses and decoding and max(uses) < IDLE_USE and _ACCELERATED.search(level.model):
        yield Reason(
            "cpu_fallback",
            f"the model's name says that it runs on the GPU, and none that can be seen was in use ({max(uses):.1%})",
            "see the server's log for the device it chose: drivers, or its execution provider, may be missing",
        )
    yield from _held_down(telemetry)
    if telemetry.counters.get("process_restarts_total"):
        yield Reason(
            "process_restarted",
            "the server's process ended during the level, and another took its place",
            "see the server's log, and run it again",
        )


def _held_down(telemetry: Telemetry) -> Iterator[Reason]:
    """A machine that is too hot, or short of power, is slower than it will be when it is cool."""
    for by, advice in (("heat", "cool it"), ("power", "raise its power limit")):
        held = {name: gauge.mean for name, gauge in telemetry.gauges.items() if name.endswith(f"_throttled_{by}")}
        if held and max(held.values()) > _HELD_SHARE:
            name = max(held, key=lambda one: held[one])
            yield Reason(
                f"throttled_{by}",
                f"{by} held the clocks of {name.partition('_')[0]} down for {held[name]:.0%} of the window",
                f"{advice}, or say that it was so: a cool machine, or a short run, is quicker",
            )
    if telemetry.counters.get("host_throttled_total"):
        yield Reason(
            "throttled_cpu",
            "heat held the processor's clock down during the level",
            "cool it, or say that it was so: a cool machine, or a short run, is quicker",
        )
