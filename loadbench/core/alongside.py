"""Work with something running beside it, as a progress line or a watcher: that ends with the work, whatever it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from loadbench.core.errors import LoadbenchError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

_T = TypeVar("_T")


async def run_alongside(work: Callable[[], Awaitable[_T]], *others: Callable[[], Coroutine[Any, Any, object]]) -> _T:
    """What the work returns; the others run until it ends, and are cancelled then.

    A `LoadbenchError` of the work is raised as it is: a task group would hand it on wrapped in a group.
    """
    outcome: _T | LoadbenchError
    async with anyio.create_task_group() as group:
        for other in others:
            group.start_soon(other)
        try:
            outcome = await work()
        except LoadbenchError as error:
            outcome = error
        group.cancel_scope.cancel()
    if isinstance(outcome, LoadbenchError):
        raise outcome
    return outcome
