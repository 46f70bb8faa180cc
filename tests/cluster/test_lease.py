"""Workers that have no count together measure a number of requests exactly, and stop nearly as one process does."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.analyze.level.audit import audit
from loadbench.engine.lease import Lease, few, first_lease, next_lease
from loadbench.engine.level import LevelSpec
from loadbench.engine.merged_level import MergedLevel
from loadbench.engine.worker_link import local_links, unpack
from loadbench.engine.worker_pool import Records, WorkerPool
from loadbench.engine.workers import Finish, GiveLease, TakeBack, WorkerHandle
from loadbench.plan.distribution import Constant
from loadbench.plan.load import Closed, LevelDuration, Phase, Phases, Shard
from tests.cluster.parts import NUMBERED, TARGET, S, facts, in_one_process, on_workers


@given(st.data())
def test_leases_come_to_all_requests_and_are_small_at_the_end(data):
    """Whoever needs more and in whatever order, each request is given once; the last leases are of one request."""
    requests = data.draw(st.integers(1, 5_000), "requests")
    users = data.draw(st.integers(1, 64), "users")
    workers = data.draw(st.integers(1, min(users, requests, 16)), "workers")
    shares = [Shard(index, workers).share(users) for index in range(workers)]
    given_out = [first_lease(requests, share, users, workers) for share in shares]
    left, lease = requests - sum(given_out), 1
    assert left >= 0
    assert (left == 0) or workers > 1
    while left:
        worker = data.draw(st.sampled_from(range(workers)), "worker")
        lease = next_lease(left, shares[worker], users)
        assert lease <= max(1, left * max(shares) // (2 * users))
        given_out[worker], left = given_out[worker] + lease, left - lease
    assert sum(given_out) == requests
    assert lease == 1


async def settled() -> None:
    """All that can be done now is done, what follows from it too."""
    for _ in range(9):
        await anyio.lowlevel.checkpoint()


def test_a_user_waits_for_a_lease_and_says_so():
    """Reports come once a turn: when few are left, when users wait, and with what was given back. The next request is
    due when it is given; at the end of a level nobody waits any more, and all waits are counted."""
    told, now_ns = [], 4

    async def main() -> None:
        nonlocal now_ns

        def tell() -> None:
            told.append((lease.taken, lease.returned, sorted(lease.waiting)))

        lease = Lease(4, lambda: now_ns, tell)
        for due_ns in (1, 2, 3, 4):
            assert await lease.wait(due_ns) == due_ns
            assert lease.take()
            await settled()
        assert few(4) == 2
        assert told == [(2, 0, []), (4, 0, [])]
        assert not lease.take()
        got = []

        async def user(due_ns: int) -> None:
            got.append((due_ns, await lease.wait(due_ns), lease.take()))

        async with anyio.create_task_group() as users:
            for due_ns in (7, 6, 9):
                users.start_soon(user, due_ns)
            await settled()
            assert told[2:] == [(4, 0, [6, 7, 9])]
            now_ns = 10
            lease.add(2)
            await settled()
            assert sorted(got) == [(6, 10, True), (7, 10, True)]
            assert (lease.waiting, lease.last_due_ns, lease.waited_ns) == ([9], 10, 3 + 4)
            lease.end(12)
        assert got[-1] == (9, None, False)
        assert lease.waited_ns == 3 + 4 + 3
        assert await lease.wait(20) is None

    anyio.run(main)


def test_what_has_not_begun_is_given_back():
    """All of it, and nothing of it can be taken any more; but not what users have just been given who waited."""
    told = []

    async def main() -> None:
        lease = Lease(5, lambda: 0, lambda: told.append((lease.taken, lease.returned, lease.obeyed)))
        assert lease.take()
        lease.give_back()
        assert not lease.take()
        await settled()
        lease.give_back()
        await settled()
        assert told == [(1, 4, 1), (1, 4, 2)]
        async with anyio.create_task_group() as users:
            users.start_soon(lease.wait, 5)
            await settled()
            lease.add(3)
            lease.give_back()
            assert (lease.returned, lease.take(), lease.take()) == (6, True, False)
            lease.end(9)

    anyio.run(main)


class Told:
    """A worker as the main process sees it, which keeps what it is told."""

    shares_count = False

    def __init__(self, name):
        self.name, self.told = name, []

    def send(self, frame):
        """Keep it."""
        self.told.append(unpack(frame[4:]))


def report(**of) -> SimpleNamespace:
    """What of a report says how many requests a worker has."""
    return SimpleNamespace(
        **{"taken": 0, "returned": 0, "obeyed": 0, "waiting": 0, "last_due_ns": 0, "wants_ns": None} | of
    )


def a_level(*given: int, left: int, requests: int):
    """(a level of workers that were given so many, their links)"""
    level = MergedLevel.__new__(MergedLevel)
    links = [Told(str(number)) for number in range(len(given))]
    level._workers = [
        WorkerHandle(link, given=of, lease=of, users=3, listening=None) for link, of in zip(links, given, strict=True)
    ]
    level.load, level._left = Closed(3 * len(given)), left
    level.duration = LevelDuration(requests=requests)
    level.phases = Phases(level.duration, 0)

    def tell(worker: int, now) -> list:
        """What the workers are told after this report of one."""
        handle = level._workers[worker]
        before, handle.progress = handle.progress, now
        for link in links:
            link.told.clear()
        level._share_requests(handle, before, now)
        return [link.told[:] for link in links]

    return level, tell


def test_what_a_worker_was_just_given_is_not_taken_back():
    """It has fewer than its users wait for; others give back what is more than they wait for, once."""
    level, tell = a_level(5, 9, left=1, requests=15)
    assert tell(1, report(taken=4)) == [[], []]
    assert tell(0, report(taken=5, waiting=3, wants_ns=7)) == [[GiveLease(1)], [TakeBack()]]
    assert tell(0, report(taken=6, waiting=2, wants_ns=7)) == [[], []]
    assert tell(1, report(taken=5, returned=4, obeyed=1)) == [[GiveLease(2)], []]
    # The others are its own again only if its users take.
    assert tell(1, report(taken=5, returned=4, obeyed=1)) == [[], []]
    assert level._left == 2


def test_the_window_closes_at_the_first_user_without_work():
    """Once all have been taken; a user who has waited is without from the last request on."""
    for wants_ns, closes_ns in ((50, 91), (120, 120)):
        level, tell = a_level(6, 4, left=0, requests=10)
        tell(0, report(taken=6, last_due_ns=90))
        assert tell(1, report(taken=3, last_due_ns=80, waiting=1, wants_ns=wants_ns)) == [[], []]
        assert level.phases.closes_ns is None
        told = tell(1, report(taken=4, last_due_ns=85, waiting=1, wants_ns=wants_ns))
        assert told == [[Finish(cut=False, at_ns=closes_ns)]] * 2
        assert level.phases.closes_ns == closes_ns


async def on_links(spec: LevelSpec, workers: int):
    """The level on worker processes that have no count together, as on a cluster."""
    with TemporaryDirectory() as name:
        async with local_links(workers, Path(name)) as links:
            for link in links:
                link.shares_count = False
            pool = await WorkerPool.over(links, lambda: (TARGET,), Path(name), records=Records())
            return await on_workers(pool, spec)


LOADS = [
    (Closed(7), 200, 3, S // 4),
    (Closed(7, Constant(30e6)), 60, 2, S // 4),
    (Closed(3), 3, 3, 0),
    (Closed(5), 4, 4, 0),
    (Closed(4), 11, 4, 0),
]


@pytest.mark.parametrize(("load", "requests", "workers", "warm_up_ns"), LOADS)
def test_all_requests_are_measured(load, requests, workers, warm_up_ns, monkeypatch):
    """As many as were asked for, each once; the window is about as long as that of one process."""
    monkeypatch.setenv("PYTHONPATH", str(NUMBERED))
    spec = LevelSpec(load=load, key="k", duration=LevelDuration(requests=requests, warm_up_ns=warm_up_ns))
    recording, alone = anyio.run(on_links, spec, workers), anyio.run(in_one_process, spec)
    assert sum(recording.outcomes.values()) == requests == recording.phases[Phase.MEASURED] == recording.arrivals_due
    assert [worker.lateness.count > 0 for worker in recording.workers] == [True] * workers
    if requests > 50:
        windows_ns = [one.window[1] - one.window[0] for one in (recording, alone)]
        assert max(windows_ns) < 2.5 * min(windows_ns)


def test_one_worker_measures_what_one_process_does(monkeypatch):
    """Count for count, to the end of the window."""
    monkeypatch.setenv("PYTHONPATH", str(NUMBERED))
    spec = LevelSpec(load=Closed(5), key="k", duration=LevelDuration(requests=90, warm_up_ns=S // 4))
    for _ in range(4):
        workers, alone = facts(anyio.run(on_links, spec, 1)), facts(anyio.run(in_one_process, spec))
        if workers == alone:
            break
    assert workers == alone


def test_a_worker_whose_users_are_busy_keeps_no_request_from_the_others(monkeypatch):
    """One response of eight is as long as all others together: its worker gives back what it has, and the window closes
    long before that response ends."""
    monkeypatch.setenv("PYTHONPATH", str(NUMBERED))
    spec = LevelSpec(load=Closed(8), key="slowly", duration=LevelDuration(requests=40))
    recording = anyio.run(on_links, spec, 8)
    assert sum(recording.outcomes.values()) == 40
    opens_ns, closes_ns = recording.window
    assert closes_ns - opens_ns < recording.histograms["e2e"].max / 2
    assert min(worker.lateness.count for worker in recording.workers) <= 1
    assert [check.name for check in audit(recording, spec.load) if not check.ok] == []
    # Nobody is idle for long beside the others: until the last request has begun, all users work.
    assert sum(worker.waited_ns for worker in recording.workers) < 0.5 * 8 * (closes_ns - opens_ns)
