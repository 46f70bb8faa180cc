"""Run helpers, such as a progress line or a monitor, alongside some work; they end with the work, however it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from loadbench.core.errors import LoadbenchError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

_T = TypeVar("_T")


async def run_alongside(work: Callable[[], Awaitable[_T]], *helpers: Callable[[], Coroutine[Any, Any, object]]) -> _T:
    """Run the work and return its result; the helpers run until it ends, and are cancelled then.

    A `LoadbenchError` of the work is raised as it is, not wrapped in an exception group.
    """
    outcome: _T | LoadbenchError
    async with anyio.create_task_group() as group:
        for helper in helpers:
            group.start_soon(helper)
        try:
            outcome = await work()
        except LoadbenchError as error:
            outcome = error
        group.cancel_scope.cancel()
    if isinstance(outcome, LoadbenchError):
        raise outcome
    return outcome
