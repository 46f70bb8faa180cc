"""How many devices a number of people needs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.analyze.capacity.fleet_size import fleet_size


@pytest.mark.parametrize(
    ("people", "low", "high", "headroom", "per_device", "wanted", "least"),
    [
        (200, 22, 26, 0.2, 17, 12, 10),  # 17.6 and 20.8 a device
        (200, 10, None, 0.2, 8, 25, None),  # 20 % of 10 leave 8 exactly
        (1, 22, 26, 0.0, 22, 1, 1),
        (5, 0, 3, 0.0, 0, None, 2),  # not surely one
        (5, 1, 3, 0.2, 0, None, 3),
    ],
)
def test_devices_by_the_low_end(people, low, high, headroom, per_device, wanted, least):
    """So many devices as suffice by what one surely serves, with the headroom free; the high end says what might do."""
    found = fleet_size(people, low, headroom=headroom, capacity_high=high)
    assert (found.per_device, found.devices, found.least) == (per_device, wanted, least)
    assert bool(found.note) == (wanted is None)


@given(st.integers(1, 10_000), st.integers(1, 500), st.floats(0, 0.9))
def test_the_devices_suffice_and_one_fewer_does_not(people, low, headroom):
    """The number is the least at which each serves no more than its share."""
    found = fleet_size(people, low, headroom=headroom)
    if found.devices is not None:
        assert found.devices * found.per_device >= people > (found.devices - 1) * found.per_device


@pytest.mark.parametrize(("people", "low", "headroom"), [(0, 5, 0.2), (5, -1, 0.2), (5, 5, 1.0), (5, 5, -0.1)])
def test_devices_refuse_a_slip(people, low, headroom):
    """Nobody, less than nothing, or a headroom that leaves nothing."""
    with pytest.raises(ValueError, match="no fleet size"):
        fleet_size(people, low, headroom=headroom)
