"""Virtual time: hours in milliseconds, every timer at its own nanosecond."""

from __future__ import annotations

import asyncio

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadbench.core.virtual import VirtualClock, run_virtual

HOUR = 3600 * 1_000_000_000


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 2**42), min_size=1, max_size=20))
def test_every_moment_comes_at_its_nanosecond(moments: list[int]) -> None:
    """Sleepers wake in order and exactly then, over more than an hour of virtual time."""
    woken: list[tuple[int, int]] = []

    async def sleeper(when_ns: int) -> None:
        assert await VirtualClock().sleep_until(when_ns, anyio.Event())
        woken.append((when_ns, VirtualClock().now_ns()))

    async def main() -> None:
        async with anyio.create_task_group() as sleepers:
            for when_ns in moments:
                sleepers.start_soon(sleeper, when_ns)

    run_virtual(main)
    assert woken == [(when_ns, when_ns) for when_ns in sorted(moments)]


def test_time_begins_at_zero_and_stands_still_while_work_is_done() -> None:
    """Only timers move it."""

    async def main() -> list[int]:
        clock, seen = VirtualClock(), []
        for _ in range(3):
            seen.append(clock.now_ns())
            await anyio.lowlevel.checkpoint()
        return seen

    assert run_virtual(main) == [0, 0, 0]


def test_a_long_chain_of_short_waits_does_not_drift() -> None:
    """A thousand waits of 0.1 s, each from the last moment on, end at 100 s exactly."""

    async def main() -> int:
        clock = VirtualClock()
        for _ in range(1000):
            await clock.sleep_until(clock.now_ns() + 100_000_000, anyio.Event())
        return clock.now_ns()

    assert run_virtual(main) == 100_000_000_000


def test_stop_ends_a_wait_at_once() -> None:
    """A wait for a moment far off returns false when it is stopped, at the time of the stop."""

    async def main() -> tuple[bool, int]:
        clock, stop = VirtualClock(), anyio.Event()

        async def stopper() -> None:
            await clock.sleep_until(7, anyio.Event())
            stop.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stopper)
            came = await clock.sleep_until(HOUR, stop)
        return came, clock.now_ns()

    assert run_virtual(main) == (False, 7)


def test_a_moment_gone_by_comes_at_once_unless_stopped() -> None:
    """The past needs no waiting."""

    async def main() -> tuple[bool, bool, int]:
        clock, stop = VirtualClock(), anyio.Event()
        await clock.sleep_until(50, stop)
        past = await clock.sleep_until(10, stop)
        stop.set()
        return past, await clock.sleep_until(10, stop), clock.now_ns()

    assert run_virtual(main) == (True, False, 50)


def test_ordinary_timeouts_work_in_virtual_time() -> None:
    """anyio's and asyncio's own timers follow the same clock."""

    async def main() -> int:
        with anyio.move_on_after(1800):
            await anyio.sleep_forever()
        await asyncio.sleep(1800)
        return VirtualClock().now_ns()

    assert run_virtual(main) == HOUR


def test_waiting_for_nothing_is_an_error_not_a_hang() -> None:
    """Every task waits and no timer is set: that can never end, and says so."""
    with pytest.raises(RuntimeError, match="stands still"):
        run_virtual(anyio.sleep_forever)


def test_the_clock_belongs_to_its_loop() -> None:
    """In an ordinary loop there is no virtual time to tell."""

    async def main() -> int:
        return VirtualClock().now_ns()

    with pytest.raises(AssertionError):
        anyio.run(main)


@pytest.mark.parametrize("moment", [1, 2**40 + 1, HOUR * 24 + 1])
def test_single_nanoseconds_are_kept(moment: int) -> None:
    """A day from the beginning, the next nanosecond still is another moment."""

    async def main() -> list[int]:
        clock, seen = VirtualClock(), []
        for when_ns in (moment, moment + 1):
            await clock.sleep_until(when_ns, anyio.Event())
            seen.append(clock.now_ns())
        return seen

    assert run_virtual(main) == [moment, moment + 1]
