"""Requests that workers of several machines share, where a closed loop is measured by their number.

One count for all would need a message for each request. So a worker has some to start with, and says early when few are
left; the main process then gives it a part of what nobody has yet, less each time, so that all of them are out of work
at nearly the same time (guided self-scheduling: Polychronopoulos and Kuck, IEEE Transactions on Computers C-36, 1987).
Once nobody has any left to give and a user waits, workers give back what they have not begun: a worker whose users all
read long responses must not keep requests from the others. So every request is measured, by whichever worker is free.

A user who waits has the next request due when it is given. The wait is a longer think time, as a late start is, and is
judged with those.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable


def first_lease(requests: int, users: int, of_all: int, workers: int) -> int:
    """How many of the `requests` a worker of this many `users` begins with: half of its share, and if there are enough
    one for each user."""
    if workers == 1:
        return requests
    share = requests * users // of_all
    return max(1, min(share, max(share // 2, users)))


def next_lease(left: int, users: int, of_all: int, waiting: int = 0) -> int:
    """How many of the `left` requests such a worker gets next, of which so many users are waiting."""
    return min(left, max(1, waiting, left * users // (2 * of_all)))


def few(lease: int) -> int:
    """With so many left of its lease a worker needs the next one. One is always in hand while that comes."""
    return max(1, lease // 2)


class Lease:
    """Requests that this worker may begin to measure; `tell` reports how far it is.

    `taken` and `returned` are those that it began, and gave back, `obeyed` the number of times that it was asked to.
    `last_due_ns` is when the latest that was taken was due, `waiting` since when each user waits for one. All of them
    together have waited `waited_ns`.
    """

    def __init__(self, left: int, now_ns: Callable[[], int], tell: Callable[[], None]) -> None:
        self.taken = self.returned = self.obeyed = 0
        self.last_due_ns = self.waited_ns = 0
        self.waiting: list[int] = []
        self._left, self._few = left, few(left)
        self._now_ns = now_ns
        self._tell = tell
        self._tells = False
        self._more = anyio.Event()
        self._over_ns: int | None = None

    async def wait(self, due_ns: int) -> int | None:
        """Wait until one can be taken by a user who would send it then. Returns when it is due; `None` if the level is
        over."""
        if self._must_wait():
            self.waiting.append(due_ns)
            self._tell_soon()
            while self._must_wait():
                await self._more.wait()
            self.waiting.remove(due_ns)
            until_ns = self._now_ns() if self._over_ns is None else self._over_ns
            self.waited_ns += max(0, until_ns - due_ns)
            due_ns = max(due_ns, until_ns)
        if self._over_ns is not None:
            return None
        self.last_due_ns = max(self.last_due_ns, due_ns)
        return due_ns

    def take(self) -> bool:
        """Take one; false if none is left."""
        if not self._left:
            return False
        self._left -= 1
        self.taken += 1
        if self._left in {0, self._few}:
            self._tell_soon()
        return True

    def add(self, more: int) -> None:
        """The main process gives so many more."""
        self._left, self._few = self._left + more, few(more)
        self._wake()

    def give_back(self) -> None:
        """The main process needs those that have not begun, but for those that users here have been waiting for."""
        kept = min(self._left, len(self.waiting))
        self.returned, self._left, self.obeyed = self.returned + self._left - kept, kept, self.obeyed + 1
        self._tell_soon()

    def end(self, at_ns: int) -> None:
        """The load ended then: nobody needs to wait any more."""
        if self._over_ns is None:
            self._over_ns = at_ns
            self._wake()

    def _must_wait(self) -> bool:
        return not self._left and self._over_ns is None

    def _wake(self) -> None:
        self._more.set()
        self._more = anyio.Event()

    def _tell_soon(self) -> None:
        """Once for all that happens in this turn of the event loop, and after it."""
        if not self._tells:
            self._tells = True
            asyncio.get_running_loop().call_soon(self._tell_now)

    def _tell_now(self) -> None:
        self._tells = False
        self._tell()
