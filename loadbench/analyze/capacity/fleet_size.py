"""How many devices a number of people needs."""

from __future__ import annotations

import math

from loadbench.results.prediction import FleetSize


def fleet_size(people: int, capacity_low: int, *, headroom: float = 0.2, capacity_high: int | None = None) -> FleetSize:
    """People divided by what one device serves, the low end of the range that answers, less the headroom, rounded up.

    People are assumed to be spread evenly over the devices. `least` is the number that is enough if a device serves
    `capacity_high`. Raises `ValueError` for fewer than one person, a capacity below 0, or a headroom outside of 0 to 1.
    """
    if people < 1 or capacity_low < 0 or not 0 <= headroom < 1:
        raise ValueError(f"no fleet size for {people} people, {capacity_low} a device and a headroom of {headroom:g}")
    # 20 % of 10 leave 8, although the float is slightly below.
    per_device = math.floor(capacity_low * (1 - headroom) + 1e-9)
    at_best = math.floor((capacity_high or 0) * (1 - headroom) + 1e-9)
    note = ""
    if not per_device:
        note = "no server is sure to serve even one user"
        if capacity_low:
            note = f"one server serves users={capacity_low}: none with {100 * headroom:.0f} % kept free"
    return FleetSize(
        people=people,
        headroom=headroom,
        per_device=per_device,
        devices=math.ceil(people / per_device) if per_device else None,
        least=math.ceil(people / at_best) if at_best else None,
        note=note,
    )
