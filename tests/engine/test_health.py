"""What the health probe costs the level that it watches."""

from __future__ import annotations

import asyncio
import gc
import time

from loadbench.client.fast_transport import FastTransport
from loadbench.core.clock import slept_ns
from loadbench.engine import health as health_module
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


def test_a_suspended_machine_is_noticed(monkeypatch):
    """The run's clock stands still meanwhile: another one shows for how long."""
    monkeypatch.setattr(health_module, "slept_ns", iter([5, 5 + 3 * 10**9]).__next__)

    async def main() -> int:
        transport = FastTransport()
        health = LoopHealth(transport)
        async with health.watching():
            pass
        await transport.aclose()
        return health.close().slept_ns

    assert asyncio.run(main()) == 3 * 10**9


def test_time_asleep_does_not_decrease():
    """It is what the machine's clocks say, on this system too."""
    before_ns = slept_ns()
    assert abs(slept_ns() - before_ns) < 10**9


def test_the_cpu_time_of_a_level_is_that_of_its_process():
    """What was used while it was watched, and nothing of before; and the collector is left as it was."""

    async def main() -> tuple[int | None, int]:
        burn(0.2)
        health, usual = LoopHealth(FastTransport()), gc.get_threshold()
        before_ns = time.process_time_ns()
        async with health.watching():
            burn(0.1)
        used_ns = time.process_time_ns() - before_ns
        assert gc.get_threshold() == usual
        return health.close().cpu_ns, used_ns

    seen_ns, used_ns = asyncio.run(main())
    assert 0.1 * 10**9 <= seen_ns <= used_ns


def burn(seconds: float) -> None:
    """Use so much CPU time."""
    ends_s = time.process_time() + seconds
    while time.process_time() < ends_s:
        pass
