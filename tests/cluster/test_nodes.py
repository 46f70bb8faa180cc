"""Two and four nodes of `ray.cluster_utils.Cluster`: what they record is what one process records, count for count; and
the figures of one level do not depend on how many workers make its load."""

from __future__ import annotations

import json
import os
import secrets
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from loadbench.cluster.connection import cluster_workers
from loadbench.core import event_loop
from loadbench.engine.worker_pool import Records, WorkerPool
from loadbench.plan.cluster import Cluster
from tests.cli.running import loadbench
from tests.cluster.parts import LOADS, NUMBERED, TARGET, facts, in_one_process, on_workers, spec_of

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
_OF_ONE: dict[str, dict[str, object]] = {}  # what one process records, by the load: it is always the same
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


@pytest.mark.parametrize("count", [2, 4])
def test_nodes_record_what_one_process_records(count, nodes):
    """Where each response's times are a function of its number: histograms, counts and timelines."""
    cluster = Cluster(address=nodes(count))

    async def by_one(load: str) -> dict[str, object]:
        if load not in _OF_ONE:
            _OF_ONE[load] = facts(await in_one_process(spec_of(load)))
        return _OF_ONE[load]

    async def main() -> None:
        with TemporaryDirectory() as folder:
            async with cluster_workers(cluster, None, most=9, sides=1, insecure=False) as found:
                pool = await WorkerPool.over(found.links, lambda: (TARGET,), Path(folder), records=Records())
                assert len({link.node.node for link in found.links}) == count
                for load in LOADS:
                    assert facts(await on_workers(pool, spec_of(load))) == await by_one(load), load

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
