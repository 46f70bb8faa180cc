"""Energy and money for the tokens of a level, computed from meters and from given prices, each with its source.

    J per token      joules of the meters in the window ÷ output tokens that arrived in it
    above idle       (joules − idle watts × window) ÷ the same tokens
    tokens per J     equal to tokens/s per watt
    money per 1M     ((purchase ÷ lifetime + hourly ÷ 3600 + W × price per kWh ÷ 3.6e6) ÷ (tokens/s)) × 1e6

The last assumes that the machine runs at this level's load for all its life; at half the load a token costs twice its
share of the purchase. The form is that of inference-perf (accelerator money per second over tokens per second,
`docs/metrics.md` there), with electricity added.

A meter covers its own part of the machine: `board` the accelerators, `package` the CPU and its memory. Fans, disks and
the power supply's loss are in none. A board counts, whoever uses it, unless the server has nothing to do with it
(`machine.py`). A board without an energy counter counts
with its mean power over the window. The discharge of a laptop's battery is the power of the `machine`; it counts where
there is no other meter.

The workshop's cost index multiplies tokens/s, tokens per request and J per token. The product has the dimension
W × tokens per request; it keeps its own name, to be compared with that workshop's numbers and nothing else.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from loadbench.results.telemetry import Cost, Energy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadbench.plan.settings import CostSettings
    from loadbench.results.run import LevelResult
    from loadbench.results.telemetry import Range, Telemetry

_S_PER_YEAR = 365.25 * 24 * 3600
_S_PER_HOUR = 3600.0
_J_PER_KWH = 3.6e6
_COUNTER = re.compile(r"((gpu|package|dram)\d+)_energy_j_total")
_POWER = re.compile(r"((gpu|battery)\d+)_power_w")
_KINDS = {"gpu": "board", "package": "package", "dram": "package", "battery": "machine"}


def meter_watts(telemetry: Telemetry | None, window_s: float) -> dict[str, float]:
    """The mean power of each meter over the window. A meter that was reset during the window is left out."""
    if telemetry is None or window_s <= 0:
        return {}
    watts = {}
    for name, gauge in telemetry.gauges.items():
        if match := _POWER.fullmatch(name):
            watts[match[1]] = gauge.mean
    for name, joules in telemetry.counters.items():
        if (match := _COUNTER.fullmatch(name)) and name not in telemetry.resets:
            watts[match[1]] = joules / window_s
    return dict(sorted(watts.items()))


def energy(
    level: LevelResult, metered: Mapping[str, float], *, idle: Mapping[str, float], estimate: Range | None
) -> Energy | None:
    """The level's energy from its meters' watts, or else from the `estimate`; `None` if there is neither.

    `idle` has the meters' watts before the load.
    """
    if metered:
        source = "+".join(dict.fromkeys(_KINDS[meter.rstrip("0123456789")] for meter in metered))
        power_w = sum(metered.values())
    elif estimate is not None:
        source, power_w = "estimate", sum(estimate) / 2
    else:
        return None
    idle_w = sum(idle[meter] for meter in metered) if metered and all(meter in idle for meter in metered) else None
    above_w = None if idle_w is None else power_w - idle_w
    tokens_per_s, requests_per_s = level.throughput.output_tokens_per_s, level.throughput.requests_per_s
    per_token = _ratio(power_w, tokens_per_s)
    ok = level.outcomes.get("ok", 0)
    return Energy(
        source=source,
        meters=list(metered),
        joules=power_w * level.window_s,
        watts=power_w,
        watts_range=None if metered else estimate,
        idle_watts=idle_w,
        joules_per_output_token=per_token,
        joules_per_request=_ratio(power_w, requests_per_s),
        joules_per_output_token_above_idle=_ratio(above_w, tokens_per_s),
        joules_per_request_above_idle=_ratio(above_w, requests_per_s),
        tokens_per_joule=_ratio(tokens_per_s, power_w),
        workshop_cost_index=None
        if not ok or per_token is None
        else tokens_per_s * (level.tokens.output / ok) * per_token,
    )


def _ratio(amount: float | None, by: float) -> float | None:
    return None if amount is None or by <= 0 else amount / by


def cost(level: LevelResult, used: Energy | None, prices: CostSettings) -> Cost | None:
    """Money for a million output tokens; `None` where no price was given."""
    per_s: dict[str, float | None] = {}
    if prices.purchase is not None:
        per_s["purchase"] = prices.purchase / (prices.lifetime * _S_PER_YEAR)
    if prices.hourly is not None:
        per_s["hourly"] = prices.hourly / _S_PER_HOUR
    if prices.kwh_price is not None:
        per_s["electricity"] = None if used is None else used.watts * prices.kwh_price / _J_PER_KWH
    if not per_s:
        return None
    tokens_per_s = level.throughput.output_tokens_per_s

    # With estimated watts, the total at the least and at the most of them.
    cost_range = None
    if used is not None and used.watts_range is not None and prices.kwh_price is not None:
        electricity = [watts * prices.kwh_price / _J_PER_KWH for watts in used.watts_range]
        low, high = (_per_million({**per_s, "electricity": amount}, tokens_per_s) for amount in electricity)
        cost_range = None if low is None or high is None else (low, high)
    return Cost(
        per_million_output_tokens=_per_million(per_s, tokens_per_s),
        range=cost_range,
        currency=prices.currency,
        parts={name: _per_million({name: price}, tokens_per_s) for name, price in per_s.items()},
        energy_source=used.source if used is not None and prices.kwh_price is not None else None,
    )


def _per_million(per_s: Mapping[str, float | None], tokens_per_s: float) -> float | None:
    known = [price for price in per_s.values() if price is not None]
    return None if len(known) < len(per_s) or tokens_per_s <= 0 else sum(known) / tokens_per_s * 1e6
