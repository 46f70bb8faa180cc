"""Workers on the nodes of a real Ray cluster on this machine: what they record, and the loss of a node."""

from __future__ import annotations

import os
import signal
import time
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import psutil
import pytest

from loadbench.cluster.connection import cluster_workers
from loadbench.core import event_loop
from loadbench.core.clock import MonotonicClock
from loadbench.engine.workers import WorkerPool
from loadbench.plan.cluster import Cluster
from loadbench.record.outcome import Outcome
from tests.building import verdict_of
from tests.cluster.parts import LOADS, NUMBERED, PLAN, TARGET, S, facts, in_one_process, on_workers, spec_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
if find_spec("ray") is None and not os.environ.get("LOADBENCH_TEST_NEEDS_RAY"):
    pytest.skip("Ray is not installed: pip install 'loadbench[ray]'", allow_module_level=True)


@asynccontextmanager
async def pool_on(nodes: int):
    """Workers on so many local nodes, one on each."""
    with TemporaryDirectory() as name:
        async with cluster_workers(Cluster(local_nodes=nodes), None, most=9, sides=1, insecure=False) as found:
            yield await WorkerPool.over(found.links, lambda: (TARGET,), Path(name)), found


def processes() -> list[psutil.Process]:
    """Those that a cluster has on this machine: all that this process has started, and what they have."""
    return psutil.Process().children(recursive=True)


def raylet_of(node: str) -> int:
    """The process that stands for a node; others of the node have its id in their command line too."""
    return next(one.pid for one in processes() if one.name() == "raylet" and node in " ".join(one.cmdline()))


@pytest.mark.parametrize("nodes", [2, 4])
def test_a_cluster_records_what_one_process_records(nodes, monkeypatch):
    """Counts, histograms and timelines are equal, count for count; each worker is on a node of its own, whose clock is
    this machine's as far as round trips can tell; nothing of the cluster is left."""
    monkeypatch.setenv("PYTHONPATH", str(NUMBERED))
    before = {process.pid for process in processes()}

    async def main() -> None:
        async with pool_on(nodes) as (pool, found):
            assert len({link.node.node for link in found.links}) == nodes == found.about["nodes"]
            assert found.about["token_authentication"] is True
            for load in LOADS:
                spec = spec_of(load)
                assert facts(await on_workers(pool, spec)) == facts(await in_one_process(spec)), load
            for link in found.links:
                assert abs(link.offset.ahead_ns) <= link.offset.error_ns
                assert 0 < link.offset.error_ns < S

    event_loop.run(main)
    assert {process.pid for process in processes()} == before


def test_the_loss_of_a_node_costs_its_share_and_nothing_else(monkeypatch):
    """A node that is killed mid-level: the level ends as planned, says which share is missing, and is known soon."""
    monkeypatch.setenv("PYTHONPATH", str(NUMBERED))
    took_s = []

    async def main() -> None:
        async with pool_on(2) as (pool, found):
            level = await pool.level(PLAN, spec_of("a rate"), model="m", clock=MonotonicClock())
            lost = found.links[1]

            async def kill() -> None:
                while level.done < 20:
                    await anyio.sleep(0.01)
                os.kill(raylet_of(lost.node.node), signal.SIGKILL)
                killed_s = time.monotonic()
                while not pool._workers[1].lost:
                    await anyio.sleep(0.01)
                took_s.append(time.monotonic() - killed_s)

            async with anyio.create_task_group() as group:
                group.start_soon(kill)
                recording = await level.run()
            assert recording.lost_workers == 1
            assert recording.outcomes[Outcome.OK] > 0
            assert recording.missed > 0
            reasons = verdict_of(recording, level.load, failure_limit=0.01).reasons
            (reason,) = [one for one in reasons if one.code == "lost_worker"]
            assert lost.name in reason.message
            # What is left goes on alone.
            spec = spec_of("users")
            assert facts(await on_workers(pool, spec)) == facts(await in_one_process(spec))

    event_loop.run(main)
    assert took_s[0] < 5
