"""Nodes of `ray.cluster_utils.Cluster`: what their workers record is what one process records, count for count; and
the figures of one level do not depend on how many workers make its load."""

from __future__ import annotations

import json
import os
import secrets
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import pytest

from loadbench.cluster import connection
from loadbench.cluster.connection import cluster_workers
from loadbench.core import event_loop
from loadbench.core.clock import MonotonicClock
from loadbench.engine.worker_pool import Records, WorkerPool
from loadbench.plan.cluster import Cluster
from loadbench.plan.load import LevelDuration
from tests.cli.running import loadbench
from tests.cluster.parts import LOADS, NUMBERED, PLAN, TARGET, S, assert_as_one_process, on_workers, spec_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings(
        "ignore::ResourceWarning", "ignore::FutureWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
    ),
]
if find_spec("ray") is None and not os.environ.get("LOADBENCH_TEST_NEEDS_RAY"):
    pytest.skip("Ray is not installed: pip install 'loadbench[ray]'", allow_module_level=True)

# Of a node: one core, and the least memory for objects that Ray allows.
NODE = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 80_000_000}
LEVEL = ("--users", "12", "--duration", "8s", "--warm-up", "2s", "--seed", "7")


@pytest.fixture(scope="module")
def nodes():
    """Returns the address of a cluster with so many nodes; more are added, and none is taken away."""
    # They stay: Ray reads a token once in a process.
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", str(NUMBERED))
        from ray.cluster_utils import Cluster as LocalCluster  # noqa: PLC0415 - it reads the environment

        cluster = LocalCluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
        count = 1

        def grown_to(wanted: int) -> str:
            nonlocal count
            for _ in range(wanted - count):
                cluster.add_node(**NODE)
                count += 1
            return cluster.address

        yield grown_to
        cluster.shutdown()


@asynccontextmanager
async def pool_of(workers: int, address: str):
    """So many workers, each on a node of its own that is at this address, and their links."""
    with TemporaryDirectory() as folder:
        async with cluster_workers(Cluster(address=address), workers, most=9, sides=1, insecure=False) as found:
            assert len({link.node.node for link in found.links}) == workers
            yield await WorkerPool.over(found.links, lambda: (TARGET,), Path(folder), records=Records()), found.links


@pytest.mark.parametrize(
    ("count", "workers", "loads"),
    [(2, 1, ["a rate", "a mix"]), (2, 2, LOADS), (4, 3, ["a rate", "a mix"]), (4, 4, LOADS)],
    ids=["1 of 2", "2", "3 of 4", "4"],
)
def test_nodes_record_what_one_process_records(count, workers, loads, nodes):
    """Where each response's times are a function of its number: all that is known of a level. Some nodes have a worker,
    or all have one."""
    address = nodes(count)

    async def main() -> None:
        async with pool_of(workers, address) as (pool, _):
            for load in loads:
                await assert_as_one_process(load, partial(on_workers, pool, spec_of(load)))

    event_loop.run(main)


def test_requests_of_a_worker_that_is_lost_are_counted(nodes, monkeypatch):
    """All that it had sent are in no figure, and its actor knows how many; the other's are recorded."""
    monkeypatch.setattr(connection, "_COUNTED_WITHIN_S", 60.0)
    address = nodes(2)

    async def main() -> None:
        async with pool_of(2, address) as (pool, links):
            spec = replace(spec_of("a rate"), duration=LevelDuration(duration_ns=600 * S, warm_up_ns=S // 2))
            level = await pool.level(PLAN, spec, model="m", clock=MonotonicClock())

            async def kill() -> None:
                while level.done < 60:
                    await anyio.sleep(0.02)
                links[1].kill()

            async with anyio.create_task_group() as group:
                group.start_soon(kill)
                recording = await level.run()
            assert [worker.health is None for worker in recording.workers] == [False, True]
            assert recording.unreported == await links[1].sent() > 0
            assert recording.missed > 0
            assert sum(recording.phases.values()) == await links[0].sent() > 0

    event_loop.run(main)


def test_the_figures_do_not_depend_on_the_number_of_workers(nodes, tmp_path):
    """The simulated server under one level, by 1, 2 and 4 of the nodes' workers: each interval overlaps the others."""
    address = nodes(4)

    def measured(workers: int) -> dict[str, list[float]]:
        options = ("--cluster", address, "--workers", str(workers), *LEVEL, "--json", "--quiet")
        run = loadbench("sweep", *options, cwd=tmp_path, PYTHONWARNINGS="ignore")
        assert run.stdout, run.stderr
        (level,) = json.loads(run.stdout)["levels"]
        metrics = {name: level["metrics"][name]["interval"]["p50"] for name in ("ttft_s", "e2e_s", "tpot_s")}
        return metrics | level["throughput"]["interval"]

    def apart() -> list[tuple[int, int, str]]:
        figures = {workers: measured(workers) for workers in (1, 2, 4)}
        return [
            (one, other, name)
            for one, other in combinations(figures, 2)
            for name, (low, high) in figures[one].items()
            if low > figures[other][name][1] or figures[other][name][0] > high
        ]

    # Intervals of 95 % may miss each other once, and a busy machine adds to that.
    assert not apart() or not apart()
