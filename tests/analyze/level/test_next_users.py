"""Which loads `--users auto` measures."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from loadbench.analyze.level.knee import knee
from loadbench.analyze.level.next_users import next_users, why_enough
from tests.analyze.level.test_knee import level
from tests.coverage.knee import SERVERS


def found(server, *, noise: float = 0.0, seed: int = 1, most: int = 256, **each) -> list:
    """The levels of a whole sweep."""
    rng, levels = np.random.default_rng(seed), []
    while (users := next_users(levels, most=most)) is not None:
        rate = 100 * server(users) * math.exp(noise * rng.standard_normal())
        levels.append(level(users, rate, reach=max(0.005, 1.96 * noise), **each))
        assert len(levels) < 20
    return levels


def loads(levels) -> list[int]:
    """Their users."""
    return [one.load.users for one in levels]


@pytest.mark.parametrize(
    ("slots", "users"),
    [
        (1, [1, 2, 4]),
        (2, [1, 2, 4, 8]),
        (4, [1, 2, 4, 8, 16, 3]),
        (8, [1, 2, 4, 8, 16, 32, 6]),
        (6, [1, 2, 4, 8, 16, 32, 6]),
        (64, [1, 2, 4, 8, 16, 32, 64, 128, 256, 48]),
    ],
)
def test_up_to_the_knee_one_beyond_and_one_between(slots, users):
    """The knee is shown by the doubling above it and confirmed by one more; then one load lies between its ends."""
    levels = found(lambda users: min(users, slots))
    assert loads(levels) == users
    assert knee(levels).high is not None


def test_a_server_that_grows_on_and_on_is_measured_up_to_the_most():
    """The report then says that the knee is beyond."""
    levels = found(lambda users: users, most=64)
    assert loads(levels) == [1, 2, 4, 8, 16, 32, 64]
    assert knee(levels).grows


@pytest.mark.parametrize("server", SERVERS)
def test_noise_does_not_let_it_run_on(server):
    """With 10 % of noise the end cannot be shown: two doublings without gain are enough, and not too early."""
    for seed in range(30):
        levels = found(SERVERS[server], noise=0.1, seed=seed)
        rates = [SERVERS[server](users) for users in loads(levels)]
        best = max(SERVERS[server](users) for users in (1, 2, 4, 8, 16, 32, 64, 128, 256))
        assert max(rates) >= 0.7 * best
        assert len(levels) <= 10


def test_what_higher_loads_cannot_show_is_not_measured():
    """A server beyond its limit, and one that gave no response."""
    grows = [level(1, 100.0), level(2, 200.0)]
    assert next_users(grows, most=256) == 4
    assert next_users([*grows, level(4, 390.0, status="OVERLOADED")], most=256) is None
    assert next_users([*grows, msgspec.structs.replace(level(4, 1.0), outcomes={"refused": 9})], most=256) is None


def test_a_server_that_is_no_faster_with_two_is_not_given_up():
    """Twice as many users bring nothing at first, and much later on."""
    levels = found({1: 1.0, 2: 1.0, 4: 1.8, 8: 3.0, 16: 3.0, 32: 3.0, 6: 2.5}.get)
    assert loads(levels) == [1, 2, 4, 8, 16, 32, 6]


def test_levels_at_fault_end_it_too():
    """A load generator that keeps up no longer shows a throughput that stays where it is."""
    assert loads(found(lambda users: min(users, 4), status="INVALID")) == [1, 2, 4, 8, 16]


@pytest.mark.parametrize(
    ("slots", "noise", "why"),
    [
        (1, 0.0, "the knee shows, and there is no load to measure between its ends"),
        (4, 0.0, "the knee shows, and users=3 lies between its ends"),
        (1, 0.4, "two doublings in a row gave no more than 5 % more output tokens/s"),
        (500, 0.0, "64 users are the most that it measures"),
    ],
)
def test_the_end_has_its_reason(slots, noise, why):
    """The one by which there is no further level; before that there is none."""
    levels = found(lambda users: min(users, slots), noise=noise, most=64)
    assert why_enough(levels, most=64).startswith(why)
    assert [why_enough(levels[:number], most=64) for number in range(len(levels))] == [""] * len(levels)


def test_a_server_that_cannot_do_more_is_the_reason():
    """One beyond its limit, and one that gives no response."""
    beyond = level(1, 10.0, status="OVERLOADED")
    assert why_enough([beyond], most=64) == "at users=1 the server was beyond its limit"
    none = msgspec.structs.replace(level(1, 10.0), outcomes={"http_error": 3})
    assert why_enough([none], most=64) == "no request succeeded at users=1"
