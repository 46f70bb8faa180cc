"""What the health probe costs the level that it watches."""

from __future__ import annotations

import asyncio
import gc

from loadbench.client.fast_transport import FastTransport
from loadbench.engine.health import LoopHealth


def test_the_collector_has_walked_all_before_a_level_begins():
    """A walk takes some 50 ms: in the level it would make the first request late, and a short level invalid by that.

    Seen to fail when it was made in `watching`: the first of three requests of a benchmark left 120 ms late.
    """
    walks: list[str] = []

    def told(phase: str, info: dict[str, int]) -> None:
        if phase == "start" and info["generation"] == 2:
            walks.append(where)

    async def main() -> None:
        nonlocal where
        health = LoopHealth(FastTransport())
        where = "in the level"
        async with health.watching():
            pass

    where = "before"
    gc.callbacks.append(told)
    try:
        asyncio.run(main())
    finally:
        gc.callbacks.remove(told)
    assert walks == ["before"]
