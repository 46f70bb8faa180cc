"""Work with something beside it."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from loadbench.core.alongside import run_alongside
from loadbench.core.errors import BadInput


async def endless(log: list[str]) -> None:
    """Goes on until it is cancelled, and tells of it."""
    try:
        await anyio.sleep_forever()
    finally:
        log.append("cancelled")


def test_what_runs_beside_ends_with_the_work():
    """The work's result is handed on; the others are cancelled, and are over by then."""
    log: list[str] = []

    async def main() -> int:
        async def work() -> int:
            await anyio.lowlevel.checkpoint()
            return 7

        return await run_alongside(work, lambda: endless(log), lambda: endless(log))

    assert anyio.run(main) == 7
    assert log == ["cancelled", "cancelled"]


def test_an_error_of_ours_is_raised_as_it_is():
    """Also from work beside which something runs inside of other work: never a group, and all is cancelled."""
    log: list[str] = []

    async def main() -> None:
        async def work() -> None:
            await anyio.lowlevel.checkpoint()
            raise BadInput("no", hint="yes")

        await run_alongside(lambda: run_alongside(work, lambda: endless(log)), lambda: endless(log))

    with pytest.raises(BadInput, match="no"):
        anyio.run(main)
    assert log == ["cancelled", "cancelled"]
