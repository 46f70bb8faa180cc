"""What becomes of a level whose workers are lost, on a machine or on nodes; actors are threads here, without Ray."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import Mock

import anyio
import pytest

from loadbench.analyze.level.verdict import caveats
from loadbench.cluster import connection
from loadbench.cluster.connection import NodeClock, NodeWatch, RayLink, _Connection
from loadbench.cluster.relay import Node, Relay
from loadbench.core import signals
from loadbench.core.clock import MonotonicClock
from loadbench.core.errors import WorkersEnded
from loadbench.engine.worker_link import local_links
from loadbench.engine.worker_pool import Records, WorkerLog, WorkerPool
from loadbench.plan.load import LevelDuration, Phase
from tests.cluster.parts import NUMBERED, PLAN, TARGET, S, facts, in_one_process, on_workers, spec_of

QUICK = ("now_ns", "sent", "kill")
# A level that ends only because a worker is lost.
LONG = replace(spec_of("a rate"), duration=LevelDuration(duration_ns=600 * S, warm_up_ns=S // 2))


@pytest.fixture(autouse=True)
def numbered(monkeypatch):
    """Workers have a client whose responses are a function of the request's number."""
    monkeypatch.setenv("PYTHONPATH", str(NUMBERED))


class Method:
    """A method of an actor, as Ray has it; its calls are done in a thread, one after another."""

    def __init__(self, call, thread):
        self._call, self._thread = call, thread

    def remote(self, *values):
        """Call it."""
        future = self._thread.submit(self._call, *values)
        return type("Reference", (), {"future": lambda _: future})()


class Actor:
    """A relay in threads of this process; once it has ended, each call fails."""

    def __init__(self):
        self.relay = Relay()
        self.folder = Path(self.relay._folder.name)
        self.calls = []
        self._threads = {name: ThreadPoolExecutor(1) for name in ("reports", "quick", "others")}

    def __getattr__(self, name):
        self.calls.append(name)
        thread = "reports" if name == "reports" else "quick" if name in QUICK else "others"
        return Method(getattr(self.relay, name), self._threads[thread])

    def end(self):
        """As `ray.kill`."""
        for thread in self._threads.values():
            thread.shutdown(wait=False, cancel_futures=True)
        self.relay.kill()


@asynccontextmanager
async def nodes(count):
    """(the pool, its links, their actors) of so many nodes with a worker on each."""
    actors = [Actor() for _ in range(count)]

    async def put(path):
        return path.read_bytes()

    links = [
        RayLink(
            f"worker {number} on {number}",
            actor,
            Node(str(number), str(number), "", "", "", has_token=True, pid=0, pids_of=""),
            NodeClock(anyio.CapacityLimiter(8)),
            put=put,
            is_here=True,
            asks_for_s=0.5,
        )
        for number, actor in enumerate(actors)
    ]
    with TemporaryDirectory() as folder:
        pool = await WorkerPool.over(links, lambda: (TARGET,), Path(folder), records=Records())
        try:
            yield pool, links, actors
        finally:
            for link, actor in zip(links, actors, strict=True):
                await link.aclose()
                actor.end()
    assert not [actor for actor in actors if actor.folder.exists()]


async def run_and(level, act):
    """The recording of a level, after some of whose requests something happened."""

    async def wait_and_act():
        while level.done < 60:
            await anyio.sleep(0.02)
        act()

    async with anyio.create_task_group() as group:
        group.start_soon(wait_and_act)
        return await level.run()


def test_links_to_actors_record_what_one_process_records():
    """The whole way of a cluster but Ray itself; the folders of the actors are removed."""

    async def main():
        async with nodes(3) as (pool, _, _):
            spec = spec_of("a rate")
            assert facts(await on_workers(pool, spec)) == facts(await in_one_process(spec))

    anyio.run(main)


def test_what_a_lost_worker_had_sent_is_counted_to_the_last(monkeypatch):
    """Its actor lives, and knows more than the worker had reported; the next level says who is missing."""
    monkeypatch.setattr(connection, "_COUNTED_WITHIN_S", 60.0)

    async def main():
        async with nodes(2) as (pool, links, actors):
            level = await pool.level(PLAN, LONG, model="m", clock=MonotonicClock())

            recording = await run_and(level, actors[1].relay.kill)
            assert recording.lost_workers == 1
            assert recording.unreported == actors[1].relay.sent() > 0
            after = await on_workers(pool, spec_of("users"))
            assert after.lost_before == (links[1].name,)
            assert facts(after) == facts(await in_one_process(spec_of("users")))
            (said,) = [one for one in caveats(after, level.load, model="m") if one.code == "fewer_workers"]
            assert said.message == "worker 1 on 1 had ended before this level, whose load came from the other"

    anyio.run(main)


def test_a_node_that_is_gone_is_not_asked():
    """Ray says that it is gone: its level ends, and nobody waits for its answer."""

    async def main():
        async with nodes(2) as (pool, links, actors):
            level = await pool.level(PLAN, LONG, model="m", clock=MonotonicClock())

            def lose():
                actors[1].calls.clear()
                links[1].lose()

            recording = await run_and(level, lose)
            assert recording.lost_workers == 1
            assert "sent" not in actors[1].calls

    anyio.run(main)


def test_lines_that_are_lost_while_they_are_gathered_are_said():
    """All requests are in the figures; how many have no line, and whose they are, is a caveat."""
    texts = []

    async def main():
        with TemporaryDirectory() as name:
            async with local_links(2, Path(name)) as links:

                def take(text: bytes) -> None:
                    texts.append(text)
                    links[1].kill()

                records = Records(log=WorkerLog(origin_ns=0, keep_texts=False, take=take))
                pool = await WorkerPool.over(links, lambda: (TARGET,), Path(name), records=records)
                return await on_workers(pool, spec_of("users"))

    recording = anyio.run(main)
    assert recording.lost_workers == 0
    logged = sum(text.count(b"\n") for text in texts)
    assert recording.not_logged == {"worker 2": sum(recording.phases.values()) - logged}
    assert 0 < logged < recording.phases[Phase.MEASURED]
    (said,) = [one for one in caveats(recording, spec_of("users").load, model="m") if one.code == "log_incomplete"]
    assert said.message.startswith(f"requests.jsonl lacks {recording.not_logged['worker 2']} of the requests")
    assert "worker 2 ended" in said.message


def test_no_level_begins_on_a_cluster_that_has_ended(monkeypatch):
    """Its workers may still answer for a while; what is begun with them would be lost."""
    monkeypatch.setattr(signals, "_stuck", [])
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    held, spec = _Connection(), spec_of("a rate")
    held.ray = Mock()
    held.ray.nodes.return_value = [{"NodeID": str(number), "Alive": True} for number in range(2)]
    held.ray.get_runtime_context.return_value.get_node_id.return_value = "0"

    async def main() -> None:
        async with nodes(2) as (pool, links, _):
            for link in links:
                link.look = NodeWatch(held, links).look
            await on_workers(pool, spec)
            held.ray.nodes.side_effect = ConnectionError("no head")
            with pytest.raises(WorkersEnded, match="every worker has ended"):
                await pool.level(PLAN, spec, model="m", clock=MonotonicClock())

    anyio.run(main)
