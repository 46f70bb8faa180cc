"""Requests that workers of several machines share, where a closed loop is measured by their number.

One count for all would need a message for each request. So a worker has some to start with, and says early when few are
left; the main process then gives it a part of what nobody has yet, less each time, so that all of them are out of work
at nearly the same time (guided self-scheduling: Polychronopoulos and Kuck, IEEE Transactions on Computers C-36, 1987).
Every request is measured, by whichever worker is free. A user waits only at the end: where nothing is left for their
worker, and others have not yet begun all of theirs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable


def first_lease(requests: int, users: int, of_all: int, workers: int) -> int:
    """How many of the `requests` a worker of this many `users` begins with: half of its share."""
    return requests if workers == 1 else max(1, requests * users // (2 * of_all))


def next_lease(left: int, users: int, of_all: int) -> int:
    """How many of the `left` requests such a worker gets next."""
    return min(left, max(1, left * users // (2 * of_all)))


def few(lease: int) -> int:
    """With so many left of its lease a worker needs the next one. One is always in hand while that comes."""
    return max(1, lease // 2)


class Lease:
    """Requests that this worker may begin to measure; `tell` reports at once how far it is.

    `last_due_ns` is when the latest that was taken was due. `wants_ns` is since when a user has been waiting for one;
    `None` if none is.
    """

    def __init__(self, left: int, tell: Callable[[], None]) -> None:
        self.last_due_ns = 0
        self.wants_ns: int | None = None
        self._left, self._few = left, few(left)
        self._tell = tell
        self._more = anyio.Event()
        self._is_over = False

    async def wait(self, due_ns: int) -> None:
        """Wait until one can be taken that is due then, or the level is over."""
        while not self._left and not self._is_over:
            if self.wants_ns is None or due_ns < self.wants_ns:
                self.wants_ns = due_ns
                self._tell()
            await self._more.wait()
        self.last_due_ns = max(self.last_due_ns, due_ns)

    def take(self) -> bool:
        """Take one; false if none is left."""
        if not self._left:
            return False
        self._left -= 1
        if self._left == self._few:
            self._tell()
        return True

    def add(self, more: int) -> None:
        """The main process gives so many more."""
        self._left, self._few, self.wants_ns = self._left + more, few(more), None
        self._wake()
        if self._left <= self._few:
            self._tell()

    def end(self) -> None:
        """Nobody needs to wait any more."""
        self._is_over = True
        self._wake()

    def _wake(self) -> None:
        self._more.set()
        self._more = anyio.Event()
