"""The two load loops. Each makes requests become due by its own rule; all the rest is the level's.

Both keep absolute schedules: what is late does not push back what follows. A request that becomes due is admitted to a
phase by the level, or the load is over and the loop ends; the requests in flight are then the level's to drain.
"""

from __future__ import annotations

import asyncio
import random
from itertools import count
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

if TYPE_CHECKING:
    from loadbench.engine.level import Level, PreparedRequest
    from loadbench.plan.load import Closed, Open, Shard


# From one failed request of a user to the next.
_RETRY_NS = 100_000_000


async def closed(level: Level, load: Closed, *, ramp_ns: int, seed: int, shard: Shard) -> None:
    """So many users, each asking, reading, thinking, asking again; their starts are spread over `ramp_ns`."""
    async with anyio.create_task_group() as users:
        for user in filter(shard.holds, range(load.users)):
            starts_ns = level.begin_ns + ramp_ns * user // load.users
            users.start_soon(_user, level, load, user, starts_ns, random.Random(f"{seed}/{user}"))


async def _user(level: Level, load: Closed, user: int, due_ns: int, rng: random.Random) -> None:
    # What a user asks depends on nobody else: its prompts are the same however the others fare.
    draft = level.draft(user, user)
    for turn in count(1):
        if not await level.until(due_ns):
            return
        ask = level.admit(due_ns, draft)
        if ask is None:
            return
        # The next is made while this one is under way: once it has been sent, in the loop's next turn.
        following = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(_draft, level, following, turn * load.users + user, user)
        sample = await level.send(ask)
        think = load.think_of(ask.persona)
        think_ns = 0 if think is None else max(0, round(think.sample(rng)))
        # What comes next in a conversation has the answer in it.
        draft = level.continue_conversation(await following, draft, sample)
        # The answer's end, not this moment: what the client needed after it must not hide between two requests.
        due_ns = sample.end_ns + think_ns
        if sample.outcome.failed:
            # A server that refuses at once is not asked thousands of times a second: nobody would.
            due_ns = max(due_ns, ask.due_ns + _RETRY_NS)


def _draft(level: Level, drafted: asyncio.Future[PreparedRequest], number: int, user: int) -> None:
    if drafted.done():
        return
    try:
        drafted.set_result(level.draft(number, user))
    except BaseException as error:  # noqa: BLE001 - raised to the user who waits for it
        drafted.set_exception(error)


async def open_loop(level: Level, load: Open, *, seed: int, shard: Shard) -> None:
    """Requests become due at a rate, and are sent then, whatever has become of those before."""
    async with anyio.create_task_group() as requests:
        for number, offset_ns in enumerate(load.offsets_ns(seed, lead_ns=level.phases.warm_up_ns)):
            due_ns = level.begin_ns + offset_ns
            if not shard.holds(number) and level.skip(due_ns):
                continue
            draft = level.draft(number)
            in_time = await level.until(due_ns)
            ask = level.admit(due_ns, draft) if in_time or level.is_overdue(due_ns) else None
            if ask is None:
                return
            if in_time and level.has_room:
                requests.start_soon(level.send, ask)
                # Its turn, so that it leaves now and is in flight for the next: in a burst nothing else would wait.
                await anyio.lowlevel.checkpoint()
            else:
                level.miss(ask)
