"""Keeping a model warm, in virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from loadbench.client.client import Client, Endpoint
from loadbench.core.alongside import run_alongside
from loadbench.core.errors import TargetUnavailable
from loadbench.core.virtual import VirtualClock, run_virtual
from loadbench.engine.keep_warm import KeepWarm
from tests.engine.scripted import MS, PATIENT, URL, Act, S, Scripted

if TYPE_CHECKING:
    from collections.abc import Callable


def kept(
    *, for_ns: int, every_ns: int, busy: Callable[[int], bool] = lambda _: False, heard: tuple[int, ...] = ()
) -> tuple[KeepWarm, int]:
    """The keeper after so long, and what was served; at the moments `heard` somebody else's request ends."""

    async def main() -> tuple[KeepWarm, int]:
        clock = VirtualClock()
        server = Scripted(clock, lambda _: Act(first_ns=100 * MS))
        client = Client(Endpoint(base_url=URL, model="m"), server, clock=clock, timeouts=PATIENT)
        keeper = KeepWarm(client, clock, every_ns=every_ns, busy=lambda: busy(clock.now_ns()))

        async def others() -> None:
            for at_ns in heard:
                await clock.sleep_until(at_ns, anyio.Event())
                keeper.ended(at_ns)
            await clock.sleep_until(for_ns, anyio.Event())

        await run_alongside(others, keeper.keep)
        return keeper, server.taken

    return run_virtual(main)


def test_an_idle_model_is_asked_from_time_to_time() -> None:
    """Ten seconds of quiet after each answer of 100 ms: at 10 s, 20.1 s, 30.2 s."""
    keeper, served = kept(for_ns=40 * S, every_ns=10 * S)
    assert (keeper.sent, served, keeper.failed) == (3, 3, 0)


def test_a_model_that_others_ask_is_left_alone() -> None:
    """As long as somebody's request ends more often than that, nothing is asked."""
    assert kept(for_ns=40 * S, every_ns=10 * S, heard=tuple(range(0, 40 * S, 9 * S)))[1] == 0


def test_nothing_is_asked_while_a_request_is_in_flight() -> None:
    """An answer that takes long keeps its model warm: the first light prompt comes once it has been quiet."""
    keeper, _ = kept(for_ns=50 * S, every_ns=10 * S, busy=lambda now_ns: now_ns < 35 * S)
    assert keeper.sent == 1


def test_what_goes_wrong_beside_it_is_told_as_it_is() -> None:
    """An error of the run that it accompanies comes out as itself, not wrapped in a group: it ends in a message."""

    async def main() -> None:
        clock = VirtualClock()
        client = Client(
            Endpoint(base_url=URL, model="m"), Scripted(clock, lambda _: Act()), clock=clock, timeouts=PATIENT
        )

        async def others() -> None:
            raise TargetUnavailable("gone")

        await run_alongside(others, KeepWarm(client, clock, every_ns=S, busy=lambda: False).keep)

    with pytest.raises(TargetUnavailable, match="gone"):
        run_virtual(main)
