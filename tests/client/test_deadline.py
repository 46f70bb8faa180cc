"""The deadline of a request that a busy load generator notices too late."""

from __future__ import annotations

import asyncio
import socket
import time

from loadbench.client.deadline import Deadline
from loadbench.core.clock import MonotonicClock

MS = 1_000_000


def test_what_came_while_the_loop_stood_still_came_in_time() -> None:
    """The server had accepted, and nobody had looked."""

    async def connects(listener: socket.socket) -> list[str]:
        clock, expired = MonotonicClock(), []
        deadline = Deadline(clock, lambda: expired.append("too late"))
        connecting = asyncio.create_task(asyncio.open_connection(*listener.getsockname()))
        deadline.move(clock.now_ns() + 50 * MS)
        await asyncio.sleep(0)  # it has begun
        time.sleep(0.8)  # noqa: ASYNC251 - the loop stands still
        _, writer = await connecting
        deadline.clear()
        writer.close()
        return expired

    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert asyncio.run(connects(listener)) == []


def test_what_did_not_come_is_missed_all_the_same() -> None:
    """A moment after the loop goes on."""

    async def waits() -> list[str]:
        clock, expired = MonotonicClock(), []
        gone = asyncio.Event()

        def expire() -> None:
            expired.append("too late")
            gone.set()

        Deadline(clock, expire).move(clock.now_ns() + 50 * MS)
        time.sleep(0.8)  # noqa: ASYNC251 - the loop stands still
        await asyncio.wait_for(gone.wait(), 30)
        return expired

    assert asyncio.run(waits()) == ["too late"]
