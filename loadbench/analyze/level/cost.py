"""Energy and money for what a level made: arithmetic on what meters and people say, each with its source.

    J per token      joules of the meters in the window ÷ output tokens that arrived in it
    above idle       (joules − idle watts × window) ÷ the same tokens
    tokens per J     the same as tokens/s per watt
    money per 1M     ((purchase ÷ lifetime + hourly ÷ 3600 + W × price per kWh ÷ 3.6e6) ÷ (tokens/s)) × 1e6

The last takes the machine to be at this level's load all its life; at half the load a token costs twice its share of
the purchase. The form is inference-perf's (accelerator money per second over tokens per second, `docs/metrics.md`
there) with the electricity added.

A meter knows its own part of the machine: `board` the accelerators, `package` the CPU and its memory. Fans, disks and
the power supply's loss are in none, and every board counts, whoever uses it. Where a board has no energy counter its
power is taken, averaged over the window.

The workshop's index multiplies tokens/s, tokens per request and J per token. What comes out has the dimension
W × tokens per request; it is kept under its own name, to be compared with that workshop's numbers and nothing else.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from loadbench.results.telemetry import Cost, Energy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadbench.plan.scenario import CostSettings
    from loadbench.results.run import LevelResult
    from loadbench.results.telemetry import Range, Telemetry

_S_PER_YEAR = 365.25 * 24 * 3600
_S_PER_HOUR = 3600.0
_J_PER_KWH = 3.6e6
_COUNTER = re.compile(r"((gpu|package|dram)\d+)_energy_j_total")
_POWER = re.compile(r"((gpu)\d+)_power_w")
_KINDS = {"gpu": "board", "package": "package", "dram": "package"}


def meter_watts(telemetry: Telemetry | None, window_s: float) -> dict[str, float]:
    """The mean power of each meter over the window. One that began anew meanwhile is left out."""
    if telemetry is None or window_s <= 0:
        return {}
    found = {}
    for name, gauge in telemetry.gauges.items():
        if match := _POWER.fullmatch(name):
            found[match[1]] = gauge.mean
    for name, joules in telemetry.counters.items():
        if (match := _COUNTER.fullmatch(name)) and name not in telemetry.resets:
            found[match[1]] = joules / window_s
    return dict(sorted(found.items()))


def energy(
    level: LevelResult, metered: Mapping[str, float], *, idle: Mapping[str, float], estimate: Range | None
) -> Energy | None:
    """The level's energy, by its meters' watts, else by the estimate; `None` where there is neither."""
    if metered:
        source = "+".join(dict.fromkeys(_KINDS[meter.rstrip("0123456789")] for meter in metered))
        known = all(meter in idle for meter in metered)
        idle_w = sum(idle[meter] for meter in metered) if known else None
        return _energy(level, sum(metered.values()), source=source, meters=list(metered), idle_w=idle_w)
    if estimate is None:
        return None
    return _energy(level, sum(estimate) / 2, source="estimate", watts_range=estimate)


def _energy(
    level: LevelResult,
    power_w: float,
    *,
    source: str,
    meters: list[str] | None = None,
    idle_w: float | None = None,
    watts_range: Range | None = None,
) -> Energy:
    tokens_per_s, requests_per_s = level.throughput.output_tokens_per_s, level.throughput.requests_per_s
    above_w = None if idle_w is None else power_w - idle_w
    per_token = _over(power_w, tokens_per_s)
    answered = level.outcomes.get("ok", 0)
    return Energy(
        source=source,
        meters=meters or [],
        joules=power_w * level.window_s,
        watts=power_w,
        watts_range=watts_range,
        idle_watts=idle_w,
        joules_per_output_token=per_token,
        joules_per_request=_over(power_w, requests_per_s),
        joules_per_output_token_above_idle=_over(above_w, tokens_per_s),
        joules_per_request_above_idle=_over(above_w, requests_per_s),
        tokens_per_joule=_over(tokens_per_s, power_w),
        workshop_cost_index=tokens_per_s * (level.tokens.output / answered) * per_token
        if answered and per_token is not None
        else None,
    )


def _over(amount: float | None, by: float) -> float | None:
    return None if amount is None or by <= 0 else amount / by


def cost(level: LevelResult, used: Energy | None, prices: CostSettings) -> Cost | None:
    """Money for a million output tokens; `None` where no price was given."""
    if prices.purchase is None and prices.hourly is None and prices.kwh_price is None:
        return None
    tokens_per_s = level.throughput.output_tokens_per_s
    fixed = {
        "purchase": None if prices.purchase is None else prices.purchase / (prices.lifetime * _S_PER_YEAR),
        "hourly": None if prices.hourly is None else prices.hourly / _S_PER_HOUR,
    }
    per_s: dict[str, float | None] = {name: price for name, price in fixed.items() if price is not None}
    if prices.kwh_price is not None:
        per_s["electricity"] = None if used is None else used.watts * prices.kwh_price / _J_PER_KWH
    return Cost(
        per_million_output_tokens=_per_million(per_s, tokens_per_s),
        range=_cost_range(per_s, used, prices.kwh_price, tokens_per_s),
        currency=prices.currency,
        parts={name: _per_million({name: price}, tokens_per_s) for name, price in per_s.items()},
        energy_source=used.source if used is not None and prices.kwh_price is not None else None,
    )


def _per_million(per_s: Mapping[str, float | None], tokens_per_s: float) -> float | None:
    known = [price for price in per_s.values() if price is not None]
    return None if len(known) < len(per_s) or tokens_per_s <= 0 else sum(known) / tokens_per_s * 1e6


def _cost_range(
    per_s: Mapping[str, float | None], used: Energy | None, kwh_price: float | None, tokens_per_s: float
) -> Range | None:
    """Of an estimate: the sum at the least and at the most watts."""
    if used is None or used.watts_range is None or kwh_price is None:
        return None
    ends = [
        _per_million({**per_s, "electricity": power_w * kwh_price / _J_PER_KWH}, tokens_per_s)
        for power_w in used.watts_range
    ]
    return None if ends[0] is None or ends[1] is None else (ends[0], ends[1])
