"""How many devices so many people need."""

from __future__ import annotations

import math

from loadbench.results.prediction import Devices


def fleet_size(people: int, capacity_low: int, *, headroom: float = 0.2, capacity_high: int | None = None) -> Devices:
    """By the low end of what one device serves, less the share of it that is to stay free.

    People are taken to be dealt out evenly, each to one device. `least` is what would do if one served as many as the
    high end. Raises `ValueError` for fewer than one person, a capacity below 0 or a headroom that leaves nothing.
    """
    if people < 1 or capacity_low < 0 or not 0 <= headroom < 1:
        raise ValueError(f"{people} people, {capacity_low} a device and {headroom:g} of it left free make no number")
    per_device = _usable(capacity_low, headroom)
    at_best = None if capacity_high is None else _usable(capacity_high, headroom)
    return Devices(
        people=people,
        headroom=headroom,
        per_device=per_device,
        devices=math.ceil(people / per_device) if per_device else None,
        least=math.ceil(people / at_best) if at_best else None,
        note=_note(capacity_low, per_device, headroom),
    )


def _usable(capacity: int, headroom: float) -> int:
    # 20 % of 10 leave 8, though the float is a little below.
    return math.floor(capacity * (1 - headroom) + 1e-9)


def _note(capacity: int, per_device: int, headroom: float) -> str:
    if per_device:
        return ""
    if capacity:
        return f"a device that surely serves {capacity} serves nobody with {headroom:.0%} left free"
    return "it is not sure that a device serves even one"
